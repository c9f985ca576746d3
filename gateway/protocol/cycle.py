"""One request and its response."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol

from gateway.edge.asgi import ASGIApp, Message, Scope
from gateway.errors import GatewayError

_LOGGER: Final = logging.getLogger("uvicorn.error")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HELD_BYTES_MAX: Final = 64 * 1024
_CLOSE: Final = (b"connection", b"close")
_CHUNKED: Final = (b"transfer-encoding", b"chunked")
_LINE: Final = b": ".join
_BODILESS: Final = frozenset({204, 304})
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    """The first line of an answer; a status without a name of its own has an empty one."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Line(Protocol):
    """What a cycle needs of its connection."""

    @property
    def transport(self) -> Any: ...
    @property
    def is_write_paused(self) -> bool: ...
    async def drain(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def note_answered(self) -> None: ...


class GatewayCycle:
    """ASGI's receive and send over one connection.

    Head and first body bytes leave in one write; a message that starts a response may bring its
    whole `body`, which spares ASGI's second one. Returning without the end of the response cuts
    the connection, by intention and without a word: that is how truncation is shown.
    """

    __slots__ = (
        "_expects_continue",
        "_fault",
        "_has_news",
        "_head",
        "_held_bytes",
        "_is_chunked",
        "_line",
        "_more_body",
        "_on_departure",
        "_parts",
        "_waiter",
        "disconnected",
        "keep_alive",
        "response_complete",
        "response_started",
        "scope",
    )

    def __init__(
        self, scope: Scope, line: Line, *, keep_alive: bool, expects_continue: bool
    ) -> None:
        self.scope = scope
        self._line = line
        self.keep_alive = keep_alive
        self._expects_continue = expects_continue
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._more_body = True
        self._has_news = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_chunked = False
        self._head: bytes | None = None
        self._fault: GatewayError | None = None
        self._on_departure: Callable[[], None] | None = None

    # What the connection tells.

    def take(self, part: bytes) -> None:
        """A piece of the body has come; nobody wants it once the answer is complete."""
        if self.response_complete:
            return
        self._parts.append(part)
        self._held_bytes += len(part)
        if self._held_bytes > _HELD_BYTES_MAX:
            self._line.pause_reading()
        self._notify()

    def take_end(self) -> None:
        """The body is complete."""
        if not self.response_complete:
            self._more_body = False
            self._notify()

    def depart(self) -> None:
        """The connection is lost."""
        if not self.response_complete:
            self.disconnected = True
            self._notify()
            if self._on_departure is not None:
                self._on_departure()

    def end_body(self, fault: GatewayError) -> None:
        """The rest of the body will not come: whoever asks for it hears why."""
        self._fault = fault
        self.keep_alive = False
        self._notify()

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as fault:
            _LOGGER.critical("exception in the application", exc_info=fault)
        finally:
            self._on_departure = None
            # The scope holds a method of ours and we hold the scope: a circle per request, which
            # only the garbage collector would find.
            self.scope = {}
            if not self.response_complete and not self.disconnected:
                self._line.transport.write(self._head or b"")
                self._line.transport.close()

    # What the application calls.

    def watch_departure(self, on_departure: Callable[[], None]) -> None:
        """Call back if the client leaves before the response is complete; ASGI's own way, a
        task that awaits `receive`, costs as much as the rest of this class."""
        if self.disconnected:
            on_departure()
        self._on_departure = on_departure

    async def receive(self) -> Message:
        """As in ASGI. Raises what `end_body` was given while the body is not complete."""
        if self._fault is None or not self._more_body:
            await self._hear()
        if self._fault is not None and self._more_body:
            raise self._fault
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        parts, self._parts, self._held_bytes = self._parts, [], 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    async def _hear(self) -> None:
        """Return when there is something to tell."""
        if self.disconnected or self.response_complete:
            return
        if self._expects_continue and not self._line.transport.is_closing():
            self._expects_continue = False
            self._line.transport.write(_CONTINUE)
        self._line.resume_reading()
        if not self._has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._has_news = False

    def _notify(self) -> None:
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def send(self, message: Message) -> None:
        """As in ASGI; after the client has left it does nothing."""
        if self._line.is_write_paused and not self.disconnected:
            await self._line.drain()
        if self.disconnected:
            return
        if self.response_started:
            self._write(message["body"], is_last=not message.get("more_body", False))
            return
        self._start(message)
        whole = message.get("body")
        if whole is not None:
            self._write(whole, is_last=True)

    def send_now(self, part: bytes) -> bool:
        """Send a piece of a response that has begun, not an empty one; False: it must wait."""
        line = self._line
        if self._head is not None or not self._is_chunked or line.is_write_paused:
            return False
        if not self.disconnected:
            line.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        return True

    def _start(self, message: Message) -> None:
        self.response_started = True
        if self._expects_continue:
            # Refused unread: nobody knows whether the body comes all the same (RFC 9110 10.1.1).
            self._expects_continue = False
            self.keep_alive = False
        status, headers = message["status"], message["headers"]
        if status >= 400 and _CLOSE in headers:
            self.keep_alive = False
            headers = [header for header in headers if header != _CLOSE]
        has_length = "body" in message or any(name == b"content-length" for name, _ in headers)
        if not has_length and status not in _BODILESS:
            if self.scope["http_version"] == "1.0":
                self.keep_alive = False  # HTTP/1.0 has no chunks: the end is the connection's.
            elif self.scope["method"] != "HEAD":
                self._is_chunked = True
                headers = [*headers, _CHUNKED]
        if not self.keep_alive:
            headers = [*headers, _CLOSE]
        lines = b"\r\n".join([*map(_LINE, headers), b"\r\n"])
        self._head = status_line(status) + lines

    def _write(self, body: bytes, *, is_last: bool) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        elif self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                body += b"0\r\n\r\n"
        if self._head is not None:
            body = self._head + body
            self._head = None
        if body:
            self._line.transport.write(body)
        if is_last:
            self.response_complete = True
            self._notify()
            if not self.keep_alive:
                self._line.transport.close()
            self._line.note_answered()
