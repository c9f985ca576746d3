"""The logs of a supervisor and its workers, who write to the same places."""

import fcntl
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.telemetry.lines import Fields, console_renderer, render_json
from gateway.telemetry.logs import LogFormat, Logging, timestamp
from gateway.telemetry.sink import open_log_file

_PATIENCE_SECONDS = 0.5
_TRY_SECONDS = 0.01


class WorkerLogging(Logging):
    """A worker's log: every line says which worker it is, and lines of several never mix.

    Pipes take no more than 4 KiB at a time whole, so whoever writes a batch holds a lock file.
    """

    def __init__(
        self,
        *,
        number: int,
        lock_path: Path,
        level: str,
        form: LogFormat,
        file: Path | None = None,
    ) -> None:
        self._number = number
        self._lock = os.open(lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        super().__init__(level=level, form=form, file=file, turn=self._in_turn)

    def write(self, fields: Fields) -> None:
        super().write({**fields, "worker": self._number})

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


class PlainLog:
    """A supervisor's log: few lines, written at once, without a thread; it forks.

    Nobody waits for a reader that stands still: the line is then lost.
    """

    def __init__(self, *, form: LogFormat, file: Path | None, lock_path: Path) -> None:
        self._output = sys.stdout.fileno()
        is_terminal = sys.stdout.isatty()
        is_json = form == "json" or (form == "auto" and not is_terminal)
        self._render = render_json if is_json else console_renderer(has_colors=is_terminal)
        self._file = file
        self._lock_path = lock_path

    def info(self, event: str, **facts: object) -> None:
        self._write("info", event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._write("error", event, facts)

    def _write(self, level: str, event: str, facts: dict[str, object]) -> None:
        fields: Fields = {"timestamp": timestamp(), "level": level, "event": event, **facts}
        _, writable, _ = select.select([], [self._output], [], _PATIENCE_SECONDS)
        if writable:
            with self._in_turn():
                os.write(self._output, self._render(fields))
        if self._file is not None:
            descriptor = open_log_file(self._file)
            try:
                os.write(descriptor, render_json(fields))
            finally:
                os.close(descriptor)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """The workers' lock, if one can be had soon: a line of ours is whole by itself, but may
        fall into the midst of theirs."""
        lock = os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        try:
            while not _is_taken(lock) and time.monotonic() < deadline:
                time.sleep(_TRY_SECONDS)
            yield
        finally:
            os.close(lock)


def _is_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
