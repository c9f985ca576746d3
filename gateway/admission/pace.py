"""Pace: how fast places become free while all are taken."""

from collections import deque
from typing import Final

from gateway.clock import Clock

_REMEMBERED: Final = 64
_ENOUGH: Final = 8


class Pace:
    """Looks at the last completions since all places were taken; what was before, at leisure,
    says nothing about how long a queue takes."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._completed_at: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self) -> None:
        """A place became free, and somebody was waiting for it."""
        self._completed_at.append(self._monotonic())

    def forget(self) -> None:
        """There were places again for a while."""
        self._completed_at.clear()

    def seconds_for(self, places: int) -> float | None:
        """How long so many places take to become free; None while too little is known.

        Measured up to now, so that an upstream that has stopped answering slows the estimate.
        """
        intervals = len(self._completed_at)
        if intervals < _ENOUGH:
            return None
        observed_seconds = self._monotonic() - self._completed_at[0]
        return places * observed_seconds / intervals
