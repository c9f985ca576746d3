"""Python's own logging, warnings and last words, in the shape of our log."""

import logging
import sys
import threading
from types import TracebackType
from typing import Any

import structlog

# At DEBUG these tell of every request of their own, every statement.
QUIET_LOGGERS = (
    "aiosqlite",
    "asyncio",
    "grpc",
    "httpcore2",
    "httpx2",
    "opentelemetry",
    "uvicorn.error",
    "urllib3",
)
# Whose messages go on, after their first line, with reprs of what the program held.
ONE_LINE_LOGGERS = frozenset({"asyncio", "py.warnings"})
Log = structlog.typing.FilteringBoundLogger


def take_over(log: Log, level: int) -> None:
    """Everything that Python's logging and its warnings say goes to `log`."""
    logging.getLogger().handlers[:] = [_Forward(log)]
    set_level(level)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def set_level(level: int) -> None:
    """Of all but the quiet ones: theirs stay as they are, and `log` drops what is too fine."""
    logging.getLogger().setLevel(level)


def take_over_last_words(log: Log) -> None:
    """What no one caught, in threads and finalisers too."""

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        log.critical("uncaught exception", exc_info=error)

    def in_thread(facts: threading.ExceptHookArgs) -> None:
        if facts.exc_value is not None:
            name = facts.thread.name if facts.thread else ""
            log.critical("uncaught exception", thread=name, exc_info=facts.exc_value)

    def unraisable(facts: "sys.UnraisableHookArgs") -> None:
        log.error("exception in a finaliser", exc_info=facts.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable


class _Forward(logging.Handler):
    """Python's own logging, into ours."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, LookupError):
            message = str(record.msg)  # Its arguments do not fit; what it says is worth having.
        if record.name in ONE_LINE_LOGGERS:
            message = message.partition("\n")[0]
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        self._log.log(_standard(record.levelno), message, **fields)


def _standard(level: int) -> int:
    """The named level at or below any number: libraries have numbers of their own."""
    return min(max(level // 10 * 10, logging.DEBUG), logging.CRITICAL)
