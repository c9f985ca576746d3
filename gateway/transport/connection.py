"""One HTTP/1.1 connection to an upstream: a protocol that carries one exchange at a time.

RFC 9112 framing by httptools' parser. What is read is handed on at once where somebody takes it;
what nobody has taken is bounded by pausing the socket. Deadlines are plain numbers that a sweeper
compares (see `client.py`): a timer per request would cost more than the comparison.
"""

import asyncio
import math
from collections.abc import Callable
from enum import Enum
from typing import NoReturn, cast

import httptools

from gateway.errors import (
    AnswerTooLarge,
    GatewayError,
    UpstreamFailed,
    UpstreamHungUp,
    UpstreamTimeout,
    UpstreamTruncated,
)
from gateway.transport.config import TransportConfig
from gateway.transport.head import HEADERS_MAX, OVERSIZED, fault_in, is_oversized

BUFFERED_BYTES_MAX = 64 * 1024
AFTER_THE_END_SECONDS = 1.0
NEVER = math.inf


Take = Callable[[bytes], bool]


class StaleConnection(Exception):
    """A kept-alive connection ended before any byte of the answer: safe to ask once more."""


class _Phase(Enum):
    IDLE = "idle"
    HEAD = "waiting for the first byte"
    BODY = "in the middle of the answer"
    COMPLETE = "complete"
    CLOSED = "closed"


# Looking a member up in its Enum costs 0.1 us, eight times per read.
_IDLE, _HEAD, _BODY, _COMPLETE, _CLOSED = _Phase


