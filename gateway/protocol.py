"""The client side's HTTP/1.1 connection: uvicorn's, with what neither it nor llhttp bounds."""

import asyncio
import json
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway.errors import RequestTimeout

HEADER_FIELDS_MAX = 100
HEADER_BYTES_MAX = 32 * 1024
UNREAD_BODY_SECONDS = 5.0
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where to listen, what a client may take in seconds, and how long a shutdown waits."""

    host: str = "127.0.0.1"
    port: int = 8080
    header_timeout_seconds: float = 10.0
    body_timeout_seconds: float = 30.0
    write_timeout_seconds: float = 60.0
    keepalive_seconds: int = 75
    drain_seconds: float = 30.0


class _Refused(Exception):
    """A request head that is not to be served."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Phase(Enum):
    """What the client is to send next."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


class GatewayCycle(RequestResponseCycle):
    """One request and its response.

    Head and first body bytes leave in one write. Returning without the end of the response
    cuts the connection, by intention and without a word: that is how truncation is shown.
    """

    is_late = False
    _head: bytes | None = None

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

    async def receive(self) -> Any:
        """As in ASGI. Raises RequestTimeout when the body's deadline has passed."""
        if not self.is_late:
            message = await super().receive()
        if self.is_late and self.more_body:
            raise RequestTimeout("The body took too long to arrive (BODY_TIMEOUT_SECONDS).")
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
        self.waiting_for_100_continue = False
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


class GatewayProtocol(HttpToolsProtocol):
    """A head has a deadline, a size, a number of fields and exactly one Host; a body has a
    deadline; a reader that stands still is dropped.

    Deadlines are numbers that the server's tick compares: a timer per request costs more.
    """

    limits = ServerConfig()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = _Phase.HEAD
        self._deadline = NEVER
        self._write_deadline = NEVER
        self._head_bytes = 0
        self._read_bytes = 0
        self._refusal = _Refused(400, "The request is not valid HTTP/1.1.")

    # Called by the event loop.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.time() + self.limits.header_timeout_seconds

    def data_received(self, data: bytes) -> None:
        before = self._phase
        self._read_bytes = len(data)
        if before is _Phase.HEAD:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._phase is not before:
            self._enter(self._phase)
        elif before is _Phase.HEAD and self._head_bytes > HEADER_BYTES_MAX:
            self._refuse(_Refused(431, f"The head is larger than {HEADER_BYTES_MAX} bytes."))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.time() + self.limits.write_timeout_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_deadline = NEVER

    def sweep(self, now: float) -> None:
        """Compare the deadlines with the loop's time."""
        if now >= self._write_deadline:
            self.transport.abort()
        elif now >= self._deadline:
            self._end_of_patience(now)

    def _enter(self, phase: _Phase) -> None:
        if phase is _Phase.HEAD:
            self._head_bytes = self._read_bytes
            self._deadline = self.loop.time() + self.limits.header_timeout_seconds
        elif phase is _Phase.BODY:
            self._deadline = self.loop.time() + self.limits.body_timeout_seconds
        else:
            self._deadline = NEVER

    def _end_of_patience(self, now: float) -> None:
        self._deadline = NEVER
        if self._phase is _Phase.HEAD:
            if self._head_bytes:
                self._refuse(_Refused(408, "The head took too long (HEADER_TIMEOUT_SECONDS)."))
            else:
                self.transport.close()
        elif self.cycle.response_started:
            self.transport.close()  # Answered long ago; the rest of its body never came.
        else:
            self.cycle.is_late = True  # type: ignore[attr-defined]  # always a GatewayCycle
            self.cycle.message_event.set()
            self._deadline = now + UNREAD_BODY_SECONDS

    # Called by the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _Phase.HEAD

    def on_headers_complete(self) -> None:
        self._check_head()
        self._phase = _Phase.BODY
        parser = self.parser
        version = parser.get_http_version()
        scope = self.scope
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        url = httptools.parse_url(self.url)
        scope["raw_path"] = url.path
        path = url.path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["query_string"] = url.query or b""
        before = self.cycle
        self.cycle = cycle = GatewayCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._phase = _Phase.NOTHING

    def _check_head(self) -> None:
        """What RFC 9112 demands and llhttp lets pass. Raising makes the parser stop."""
        headers = self.headers
        hosts = [value for name, value in headers if name == b"host"]
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refusal = _Refused(505, "Speak HTTP/1.1.")
        elif len(headers) > HEADER_FIELDS_MAX:
            self._refusal = _Refused(431, f"The head has more than {HEADER_FIELDS_MAX} fields.")
        elif self._read_bytes > HEADER_BYTES_MAX and _size(headers) > HEADER_BYTES_MAX:
            self._refusal = _Refused(431, f"The head is larger than {HEADER_BYTES_MAX} bytes.")
        elif len(hosts) == 1 or (not hosts and version == "1.0"):
            return
        else:
            self._refusal = _Refused(400, "The head must have exactly one Host field.")
        raise self._refusal

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this for what its parser or our checks refuse."""
        self._refuse(self._refusal)

    def _refuse(self, refusal: _Refused) -> None:
        """Answer in OpenAI's envelope and close; never in the middle of another response."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_refusal_response(refusal))
        self.transport.close()


def _refusal_response(refusal: _Refused) -> bytes:
    error = {
        "message": refusal.message,
        "type": "invalid_request_error",
        "param": None,
        "code": "bad_http",
    }
    body = json.dumps({"error": error}).encode()
    return (
        b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
        % (
            STATUS_LINE[refusal.status],
            len(body),
            body,
        )
    )


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _nothing() -> None:
    return
