"""Source: where readings come from; implemented over NVML and by a simulation."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from exporter.snapshot import Reading, XidEvent


class SourceUnavailable(Exception):
    """The driver cannot be asked at all: which call said so, its error, and what to do."""

    def __init__(self, *, call: str, error: str, cure: str) -> None:
        super().__init__(f"{call}: {error}; {cure}")
        self.call = call
        self.error = error
        self.cure = cure


class Trouble(StrEnum):
    """What a simulated GPU can suffer."""

    LOST = "lost"
    XID = "xid"
    THERMAL = "thermal"
    SLOW = "slow"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class SimulatedFault:
    """A trouble of the GPU with that index; `xid` for Trouble.XID alone.

    Times are monotonic seconds, which all processes of a machine share; `ended_seconds` is
    infinite while it lasts. What ended stays known, for counters remember it.
    """

    gpu: int
    kind: Trouble
    xid: int = 0
    began_seconds: float = 0.0
    ended_seconds: float = math.inf


class Source(Protocol):
    """GPUs that can be read. Used by one thread, `wait_for_xids` by a second one.

    Any call may block for ever when the driver hangs: whoever calls must be expendable. There is
    no close: what a source holds (handles, event sets, samples) is given back with its process,
    which is the only way that also works in the middle of a call that hangs.
    """

    @property
    def activity(self) -> str:
        """The call it is in, for whoever wonders where it hangs."""
        ...

    def open(self) -> None:
        """Raises SourceUnavailable."""
        ...

    def read(self) -> Reading:
        """Raises SourceUnavailable when the source has to be opened anew."""
        ...

    def wait_for_xids(self, *, seconds: float) -> tuple[XidEvent, ...]:
        """What the driver reported, after at most that time."""
        ...

    def suffer(self, faults: Iterable[SimulatedFault]) -> None:
        """The faults a simulation shows from now on; a real driver has its own."""
        ...
