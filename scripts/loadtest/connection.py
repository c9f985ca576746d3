"""One kept-alive HTTP/1.1 connection that carries one exchange at a time.

Reads are stamped as the event loop delivers them, before anything is parsed, and not with the
event loop's own time: uvloop keeps that in whole milliseconds.
"""

import asyncio
from time import monotonic
from typing import Final, Protocol, cast

import httptools

from scripts.loadtest.answers import Answer, ErrorAnswer, StreamedAnswer, WholeAnswer
from scripts.loadtest.exchange import Exchange
from scripts.loadtest.failure import FailureKind

_EVENT_STREAM: Final = b"text/event-stream"


class Owner(Protocol):
    """Whoever lends connections out."""

    def ended(self, connection: "Connection", exchange: Exchange) -> None:
        """The exchange is over; the connection may be closed by now."""

    def went_stale(self, exchange: Exchange) -> None:
        """A kept-alive connection was closed before any byte of the answer: ask elsewhere."""


class Connection(asyncio.Protocol):
    """Sends a request, reads its answer, and tells its owner."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._answer = cast(Answer, None)
        self._parts: list[bytes] = []
        self._asked = 0
        self._forget()

    def _forget(self) -> None:
        self._has_bytes = False
        self._has_head = False
        self._is_complete = False
        self._ends_at_eof = True
        self._may_be_kept = False
        self._content_type = b""

    @property
    def is_usable(self) -> bool:
        return self._exchange is None and not self._transport.is_closing()

    def ask(self, exchange: Exchange) -> None:
        """Send the request now."""
        self._forget()
        self._asked += 1
        self._exchange = exchange
        exchange.sent_at = monotonic()
        self._transport.write(exchange.request)

    def abort(self) -> None:
        """Cut the connection; what is under way on it gets no other end."""
        self._exchange = None
        self._transport.abort()

    def give_up(self, exchange: Exchange) -> None:
        """Cut the connection if it carries this exchange."""
        if self._exchange is exchange:
            self.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        exchange = self._exchange
        if exchange is None:
            self._transport.abort()  # Bytes nobody asked for: the next answer would be wrong.
            return
        self._has_bytes = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            exchange.fail(FailureKind.PROTOCOL, f"not HTTP: {error}"[:200])
            self._end(exchange, now, may_be_kept=False)
            return
        if self._parts:
            parts, self._parts = self._parts, []
            self._answer.feed(parts[0] if len(parts) == 1 else b"".join(parts), now)
        if self._is_complete:
            self._answer.end()
            self._end(exchange, now, may_be_kept=self._may_be_kept)

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if self._has_head and self._ends_at_eof and exc is None:
            self._answer.end()
        elif not self._has_bytes and self._asked > 1:
            self._exchange = None
            self._owner.went_stale(exchange)
            return
        elif self._has_head:
            exchange.fail(FailureKind.TRUNCATED, "the connection ended in the middle of the answer")
        else:
            exchange.fail(FailureKind.CLOSED, "the connection ended before the answer began")
        self._end(exchange, monotonic(), may_be_kept=False)

    def _end(self, exchange: Exchange, now: float, *, may_be_kept: bool) -> None:
        self._exchange = None
        exchange.ended_at = now
        if not may_be_kept:
            self._transport.abort()
        self._owner.ended(self, exchange)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered in (b"content-length", b"transfer-encoding"):
            self._ends_at_eof = False
        elif lowered == b"content-type":
            self._content_type = value.lower()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        exchange = self._exchange
        if status < 200 or exchange is None:
            return  # An interim answer is not the answer (RFC 9110, 15.2).
        self._has_head = True
        self._may_be_kept = self._parser.should_keep_alive()
        if status != 200:
            self._answer = ErrorAnswer(exchange, status)
        elif not exchange.is_stream:
            self._answer = WholeAnswer(exchange)
        else:
            if not self._content_type.startswith(_EVENT_STREAM):
                exchange.fail(FailureKind.PROTOCOL, "a stream was asked for, and none came")
            self._answer = StreamedAnswer(exchange)

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._is_complete = self._has_head
