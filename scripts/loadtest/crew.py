"""The worker processes, as the process in front sees them: started, listened to, ended."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scripts.loadtest.plan import Plan
from scripts.loadtest.tally import Frame

_ROOT: Final = Path(__file__).parents[2]
_LONGEST_FRAME_BYTES: Final = 2**24
_END_SECONDS: Final = 5.0
_MOST_WORKERS: Final = 8


class CrewFailed(Exception):
    """A worker ended before its work was done."""


def sensible_workers(wanted: int) -> int:
    """As many as asked for; else half the cores, because the server needs some too."""
    return wanted or max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)) // 2))


class Crew:
    """Workers between `async with` and its end."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans = plans
        self._processes: list[asyncio.subprocess.Process] = []
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._listeners: list[asyncio.Task[None]] = []
        self._is_killed = False

    async def __aenter__(self) -> Self:
        for plan in self._plans:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "scripts.loadtest.worker",
                cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LONGEST_FRAME_BYTES,
            )  # fmt: skip
            self._processes.append(process)
            # By the pipe and not by its arguments: those anybody on the machine can read.
            self._tell(process, plan.to_json() + b"\n")
            self._listeners.append(asyncio.create_task(self._listen(process)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await asyncio.gather(*self._listeners)
        except TimeoutError:
            self.kill()
            await asyncio.gather(*self._listeners, return_exceptions=True)

    async def frames(self) -> AsyncIterator[Frame]:
        """Every report of every worker until all are done. Raises CrewFailed."""
        running = len(self._processes)
        while running:
            frame = await self._frames.get()
            if frame is None and not self._is_killed:
                raise CrewFailed("a load worker ended too early; what it said stands above")
            if frame is None:
                running -= 1
                continue
            yield frame
            running -= frame.is_last

    def stop(self) -> None:
        """Every worker ends at once, with its last report."""
        for process in self._processes:
            self._tell(process, b"stop\n")

    def kill(self) -> None:
        """Every worker is gone at once; what it has not reported is lost."""
        self._is_killed = True
        for process in self._processes:
            if process.returncode is None:
                process.kill()

    def _tell(self, process: asyncio.subprocess.Process, words: bytes) -> None:
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(words)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        is_done = False
        if process.stdout is not None:
            async for line in process.stdout:
                frame = Frame.from_json(line)
                is_done = is_done or frame.is_last
                self._frames.put_nowait(frame)
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
        if not is_done:
            self._frames.put_nowait(None)
