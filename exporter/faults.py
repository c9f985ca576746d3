"""FaultBoard: what the simulated GPUs suffer, as set over HTTP."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from exporter.source import SimulatedFault, Trouble

# What ended is remembered for the counters' sake; nobody sets that many by hand.
_REMEMBERED: Final = 500


class FaultBoard:
    """Faults outlive the worker that shows them, as a broken GPU outlives its driver's restart."""

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lasting: deque[SimulatedFault] = deque(maxlen=_REMEMBERED)
        self._xids: deque[SimulatedFault] = deque(maxlen=_REMEMBERED)

    @property
    def active(self) -> tuple[SimulatedFault, ...]:
        return tuple(fault for fault in self._lasting if fault.ended_seconds == math.inf)

    def set(self, *, gpu: int, kind: Trouble, xid: int) -> None:
        """Begin a fault; setting one that lasts already changes nothing."""
        fault = SimulatedFault(gpu=gpu, kind=kind, xid=xid, began_seconds=self._monotonic())
        if kind is Trouble.XID:
            self._xids.append(fault)
        elif not any(now.gpu == gpu and now.kind is kind for now in self.active):
            self._lasting.append(fault)

    def clear(self) -> None:
        """End all of them."""
        now = self._monotonic()
        ended = [
            replace(fault, ended_seconds=min(fault.ended_seconds, now)) for fault in self._lasting
        ]
        self._lasting = deque(ended, maxlen=_REMEMBERED)
        self._xids.clear()

    def for_delivery(self) -> tuple[SimulatedFault, ...]:
        """All that lasts or lasted, and each XID once: it is an event."""
        xids = tuple(self._xids)
        self._xids.clear()
        return (*self._lasting, *xids)