class UpstreamConnection(asyncio.Protocol):
    """Sends one request, parses one answer, and may then be used again."""

    __slots__ = (
        "_answer_deadline", "_buffered_bytes", "_chunks", "_config", "_ends_at_eof", "_error",
        "_framing_bytes", "_has_body", "_is_paused", "_is_stream", "_is_write_paused", "_loop",
        "_may_be_kept", "_on_closed", "_on_end", "_parser", "_phase", "_take", "_transport",
        "_waiter", "_was_stopped", "deadline", "exchanges", "headers", "status",
    )  # fmt: skip

    def __init__(
        self,
        config: TransportConfig,
        *,
        loop: asyncio.AbstractEventLoop,
        on_closed: Callable[["UpstreamConnection"], None],
    ) -> None:
        self._config = config
        self._loop = loop
        self._on_closed = on_closed
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpResponseParser(self)
        self._phase = _IDLE
        self._waiter: asyncio.Future[None] | None = None
        self._error: GatewayError | StaleConnection | None = None
        self._is_paused = False
        self._is_write_paused = False
        self._is_stream = False
        self.exchanges = 0
        self.deadline = NEVER
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._framing_bytes = 0
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._has_body = False
        self._on_end: Callable[[UpstreamConnection], None] | None = None
        self._take: Take | None = None
        self._was_stopped = False
        self._ends_at_eof = False
        self._may_be_kept = False
        self._answer_deadline = NEVER

    # What the client of this connection calls.

    @property
    def is_closed(self) -> bool:
        return self._phase is _CLOSED

    @property
    def is_reusable(self) -> bool:
        return self._phase is _IDLE and not self._transport.is_closing()

    async def exchange(self, request: bytes, body: bytes, *, is_stream: bool) -> None:
        """Send a request and wait for the head of its answer.

        Raises StaleConnection if a used connection ended before the first byte, else
        UpstreamFailed or UpstreamTimeout. Cancellation cuts the connection, which is how
        vLLM learns that nobody wants the answer.
        """
        if self._phase is not _IDLE:
            raise self._error or self._lost_before_the_answer()
        self._reset()
        self.exchanges += 1
        self._phase = _HEAD
        now = self._loop.time()
        self._is_stream = is_stream
        self.deadline = now + self._patience[0]
        self._answer_deadline = now + self._config.answer_timeout_seconds
        if len(body) < BUFFERED_BYTES_MAX:
            self._transport.write(request + body)
        else:
            self._transport.writelines((request, body))
        try:
            while self._phase is _HEAD:
                await self._wait()
        except BaseException:
            self.abort()
            raise

    def take_headers(self) -> dict[bytes, bytes]:
        """The answer's headers; they are not kept for as long as its body lasts."""
        headers, self.headers = self.headers, {}
        return headers

    async def deliver(self, take: Take) -> bool:
        """See UpstreamAnswer."""
        while True:
            if self._chunks:
                if not take(self._gathered()):
                    return True
            elif self._phase is _COMPLETE:
                return False
            else:
                self._take = take
                try:
                    await self._wait()
                finally:
                    self._take = None
                if self._was_stopped:
                    self._was_stopped = False
                    return True

    async def read(self, *, limit_bytes: int) -> bytes:
        """See UpstreamAnswer."""
        if self._phase is _COMPLETE and self._chunks and self._buffered_bytes <= limit_bytes:
            return self._gathered()
        parts: list[bytes] = []
        size = 0

        def take(part: bytes) -> bool:
            nonlocal size
            parts.append(part)
            size += len(part)
            return size <= limit_bytes

        if await self.deliver(take):
            self.abort()
            raise AnswerTooLarge(
                f"The answer is larger than {limit_bytes} bytes (MAX_ANSWER_BYTES); ask for "
                "less at a time."
            )
        return b"".join(parts)

    def take_unread(self) -> bytes:
        """See UpstreamAnswer."""
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)

    def see_out(self, on_end: Callable[["UpstreamConnection"], None]) -> None:
        """Read the rest of the answer and drop it; `on_end` gets the connection if that ends
        soon, else it is cut."""
        self._on_end = on_end
        self._answer_deadline = NEVER
        self.deadline = self._loop.time() + AFTER_THE_END_SECONDS
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        self._drop()

    def _drop(self) -> None:
        self._chunks = []
        self._buffered_bytes = 0
        if self._phase is _COMPLETE and self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(self)

    def release(self) -> bool:
        """End the exchange. True if the connection may carry another one."""
        if self._phase is _COMPLETE and self._may_be_kept and not self._transport.is_closing():
            self._phase = _IDLE
            self._chunks = []
            self.deadline = self._loop.time() + self._config.keepalive_seconds
            return True
        self.abort()
        return False

    def abort(self) -> None:
        """Cut the connection at once, with whatever is under way on it."""
        if self._phase is not _CLOSED:
            self._phase = _CLOSED
            self._error = self._error or UpstreamFailed("The call to the upstream was given up.")
            self.deadline = NEVER
            self._transport.abort()
            self._wake()

    def expire(self, now: float) -> None:
        """The sweeper found a deadline passed."""
        if self._phase is _IDLE:
            self.abort()
        elif now >= self.deadline or now >= self._answer_deadline:
            self._fail(UpstreamTimeout(self._timeout_message(now)))

    @property
    def next_deadline(self) -> float:
        """The loop time at which `expire` has something to do."""
        return min(self.deadline, self._answer_deadline)

    @property
    def _patience(self) -> tuple[float, str]:
        """Seconds until the first byte, and the variable that says so."""
        if self._is_stream:
            return self._config.first_byte_timeout_seconds, "FIRST_BYTE_TIMEOUT_SECONDS"
        return self._config.unstreamed_timeout_seconds, "UNSTREAMED_TIMEOUT_SECONDS"

    def _timeout_message(self, now: float) -> str:
        if now >= self._answer_deadline:
            limit, name = self._config.answer_timeout_seconds, "ANSWER_TIMEOUT_SECONDS"
        elif not self._has_body:
            limit, name = self._patience
        else:
            limit, name = self._config.idle_timeout_seconds, "IDLE_TIMEOUT_SECONDS"
        where = _BODY if self._has_body else _HEAD
        return f"The upstream was given up after {limit:g} s {where.value} ({name})."

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        # What was read before the end is told of before it, be it here or with the taker.
        if self._error is not None and not self._chunks and not self._was_stopped:
            raise self._error

    def _gathered(self) -> bytes:
        """What has been read and not been taken; there is some."""
        chunks = self._chunks
        self._chunks = []
        self._buffered_bytes = 0
        if self._is_paused:
            self._resume()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _push(self, take: Take) -> None:
        """Hand on what was read, past the task that waits; that is woken when it must stop."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return  # It was woken or cancelled in this very tick, and looks after the rest itself.
        try:
            if take(self._gathered()):
                return
        except Exception as fault:
            waiter.set_exception(fault)
        else:
            self._was_stopped = True
            waiter.set_result(None)
        self._take = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: GatewayError | StaleConnection) -> None:
        self._error = self._error or error
        self.abort()

    def _pause(self) -> None:
        self._is_paused = True
        self.deadline = NEVER  # A slow client's silence is not the upstream's.
        self._transport.pause_reading()

    def _resume(self) -> None:
        self._is_paused = False
        if self._phase is _BODY:
            self.deadline = self._loop.time() + self._config.idle_timeout_seconds
        if self._phase is not _CLOSED:
            self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._phase is not _HEAD and self._phase is not _BODY:
            self._note_surplus()
            return
        buffered_bytes = self._buffered_bytes
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._may_be_kept = False
            if self._phase is not _COMPLETE:
                self._fail(UpstreamFailed("The upstream's answer is not valid HTTP."))
                return
        if self._buffered_bytes > buffered_bytes:
            self._framing_bytes = 0
        elif self._framing_bytes > self._config.max_head_bytes and self._phase is not _COMPLETE:
            self._fail(UpstreamFailed(OVERSIZED))
            return
        # vLLM sends a stream's head before it has generated anything: the head ends no patience.
        if self._on_end is not None:
            self._drop()
        elif self._phase is _BODY and self._has_body and not self._is_paused:
            self.deadline = self._loop.time() + self._config.idle_timeout_seconds
            if self._take is not None and self._chunks:
                self._push(self._take)
            if self._buffered_bytes > BUFFERED_BYTES_MAX:
                self._pause()
        if self._phase is not _HEAD and (self._take is None or self._phase is not _BODY):
            self._wake()

    def eof_received(self) -> None:
        # Not left to `connection_lost`, which waits until all of the request is sent.
        if self._phase is _BODY and self._ends_at_eof:
            self._complete()
            self._wake()
            if self._on_end is not None:
                self._drop()
        elif self._phase is _HEAD:
            self._fail(self._lost_before_the_answer())
        elif self._phase is _BODY:
            self._fail(_truncated())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._phase is _HEAD:
            self._error = self._error or self._lost_before_the_answer()
        elif self._phase is _BODY:
            self._error = self._error or _truncated()
        if self._phase is not _COMPLETE:
            self._phase = _CLOSED
        self._wake()
        self._on_closed(self)

    def _note_surplus(self) -> None:
        """Bytes nobody asked for: whatever they are, the next answer would be wrong."""
        self._may_be_kept = False
        if self._phase is _IDLE:
            self.abort()

    def _lost_before_the_answer(self) -> GatewayError | StaleConnection:
        if self.exchanges > 1 and self._framing_bytes == 0:
            return StaleConnection()
        return UpstreamHungUp("The upstream closed the connection before it answered.")

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False

    # What the parser calls. An exception from here ends the parse.

    def on_message_begin(self) -> None:
        if self._phase is _COMPLETE:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is _BODY:
            return  # A trailer: nothing in one is for us.
        name = name.lower()
        first = self.headers.setdefault(name, value)
        if first is not value:
            # Repeated fields are one list (RFC 9110, 5.3): no hiding behind a second one.
            self.headers[name] = first + b", " + value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers = self.headers
        if len(headers) > HEADERS_MAX:
            self._refuse("The upstream's answer has too many headers.")
        if status < 200:
            if status < 100 or status == 101:
                self._refuse(f"The upstream answered with the unexpected status {status}.")
            # 100-continue and 103 early hints are not the answer (RFC 9110, 15.2).
            headers.clear()
            return
        if self._framing_bytes > self._config.max_head_bytes and is_oversized(
            headers, max_bytes=self._config.max_head_bytes
        ):
            self._refuse(OVERSIZED)
        if (fault := fault_in(headers)) is not None:
            self._refuse(fault)
        self.status = status
        self._may_be_kept = self._parser.should_keep_alive()
        self._ends_at_eof = b"content-length" not in headers and b"transfer-encoding" not in headers
        self._phase = _BODY

    def on_body(self, body: bytes) -> None:
        self._has_body = True
        self._chunks.append(body)
        self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._phase is _BODY:
            self._complete()

    def _complete(self) -> None:
        self._phase = _COMPLETE
        self.deadline = self._answer_deadline = NEVER
        # An answer that came before the request was fully sent leaves its rest in the way.
        if self._is_write_paused or self._transport.get_write_buffer_size():
            self._may_be_kept = False

    def _refuse(self, why: str) -> NoReturn:
        self._error = UpstreamFailed(why)
        raise ValueError(why)


def _truncated() -> UpstreamTruncated:
    return UpstreamTruncated("The upstream closed the connection in the middle of its answer.")
