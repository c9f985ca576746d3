"""A client's connection: what it may send, how much of it, and how long it may take."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import Draining, InvalidRequest, RequestTimeout
from gateway.protocol.cycle import GatewayCycle
from gateway.protocol.peer import has_left
from gateway.protocol.refusal import RequestRefused

HEADER_FIELDS_MAX = 100
HEADER_BYTES_MAX = 32 * 1024
PIPELINED_MAX = 32
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


class _Phase(Enum):
    """What the client is to send next."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


def _nothing(status: int) -> None:
    return


class GatewayProtocol(HttpToolsProtocol):
    """A head has a deadline, a size, a number of fields and exactly one Host; a body has a
    deadline; a reader that stands still is dropped.

    Deadlines are numbers that the server's tick compares: a timer per request costs more.
    `on_refused` hears the status of a request that no application was asked about.
    """

    limits = ServerConfig()
    on_refused: Callable[[int], None] = staticmethod(_nothing)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = _Phase.HEAD
        self._has_begun = False
        self._deadline = NEVER
        self._write_deadline = NEVER
        self._head_bytes = 0
        self._read_bytes = 0
        self._answering: GatewayCycle | None = None
        self._refusal = RequestRefused(400, "The request is not valid HTTP/1.1.")

    # Called by the event loop.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.time() + self.limits.header_timeout_seconds

    def data_received(self, data: bytes) -> None:
        before = self._phase
        self._has_begun = False
        self._read_bytes = len(data)
        if before is not _Phase.BODY:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here, and the parser has lost what came behind the head.
            self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(self._refusal)
            return
        if self._phase is not before or self._has_begun:
            self._enter(self._phase)
        elif before is _Phase.HEAD and self._head_bytes > HEADER_BYTES_MAX:
            self._refuse(_too_large())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn tells the request read last; the one that is answered may be an earlier one.
        if self._answering is not None:
            self._answering.depart()
        self.pipeline.clear()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.time() + self.limits.write_timeout_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_deadline = NEVER

    def shutdown(self) -> None:
        """As uvicorn's, but a body still on its way is not waited for."""
        if self._phase is _Phase.BODY and not self.cycle.response_started:
            self._cycle.end_body(Draining("The gateway is shutting down.", retry_after_seconds=1.0))
        super().shutdown()

    def sweep(self, now: float) -> None:
        """Compare the deadlines with the loop's time, and look after clients nobody listens to."""
        if now >= self._write_deadline or (self._is_deaf() and has_left(self.transport)):
            self.transport.abort()
        elif now >= self._deadline:
            self._end_of_patience(now)

    def _is_deaf(self) -> bool:
        """Reading stands still behind an answer that is not complete."""
        answering = self._answering
        return self.flow.read_paused and answering is not None and not answering.response_complete

    def _enter(self, phase: _Phase) -> None:
        if phase is _Phase.HEAD:
            self._deadline = self.loop.time() + self.limits.header_timeout_seconds
        elif phase is _Phase.BODY:
            self._deadline = self.loop.time() + self.limits.body_timeout_seconds
        else:
            self._deadline = NEVER

    def _end_of_patience(self, now: float) -> None:
        self._deadline = NEVER
        if self._phase is _Phase.HEAD:
            if self._head_bytes:
                self._refuse(
                    RequestRefused(408, "The head took too long (HEADER_TIMEOUT_SECONDS).")
                )
            else:
                self.transport.close()
        elif self.cycle.response_started:
            self.transport.close()  # Answered long ago; the rest of its body never came.
        else:
            self._cycle.end_body(
                RequestTimeout("The body took too long to arrive (BODY_TIMEOUT_SECONDS).")
            )
            self._deadline = now + UNREAD_BODY_SECONDS

    # Called by the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._phase = _Phase.HEAD
        self._has_begun = True

    def on_headers_complete(self) -> None:
        self._check_head()
        self._unset_keepalive_if_required()  # Armed, if the last answer ended during this head.
        self._head_bytes = 0
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
        self.cycle = self._cycle = cycle = GatewayCycle(
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
        scope["gateway.departure"] = cycle.watch_departure  # type: ignore[typeddict-unknown-key]  # ours
        self._phase = _Phase.BODY
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._phase = _Phase.NOTHING

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _check_head(self) -> None:
        """What RFC 9112 demands and llhttp lets pass. Raising makes the parser stop."""
        headers = self.headers
        hosts = [value for name, value in headers if name == b"host"]
        version = self.parser.get_http_version()
        is_long = self._read_bytes > HEADER_BYTES_MAX or self._head_bytes > HEADER_BYTES_MAX
        if version not in ("1.1", "1.0"):
            self._refusal = RequestRefused(505, "Speak HTTP/1.1.")
        elif len(headers) > HEADER_FIELDS_MAX:
            self._refusal = RequestRefused(
                431, f"The head has more than {HEADER_FIELDS_MAX} fields."
            )
        elif is_long and len(self.url) + _size(headers) > HEADER_BYTES_MAX:
            self._refusal = _too_large()
        elif len(self.pipeline) >= PIPELINED_MAX:
            self._refusal = RequestRefused(400, "Too many requests wait on this connection.")
        elif len(hosts) == 1 or (not hosts and version == "1.0"):
            return
        else:
            self._refusal = RequestRefused(400, "The head must have exactly one Host field.")
        raise self._refusal

    def _refuse(self, refusal: RequestRefused) -> None:
        """Answer, but never in the middle of another response nor twice; then close."""
        cycle = self.cycle
        if self._phase is _Phase.BODY and not cycle.response_started and not self.pipeline:
            self._cycle.end_body(InvalidRequest(refusal.message, code="bad_http"))
            return
        if self._phase is not _Phase.BODY and not self.transport.is_closing():
            self.on_refused(refusal.status)
        if self._phase is _Phase.HEAD and (cycle is None or cycle.response_complete):
            self.transport.write(refusal.response())
        self.transport.close()


def _too_large() -> RequestRefused:
    return RequestRefused(431, f"The head is larger than {HEADER_BYTES_MAX} bytes.")


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)
