"""Clock: the one place time comes from, so that a test can own it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two times: `monotonic` for durations in seconds, `now` for the calendar, in UTC."""

    def monotonic(self) -> float: ...
    def now(self) -> datetime: ...


class SystemClock:
    """The clock of the machine; its `monotonic` is the same in all processes of the machine."""

    monotonic = staticmethod(time.monotonic)

    def now(self) -> datetime:
        return datetime.now(UTC)
