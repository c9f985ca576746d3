"""Recollection: what a gateway puts back into a Redis that has lost its memory."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from gateway.quota.mirror import Mirror
from gateway.quota.parcel import AT_ONCE, Held
from gateway.shared.line import Line
from gateway.shared.script import Script

RESTORE: Final = Script.of("gateway.shared:names", "gateway.quota:holds", "gateway.quota:restore")
# Redis' own clock, by which leases and rate windows run.
SERVER_TIME: Final = "0"
# For so long all gateways may say what they know, before anything is counted again.
RESTORING_SECONDS: Final = 1.5
PROCESS_SECONDS: Final = 7 * 86_400
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class CourierConfig:
    """`process` names this life of this process. Its reservations last for `lease_seconds` after
    its last word, days of usage for `retention_days`."""

    process: str
    lease_seconds: float = 15.0
    retention_days: int = 400
    close_seconds: float = 10.0

    @property
    def day_seconds(self) -> int:
        return (self.retention_days + 2) * _DAY_SECONDS

    @property
    def lease_milliseconds(self) -> int:
        return round(self.lease_seconds * 1000)


class Recollection:
    """Counts as Redis acknowledged them, totals as it told them, and who runs.

    Each gateway knows the rows it counted last exactly, and the total of every key as of the last
    second; Redis takes the greatest of what it is told.
    """

    def __init__(
        self, config: CourierConfig, *, line: Line, mirror: Mirror, holds: Mapping[str, Held]
    ) -> None:
        self._config = config
        self._line = line
        self._mirror = mirror
        self._holds = holds

    async def put_back(self, *, acknowledged: int) -> None:
        """In parts of a bounded size; nothing is counted meanwhile. Raises RedisSilent."""
        parts = [*self._parts()] or [_part()]
        for number, part in enumerate(parts, start=1):
            await self._line.run(
                RESTORE,
                self._config.process,
                acknowledged,
                SERVER_TIME,
                self._config.lease_milliseconds,
                self._config.day_seconds,
                PROCESS_SECONDS,
                round(RESTORING_SECONDS * 1000),
                int(number == len(parts)),
                part,
            )

    def _parts(self) -> Iterator[str]:
        for rows in _batched((*where, *counts) for *where, counts in self._mirror.rows()):
            yield _part(rows=rows)
        for used in _batched(self._mirror.used()):
            yield _part(used=used)
        holds = tuple(self._holds.items())
        for kept in _batched((hold[0], name, *hold[1:]) for name, hold in holds):
            yield _part(keeps=kept)


def _part(**lists: list[Any]) -> str:
    """As restore.lua reads it."""
    return json.dumps({"rows": [], "used": [], "keeps": [], **lists}, separators=(",", ":"))


def _batched(items: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(items)
    while some := list(islice(remaining, AT_ONCE)):
        yield some
