"""Whether the load generator itself was the limit: its CPU, its loop's lag, its wait for cores."""

from dataclasses import dataclass
from typing import Final

from scripts.loadtest.histogram import Histogram
from scripts.loadtest.tally import FRAME_SECONDS, Frame, Tally

_BUSY_RATIO: Final = 0.9
_LAG_SECONDS: Final = 0.01
_SEND_LAG_SECONDS: Final = 0.01
_STARVED_RATIO: Final = 0.1


@dataclass(frozen=True, slots=True)
class Reading:
    """One worker's clocks at one time."""

    at: float
    cpu_seconds: float
    starved_seconds: float


class Health:
    """What the workers' frames say about the workers, within the measured window."""

    def __init__(self, *, begin_at: float, end_at: float) -> None:
        self._begin_at = begin_at
        self._end_at = end_at
        self._first: dict[int, Reading] = {}
        self._last: dict[int, Reading] = {}
        self.loop_lag = Histogram()

    def add(self, frame: Frame) -> None:
        reading = Reading(frame.at, frame.cpu_seconds, frame.starved_seconds)
        is_inside = frame.at <= self._end_at + FRAME_SECONDS / 2
        if frame.at < self._begin_at or frame.worker not in self._first:
            self._first[frame.worker] = self._last[frame.worker] = reading
        elif is_inside or self._last[frame.worker] is self._first[frame.worker]:
            self._last[frame.worker] = reading
            self.loop_lag.merge(frame.loop_lag)

    @property
    def cpu_ratio(self) -> float:
        """The share of a core that the busiest worker used."""
        return max(
            (_ratio(b.cpu_seconds - a.cpu_seconds, a, b) for a, b in self._spans()), default=0.0
        )

    @property
    def starved_ratio(self) -> float:
        """The share of the time for which the worst-off worker waited for a core."""
        return max(
            (_ratio(b.starved_seconds - a.starved_seconds, a, b) for a, b in self._spans()),
            default=0.0,
        )

    def warnings(self, tally: Tally) -> list[str]:
        """Why these numbers may be the tool's and not the server's; empty where they are not."""
        found = []
        if self.cpu_ratio >= _BUSY_RATIO:
            found.append(
                f"The load generator used {self.cpu_ratio:.0%} of a core: it is the limit, and the "
                "server may be faster than this. Give it more WORKERS, or another machine."
            )
        lag = self.loop_lag.quantile(0.99) or 0.0
        if lag >= _LAG_SECONDS:
            found.append(
                f"The load generator's own event loop was late by {lag * 1000:.0f} ms (p99): "
                "latencies hold that much of its own making."
            )
        send_lag = tally.send_lag.quantile(0.99) or 0.0
        if send_lag >= _SEND_LAG_SECONDS:
            found.append(
                f"Requests left {send_lag * 1000:.0f} ms after they were due (p99), new "
                "connections included: the latencies count that too."
            )
        if self.starved_ratio >= _STARVED_RATIO and found:
            found.append(
                f"For {self.starved_ratio:.0%} of the time the load generator waited for a core "
                "that others used: do not run it beside what it measures."
            )
        return found

    def _spans(self) -> list[tuple[Reading, Reading]]:
        return [(self._first[worker], self._last[worker]) for worker in self._first]


def _ratio(seconds: float, first: Reading, last: Reading) -> float:
    return seconds / (last.at - first.at) if last.at > first.at else 0.0
