"""Server-sent events as Anthropic writes them: each named twice, in its event line and its data."""

from collections.abc import Mapping
from typing import Final

import orjson

PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
KEEP_ALIVE: Final = b": keep-alive\n\n"
"""In place of an upstream's comment, whose words and line ends are its own affair."""
STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def event(kind: str, fields: Mapping[str, object]) -> bytes:
    return framed(kind, orjson.dumps({"type": kind, **fields}))


def framed(kind: str, data: bytes) -> bytes:
    """`data` is one line: JSON has no line breaks but between its tokens."""
    name = kind.encode("utf-8", "replace")
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


def message_id(upstream_id: object) -> str:
    """Anthropic's ids begin with msg_; clients tell messages from other things by that."""
    text = upstream_id if isinstance(upstream_id, str) else ""
    return text if text.startswith("msg_") else "msg_" + text.removeprefix("chatcmpl-")


def message_start(*, identity: str, model: object, usage: Mapping[str, object]) -> bytes:
    message = {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return event("message_start", {"message": message})
