"""Taking work, draining, and cutting what would not end."""

import asyncio

from gateway.edge.interruption import Interruption
from gateway.errors import Draining


class Lifecycle:
    """Knows every running call, so that a shutdown can wait for them and then end them.

    `is_draining` turns true at the first signal: readiness is withdrawn and no new work taken.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self._is_cut = False
        self._running: set[Interruption] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        return len(self._running)

    def admit(self) -> None:
        """Raises Draining once the shutdown has begun."""
        if self.is_draining:
            raise Draining("The gateway is shutting down. Try again.", retry_after_seconds=1.0)

    def enter(self, interruption: Interruption) -> None:
        """Raises Draining once the rest has been cut: nobody would end this one."""
        if self._is_cut:
            self.admit()
        self._running.add(interruption)
        self._idle.clear()

    def leave(self, interruption: Interruption) -> None:
        self._running.discard(interruption)
        if not self._running:
            self._idle.set()

    def begin_drain(self) -> None:
        self.is_draining = True

    async def cut(self, *, grace_seconds: float = 0.5) -> None:
        """End what still runs with an error event, and give it a moment to unwind.

        Raises TimeoutError if something does not.
        """
        self._is_cut = True
        for interruption in list(self._running):
            interruption.interrupt(Draining("The gateway was shut down before the answer ended."))
        async with asyncio.timeout(grace_seconds):
            await self._idle.wait()
