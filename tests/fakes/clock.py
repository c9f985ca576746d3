"""FakeClock: time that passes only when a test says so."""

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 3, 14, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """A Clock owned by a test: `advance` moves both times, `set_now` steps the wall clock."""

    def __init__(self, *, now: datetime = NOON, monotonic: float = 100_000.0) -> None:
        self._started_at = monotonic
        self._elapsed_seconds = 0.0
        self._now = now

    def monotonic(self) -> float:
        return self._started_at + self._elapsed_seconds

    def now(self) -> datetime:
        return self._now

    def timestamp(self) -> float:
        return self._now.timestamp()

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for a negative time: use `set_now` to step back."""
        if seconds < 0:
            raise ValueError("time does not run backwards; set_now steps the wall clock")
        self._elapsed_seconds += seconds
        self._now += timedelta(seconds=seconds)

    def set_now(self, now: datetime) -> None:
        """Step the wall clock, either way, as an administrator or NTP would.

        `monotonic` stays where it is; from here on the two move together again.
        """
        if now.tzinfo is None:
            raise ValueError("the wall clock is aware: give it a timezone")
        self._now = now.astimezone(UTC)
