"""Structured logging: one shape for our lines, the server's and Python's warnings."""

import logging
import os
import sys
import time
from collections.abc import MutableMapping
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog

from gateway.telemetry import stdlog
from gateway.telemetry.faults import describe
from gateway.telemetry.lines import Fields, Render, console_renderer, render_json
from gateway.telemetry.sink import FileSink, LogSink, Turn, open_log_file

LogFormat = Literal["auto", "json", "console"]
METHOD_LEVELS = {name.lower(): level for name, level in logging.getLevelNamesMapping().items()}
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
Log = structlog.typing.FilteringBoundLogger


class LogFileUnusable(Exception):
    """LOG_FILE cannot be written; the message says why and what to do."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(
            f"LOG_FILE={path}: cannot be written ({cause.strerror}). Name a file that user "
            f"{os.getuid()} may write, or leave LOG_FILE empty."
        )


def require_writable(path: Path) -> None:
    """Raises LogFileUnusable if no log can be written there."""
    try:
        os.close(open_log_file(path))
    except OSError as cause:
        raise LogFileUnusable(path, cause) from cause


class Logging:
    """The log of the process: configured once, handed to whoever wires parts together.

    With `file` every line goes there too, as JSON. Raises LogFileUnusable.
    """

    def __init__(
        self,
        *,
        level: str,
        form: LogFormat,
        file: Path | None = None,
        stream: TextIO | None = None,
        turn: Turn = nullcontext,
    ) -> None:
        output = stream or sys.stdout
        is_json = form == "json" or (form == "auto" and not output.isatty())
        render = render_json if is_json else console_renderer(has_colors=output.isatty())
        self.level = logging.getLevelNamesMapping()[level]
        self._outputs: list[tuple[Render, list[LogSink]]] = [
            (render, [LogSink(output.fileno(), turn=turn)])
        ]
        self._turn = turn
        self._files: list[FileSink] = []
        self.log: Log = structlog.wrap_logger(
            _Writer(self),
            processors=[
                self._drop_what_is_too_fine,
                structlog.stdlib.add_log_level,
                _describe_fault,
                structlog.processors.StackInfoRenderer(),
                _finish,
            ],
            # Filtering is ours, because the level can change while we run.
            wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        )
        if file is not None:
            self._add_file(file)
        stdlog.take_over(self.log, self.level)

    def is_enabled_for(self, level: int) -> bool:
        return level >= self.level

    @property
    def dropped_lines(self) -> int:
        """Lines that nobody read in time or no disk took, over all outputs."""
        return sum(sink.dropped_lines for _, sinks in self._outputs for sink in sinks)

    def write(self, fields: Fields) -> None:
        """A line that is complete already: the canonical line of a request."""
        for render, sinks in self._outputs:
            line = render(fields)
            for sink in sinks:
                sink.write(line)

    def say_more(self) -> None:
        """One level finer; safe in a signal handler, as are the two below."""
        self._set_level(max(LEVELS.index(self.level) - 1, 0))

    def say_less(self) -> None:
        """One level coarser."""
        self._set_level(min(LEVELS.index(self.level) + 1, len(LEVELS) - 1))

    def reopen(self) -> None:
        """Open the file anew, where there is one: what held the log was moved away."""
        for sink in self._files:
            sink.reopen()
        self._announce("log file reopened")

    def close(self) -> None:
        # The files first: what goes wrong with them is still said on the stream.
        for sink in reversed([sink for _, sinks in self._outputs for sink in sinks]):
            sink.close()

    def _set_level(self, index: int) -> None:
        self.level = LEVELS[index]
        stdlog.set_level(self.level)
        self._announce("log level changed", log_level=logging.getLevelName(self.level))

    def _announce(self, event: str, **facts: str) -> None:
        """What the operator asked for is confirmed at any level."""
        self.write({"timestamp": timestamp(), "level": "info", "event": event, **facts})

    def _add_file(self, path: Path) -> None:
        try:
            sink = FileSink(
                path,
                on_failure=self._file_fails,
                on_recovery=self._file_works,
                turn=self._turn,
            )
        except OSError as cause:
            raise LogFileUnusable(path, cause) from cause
        self._files.append(sink)
        for render, sinks in self._outputs:
            if render is render_json:
                sinks.append(sink)
                return
        self._outputs.append((render_json, [sink]))

    def _file_fails(self, failure: OSError) -> None:
        self.log.error("the log file cannot be written", error=failure.strerror)

    def _file_works(self) -> None:
        self.log.warning("the log file is written again", dropped=self.dropped_lines)

    def _drop_what_is_too_fine(
        self, _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if METHOD_LEVELS.get(method, logging.CRITICAL) < self.level:
            raise structlog.DropEvent
        return event


def timestamp() -> str:
    """Now, ISO 8601 in UTC with milliseconds."""
    now = time.time()
    second = int(now)
    return _second(second) + _MILLISECONDS[int((now - second) * 1000)]


_MILLISECONDS = tuple(f".{milliseconds:03d}Z" for milliseconds in range(1000))


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    """The text of one second, formatted once in it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class _Writer:
    """What structlog calls with a finished line, whatever its level."""

    def __init__(self, log: Logging) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = log.write


def _describe_fault(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Exceptions without what they quote."""
    match event.pop("exc_info", None):
        case BaseException() as error:
            event["exception"] = describe(error)
        case (_, BaseException() as error, _):
            event["exception"] = describe(error)
        case True if (current := sys.exception()) is not None:
            event["exception"] = describe(current)
    return event


def _finish(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[Fields], dict[str, Any]]:
    return ({"timestamp": timestamp(), **event},), {}
