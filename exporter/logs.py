"""The log: one line per event, JSON unless somebody watches, in the gateway's shape."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

LogFormat = Literal["auto", "json", "console"]
_FIELDS: Final = "fields"


class Log:
    """Events with fields. Everything that others log in this process takes the same way out."""

    def __init__(self, *, level: str, form: LogFormat, stream: TextIO | None = None) -> None:
        output = stream or sys.stdout
        is_json = form == "json" or (form == "auto" and not output.isatty())
        handler = logging.StreamHandler(output)
        handler.setFormatter(_JsonLines() if is_json else _Plain())
        self._logger = logging.getLogger("exporter")
        self._logger.setLevel(level)
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)
        # What a stranger sends that is no HTTP is no news here.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        logging.captureWarnings(True)

    def info(self, event: str, **fields: Any) -> None:
        self._logger.info(event, extra={_FIELDS: fields})

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning(event, extra={_FIELDS: fields})

    def error(self, event: str, **fields: Any) -> None:
        self._logger.error(event, extra={_FIELDS: fields})


class _JsonLines(logging.Formatter):
    """One object per line; JSON escapes line ends, so that no value can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"timestamp": _timestamp(record), "level": record.levelname.lower()}
        line |= {"event": record.getMessage(), **getattr(record, _FIELDS, {})}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=repr)


class _Plain(logging.Formatter):
    """For people: time, level, event, fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, _FIELDS, {})
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        line = f"{_timestamp(record)} {record.levelname.lower():<8} {record.getMessage()} {told}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line.rstrip()


def _timestamp(record: logging.LogRecord) -> str:
    """ISO 8601 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
