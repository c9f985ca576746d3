"""An InferenceCall in no dialect, and a Client that remembers what it got.

The wire of a FakeCall: events end with an empty line, `data: token` counts one output token,
`data: error` is a failure inside the stream, `data: [DONE]` the terminator. A whole answer and
a count of tokens are a number in ASCII.
"""

import asyncio
from collections.abc import Container
from dataclasses import dataclass, field

from gateway.errors import (
    ErrorKind,
    GatewayError,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from gateway.exchange import JSON_TYPE, NO_USAGE, Operation, PromptSize, ResponseReader, TokenUsage

TOKEN = b"data: token\n\n"
ERROR = b"data: error\n\n"
DONE = b"data: [DONE]\n\n"


class FakeReader:
    """Passes whole events on; the prompt's ten tokens count from the first event."""

    def __init__(self) -> None:
        self._held = b""
        self.usage = NO_USAGE
        self.saw_content = False
        self.is_complete = False
        self.rescued = b""

    def feed(self, chunk: bytes) -> bytes:
        *events, self._held = (self._held + chunk).split(b"\n\n")
        passed = b""
        for event in events:
            if event == ERROR.strip():
                self.rescued = passed
                raise UpstreamFailed("in the stream")
            passed += event + b"\n\n"
            self._count(event)
        return passed

    def finish(self) -> bytes:
        if not self.is_complete:
            raise UpstreamTruncated("no terminator")
        return b""

    def _count(self, event: bytes) -> None:
        if event == TOKEN.strip():
            self.saw_content = True
            self.usage = TokenUsage(10, self.usage.output_tokens + 1)
        self.is_complete = self.is_complete or event == DONE.strip()


@dataclass(frozen=True, slots=True)
class FakeCall:
    """A call of ten prompt tokens whose body says what it was encoded with; once it is forgotten,
    that can be asked no more."""

    model: str = "m"
    is_stream: bool = True
    is_metered: bool = True
    choices: int = 1
    output_limit: int | None = 100
    prompt: PromptSize = field(default_factory=lambda: PromptSize(estimate=10, ceiling=10))
    can_be_counted: bool = True
    operation: Operation = Operation.CHAT
    forgotten: list[bool] = field(default_factory=list)

    def as_served_by(self, operations: Container[Operation]) -> "FakeCall":
        return self

    content_type: bytes = JSON_TYPE

    def encode(self, *, model: str, output_limit: int | None) -> bytes:
        assert not self.forgotten
        return f"{model} {output_limit}".encode()

    def forget(self) -> None:
        self.forgotten.append(True)

    def tokenize_bodies(self, *, model: str) -> tuple[bytes, ...]:
        return (b"count " + model.encode(),) if self.can_be_counted else ()

    def new_reader(self, shown_model: str = "") -> ResponseReader:
        return FakeReader()

    def read_rejection(
        self, status: int, body: bytes, *, retry_after_seconds: float | None
    ) -> GatewayError:
        if status == 503:
            return UpstreamUnavailable("503", retry_after_seconds=retry_after_seconds)
        if status >= 500:
            return UpstreamFailed(str(status))
        if status == 401:
            return UpstreamMisconfigured("401")
        return UpstreamRejected(
            body.decode(),
            status=status,
            kind=ErrorKind.INVALID_REQUEST,
            retry_after_seconds=retry_after_seconds,
        )

    def read_token_count(self, body: bytes) -> int:
        return _number(body)

    def mend_answer(self, body: bytes, shown_model: str = "") -> tuple[TokenUsage, bytes]:
        return TokenUsage(10, _number(body)), body


class RecordingClient:
    """A Client that keeps every call made to it; `hold` makes it a reader that stands still."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answered: bytes | None = None
        self.is_finished = False
        self.hold: asyncio.Event | None = None

    @property
    def received(self) -> bytes:
        return b"".join(self.sent)

    async def answer(self, *, content_type: bytes, body: bytes) -> None:
        self.answered = body
        self.is_finished = True

    async def send(self, chunk: bytes) -> None:
        self.sent.append(chunk)
        if self.hold is not None:
            await self.hold.wait()

    def send_now(self, chunk: bytes) -> bool:
        if self.hold is not None or not self.sent:
            return False
        self.sent.append(chunk)
        return True

    async def finish(self, last: bytes) -> None:
        self.sent.append(last)
        self.is_finished = True


def _number(body: bytes) -> int:
    if not body.isdigit():
        raise UpstreamFailed("not a number")
    return int(body)
