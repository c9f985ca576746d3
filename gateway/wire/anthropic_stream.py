"""A streamed /v1/messages answer of a server that speaks Anthropic: passed on, counted, mended."""

from collections.abc import Mapping
from typing import Final

import orjson

from gateway.exchange import TokenUsage
from gateway.wire.anthropic_errors import stream_failure
from gateway.wire.anthropic_events import KEEP_ALIVE, framed, message_id
from gateway.wire.anthropic_events import event as rendered
from gateway.wire.anthropic_usage import RunningTally
from gateway.wire.openai_usage import as_object
from gateway.wire.reading import EventReader
from gateway.wire.sse import data_of

_DELTA: Final = b"event: content_block_delta\ndata: {"
_CONTENT_KEYS: Final = ("text", "thinking", "partial_json")


class AnthropicStreamReader(EventReader):
    """A ResponseReader for the events of a native /v1/messages.

    Mended are the id, the model's name, an input of zero tokens and missing event names; what
    is no event of Anthropic's, a stray [DONE] above all, is dropped. A read of nothing but
    pieces of content, the ordinary case, is neither cut nor parsed.
    """

    __slots__ = (
        "_may_search",
        "_shown_model",
        "_tally",
    )

    def __init__(self, *, prompt_tokens: int, shown_model: str = "") -> None:
        """`shown_model` is what the client is to read as the model's name; empty: as it comes."""
        super().__init__()
        self._tally = RunningTally(prompt_tokens=prompt_tokens)
        self._shown_model = shown_model
        self._may_search = False

    @property
    def usage(self) -> TokenUsage:
        return self._tally.as_usage()

    def feed(self, chunk: bytes) -> bytes:
        if self._may_search and not self._events.held and chunk.startswith(_DELTA):
            # JSON has no line break inside: as many lines as deltas have are deltas all.
            lines = chunk.count(b"\n")
            if chunk.endswith(b"\n\n") and lines == 3 * chunk.count(_DELTA):
                self._tally.count(lines // 3)
                return chunk
        return self._walk(chunk)

    def _read(self, event: bytes) -> bytes:
        """What the client gets of one event."""
        data = data_of(event)
        if data is None:
            return KEEP_ALIVE if event.startswith(b":") else b""
        fields = as_object(data)
        kind = fields.get("type")
        if kind == "error" or fields.get("error"):
            raise stream_failure(fields)
        if not isinstance(kind, str) or not kind.isidentifier():
            return b""
        self._tally.begin()
        if kind == "message_start":
            return self._start(fields)
        if kind == "message_delta":
            return rendered(kind, {**fields, "usage": self._tally.settle(fields.get("usage"))})
        if kind == "content_block_delta":
            self._count(fields.get("delta"))
        elif kind == "message_stop":
            self.is_complete = True
            self._stop()
        as_it_should_be = framed(kind, data)
        return event if event == as_it_should_be else framed(kind, orjson.dumps(fields))

    def _start(self, fields: Mapping[str, object]) -> bytes:
        given = fields.get("message")
        message = given if isinstance(given, dict) else {}
        changes: dict[str, object] = {
            "id": message_id(message.get("id")),
            "usage": self._tally.open(message.get("usage")),
        }
        if self._shown_model:
            changes["model"] = self._shown_model
        return rendered("message_start", {**fields, "message": {**message, **changes}})

    def _count(self, delta: object) -> None:
        if isinstance(delta, dict) and any(delta.get(key) for key in _CONTENT_KEYS):
            self._tally.count(1)
            self.saw_content = True
            self._may_search = True

    def _stop(self) -> None:
        super()._stop()
        self._may_search = False
