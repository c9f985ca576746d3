"""Event-loop lag: how late everything is, because something did not give way."""

import asyncio
from types import TracebackType
from typing import Final, Self

from gateway.clock import Clock
from gateway.telemetry.tallies import Distribution

INTERVAL_SECONDS: Final = 0.1


class LoopLag:
    """Owns a background task, from enter to exit, that asks to be woken and notes how late it is.

    A loop that stands still for two seconds is one observation of about two seconds.
    """

    def __init__(self, seen: Distribution, *, clock: Clock) -> None:
        self._seen = seen
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="loop-lag")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            asked_at = self._clock.monotonic()
            await asyncio.sleep(INTERVAL_SECONDS)
            late_seconds = self._clock.monotonic() - asked_at - INTERVAL_SECONDS
            self._seen.observe(max(late_seconds, 0.0))
