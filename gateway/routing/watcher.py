"""FleetWatcher: keeps the fleet in step with the upstreams file."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.routing.fleet import Fleet
from gateway.routing.source import DefinitionsUnusable, Stamp, UpstreamsFile

LOOK_SECONDS = 2.0
SETTLING_SECONDS = 0.2


class FleetWatcher:
    """Looks every `look_seconds`, off the loop, whether the file is another one, and when told.

    A file is read when it has been the same for `settling_seconds`: editors write in pieces. One
    that is broken or gone leaves the generation that runs: `on_failure` is told once for each
    state of the file. `on_reload` hears of every generation that takes over.
    """

    def __init__(
        self,
        file: UpstreamsFile,
        *,
        fleet: Fleet,
        on_reload: Callable[[], None] = lambda: None,
        on_failure: Callable[[tuple[str, ...]], None] = lambda _: None,
        look_seconds: float = LOOK_SECONDS,
        settling_seconds: float = SETTLING_SECONDS,
    ) -> None:
        self._file = file
        self._fleet = fleet
        self._on_reload = on_reload
        self._on_failure = on_failure
        self._look_seconds = look_seconds
        self._settling_seconds = settling_seconds
        self._asked = asyncio.Event()
        self._known: Stamp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.failures_total = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._known = self._file.stamp()
        self._task = asyncio.create_task(self._run(), name="fleet-watcher")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def reload_soon(self) -> None:
        """Read the file anew, changed or not. For signal handlers: from any thread, at any time."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._asked.set)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._asked.wait()
            is_asked = self._asked.is_set()
            self._asked.clear()
            try:
                await self._look(is_asked=is_asked)
            except Exception as fault:  # Whatever it was, the next look may go well.
                self._fail((f"{self._file.path}: {fault!r}",))

    async def _look(self, *, is_asked: bool) -> None:
        stamp = await asyncio.to_thread(self._file.stamp)
        if stamp == self._known and not is_asked:
            return
        stamp = await self._settled(stamp)
        self._known = stamp
        try:
            definition = await asyncio.to_thread(self._file.read)
        except DefinitionsUnusable as fault:
            self._fail(fault.faults)
            return
        await self._fleet.replace(definition)
        self._on_reload()

    async def _settled(self, stamp: Stamp | None) -> Stamp | None:
        while True:
            await asyncio.sleep(self._settling_seconds)
            now = await asyncio.to_thread(self._file.stamp)
            if now == stamp:
                return stamp
            stamp = now

    def _fail(self, faults: tuple[str, ...]) -> None:
        self.failures_total += 1
        self._on_failure(faults)
