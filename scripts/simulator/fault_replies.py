"""Answers that go wrong on their way: dripped, delayed, cut, hung or lying about their size."""

from collections.abc import Sequence

import orjson

from scripts.simulator.errors import engine_dead
from scripts.simulator.events import DONE
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.messages import MessagesError
from scripts.simulator.reply import JSON, Channel, Reply

# Time for bytes already written to reach the client's application before the RST does.
RESET_DELAY_SECONDS = 0.02
_BACKLOG_BYTES = 65536
_FIRST_PART_BYTES = 24
_NO_OBJECT = (
    "1 validation error for AnthropicContentBlock\ninput\n  Input should be a valid dictionary "
    "[type=dict_type, input_value=511, input_type=int]\n"
    "    For further information visit https://errors.pydantic.dev/2.14/v/dict_type"
)
_INPUT = "{'error': {'message': 'En...am': None, 'code': 500}}"
_FAULT = (
    f"\n  Field required [type=missing, input_value={_INPUT}, input_type=dict]\n"
    "    For further information visit https://errors.pydantic.dev/2.14/v/missing"
)
_DUMP = f"2 validation errors for ChatCompletionStreamResponse\nmodel{_FAULT}\nchoices{_FAULT}"


class FaultyReply(Reply):
    """An answer with a fault in it."""

    __slots__ = ("fault",)

    def __init__(self, channel: Channel, fault: Fault, *, extra_headers: bytes = b"") -> None:
        super().__init__(channel, extra_headers=extra_headers)
        self.fault = fault


class SlowReply(FaultyReply):
    """An answer that leaves in slices, with a pause after each."""

    __slots__ = ("_backlog", "_ended", "_sent", "_ticking")

    def __init__(self, channel: Channel, fault: Fault, *, extra_headers: bytes = b"") -> None:
        super().__init__(channel, fault, extra_headers=extra_headers)
        self._backlog = bytearray()
        self._sent = 0
        self._ended = False
        self._ticking = False

    @property
    def paused(self) -> bool:
        return len(self._backlog) > _BACKLOG_BYTES or self.channel.write_paused

    def slice_bytes(self) -> int:
        """How much goes next: one byte."""
        return 1

    def put(self, data: bytes) -> None:
        self._backlog += self.pending + data
        self.pending = b""
        if not self._ticking and self._backlog:
            self._tick()

    def end(self) -> None:
        self._ended = True
        if not self._backlog:
            super().end()

    def _tick(self) -> None:
        self._ticking = False
        was_paused = self.paused
        size = self.slice_bytes()
        self.channel.write(bytes(self._backlog[:size]))
        del self._backlog[:size]
        self._sent += size
        if self._backlog:
            self._ticking = True
            self.channel.call_later(self.fault.seconds, self._tick)
        elif self._ended:
            super().end()
        if was_paused and not self.paused:
            self.on_resume()


class SlowHeadReply(SlowReply):
    """An answer whose head stops half-way for a while."""

    __slots__ = ()

    def slice_bytes(self) -> int:
        return len(self._backlog) if self._sent else _FIRST_PART_BYTES


class CutReply(FaultyReply):
    """An answer that is struck after some events, or half-way through a whole body."""

    __slots__ = ("_left", "_struck")

    def __init__(self, channel: Channel, fault: Fault, *, extra_headers: bytes = b"") -> None:
        super().__init__(channel, fault, extra_headers=extra_headers)
        self._left = fault.events
        self._struck = False

    @property
    def paused(self) -> bool:
        return self._struck or self.channel.write_paused

    def send(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b""
    ) -> None:
        self.put(self.head(status, len(body), content_type, headers) + body[: len(body) // 2])
        self._strike()

    def write_events(self, events: Sequence[bytes]) -> None:
        if self._struck:
            return
        allowed = events[: self._left]
        self._left -= len(allowed)
        super().write_events(allowed)
        if len(allowed) < len(events):
            self._strike()

    def end_stream(self) -> None:
        if not self._struck:
            self._strike()

    def strike(self) -> None:
        """What happens: by itself nothing, the answer hangs."""

    def _strike(self) -> None:
        self._struck = True
        self.strike()


class ClosedReply(CutReply):
    """Cut by a FIN without [DONE] and without the last chunk."""

    __slots__ = ()

    def strike(self) -> None:
        self.channel.close()


class ResetReply(CutReply):
    """Cut by a RST."""

    __slots__ = ()

    def strike(self) -> None:
        self.channel.reset(RESET_DELAY_SECONDS)


class StreamErrorReply(CutReply):
    """Ended by vLLM's in-band error; a whole answer becomes the plain error instead."""

    __slots__ = ()

    def send(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b""
    ) -> None:
        error = engine_dead()
        Reply.send(self, error.status, error.body())

    def strike(self) -> None:
        # vLLM writes this one event with Python's json, blanks after the separators included.
        error = engine_dead().body().replace(b'":', b'": ').replace(b',"', b', "')
        Reply.write_events(self, [b"data: %b\n\n" % error, DONE])
        self.on_disconnect()
        Reply.end_stream(self)


class MessagesErrorReply(CutReply):
    """The same on /v1/messages, which reads chat's own stream with a schema that has no errors."""

    __slots__ = ()

    def send(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b""
    ) -> None:
        error = engine_dead()
        Reply.send(self, error.status, MessagesError(500, str(error), error.kind).body())

    def strike(self) -> None:
        dumped = {"type": "error", "error": {"type": "internal_error", "message": _DUMP}}
        Reply.write_events(self, [b"event: error\ndata: %b\n\n" % orjson.dumps(dumped)])
        self.on_disconnect()
        Reply.end_stream(self)


class MalformedCallReply(FaultyReply):
    """A whole answer of /v1/messages in which the model wrote a call that vLLM cannot show."""

    __slots__ = ()

    def send(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b""
    ) -> None:
        error = MessagesError(400, _NO_OBJECT)
        super().send(error.status, error.body())


class TruncatedReply(FaultyReply):
    """An answer that promises more bytes than it sends."""

    __slots__ = ()

    def send(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b""
    ) -> None:
        self.put(self.head(status, len(body), content_type, headers) + body[: len(body) // 2])
        self.channel.close()

    def end_stream(self) -> None:
        self.put(b'400\r\ndata: {"id"')
        self.channel.close()


REPLIES: dict[FaultKind, type[FaultyReply]] = {
    FaultKind.DRIP: SlowReply,
    FaultKind.SLOW_HEAD: SlowHeadReply,
    FaultKind.HANG_MID_STREAM: CutReply,
    FaultKind.CLOSE_MID_STREAM: ClosedReply,
    FaultKind.RESET_MID_STREAM: ResetReply,
    FaultKind.STREAM_ERROR: StreamErrorReply,
    FaultKind.TRUNCATE: TruncatedReply,
}
MESSAGES_REPLIES: dict[FaultKind, type[FaultyReply]] = {
    **REPLIES,
    FaultKind.STREAM_ERROR: MessagesErrorReply,
    FaultKind.MALFORMED_CALL: MalformedCallReply,
}
