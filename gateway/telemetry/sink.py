"""Where log lines go: a queue in memory and a thread that writes it, so that a stalled pipe
never stalls a stream."""

import os
import threading
from collections import deque

LINES_MAX = 100_000
BATCH_SECONDS = 0.02
CLOSE_SECONDS = 2.0


class LogSink:
    """Writes whole lines to a file descriptor, in order, in batches, from its own thread.

    Bounded: when whoever reads the log stands still for long, lines are dropped and counted
    rather than memory filled. `close` writes all that is left.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._has_lines = threading.Event()
        self._is_closing = False
        self.dropped_lines = 0
        self._thread = threading.Thread(target=self._run, name="log-sink", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take one line, its newline included. Never blocks, never raises."""
        if len(self._lines) >= LINES_MAX:
            self.dropped_lines += 1
            return
        self._lines.append(line)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def close(self) -> None:
        """Write what is left, for at most two seconds: a reader that stands still must not keep
        the process from ending."""
        self._is_closing = True
        self._has_lines.set()
        self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        pause = threading.Event()
        while not self._is_closing:
            self._has_lines.wait()
            if not self._is_closing:
                pause.wait(BATCH_SECONDS)
            self._has_lines.clear()
            self._write_out()
        self._write_out()

    def _write_out(self) -> None:
        batch = b"".join([self._lines.popleft() for _ in range(len(self._lines))])
        view = memoryview(batch)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                threading.Event().wait(BATCH_SECONDS)
            except OSError:
                return  # Nobody reads the log any more: that must not end the gateway.
