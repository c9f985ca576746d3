"""Mirror: what this process knows of accounts that live in Redis, its own news included."""

from collections.abc import Iterator
from datetime import date

from gateway.quota.report import UsageRow

# As many days as a ledger in memory keeps: enough to find one again that a jumping clock left.
_DAYS = 7
_NOTHING = (0, 0, 0, 0)

Counts4 = tuple[int, int, int, int]  # input, output, requests, refusals


class View:
    """One key on one day: what Redis said last, and what it has not been told or has not
    acknowledged. `held_here` is held by calls that were let in while Redis was silent."""

    __slots__ = ("held_here", "more_held", "more_used", "rows", "seen_held", "seen_used", "unsent")

    def __init__(self) -> None:
        self.seen_used = self.seen_held = 0
        self.more_used = self.more_held = 0
        self.held_here = 0
        self.rows: dict[str, Counts4] = {}
        self.unsent: dict[str, Counts4] = {}

    @property
    def used(self) -> int:
        return self.seen_used + self.more_used

    @property
    def reserved(self) -> int:
        return max(self.seen_held + self.more_held, 0) + self.held_here

    def charge(self, model: str, counts: Counts4) -> None:
        """More was used here."""
        self.more_used += counts[0] + counts[1]
        self.unsent[model] = plus(self.unsent.get(model, _NOTHING), counts)

    def acknowledge(self, model: str, counts: Counts4, total: Counts4 | None) -> None:
        """Redis has these; `total` is then the row there, None where it did not say."""
        tokens = counts[0] + counts[1]
        self.more_used -= tokens
        unsent = _minus(self.unsent.pop(model, counts), counts)
        if any(unsent):
            self.unsent[model] = unsent
        if total is None:
            self.seen_used += tokens
            total = plus(self.rows.get(model, _NOTHING), counts)
        self.rows[model] = total


class Mirror:
    """All views by day and key."""

    def __init__(self) -> None:
        self._days: dict[str, dict[str, View]] = {}

    def view(self, day: str, key_id: str) -> View:
        views = self._days.get(day)
        if views is None:
            views = self._open(day)
        view = views.get(key_id)
        if view is None:
            view = views[key_id] = View()
        return view

    def find(self, day: str, key_id: str) -> View | None:
        return self._days.get(day, {}).get(key_id)

    def see(self, day: str, key_id: str, *, used: int, held: int) -> None:
        view = self.view(day, key_id)
        view.seen_used = used
        view.seen_held = held

    def rows(self) -> Iterator[tuple[str, str, str, Counts4]]:
        """Every row that Redis acknowledged to this process."""
        for day, views in self._days.items():
            for key_id, view in views.items():
                for model, counts in view.rows.items():
                    yield day, key_id, model, counts

    def used(self) -> Iterator[tuple[str, str, int]]:
        for day, views in self._days.items():
            for key_id, view in views.items():
                if view.seen_used:
                    yield day, key_id, view.seen_used

    def known_rows(self, key_id: str) -> list[UsageRow]:
        """What can be said of a key without asking: acknowledged or not."""
        found = []
        for day, views in self._days.items():
            view = views.get(key_id)
            if view is not None:
                for model in view.rows.keys() | view.unsent.keys():
                    counts = plus(view.rows.get(model, _NOTHING), view.unsent.get(model, _NOTHING))
                    found.append(UsageRow(date.fromisoformat(day), key_id, model, *counts))
        return found

    def _open(self, day: str) -> dict[str, View]:
        views = self._days[day] = {}
        for old in tuple(self._days)[:-_DAYS]:
            del self._days[old]
        return views


def plus(counts: Counts4, more: Counts4) -> Counts4:
    return (
        counts[0] + more[0],
        counts[1] + more[1],
        counts[2] + more[2],
        counts[3] + more[3],
    )


def _minus(counts: Counts4, less: Counts4) -> Counts4:
    return plus(counts, (-less[0], -less[1], -less[2], -less[3]))
