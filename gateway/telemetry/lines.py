"""A log line's two forms: JSON for programs, and one for people. Nobody can forge either."""

import json
from collections.abc import Callable, MutableMapping
from typing import Any

import orjson
import structlog

Fields = MutableMapping[str, Any]
DELETE = b"\x7f"
Render = Callable[[Fields], bytes]


def render_json(fields: Fields) -> bytes:
    """One JSON object on one line, with everything escaped that is not printable: orjson alone
    leaves what Unicode has beyond ASCII's control characters, and terminals obey some of it."""
    try:
        line = orjson.dumps(fields, default=repr, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Half a surrogate pair, or a number beyond 64 bits: rare, and no reason to say nothing.
        return _ascii(fields)
    if line.isascii() and DELETE not in line:
        return line
    return line if line[:-1].decode().isprintable() else _ascii(fields)


def _ascii(fields: Fields) -> bytes:
    text = json.dumps(fields, default=repr, skipkeys=True, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f").encode("ascii") + b"\n"


def console_renderer(*, has_colors: bool) -> Render:
    """Lines to read. What is not printable is shown as its escape, colour codes and line breaks
    among it; a traceback keeps its lines, each marked as one."""
    renderer = structlog.dev.ConsoleRenderer(
        colors=has_colors, exception_formatter=structlog.dev.plain_traceback
    )

    def render(fields: Fields) -> bytes:
        shown = {name: _visible(value) for name, value in fields.items() if name != "exception"}
        line = str(renderer(None, "", shown))
        for part in str(fields.get("exception", "")).splitlines():
            line += f"\n  | {_visible(part)}"
        return line.encode(errors="backslashreplace") + b"\n"

    return render


def _visible(value: object) -> object:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
