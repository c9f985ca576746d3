"""A place in the queue: who waits there, for what, and what may become of it."""

import asyncio
from enum import Enum
from typing import Protocol

from gateway.exchange import Operation

Line = tuple[str, Operation]
"""What is waited for: an operation on a model. Calls of one line can be asked of the same
replicas, so they wait behind each other; those of another line go past them."""


class Rooms(Protocol):
    """How many calls the replicas behind a line still take. `is_bounded` False: any number."""

    @property
    def is_bounded(self) -> bool: ...

    def has_room(self, line: Line, *, promised: int) -> bool:
        """Whether one more call would find a replica that is not full, `promised` places being
        spoken for. True also where waiting is of no use: then the lease says why."""
        ...


class Unbounded:
    """The Rooms of replicas that take whatever comes."""

    is_bounded = False

    def has_room(self, line: Line, *, promised: int) -> bool:
        return True


class Verdict(Enum):
    """How waiting ends."""

    ADMITTED = "admitted"
    OUT_OF_PATIENCE = "out of patience"
    GAVE_WAY = "gave way"


class Place:
    """One call in the queue. `number` tells the earlier from the later."""

    __slots__ = ("key", "line", "number", "verdict")

    def __init__(self, key: str, line: Line, number: int, verdict: asyncio.Future[Verdict]) -> None:
        self.key = key
        self.line = line
        self.number = number
        self.verdict = verdict
