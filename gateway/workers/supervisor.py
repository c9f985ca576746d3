"""Supervisor: the process that serves nothing and keeps those that do."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.workers.doors import Door, Doors

FORWARDED: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# To a worker this is what a second SIGTERM is to a gateway alone: service managers send the first
# one to every process themselves.
AT_ONCE: Final = signal.SIGQUIT
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
# Who has run for so long is given a quick start again.
_STEADY_SECONDS = 60.0


class Notes(Protocol):
    """The supervisor's log."""

    def info(self, event: str, **facts: object) -> None: ...
    def error(self, event: str, **facts: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is told: its number from 1, how often it was started again, and a descriptor
    that ends when the supervisor does."""

    number: int
    restarts: int
    lifeline: int


class _Place:
    """One worker, or the wait for the next."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.starts = 0
        self.started_at = 0.0
        self.start_at = 0.0
        self.pause_seconds = _FIRST_PAUSE_SECONDS

    def wait(self) -> None:
        """Not yet again, and the next time even later."""
        self.start_at = time.monotonic() + self.pause_seconds
        self.pause_seconds = min(self.pause_seconds * 2, _LONGEST_PAUSE_SECONDS)


class Supervisor:
    """Forks `count` workers and keeps them.

    One that ends by itself is started again, at once and then ever more slowly. SIGTERM and
    SIGINT end all of them in order, and the second one at once; SIGHUP, SIGUSR1 and SIGUSR2 are
    passed on. A worker that cannot start for a lasting reason (`hopeless_code`) before it has
    ever run ends the whole. Must be run before there are threads: it forks.
    """

    def __init__(
        self,
        *,
        count: int,
        doors: Doors,
        work: Callable[[Post, Door], int],
        notes: Notes,
        hopeless_code: int,
    ) -> None:
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._work = work
        self._notes = notes
        self._hopeless_code = hopeless_code
        self._doors = doors
        self._signals = 0
        self._code = 0

    def run(self) -> int:
        """Until all have ended. The exit code: 0, or that of a worker that ended badly."""
        lifeline, held = os.pipe()
        self._lifeline, self._held = lifeline, held
        with _woken() as wake:
            self._wake = wake
            while True:
                if not self._signals:
                    self._start_due()
                elif not any(place.pid for place in self._places):
                    break
                for number in self._heard():
                    self._obey(number)
                self._collect()
        os.close(held)
        os.close(lifeline)
        return self._code

    def _start_due(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if place.pid == 0 and place.start_at <= now:
                self._start(place)

    def _start(self, place: _Place) -> None:
        post = Post(place.number, place.starts, self._lifeline)
        place.starts += 1
        place.started_at = time.monotonic()
        try:
            door = self._doors.open(place.number)
        except Exception as fault:
            self._notes.error("a worker cannot listen", worker=place.number, fault=str(fault))
            place.wait()
            return
        place.pid = os.fork()
        if place.pid == 0:
            self._become(post, door)
        self._notes.info("worker started", worker=place.number, worker_pid=place.pid)

    def _become(self, post: Post, door: Door) -> None:
        """In the child: forget that there was a supervisor, work, and end."""
        code = 1
        try:
            self._wake.forget()
            os.close(self._held)
            self._doors.shut_all_but(post.number)
            code = self._work(post, door)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception:
            sys.excepthook(*sys.exc_info())
        finally:
            # Nothing of the supervisor's may be done again here.
            os._exit(code)

    def _heard(self) -> list[int]:
        due = [place.start_at for place in self._places if place.pid == 0]
        patience = None if self._signals or not due else max(min(due) - time.monotonic(), 0.0)
        return self._wake.signals(patience)

    def _obey(self, number: int) -> None:
        if number in FORWARDED:
            self._tell(signal.Signals(number))
        elif number in (*ENDING, AT_ONCE):
            is_first = self._signals == 0 and number != AT_ONCE
            self._signals += 1
            if self._signals == 1:
                # Nobody listens any more when the last worker has stopped listening.
                self._doors.shut_all()
            self._tell(signal.SIGTERM if is_first else AT_ONCE)

    def _tell(self, number: signal.Signals) -> None:
        for place in self._places:
            if place.pid:
                with suppress(ProcessLookupError):
                    os.kill(place.pid, number)

    def _collect(self) -> None:
        for place in self._places:
            if place.pid:
                pid, status = os.waitpid(place.pid, os.WNOHANG)
                if pid:
                    self._note_end(place, os.waitstatus_to_exitcode(status))

    def _note_end(self, place: _Place, code: int) -> None:
        pid, place.pid = place.pid, 0
        if self._signals:
            self._code = self._code or abs(code)
            self._notes.info("worker ended", worker=place.number, worker_pid=pid, code=code)
            return
        now = time.monotonic()
        lived_seconds = now - place.started_at
        if code == self._hopeless_code and place.starts == 1 and lived_seconds < _STEADY_SECONDS:
            self._notes.error("a worker cannot start", worker=place.number, code=code)
            self._code = code
            self._obey(signal.SIGTERM)
            return
        if lived_seconds > _STEADY_SECONDS:
            place.pause_seconds = _FIRST_PAUSE_SECONDS
        elif place.pause_seconds > _FIRST_PAUSE_SECONDS:
            self._doors.shut(place.number)
        self._notes.error(
            "a worker ended and is started again",
            worker=place.number,
            worker_pid=pid,
            code=code,
            lived_seconds=round(lived_seconds, 3),
            pause_seconds=place.pause_seconds,
        )
        place.wait()


class _Wake:
    """Signals as bytes in a pipe, so that waiting for one and sleeping are the same."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        handled = (*FORWARDED, *ENDING, AT_ONCE, signal.SIGCHLD)
        self._before = {number: signal.signal(number, lambda *_: None) for number in handled}
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def signals(self, patience_seconds: float | None) -> list[int]:
        select.select([self._reader], [], [], patience_seconds)
        with suppress(BlockingIOError):
            return list(os.read(self._reader, 1024))
        return []

    def forget(self) -> None:
        """Everything as it was before."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    close = forget


@contextmanager
def _woken() -> Iterator[_Wake]:
    with closing(_Wake()) as wake:
        yield wake
