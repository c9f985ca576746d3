"""Health: how the exporter itself fares, apart from anything a GPU said."""

import math
from collections import Counter
from typing import Final

from exporter.clock import Clock
from exporter.snapshot import Reading

# A driver that is not there has been asked, and knows of no GPU.
_NOTHING: Final = Reading(driver_version="", cuda_version="", devices=())


class Health:
    """Counts and last results; a failure takes the reading away, success brings the next.

    A reading is shown for `fresh_seconds` only: numbers that are frozen look like a calm GPU.
    """

    def __init__(self, *, clock: Clock, fresh_seconds: float) -> None:
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._reading: Reading | None = None
        self._fresh_until = -math.inf
        self.errors: Counter[tuple[str, str]] = Counter()
        self.is_available = False
        self.last_success_seconds: float | None = None
        self.duration_seconds: float | None = None
        self.reinitializations = 0

    @property
    def reading(self) -> Reading | None:
        """The last reading while it is fresh."""
        return self._reading if self._clock.monotonic() <= self._fresh_until else None

    @property
    def is_success(self) -> bool:
        """Whether GPUs answered; none at all is a failed collection, not an empty success."""
        reading = self.reading
        return reading is not None and bool(reading.devices)

    def succeeded(self, reading: Reading, *, duration_seconds: float) -> None:
        self._reading = reading
        self._fresh_until = self._clock.monotonic() + self._fresh_seconds
        self.is_available = True
        self.duration_seconds = duration_seconds
        if reading.devices:
            self.last_success_seconds = self._clock.now().timestamp()
        for fault in reading.faults:
            if not fault.is_absence:
                self.errors[fault.call, fault.error] += 1

    def failed(self, *, call: str, error: str) -> None:
        """Nobody knows how the GPUs are."""
        self._reading = None
        self.errors[call, error] += 1

    def unavailable(self, *, call: str, error: str) -> None:
        """The driver says that there is nothing to read: every known GPU is down."""
        self._reading = _NOTHING
        self._fresh_until = math.inf
        self.is_available = False
        self.errors[call, error] += 1
