"""Backoff: how long to wait before NVML is initialised once more."""

from dataclasses import dataclass


@dataclass
class Backoff:
    """Doubles from `first_seconds` to `longest_seconds`; a success starts it over."""

    first_seconds: float = 1.0
    longest_seconds: float = 30.0
    _next_seconds: float = 0.0

    def next_seconds(self) -> float:
        wait = max(self._next_seconds, self.first_seconds)
        self._next_seconds = min(2 * wait, self.longest_seconds)
        return min(wait, self.longest_seconds)

    def reset(self) -> None:
        self._next_seconds = self.first_seconds
