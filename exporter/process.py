"""WorkerProcess: a worker held by its pipes, that can be asked, killed, and left behind."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from exporter import messages
from exporter.snapshot import Reading, XidEvent
from exporter.source import SimulatedFault

# A report on 16 GPUs with many processes is a few hundred kilobytes.
_LONGEST_LINE: Final = 16 * 2**20
_WHERE_SECONDS: Final = 0.3
_DEATH_SECONDS: Final = 0.5


class WorkerEnded(Exception):
    """The worker process is gone: it crashed, or somebody killed it."""


class Worker(Protocol):
    """What the collector needs of a worker; entering starts it, leaving ends it."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @property
    def is_left_behind(self) -> bool:
        """Killed, and still not dead: it sits in a driver call that no signal reaches."""
        ...

    async def open(self) -> None:
        """Until the driver is initialised. Raises SourceUnavailable, WorkerEnded."""
        ...

    async def collect(self, faults: Iterable[SimulatedFault]) -> Reading:
        """Raises SourceUnavailable, WorkerEnded."""
        ...

    async def activity(self) -> str:
        """The call it is in, or empty if it does not say."""
        ...


class WorkerProcess:
    """A child that runs `command`; see worker.py for what it does."""

    def __init__(self, command: Sequence[str], *, on_xid: Callable[[XidEvent], None]) -> None:
        self._command = command
        self._on_xid = on_xid
        self._answers: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()
        self._activity: asyncio.Queue[str] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            # Ctrl-C is for the exporter, which ends its worker itself.
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None or self._reader is None:
            return
        # A worker has nothing to save, and one that hangs hears nothing softer.
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DEATH_SECONDS):
                await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    @property
    def is_left_behind(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def open(self) -> None:
        await self._answer(messages.OPENED)

    async def collect(self, faults: Iterable[SimulatedFault]) -> Reading:
        self._order(messages.COLLECT, messages.faults_out(faults))
        return messages.reading_in(await self._answer(messages.READING))

    async def activity(self) -> str:
        self._order(messages.WHERE)
        try:
            async with asyncio.timeout(_WHERE_SECONDS):
                return await self._activity.get()
        except TimeoutError:
            return ""

    def _order(self, kind: str, body: object = None) -> None:
        if self._process is not None and self._process.stdin is not None:
            # Small, and one at a time: the pipe has room even if nobody reads it.
            self._process.stdin.write(messages.line(kind, body))

    async def _answer(self, wanted: str) -> Any:
        answer = await self._answers.get()
        if answer is None:
            raise WorkerEnded
        kind, body = answer
        if kind == messages.UNAVAILABLE:
            raise messages.unavailable_in(body)
        if kind != wanted:
            raise WorkerEnded(f"{kind} is no answer here")
        return body

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        try:
            while process.stdout is not None and (raw := await process.stdout.readline()):
                self._hear(*messages.parsed(raw))
        finally:
            self._answers.put_nowait(None)

    def _hear(self, kind: str, body: Any) -> None:
        if kind == messages.XID:
            self._on_xid(messages.xid_in(body))
        elif kind == messages.ACTIVITY:
            self._activity.put_nowait(body)
        else:
            self._answers.put_nowait((kind, body))
