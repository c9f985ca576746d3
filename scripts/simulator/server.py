"""HTTP/1.1 on a raw socket: httptools reads requests, replies leave in their order."""

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol, cast

import httptools

from scripts.simulator.reply import Reply

WRITE_BUFFER_BYTES = 65536
_PIPELINE_LIMIT = 16
_BODY_LIMIT_BYTES = 64 * 2**20
_LINGER_NOTHING = struct.pack("ii", 1, 0)
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\ncontent-length: 30\r\n\r\nInvalid HTTP request received."
)


class Request:
    """One request as received; header names are lower case."""

    __slots__ = ("body", "keep_alive", "method_bytes", "raw_headers", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: dict[bytes, bytes],
        body: bytes,
        keep_alive: bool,
    ) -> None:
        self.method_bytes = method
        self.target = target
        self.raw_headers = headers
        self.body = body
        self.keep_alive = keep_alive

    @property
    def method(self) -> str:
        return self.method_bytes.decode()

    @property
    def path_bytes(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def path(self) -> str:
        return self.path_bytes.decode("latin-1")

    @property
    def headers(self) -> dict[str, str]:
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self.raw_headers.items()
        }

    def with_body(self, body: bytes) -> "Request":
        """The same request, another body."""
        return Request(self.method_bytes, self.target, self.raw_headers, body, self.keep_alive)

    def json(self) -> Any:
        """The body parsed, for a test to look into."""
        return json.loads(self.body)


class Handler(Protocol):
    """Whoever answers requests."""

    def handle(self, request: Request, connection: "Connection") -> None:
        """Begin the answer, and tell the connection to expect it; it may be complete already."""


class Server:
    """What all connections share: the open ones, the date header, the idle sweep."""

    def __init__(
        self, *, handler: Handler, loop: asyncio.AbstractEventLoop, keep_alive_seconds: float
    ) -> None:
        self.handler = handler
        self.loop = loop
        self.connections: set[Connection] = set()
        self.common_headers = b""
        self._keep_alive_seconds = keep_alive_seconds
        self._timer: asyncio.TimerHandle | None = None

    def connection(self) -> "Connection":
        """The protocol factory."""
        return Connection(self)

    def start(self) -> None:
        """Begin to keep time."""
        self._tick()

    def stop(self) -> None:
        """Drop every connection and keep time no longer."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()

    def _tick(self) -> None:
        date = formatdate(usegmt=True).encode()
        self.common_headers = b"date: %b\r\nserver: uvicorn\r\n" % date
        oldest = self.loop.time() - self._keep_alive_seconds
        for connection in list(self.connections):
            connection.close_if_idle_since(oldest)
        period = min(0.5, max(0.01, self._keep_alive_seconds / 20))
        self._timer = self.loop.call_later(period, self._tick)


class Connection(asyncio.Protocol):
    """One client connection: requests in, replies out, one at a time and in order."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._pipeline: deque[Request] = deque()
        self._reply: Reply | None = None
        self._answering = False
        self._reading_paused = False
        self._keep_alive = True
        self._idle_since: float | None = None
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self.write_paused = False

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports fulfil the interface without inheriting from it.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.connections.discard(self)
        self._pipeline.clear()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.on_disconnect()

    def data_received(self, data: bytes) -> None:
        self._idle_since = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.write(_BAD_REQUEST)
            self.close()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._reply is not None:
            self._reply.on_resume()
        self._answer_pipeline()

    # httptools' side

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = {}
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > _BODY_LIMIT_BYTES:
            self.close()
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        keep_alive = parser.should_keep_alive()
        request = Request(parser.get_method(), self._target, self._headers, body, keep_alive)
        self._pipeline.append(request)
        self._answer_pipeline()
        if len(self._pipeline) >= _PIPELINE_LIMIT and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _answer_pipeline(self) -> None:
        # A reply may be complete before handle() returns: the loop goes on, not the stack.
        if self._answering:
            return
        self._answering = True
        while self._pipeline and self._is_free():
            request = self._pipeline.popleft()
            self._keep_alive = request.keep_alive
            self._server.handler.handle(request, self)
        self._answering = False
        if self._reading_paused and not self._pipeline and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def _is_free(self) -> bool:
        """True when the next reply may begin: the last is done, and is being read."""
        if self._transport is None or self._transport.is_closing():
            return False
        return self._reply is None and not self.write_paused

    # the replies' side

    def expect(self, reply: Reply) -> None:
        """The reply under way; asked of every reply before its first byte."""
        self._reply = reply

    def common_headers(self) -> bytes:
        if self._keep_alive:
            return self._server.common_headers
        return self._server.common_headers + b"connection: close\r\n"

    def write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def completed(self) -> None:
        self._reply = None
        if self._transport is None:
            return
        if not self._keep_alive:
            self.close()
            return
        self._idle_since = None if self._pipeline else self._server.loop.time()
        self._answer_pipeline()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self, delay_seconds: float) -> None:
        self.call_later(delay_seconds, self._reset_now)

    def abort(self) -> None:
        """Drop the connection and what it has not sent."""
        if self._transport is not None:
            self._transport.abort()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        if seconds > 0:
            self._server.loop.call_later(seconds, callback)
        else:
            self._server.loop.call_soon(callback)

    def close_if_idle_since(self, oldest: float) -> None:
        """Close if the last answer ended before `oldest` and nothing came since."""
        if self._idle_since is not None and self._idle_since <= oldest:
            self.close()

    def _reset_now(self) -> None:
        if self._transport is None:
            return
        peer = self._transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
        self._transport.abort()
