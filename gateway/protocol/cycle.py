"""One request and its response."""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.errors import GatewayError


class GatewayCycle(RequestResponseCycle):
    """ASGI's receive and send over one connection.

    Head and first body bytes leave in one write. Returning without the end of the response
    cuts the connection, by intention and without a word: that is how truncation is shown.
    """

    _head: bytes | None = None
    _fault: GatewayError | None = None
    _on_departure: Callable[[], None] | None = None

    def watch_departure(self, on_departure: Callable[[], None]) -> None:
        """Call back if the client leaves before the response is complete; ASGI's own way, a
        task that awaits `receive`, costs as much as the rest of this class."""
        if self.disconnected:
            on_departure()
        self._on_departure = on_departure

    def depart(self) -> None:
        """The connection is lost."""
        if not self.response_complete:
            self.disconnected = True
            self.message_event.set()
            if self._on_departure is not None:
                self._on_departure()

    def end_body(self, fault: GatewayError) -> None:
        """The rest of the body will not come: whoever asks for it hears why."""
        self._fault = fault
        self.keep_alive = False
        self.message_event.set()

    async def run_asgi(self, app: Any) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as fault:
            self.logger.critical("exception in the application", exc_info=fault)
        finally:
            if not self.response_complete and not self.disconnected:
                self.transport.write(self._head or b"")
                self.transport.close()
            self.on_response = _nothing
            self._on_departure = None

    async def receive(self) -> Any:
        """As in ASGI. Raises what `end_body` was given while the body is not complete."""
        if self._fault is None or not self.more_body:
            message = await super().receive()
        if self._fault is not None and self.more_body:
            raise self._fault
        return message

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message)
        else:
            self._write(message["body"], is_last=not message.get("more_body", False))

    def _start(self, message: Any) -> None:
        self.response_started = True
        if self.waiting_for_100_continue:
            # Refused unread: nobody knows whether the body comes all the same (RFC 9110 10.1.1).
            self.waiting_for_100_continue = False
            self.keep_alive = False
        lines = [STATUS_LINE[message["status"]]]
        for name, value in message["headers"]:
            if name == b"content-length":
                self.chunked_encoding = False
            elif name == b"connection":
                self.keep_alive = self.keep_alive and value != b"close"
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if self.chunked_encoding is None and message["status"] != 204:
            if self.scope["http_version"] == "1.0":
                self.keep_alive = False  # HTTP/1.0 has no chunks: the end is the connection's.
            elif self.scope["method"] != "HEAD":
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _write(self, body: bytes, *, is_last: bool) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                body += b"0\r\n\r\n"
        if self._head is not None:
            body = self._head + body
            self._head = None
        if body:
            self.transport.write(body)
        if is_last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


def _nothing() -> None:
    return
