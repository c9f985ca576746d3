"""Parcel: what has happened here and Redis is to hear, summed up until it is sent."""

import json
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, TypeVar

from gateway.exchange import RateLimit
from gateway.quota.mirror import Counts4, plus

# So many of each kind in one batch: Redis does nothing else meanwhile, for about a millisecond.
AT_ONCE = 300
# Rate windows heal by themselves: of very many hits and refunds some may be forgotten.
_WINDOWS_MAX = 10_000
MICROSECONDS = 1_000_000

Row = tuple[str, str, str]  # day, key, model
Window = tuple[str, RateLimit]
Held = tuple[str, str, int]  # key, day, tokens
Name = TypeVar("Name")
Value = TypeVar("Value")


class Hold(NamedTuple):
    """What Redis is to think of one reservation, and what it was told before."""

    key_id: str
    day: str
    told: int
    tokens: int


class Parcel:
    """Charges by row, holds by reservation, windows: never more than there are keys and calls."""

    def __init__(self) -> None:
        self.charges: dict[Row, Counts4] = {}
        self.keeps: dict[str, Hold] = {}
        self.releases: dict[str, Hold] = {}
        self.hits: list[Window] = []
        self.refunds: list[Window] = []

    @property
    def is_empty(self) -> bool:
        return not (self.charges or self.keeps or self.releases or self.hits or self.refunds)

    @property
    def has_counts(self) -> bool:
        return bool(self.charges)

    def charge(self, row: Row, counts: Counts4) -> None:
        known = self.charges.get(row)
        self.charges[row] = counts if known is None else plus(known, counts)

    def keep(self, reservation: str, hold: Hold) -> None:
        """It holds `hold.tokens` from now on, and its lease is renewed."""
        told = self.keeps.get(reservation)
        self.keeps[reservation] = hold if told is None else hold._replace(told=told.told)

    def release(self, reservation: str, hold: Hold) -> None:
        told = self.keeps.pop(reservation, hold).told
        self.releases[reservation] = hold._replace(told=told, tokens=0)

    def hit(self, windows: Iterable[Window]) -> None:
        if len(self.hits) < _WINDOWS_MAX:
            self.hits.extend(windows)

    def refund(self, windows: Iterable[Window]) -> None:
        if len(self.refunds) < _WINDOWS_MAX:
            self.refunds.extend(windows)

    def take(self) -> "Parcel":
        """Take out what makes one batch."""
        taken = Parcel()
        taken.charges = _moved(self.charges)
        taken.keeps = _moved(self.keeps)
        taken.releases = _moved(self.releases)
        taken.hits, self.hits = self.hits[:AT_ONCE], self.hits[AT_ONCE:]
        taken.refunds, self.refunds = self.refunds[:AT_ONCE], self.refunds[AT_ONCE:]
        return taken

    def held_changes(self) -> dict[tuple[str, str], int]:
        """By how much each (day, key) holds more, once this is done."""
        changes: dict[tuple[str, str], int] = {}
        for hold in (*self.keeps.values(), *self.releases.values()):
            account = (hold.day, hold.key_id)
            changes[account] = changes.get(account, 0) + hold.tokens - hold.told
        return changes

    def text(self) -> str:
        """As settle.lua reads it."""
        return json.dumps(
            {
                "charges": [[*row, *counts] for row, counts in self.charges.items()],
                "keeps": [[h.key_id, name, h.day, h.tokens] for name, h in self.keeps.items()],
                "releases": [[h.key_id, name, h.day] for name, h in self.releases.items()],
                "hits": [_window(window) for window in self.hits],
                "refunds": [_window(window) for window in self.refunds],
            },
            separators=(",", ":"),
        )


def _moved(source: dict[Name, Value]) -> dict[Name, Value]:
    moved = dict(islice(source.items(), AT_ONCE))
    for name in moved:
        del source[name]
    return moved


def _window(window: Window) -> list[str | int]:
    name, limit = window
    return [name, limit.amount, round(limit.window_seconds * MICROSECONDS)]
