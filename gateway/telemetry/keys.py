"""What each API key does and has left, for a bounded number of keys; the rest is one sum."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from gateway.exchange import Exchange, Outcome
from gateway.telemetry.exposition import sliced
from gateway.telemetry.tallies import Counters, Tally, label_text

OTHER: Final = "other"


class KeyStanding(NamedTuple):
    """One key now; `limit` is None where it has no quota."""

    name: str
    used: int
    reserved: int
    limit: int | None


Standings = Callable[[], Iterable[KeyStanding]]


class KeyTallies:
    """Counts by the name of the key.

    The first `keys_max` names that are used have series of their own, and keep them for as long
    as the key is valid; all others are summed under `other`.
    """

    def __init__(self, *, prefix: str, keys_max: int) -> None:
        self._prefix = prefix
        self._keys_max = keys_max
        self.requests = Counters(
            f"{prefix}key_requests", "Requests with a valid key.", ("key", "outcome")
        )
        self.tokens = Counters(f"{prefix}key_tokens", "Tokens charged to a key.", ("key", "type"))
        self.refusals = Counters(
            f"{prefix}key_refusals", "Requests of a key refused by a limit.", ("key", "limit")
        )
        self._named: dict[str, _Key] = {}
        self._other: _Key | None = None

    @property
    def families(self) -> tuple[Counters, ...]:
        return self.requests, self.tokens, self.refusals

    def count(self, name: str, exchange: Exchange, outcome: Outcome) -> None:
        """One finished exchange of the key with this name."""
        key = self._named.get(name)
        if key is None:
            key = self._key(name)
        tally = key.requests.get(outcome)
        if tally is None:
            tally = key.requests[outcome] = self.requests.child(key.label, outcome.value)
        tally.value += 1
        key.input_tokens.value += exchange.usage.input_tokens
        key.output_tokens.value += exchange.usage.output_tokens
        if exchange.limit is not None:
            self.refusals.child(key.label, exchange.limit).value += 1

    async def quotas(self, standings: Standings) -> list["QuotaFamily"]:
        """The quota series of all keys that are valid now; the counts of others are dropped.

        While there are more keys than places, a place is for those that used something today.
        """
        known: list[KeyStanding] = []
        async for some in sliced(standings()):
            known += some
        self._forget_all_but({standing.name for standing in known})
        do_all_fit = len(known) <= self._keys_max
        sums: dict[str, _Sum] = {}
        async for some in sliced(known):
            for standing in some:
                is_shown = do_all_fit or standing.used > 0 or standing.reserved > 0
                key = self._key(standing.name) if is_shown else self._found(standing.name)
                found = sums.get(key.label)
                if found is None:
                    found = sums[key.label] = _Sum(key.text)
                found.add(standing)
        return [
            QuotaFamily(f"{self._prefix}{name}", text, tuple(sums.values()), read)
            for name, text, read in _QUOTAS
        ]

    def _key(self, name: str) -> "_Key":
        key = self._named.get(name)
        if key is not None:
            return key
        if len(self._named) >= self._keys_max or name == OTHER:
            return self._rest()
        key = self._named[name] = _Key(self, name)
        return key

    def _found(self, name: str) -> "_Key":
        """Without taking a place for it."""
        return self._named.get(name) or self._rest()

    def _rest(self) -> "_Key":
        self._other = self._other or _Key(self, OTHER)
        return self._other

    def _forget_all_but(self, names: set[str]) -> None:
        for name in self._named.keys() - names:
            del self._named[name]
            for family in self.families:
                family.drop_all(name, label="key")


class QuotaFamily:
    """One of the gauges of all keys, as they stood a moment ago."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help_text: str,
        sums: tuple["_Sum", ...],
        read: "Callable[[_Sum], int | None]",
    ) -> None:
        self.name = name
        self.help = help_text
        self._sums = sums
        self._read = read

    def texts(self, *, is_openmetrics: bool) -> Iterator[str]:
        for each in self._sums:
            value = self._read(each)
            if value is not None:
                yield f"{self.name}{each.text} {value}\n"


class _Key:
    """The children of one label, bound once."""

    __slots__ = ("input_tokens", "label", "output_tokens", "requests", "text")

    def __init__(self, tallies: KeyTallies, label: str) -> None:
        self.label = label
        self.text = label_text(("key",), (label,))
        self.requests: dict[Outcome, Tally] = {}
        self.input_tokens = tallies.tokens.child(label, "input")
        self.output_tokens = tallies.tokens.child(label, "output")


class _Sum:
    """One key, or several under one label: these have a limit only if each of them has one."""

    __slots__ = ("limit", "reserved", "text", "used")

    def __init__(self, text: str) -> None:
        self.text = text
        self.used = self.reserved = 0
        self.limit: int | None = 0

    def add(self, standing: KeyStanding) -> None:
        self.used += standing.used
        self.reserved += standing.reserved
        if standing.limit is None or self.limit is None:
            self.limit = None
        else:
            self.limit += standing.limit


_QUOTAS: Final = (
    ("quota_used_tokens", "Tokens used today.", lambda s: s.used),
    ("quota_limit_tokens", "Tokens a key may use a day; none: no limit.", lambda s: s.limit),
    ("quota_reserved_tokens", "Tokens held by running requests.", lambda s: s.reserved),
)
