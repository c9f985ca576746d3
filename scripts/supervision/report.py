"""What the operator sees: a line per event, in a log too, and below it one status line."""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from scripts.supervision.duration import duration
from scripts.supervision.keeper import Keeper
from scripts.supervision.record import Phase

_TO_LINE_START = "\r\x1b[K"


class Report:
    """Writes to a terminal, a pipe or nobody: that the reader is gone is no fault of ours."""

    def __init__(self, stream: TextIO, log: Path) -> None:
        self._stream = stream
        self.log = log
        self._is_terminal = stream.isatty()
        self._is_read = True
        self._status = ""

    def say(self, line: str) -> None:
        """An event; safe from any thread."""
        stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n"
        self._write(f"{_TO_LINE_START}{stamped}{self._status}" if self._is_terminal else stamped)
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a") as log:
                log.write(stamped)
        except OSError:
            return  # a full disk must not end what keeps the programs alive

    def show(self, status: str) -> None:
        """The status line, where there is a terminal to keep it on."""
        if self._is_terminal and status != self._status:
            self._status = fitting(status)
            self._write(_TO_LINE_START + self._status)

    def end(self) -> None:
        if self._is_terminal:
            self._write("\n")

    def _write(self, text: str) -> None:
        if not self._is_read:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal is closed, or nobody reads the pipe: the log has it all.
            self._is_read = False


def fitting(status: str) -> str:
    """No longer than the terminal is wide, or it could not be overwritten."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return status
    return status[: max(columns - 1, 1)]


def status_line(keepers: Iterable[Keeper]) -> str:
    """As in `sim up 3h · gateway ready · gpu-exporter up 3h · restarts 0`."""
    parts = [f"{keeper.program.name} {state_of(keeper)}" for keeper in keepers]
    return " · ".join((*parts, f"restarts {sum(k.standing.restarts for k in keepers)}"))


def state_of(keeper: Keeper) -> str:
    if keeper.phase is not Phase.UP or keeper.process is None:
        return keeper.phase.upper() if keeper.phase is Phase.DOWN else str(keeper.phase)
    if keeper.program.ready_path != keeper.program.alive_path:
        return "ready" if keeper.is_ready else "not ready"
    return f"up {duration(keeper.process.record.uptime_seconds)}"
