"""An upstream that costs as little as Python allows: vLLM's bytes, prepared before anybody asks."""

import asyncio
import re
from collections.abc import Callable
from typing import Final, cast

from tests.benchmarks import shapes

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# Some proxies write the request's JSON anew, with a space after the colon.
_STREAMED: Final = re.compile(rb'"stream": ?true')
_NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Upstream:
    """A listening upstream on a free port of loopback. `plan` is what the next streams are like."""

    def __init__(self) -> None:
        self.plan = shapes.StreamPlan(tokens=1)
        self.port = 0
        self.plain = shapes.plain_response()
        models = [
            {"id": shapes.MODEL, "object": "model", "max_model_len": shapes.CONTEXT_TOKENS},
        ]
        self.pages = {
            b"GET /health": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"GET /v1/models": shapes.json_response({"object": "list", "data": models}),
        }
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> "Upstream":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.abort()

    def _connect(self) -> "_Connection":
        connection = _Connection(self, on_lost=self._connections.discard)
        self._connections.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One kept-alive connection: a request at a time, as proxies send them."""

    def __init__(self, upstream: Upstream, *, on_lost: Callable[["_Connection"], None]) -> None:
        self._upstream = upstream
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, None)
        self._held = b""
        self._writes: tuple[bytes, ...] = ()
        self._next = 0
        self._due = 0.0
        self._interval_seconds = 0.0
        self._is_paused = False

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._writes = ()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._next < len(self._writes):
            self._due = self._loop.time()
            self._write_next()

    def data_received(self, data: bytes) -> None:
        request = self._held + data if self._held else data
        head_end = request.find(b"\r\n\r\n")
        length = _LENGTH.search(request, 0, head_end + 2) if head_end > 0 else None
        body_bytes = int(length[1]) if length else 0
        if head_end < 0 or len(request) < head_end + 4 + body_bytes:
            self._held = request
            return
        self._held = b""
        self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET "):
            target = b" ".join(request.split(b" ", 2)[:2])
            self._transport.write(self._upstream.pages.get(target, _NOT_FOUND))
        elif _STREAMED.search(request) is None:
            self._transport.write(self._upstream.plain)
        else:
            has_usage = b'"continuous_usage_stats":true' in request
            self._begin_stream(self._upstream.plan, has_usage=has_usage)

    def _begin_stream(self, plan: shapes.StreamPlan, *, has_usage: bool) -> None:
        self._writes = shapes.script(plan.tokens, has_usage=has_usage).writes
        self._interval_seconds = plan.interval_seconds
        self._next = 0
        self._due = self._loop.time()
        self._write_next()

    def _write_next(self) -> None:
        if self._is_paused or self._next >= len(self._writes):
            return
        self._transport.write(self._writes[self._next])
        self._next += 1
        if self._next == len(self._writes):
            return
        if self._interval_seconds:
            self._due += self._interval_seconds
            self._loop.call_at(self._due, self._write_next)
        else:
            self._loop.call_soon(self._write_next)
