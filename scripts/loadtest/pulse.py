"""How well this very process feels: its event loop's lag, its CPU, its wait for a core."""

import asyncio
import time
from pathlib import Path
from typing import Final

from scripts.loadtest.histogram import Histogram

_BEAT_SECONDS: Final = 0.02
# The loop's own resolution is no lag.
_RESOLUTION_SECONDS: Final = 0.001
_SCHEDULER: Final = Path("/proc/self/schedstat")


class Pulse:
    """Beats on the running loop; `take` gives the lags since the last time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lags = Histogram()
        self._due_at = time.monotonic() + _BEAT_SECONDS
        self._timer = self._loop.call_at(self._due_at, self._beat)

    def take(self) -> Histogram:
        lags, self._lags = self._lags, Histogram()
        return lags

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        now = time.monotonic()
        self._lags.add(now - self._due_at - _RESOLUTION_SECONDS)
        self._due_at = now + _BEAT_SECONDS
        self._timer = self._loop.call_at(self._due_at, self._beat)


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    return time.process_time()


def starved_seconds() -> float:
    """Time this process was ready and no core was free for it; 0 where no kernel tells."""
    try:
        return int(_SCHEDULER.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
