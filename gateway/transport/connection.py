"""One HTTP/1.1 connection to an upstream: a protocol that carries one exchange at a time.

RFC 9112 framing by httptools' parser. The reader pulls; what it has not taken is bounded by
pausing the socket. Deadlines are plain numbers that a sweeper compares (see `client.py`):
a timer per request would cost more than the comparison.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import cast

import httptools

from gateway.errors import GatewayError, UpstreamFailed, UpstreamTimeout, UpstreamTruncated

BUFFERED_BYTES_MAX = 64 * 1024
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class TransportConfig:
    """Time and size limits of the upstream side; seconds and bytes.

    An answer that is not streamed begins when all of it is generated: until its first byte
    `unstreamed_timeout_seconds` count. `keepalive_seconds` stays below the 5 s after which vLLM closes an idle connection.
    """

    connect_timeout_seconds: float = 2.0
    first_byte_timeout_seconds: float = 120.0
    unstreamed_timeout_seconds: float = 600.0
    idle_timeout_seconds: float = 300.0
    answer_timeout_seconds: float = 3600.0
    keepalive_seconds: float = 3.0
    max_head_bytes: int = 64 * 1024
    max_idle_connections: int = 512


class StaleConnection(Exception):
    """A kept-alive connection ended before any byte of the answer: safe to ask once more."""


class _Phase(Enum):
    IDLE = "idle"
    HEAD = "waiting for the first byte"
    BODY = "in the middle of the answer"
    COMPLETE = "complete"
    CLOSED = "closed"


class UpstreamConnection(asyncio.Protocol):
    """Sends one request, parses one answer, and may then be used again."""

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
        self._phase = _Phase.IDLE
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
        self.headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._ends_at_eof = False
        self._may_be_kept = False
        self._answer_deadline = NEVER

    # What the client of this connection calls.

    @property
    def is_closed(self) -> bool:
        return self._phase is _Phase.CLOSED

    @property
    def is_reusable(self) -> bool:
        return self._phase is _Phase.IDLE and not self._transport.is_closing()

    async def exchange(self, request: bytes, body: bytes, *, is_stream: bool) -> None:
        """Send a request and wait for the head of its answer.

        Raises StaleConnection if a used connection ended before the first byte, else
        UpstreamFailed or UpstreamTimeout. Cancellation cuts the connection, which is how
        vLLM learns that nobody wants the answer.
        """
        self._reset()
        self.exchanges += 1
        self._phase = _Phase.HEAD
        now = self._loop.time()
        self._is_stream = is_stream
        self.deadline = now + self._patience[0]
        self._answer_deadline = now + self._config.answer_timeout_seconds
        if len(body) < BUFFERED_BYTES_MAX:
            self._transport.write(request + body)
        else:
            self._transport.writelines((request, body))
        try:
            while self._phase is _Phase.HEAD:
                await self._wait()
        except BaseException:
            self.abort()
            raise

    async def read_chunk(self) -> bytes:
        """See UpstreamAnswer."""
        while not self._chunks:
            if self._phase is _Phase.COMPLETE:
                return b""
            await self._wait()
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered_bytes = 0
        if self._is_paused:
            self._resume()
        return data

    async def read(self, *, limit_bytes: int) -> bytes:
        """See UpstreamAnswer."""
        if self._phase is _Phase.COMPLETE and self._buffered_bytes <= limit_bytes:
            return await self.read_chunk()
        parts = []
        size = 0
        while chunk := await self.read_chunk():
            parts.append(chunk)
            size += len(chunk)
            if size > limit_bytes:
                self.abort()
                raise UpstreamFailed(f"The upstream's answer is larger than {limit_bytes} bytes.")
        return b"".join(parts)

    def release(self) -> bool:
        """End the exchange. True if the connection may carry another one."""
        if self._phase is _Phase.COMPLETE and self._may_be_kept and not self._transport.is_closing():
            self._phase = _Phase.IDLE
            self._chunks = []
            self.deadline = self._loop.time() + self._config.keepalive_seconds
            return True
        self.abort()
        return False

    def abort(self) -> None:
        """Cut the connection at once, with whatever is under way on it."""
        if self._phase is not _Phase.CLOSED:
            self._phase = _Phase.CLOSED
            self._error = self._error or UpstreamFailed("The call to the upstream was given up.")
            self.deadline = NEVER
            self._transport.abort()
            self._wake()

    def expire(self, now: float) -> None:
        """The sweeper found a deadline passed."""
        if self._phase is _Phase.IDLE:
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
        elif self._phase is _Phase.HEAD:
            limit, name = self._patience
        else:
            limit, name = self._config.idle_timeout_seconds, "IDLE_TIMEOUT_SECONDS"
        return f"The upstream was given up after {limit:g} s {self._phase.value} ({name})."

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if self._error is not None and not self._chunks:
            raise self._error

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
        if self._phase is _Phase.BODY:
            self.deadline = self._loop.time() + self._config.idle_timeout_seconds
            self._transport.resume_reading()
        elif self._phase is _Phase.COMPLETE:
            self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.IDLE or self._phase is _Phase.COMPLETE:
            # Bytes nobody asked for: whatever they are, the next answer would be wrong.
            self._may_be_kept = False
            if self._phase is _Phase.IDLE:
                self.abort()
            return
        if self._phase is _Phase.HEAD:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._phase is not _Phase.COMPLETE:
                self._fail(UpstreamFailed("The upstream's answer is not valid HTTP."))
                return
        if self._phase is _Phase.HEAD and self._head_bytes > self._config.max_head_bytes:
            self._fail(UpstreamFailed("The upstream's answer has an oversized head."))
            return
        if self._phase is _Phase.BODY and not self._is_paused:
            self.deadline = self._loop.time() + self._config.idle_timeout_seconds
            if self._buffered_bytes > BUFFERED_BYTES_MAX:
                self._pause()
        if self._phase is not _Phase.HEAD:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._phase is _Phase.BODY and self._ends_at_eof and exc is None:
            self._phase = _Phase.COMPLETE
            self._may_be_kept = False
            self.deadline = self._answer_deadline = NEVER
        elif self._phase is _Phase.HEAD:
            self._error = self._error or self._lost_before_the_answer()
        elif self._phase is _Phase.BODY:
            self._error = self._error or UpstreamTruncated(
                "The upstream closed the connection in the middle of its answer."
            )
        if self._phase is not _Phase.COMPLETE:
            self._phase = _Phase.CLOSED
        self._wake()
        self._on_closed(self)

    def _lost_before_the_answer(self) -> GatewayError | StaleConnection:
        if self.exchanges > 1 and self._head_bytes == 0:
            return StaleConnection()
        return UpstreamFailed("The upstream closed the connection before it answered.")

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._phase is _Phase.COMPLETE:
            self._may_be_kept = False
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))
        if len(self.headers) > 256:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            # 100-continue and 103 early hints are not the answer (RFC 9110, 15.2).
            self.headers.clear()
            return
        names = {name for name, _ in self.headers}
        self.status = status
        self._may_be_kept = self._parser.should_keep_alive()
        self._ends_at_eof = b"content-length" not in names and b"transfer-encoding" not in names
        self._phase = _Phase.BODY

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._phase is not _Phase.BODY:
            return
        self._phase = _Phase.COMPLETE
        self.deadline = self._answer_deadline = NEVER
        # An answer that came before the request was fully sent leaves its rest in the way.
        self._may_be_kept = self._may_be_kept and not self._is_write_paused
