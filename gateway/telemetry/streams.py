"""Open streams: how many there are, and how far apart their events come."""

from types import TracebackType

from gateway.clock import Clock
from gateway.telemetry.tallies import Distribution, Distributions


class StreamTallies:
    """Watches the streams of all models; see relay.StreamWatch."""

    def __init__(self, gaps: Distributions, *, clock: Clock) -> None:
        self._gaps = gaps
        self._clock = clock
        self.open_streams = 0

    def follow(self, model: str) -> "Pulse":
        """Use as `with streams.follow(model) as pulse:` for as long as the stream is open."""
        return Pulse(self, self._gaps.child(model), self._clock)


class Pulse:
    """One open stream. Each call says that events came; the time between two calls is noted."""

    __slots__ = ("_last_at", "_monotonic", "_observe", "_tallies")

    def __init__(self, tallies: StreamTallies, gaps: Distribution, clock: Clock) -> None:
        self._tallies = tallies
        self._observe = gaps.observe
        self._monotonic = clock.monotonic
        self._last_at: float | None = None

    def __enter__(self) -> "Pulse":
        self._tallies.open_streams += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tallies.open_streams -= 1

    def __call__(self) -> None:
        now = self._monotonic()
        if self._last_at is not None:
            self._observe(now - self._last_at)
        self._last_at = now
