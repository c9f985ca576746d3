"""The load of a simulated inference server: it varies, and its integral over time is exact."""

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class _Wave:
    amplitude: float
    period_seconds: float
    phase: float = 0.0

    def at(self, seconds: float) -> float:
        return self.amplitude * math.sin(self._angle(seconds))

    def until(self, seconds: float) -> float:
        """The integral from 0."""
        scale = self.amplitude * self.period_seconds / math.tau
        return scale * (math.cos(self.phase) - math.cos(self._angle(seconds)))

    def _angle(self, seconds: float) -> float:
        return math.tau * seconds / self.period_seconds + self.phase


_MEAN: Final = 0.62
# A tide of traffic and its ripple: the same for all GPUs, for they share each request.
_SHARED: Final = (_Wave(0.25, 240.0), _Wave(0.07, 37.0))


class Load:
    """Between 0 and 1, at seconds since the start; GPUs differ by a trace of their own."""

    def __init__(self, *, gpu: int) -> None:
        self._waves = (*_SHARED, _Wave(0.01, 11.0, phase=float(gpu)))

    def at(self, seconds: float) -> float:
        return _MEAN + sum(wave.at(seconds) for wave in self._waves)

    def until(self, seconds: float) -> float:
        """The integral from 0: counters computed from it go on where a killed worker left off."""
        return _MEAN * seconds + sum(wave.until(seconds) for wave in self._waves)
