"""One answer on its way to the client: whole, or as a stream of events."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class Channel(Protocol):
    """The connection as an answer sees it."""

    @property
    def write_paused(self) -> bool:
        """True while the client reads slower than we write."""

    def expect(self, reply: "Reply") -> None:
        """From now on this is the reply under way."""

    def common_headers(self) -> bytes:
        """The date, server and, for the last answer, connection headers."""

    def write(self, data: bytes) -> None:
        """Send; does nothing once the connection is gone."""

    def completed(self) -> None:
        """The answer is whole: keep the connection or close it, as agreed."""

    def close(self) -> None:
        """Send what was written, then FIN."""

    def reset(self, delay_seconds: float) -> None:
        """RST, after a moment in which written bytes may still arrive."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back later; at the next turn of the loop for zero seconds."""


def nothing() -> None:
    """What a reply does on a disconnect nobody cares about."""


class Reply:
    """An answer in progress. `on_disconnect` and `on_resume` belong to whoever produces it."""

    __slots__ = ("channel", "extra_headers", "on_disconnect", "on_resume", "pending")

    def __init__(self, channel: Channel, *, extra_headers: bytes = b"") -> None:
        self.channel = channel
        self.extra_headers = extra_headers
        self.pending = b""
        self.on_disconnect: Callable[[], None] = nothing
        self.on_resume: Callable[[], None] = nothing

    @property
    def paused(self) -> bool:
        """True while nothing more should be produced."""
        return self.channel.write_paused

    def send(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b""
    ) -> None:
        """The whole answer at once."""
        self.put(self.head(status, len(body), content_type, headers) + body)
        self.end()

    def open_stream(self) -> None:
        """Begin an event stream; its head goes out with the first events, or by `flush`."""
        self.pending = b"%b%b%bcontent-type: %b\r\n%b\r\n" % (
            _STATUS_LINES[200],
            self.channel.common_headers(),
            self.extra_headers,
            EVENT_STREAM,
            b"vary: Origin\r\ntransfer-encoding: chunked\r\n",
        )

    def flush(self) -> None:
        """Let the head of a stream go before its first event is known."""
        if self.pending:
            self.put(b"")

    def write_events(self, events: Sequence[bytes]) -> None:
        """Send events, each in a chunk of its own as vLLM's server sends them."""
        self.put(b"".join([b"%x\r\n%b\r\n" % (len(event), event) for event in events]))

    def end_stream(self) -> None:
        """The terminating chunk."""
        self.put(b"0\r\n\r\n")
        self.end()

    def head(
        self, status: int, length: int, content_type: bytes = JSON, headers: bytes = b""
    ) -> bytes:
        """Status line and headers of a whole answer."""
        return b"%b%b%b%bcontent-length: %d\r\n%bvary: Origin\r\n\r\n" % (
            _STATUS_LINES[status],
            self.channel.common_headers(),
            self.extra_headers,
            headers,
            length,
            b"content-type: %b\r\n" % content_type if content_type else b"",
        )

    def put(self, data: bytes) -> None:
        """Bytes onto the wire, after a head that still waits."""
        if self.pending:
            data, self.pending = self.pending + data, b""
        self.channel.write(data)

    def end(self) -> None:
        """Nothing follows; the producer is let go, so that no cycle outlives the answer."""
        self.on_disconnect = self.on_resume = nothing
        self.channel.completed()
