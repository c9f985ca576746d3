"""Child processes under measurement: pinned, weighed, and ended by their own id."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_END_SECONDS: Final = 15.0


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
        """User and system time of every thread and worker so far."""
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(each.user + each.system for each in times))

    def rss_bytes(self) -> int:
        return int(sum(process.memory_info().rss for process in self._processes()))

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def _processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]


@contextmanager
def child(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, core: int | None
) -> Iterator[Child]:
    """Run a program on one core; SIGTERM at the end. Raises TargetFailed unless it exits with 0."""
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
        popen.send_signal(signal.SIGTERM)
        try:
            code = popen.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            popen.kill()
            code = popen.wait()
    if code != 0:
        raise TargetFailed(f"{command[0]} ended with {code}:\n{running.last_words()}")
