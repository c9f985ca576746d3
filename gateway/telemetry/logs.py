"""Structured logging: one shape for our lines, the server's and Python's warnings."""

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import Any, Literal, TextIO

import orjson
import structlog

from gateway.telemetry.sink import LogSink

LogFormat = Literal["auto", "json", "console"]
Render = Callable[[MutableMapping[str, Any]], bytes]
# At DEBUG these tell of every request of their own, every statement, every span.
QUIET_LOGGERS = (
    "aiosqlite",
    "asyncio",
    "httpcore2",
    "httpx2",
    "opentelemetry",
    "uvicorn.error",
    "urllib3",
)
Log = structlog.typing.FilteringBoundLogger


def render_json(fields: MutableMapping[str, Any]) -> bytes:
    """One JSON object on one line: orjson escapes every control character, so that no value
    can forge a line."""
    return orjson.dumps(fields, default=repr, option=orjson.OPT_APPEND_NEWLINE)


def _console_renderer() -> Render:
    renderer = structlog.dev.ConsoleRenderer()

    def render(fields: MutableMapping[str, Any]) -> bytes:
        return str(renderer(None, "", dict(fields))).encode(errors="replace") + b"\n"

    return render


class Logging:
    """The log of the process: configured once, handed to whoever wires parts together."""

    def __init__(self, *, level: str, form: LogFormat, stream: TextIO | None = None) -> None:
        output = stream or sys.stdout
        is_json = form == "json" or (form == "auto" and not output.isatty())
        self.render: Render = render_json if is_json else _console_renderer()
        self.sink = LogSink(output.fileno())
        self.level = logging.getLevelNamesMapping()[level]
        self.log: Log = structlog.wrap_logger(
            _SinkLogger(self.sink),
            processors=[
                structlog.stdlib.add_log_level,
                structlog.processors.format_exc_info,
                structlog.processors.StackInfoRenderer(),
                self._finish,
            ],
            wrapper_class=_bound_logger(self.level),
        )
        self._take_over_stdlib()

    def is_enabled_for(self, level: int) -> bool:
        return level >= self.level

    def close(self) -> None:
        self.sink.close()

    def write(self, fields: dict[str, Any]) -> None:
        """A line that is complete already: the canonical line of a request."""
        self.sink.write(self.render(fields))

    def _finish(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> tuple[Any, ...]:
        return (self.render({"timestamp": timestamp(), **event}),), {}

    def _take_over_stdlib(self) -> None:
        root = logging.getLogger()
        root.handlers[:] = [_Forward(self.log)]
        root.setLevel(self.level)
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(max(self.level, logging.WARNING))
        logging.captureWarnings(True)


def timestamp() -> str:
    """Now, ISO 8601 in UTC with milliseconds."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    """The text of one second, formatted once in it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class _SinkLogger:
    """What structlog calls with a rendered line, whatever its level."""

    def __init__(self, sink: LogSink) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = sink.write


class _Forward(logging.Handler):
    """Python's own logging, into ours."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        self._log.log(record.levelno, record.getMessage(), **fields)


def _bound_logger(level: int) -> type[Log]:
    return structlog.make_filtering_bound_logger(level)
