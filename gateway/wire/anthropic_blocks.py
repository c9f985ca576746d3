"""The content blocks of a streamed message: one open at a time, whatever order pieces come in.

Chat numbers parallel calls and may mix their pieces; Anthropic's clients take a block from its
start to its stop. So a piece of another block waits while a call is open whose arguments are
not whole yet, and streams on in every other case.
"""

from collections import deque
from typing import Final

import orjson

from gateway.wire.anthropic_arguments import Arguments
from gateway.wire.anthropic_events import event

_DELTA: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{%b:'
)
_DELTA_ENDS: Final = b"}}\n\n"
_TEXT: Final = b'"type":"text_delta","text"'
_THINKING: Final = b'"type":"thinking_delta","thinking"'
_INPUT: Final = b'"type":"input_json_delta","partial_json"'


class _Block:
    """One block: how it starts, how its pieces are called, and those not written yet."""

    __slots__ = ("arguments", "field", "is_closed", "opening", "queued", "signature")

    def __init__(self, opening: dict[str, object], field: bytes, *, signature: str = "") -> None:
        self.opening = opening
        self.field = field
        self.signature = signature
        self.queued: list[str] = []
        self.arguments = Arguments()
        self.is_closed = False

    @property
    def is_whole(self) -> bool:
        """False for a call whose arguments are not all there yet."""
        return self.field is not _INPUT or self.arguments.is_whole


class BlockWriter:
    """Turns pieces of text, thought and calls into the events of content blocks."""

    __slots__ = ("_before", "_calls", "_count", "_is_closed", "_last_call", "_open", "_waiting")

    def __init__(self) -> None:
        self._open: _Block | None = None
        self._before = b""
        self._count = 0
        self._waiting: deque[_Block] = deque()
        self._calls: dict[int, _Block] = {}
        self._last_call: _Block | None = None
        self._is_closed = False

    @property
    def has_called(self) -> bool:
        return self._last_call is not None

    @property
    def is_call_whole(self) -> bool:
        """True where the last call, the only one that an end can cut, has all its arguments."""
        return self._last_call is not None and self._last_call.is_whole

    def text(self, piece: str) -> bytes:
        return self._say(_TEXT, piece, {"type": "text", "text": ""})

    def thought(self, piece: str, *, signature: str) -> bytes:
        opening: dict[str, object] = {"type": "thinking", "thinking": "", "signature": ""}
        return self._say(_THINKING, piece, opening, signature=signature)

    def call(self, number: int, piece: str, *, identity: str, name: str) -> bytes:
        """A piece of the call that chat numbers so. `identity` and `name` come once; a number
        that comes with another identity is another call."""
        call = self._calls.get(number)
        if call is None or (identity and name and call.opening["id"] not in ("", identity)):
            opening: dict[str, object] = {"type": "tool_use", "id": "", "name": "", "input": {}}
            call = self._calls[number] = _Block(opening, _INPUT)
        if call.opening["name"]:
            return self._continue(call, piece)
        call.queued.append(piece)
        call.opening["id"] = identity or call.opening["id"]
        call.opening["name"] = name
        if not name:
            return b""
        self._last_call = call
        self._waiting.append(call)
        return self._advance()

    def close(self) -> bytes:
        """The end of all blocks. A message without any gets an empty one: clients look for it."""
        self._is_closed = True
        is_empty = self._open is None and not self._waiting and not self._count
        written = self.text("") if is_empty else self._advance()
        return written + self._stop()

    def _continue(self, call: _Block, piece: str) -> bytes:
        if call is self._open:
            written = self._write(piece)
            return written + self._advance() if self._waiting else written
        if not call.is_closed:
            call.queued.append(piece)
        # A call that is closed was whole: only white space can follow it.
        return b""

    def _say(
        self, field: bytes, piece: str, opening: dict[str, object], *, signature: str = ""
    ) -> bytes:
        if self._open is not None and self._open.field is field:
            return self._write(piece)
        if not self._waiting or self._waiting[-1].field is not field:
            self._waiting.append(_Block(opening, field, signature=signature))
        self._waiting[-1].queued.append(piece)
        return self._advance()

    def _advance(self) -> bytes:
        """Write what waits, as far as the open block lets go."""
        written = b""
        while self._waiting and (self._open is None or self._is_closed or self._open.is_whole):
            written += self._stop()
            self._open = block = self._waiting.popleft()
            self._before = _DELTA % (self._count, block.field)
            opening = {"index": self._count, "content_block": block.opening}
            written += event("content_block_start", opening) + self._write("".join(block.queued))
            block.queued.clear()
        return written

    def _write(self, piece: str) -> bytes:
        if not piece:
            return b""
        block = self._open
        if block is not None and block.field is _INPUT:
            block.arguments.feed(piece)
        return self._before + orjson.dumps(piece) + _DELTA_ENDS

    def _stop(self) -> bytes:
        block, index = self._open, self._count
        if block is None:
            return b""
        self._open = None
        block.is_closed = True
        self._count += 1
        stop = event("content_block_stop", {"index": index})
        if not block.signature:
            return stop
        delta = {"type": "signature_delta", "signature": block.signature}
        return event("content_block_delta", {"index": index, "delta": delta}) + stop
