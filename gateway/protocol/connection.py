"""A client's connection: HTTP/1.1 by llhttp, one request answered after another by one task."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import httptools

from gateway.edge.asgi import ASGIApp
from gateway.errors import Draining, InvalidRequest, RequestTimeout
from gateway.protocol.cycle import GatewayCycle
from gateway.protocol.head import check_head, scope_of, too_large
from gateway.protocol.limits import HEADER_BYTES_MAX, UNREAD_BODY_SECONDS, Phase, ServerConfig
from gateway.protocol.peer import has_left
from gateway.protocol.refusal import RequestRefused

NEVER = math.inf
_HEAD, _BODY, _NOTHING = Phase


def _unheard(status: int) -> None:
    return


class GatewayProtocol(asyncio.Protocol):
    """A head has a deadline, a size, a number of fields and exactly one Host; a body has a
    deadline; a reader that stands still is dropped, and so is a connection that is idle.

    Stands in for uvicorn's own protocols, none of which bounds any of this. Deadlines are numbers
    that the server's tick compares, and one task answers all requests of a connection: a timer
    and a task per request cost more than the rest of this class. `on_refused` hears the status
    of a request that no application was asked about.
    """

    limits = ServerConfig()
    on_refused: Callable[[int], None] = staticmethod(_unheard)

    __slots__ = (
        "_app", "_client", "_cycle", "_deadline", "_drained", "_has_begun", "_head_bytes",
        "_headers", "_idle", "_is_lost", "_is_read_paused", "_loop", "_parser", "_phase",
        "_queue", "_read_bytes", "_refusal", "_server_state", "_task", "_url",
        "_write_deadline", "is_write_paused", "transport",
    )  # fmt: skip

    def __init__(self, config: Any, server_state: Any, **_: object) -> None:
        """As uvicorn makes it: its Config, loaded, and its ServerState."""
        self._app: ASGIApp = config.loaded_app
        self._server_state = server_state
        self._loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        # A request behind one that closes the connection is dropped, not an error of the first.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.transport = cast(asyncio.Transport, None)
        self._client: tuple[str, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._is_lost = False
        # Requests that are not over, the one that is answered first; `_cycle` is the last read.
        self._queue: list[GatewayCycle] = []
        self._cycle: GatewayCycle | None = None
        self._is_read_paused = False
        self.is_write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._phase = _HEAD
        self._has_begun = False
        self._deadline = NEVER
        self._write_deadline = NEVER
        self._head_bytes = 0
        self._read_bytes = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._refusal: RequestRefused | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(self)
        peer = transport.get_extra_info("peername")
        self._client = (peer[0], peer[1]) if isinstance(peer, tuple) else None
        self._deadline = self._loop.time() + self.limits.header_timeout_seconds

    def data_received(self, data: bytes) -> None:
        before = self._phase
        self._has_begun = False
        self._read_bytes = len(data)
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here, and the parser has lost what came behind the head.
            self._last_read.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(self._refusal or RequestRefused(400, "The request is not valid HTTP/1.1."))
            return
        if self._phase is not before or self._has_begun:
            self._enter(self._phase)
        elif before is not _NOTHING and self._head_bytes > HEADER_BYTES_MAX:
            # A head without end; or trailers, which bring no body either.
            self._refuse(too_large())
            if not self.transport.is_closing():
                self.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._is_lost = True
        self._parser = None  # It holds this object.
        self.resume_writing()
        if self._queue:
            del self._queue[1:]
            self._queue[0].depart()
        self._wake()
        if exc is None:
            self.transport.close()

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._write_deadline = self._loop.time() + self.limits.write_timeout_seconds

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self._write_deadline = NEVER
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # Called by the server.

    def shutdown(self) -> None:
        """Close as soon as nothing is being answered; a body still on its way is not waited for."""
        cycle = self._cycle
        if cycle is None or cycle.response_complete:
            self.transport.close()
            return
        if self._phase is _BODY and not cycle.response_started:
            cycle.end_body(Draining("The gateway is shutting down.", retry_after_seconds=1.0))
        cycle.keep_alive = False

    def sweep(self, now: float) -> None:
        """Compare the deadlines with the loop's time, and look after clients nobody listens to."""
        if self._write_deadline == NEVER and self.transport.is_closing():
            # It closes when its last bytes are read, and nobody else waits for that.
            self._write_deadline = now + self.limits.write_timeout_seconds
        if now >= self._write_deadline or (self._is_deaf() and has_left(self.transport)):
            self.transport.abort()
        elif now >= self._deadline and not self._is_deaf():
            self._end_of_patience(now)

    # Called by the cycle that is answered.

    async def drain(self) -> None:
        """Return when the client has read enough of what was written."""
        while self.is_write_paused:
            self._drained = self._loop.create_future()
            await self._drained

    def pause_reading(self) -> None:
        if not self._is_read_paused:
            self._is_read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_read_paused:
            self._is_read_paused = False
            self.transport.resume_reading()

    def note_answered(self) -> None:
        """A response is complete."""
        if self.transport.is_closing():
            return
        self.resume_reading()
        if self._phase is _NOTHING or len(self._queue) > 1:
            self._enter(self._phase)  # Nothing was read meanwhile: its time begins now.

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._url = b""
        self._phase = _HEAD
        self._has_begun = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is _HEAD:  # A trailer says nothing here: it would come after it counts.
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        version = parser.get_http_version()
        read_bytes = max(self._read_bytes, self._head_bytes)
        try:
            expects_continue = check_head(
                version, self._url, self._headers, read_bytes=read_bytes, waiting=len(self._queue)
            )
        except RequestRefused as refusal:
            self._refusal = refusal
            raise
        self._head_bytes = 0
        headers, self._headers = self._headers, []
        scope = scope_of(parser.get_method(), self._url, version, headers, self._client)
        keep_alive = version != "1.0" and parser.should_keep_alive()
        cycle = GatewayCycle(scope, self, keep_alive=keep_alive, expects_continue=expects_continue)
        scope["gateway.departure"] = cycle.watch_departure
        scope["gateway.send_now"] = cycle.send_now
        self._phase = _BODY
        if self._queue and not self._last_read.response_complete:
            self.pause_reading()
        self._cycle = cycle
        self._queue.append(cycle)
        if self._task is None:
            self._task = self._loop.create_task(self._serve())
            self._server_state.tasks.add(self._task)
            self._task.add_done_callback(self._server_state.tasks.discard)
        else:
            self._wake()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self._cycle is not None:
            self._cycle.take(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._cycle is not None:
            self._cycle.take_end()
        self._phase = _NOTHING

    async def _serve(self) -> None:
        """Answer one request after another, until the connection is lost."""
        try:
            while not self._is_lost:
                if self._queue:
                    await self._queue[0].run(self._app)
                    self._queue.pop(0)
                    if self.transport.is_closing():
                        self._queue.clear()  # Nobody would hear the answers.
                else:
                    self._idle = self._loop.create_future()
                    await self._idle
        finally:
            self.transport.close()  # Nobody else answers here.
        self._cycle = None  # It holds this object, as this task does.
        self._task = None

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    @property
    def _last_read(self) -> GatewayCycle:
        return cast(GatewayCycle, self._cycle)

    def _is_deaf(self) -> bool:
        """Reading stands still behind an answer that is not complete."""
        return self._is_read_paused and bool(self._queue) and not self._queue[0].response_complete

    def _enter(self, phase: Phase) -> None:
        if phase is _HEAD:
            self._deadline = self._loop.time() + self.limits.header_timeout_seconds
        elif phase is _BODY:
            self._deadline = self._loop.time() + self.limits.body_timeout_seconds
        elif self._last_read.response_complete:
            self._deadline = self._loop.time() + self.limits.keepalive_seconds
        else:
            self._deadline = NEVER

    def _end_of_patience(self, now: float) -> None:
        self._deadline = NEVER
        if self._phase is _NOTHING:
            self.transport.close()
        elif self._phase is _HEAD:
            if self._head_bytes:
                self._refuse(
                    RequestRefused(408, "The head took too long (HEADER_TIMEOUT_SECONDS).")
                )
            else:
                self.transport.close()
        elif self._last_read.response_started:
            self.transport.close()  # Answered long ago; the rest of its body never came.
        else:
            self._last_read.end_body(
                RequestTimeout("The body took too long to arrive (BODY_TIMEOUT_SECONDS).")
            )
            self._deadline = now + UNREAD_BODY_SECONDS

    def _refuse(self, refusal: RequestRefused) -> None:
        """Answer, but never in the middle of another response nor twice; then close."""
        cycle = self._cycle
        is_first = len(self._queue) <= 1
        if self._phase is _BODY and is_first and not self._last_read.response_started:
            self._last_read.end_body(InvalidRequest(refusal.message, code="bad_http"))
            return
        if self._phase is not _BODY and not self.transport.is_closing():
            self.on_refused(refusal.status)
        if self._phase is _HEAD and (cycle is None or cycle.response_complete):
            self.transport.write(refusal.response())
        self.transport.close()
