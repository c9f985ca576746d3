"""Clock: the one place time comes from, so that a test can own it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two times: `monotonic` for durations, `now` and `timestamp` for the calendar (in UTC)."""

    def monotonic(self) -> float:
        """Seconds that never go back; comparable only with each other."""
        ...

    def now(self) -> datetime:
        """The wall clock as an aware datetime in UTC; it may step."""
        ...

    def timestamp(self) -> float:
        """The wall clock in seconds since 1970, for comparing: a fifth of what `now` costs."""
        ...


class SystemClock:
    """The clock of the machine. `monotonic` is the base of asyncio's loop time too."""

    monotonic = staticmethod(time.monotonic)
    timestamp = staticmethod(time.time)

    def now(self) -> datetime:
        return datetime.now(UTC)
