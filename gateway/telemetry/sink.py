"""Where log lines go: a queue in memory and a thread that writes it, so that a stalled pipe or a
slow disk never stalls a stream."""

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from queue import SimpleQueue

LINES_MAX = 100_000
BATCH_SECONDS = 0.02
CLOSE_SECONDS = 2.0
Turn = Callable[[], AbstractContextManager[None]]
NOTHING = b""  # Wakes the thread, and is no line.
# Appending keeps whole lines whole; not blocking matters where the path is no plain file.
FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
FILE_MODE = 0o640


def open_log_file(path: Path) -> int:
    """A descriptor to append to; makes the folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, FILE_FLAGS, FILE_MODE)


class LogSink:
    """Writes whole lines to a file descriptor, in order, in batches, from its own thread.

    Bounded: when whoever reads the log stands still for long, lines are dropped and counted
    rather than memory filled; so are lines that a full disk does not take. `close` writes all
    that is left. Where several processes write to one place, `turn` keeps their lines apart.
    """

    def __init__(self, descriptor: int, *, turn: Turn = nullcontext) -> None:
        self._descriptor = descriptor
        self._turn = turn
        # `put` may interrupt itself, as a signal handler that logs does; an Event would deadlock.
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._is_closing = False
        self._is_torn = False
        # Each number has one writer: whoever writes lines, or the thread.
        self._refused = self._lost = 0
        self._thread = threading.Thread(target=self._run, name="log-sink", daemon=True)
        self._thread.start()

    @property
    def dropped_lines(self) -> int:
        return self._refused + self._lost

    def write(self, line: bytes) -> None:
        """Take one line, its newline included. Never blocks, never raises, and may be called by a
        signal handler in the midst of itself."""
        if self._lines.qsize() >= LINES_MAX:
            self._refused += 1
            return
        self._lines.put(line)

    def close(self) -> None:
        """Write what is left, for at most two seconds: a reader that stands still must not keep
        the process from ending."""
        self._is_closing = True
        self._lines.put(NOTHING)
        self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        pause = threading.Event()
        while not self._is_closing:
            first = self._lines.get()
            if not self._is_closing:
                pause.wait(BATCH_SECONDS)
            self._write_out(first)
        self._write_out(NOTHING)

    def _write_out(self, first: bytes) -> None:
        """`first` and all that has come since."""
        lines = [first, *(self._lines.get_nowait() for _ in range(self._lines.qsize()))]
        if not any(lines):
            return
        # After half a line the next one begins on a line of its own.
        batch = b"".join([b"\n" if self._is_torn else b"", *lines])
        with self._turn():
            failure = self._put_down(batch)
        if failure is not None:
            self._failed(failure)
            return
        self._is_torn = False
        self._succeeded()

    def _put_down(self, batch: bytes) -> OSError | None:
        view = memoryview(batch)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                threading.Event().wait(BATCH_SECONDS)
            except OSError as failure:
                # Nobody reads the log, or the disk is full: that must not end the gateway.
                self._lose(batch, len(batch) - len(view))
                return failure
        return None

    def _lose(self, batch: bytes, written: int) -> None:
        """Count what was not written of a batch, a line that was begun among it."""
        self._lost += batch.count(b"\n", written)
        if written:
            self._is_torn = batch[written - 1] != ord("\n")
        elif self._is_torn:
            self._lost -= 1  # The line break before the batch is no line.

    def _failed(self, failure: OSError) -> None:
        return

    def _succeeded(self) -> None:
        return


class FileSink(LogSink):
    """A sink whose file can be opened anew, after something moved it away.

    `on_failure` hears when the file begins to refuse lines, `on_recovery` when it takes them
    again; both from the sink's own thread. Raises OSError if the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        on_failure: Callable[[OSError], None],
        on_recovery: Callable[[], None],
        turn: Turn = nullcontext,
    ) -> None:
        self._path = path
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._must_reopen = False
        self._is_failing = False
        super().__init__(open_log_file(path), turn=turn)

    def reopen(self) -> None:
        """Before the next line is written; safe in a signal handler."""
        self._must_reopen = True

    def close(self) -> None:
        super().close()
        if not self._thread.is_alive():
            os.close(self._descriptor)

    def _write_out(self, first: bytes) -> None:
        if self._must_reopen:
            self._must_reopen = False
            self._swap()
        super()._write_out(first)

    def _swap(self) -> None:
        try:
            fresh = open_log_file(self._path)
        except OSError as failure:
            self._on_failure(failure)  # The old file is better than none.
            return
        os.close(self._descriptor)
        self._descriptor = fresh
        self._is_torn = False

    def _failed(self, failure: OSError) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._on_failure(failure)

    def _succeeded(self) -> None:
        if self._is_failing:
            self._is_failing = False
            self._on_recovery()
