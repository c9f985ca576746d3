"""Child processes under measurement: pinned, weighed, and ended by their own id."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_END_SECONDS: Final = 15.0
_REST_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.3
_IDLE_SHARE: Final = 0.1


class TargetFailed(Exception):
    """A process under measurement did not start, or did not end as it should."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the target gets and which the load; None where there are too few to choose."""

    target: int | None
    load: int | None

    @classmethod
    def choose(cls) -> "Cores":
        free = sorted(os.sched_getaffinity(0))
        return cls(free[-1], free[0]) if len(free) > 1 else cls(None, None)


UNPINNED: Final = Cores(None, None)


def pin(core: int | None) -> None:
    """Keep this process, and the children it starts from now on, on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


class Child:
    """One running program with all its processes. Output goes to `log`."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self._root = psutil.Process(popen.pid)
        self.log = log

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def cpu_seconds(self) -> float:
        """User and system time of every thread and worker so far. Raises TargetFailed."""
        return self._sum(_cpu_seconds)

    async def rest(self) -> None:
        """Until it has next to nothing to do, as what it still does disturbs whoever is next."""
        until = time.monotonic() + _REST_SECONDS
        while self.is_running and time.monotonic() < until:
            before = self.cpu_seconds()
            await asyncio.sleep(_LOOK_SECONDS)
            if self.cpu_seconds() - before < _IDLE_SHARE * _LOOK_SECONDS:
                return

    def rss_bytes(self) -> int:
        """Raises TargetFailed."""
        return int(self._sum(_rss_bytes))

    def end(self) -> int:
        """Ask it to, then make it, workers included; the exit code of the first."""
        processes = self._processes() if self.is_running else []
        self._popen.send_signal(signal.SIGTERM)
        try:
            code = self._popen.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        for left in processes[1:]:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        return code

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def _sum(self, read: Callable[[psutil.Process], float]) -> float:
        try:
            total = read(self._root)
            for worker in self._root.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    total += read(worker)
        except psutil.NoSuchProcess:
            raise TargetFailed(f"it has ended:\n{self.last_words()}") from None
        return total

    def _processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _rss_bytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss)


@contextmanager
def child(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    core: int | None,
    is_ours: bool = True,
) -> Iterator[Child]:
    """Run a program on one core; SIGTERM at the end.

    Raises TargetFailed unless it exits with 0; how somebody else's program ends is theirs.
    """
    log = cwd / "output.log"
    before = os.sched_getaffinity(0)
    pin(core)
    try:
        with log.open("wb") as output:
            popen = subprocess.Popen(
                command, env=dict(env), cwd=cwd, stdout=output, stderr=subprocess.STDOUT
            )
    finally:
        os.sched_setaffinity(0, before)
    running = Child(popen, log)
    try:
        yield running
    finally:
        code = running.end()
    if code != 0 and is_ours:
        raise TargetFailed(f"{command[0]} ended with {code}:\n{running.last_words()}")
