"""The outermost layer: opens the Exchange, sees what is sent, records it once."""

import itertools
import os
import re
from collections.abc import Mapping

from gateway.clock import Clock
from gateway.edge.asgi import ASGIApp, Message, Receive, Scope, Send
from gateway.edge.dialects import Dialects
from gateway.edge.origin import Origin
from gateway.exchange import Exchange
from gateway.telemetry.recorder import Recorder

ACCEPTED_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
TRACESTATE_BYTES_MAX = 512


class Observe:
    """Every request gets an id, a start time, a dialect and one record, whatever happens inside."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        recorder: Recorder,
        clock: Clock,
        origin: Origin,
        dialects: Dialects,
    ) -> None:
        self._app = app
        self._recorder = recorder
        self._dialects = dialects
        self._clock = clock
        self._origin = origin
        # Unique across restarts and machines by its random part, within one by the number.
        self._prefix = f"req-{os.urandom(8).hex()}"
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = self._open(scope)
        dialect = scope["gateway.dialect"] = self._dialects.of(scope)
        identity = dialect.identity_headers(exchange.request_id.encode("ascii"))

        async def observed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"].extend(identity)
            exchange.bytes_sent += len(message.get("body", b""))
            await send(message)

        with self._recorder.record(exchange):
            await self._app(scope, receive, observed_send)

    def _open(self, scope: Scope) -> Exchange:
        headers = dict(scope["headers"])
        offered = headers.get(b"x-request-id", b"")
        if offered and ACCEPTED_REQUEST_ID.fullmatch(offered):
            request_id = offered.decode("ascii")
        else:
            request_id = f"{self._prefix}{next(self._numbers):08x}"
        exchange = Exchange(
            request_id=request_id,
            method=scope["method"],
            started_at=self._clock.monotonic(),
            client_address=self._origin.address_of(scope["client"], scope["headers"]),
        )
        if b"traceparent" in headers:
            exchange.trace_headers = _trace_headers(headers)
        scope["gateway.exchange"] = exchange
        return exchange


def _trace_headers(headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The caller's trace as W3C Trace Context defines it; nothing of one that is malformed."""
    parent = headers[b"traceparent"]
    if not TRACEPARENT.fullmatch(parent):
        return []
    state = headers.get(b"tracestate", b"")
    if not state or len(state) > TRACESTATE_BYTES_MAX:
        return [(b"traceparent", parent)]
    return [(b"traceparent", parent), (b"tracestate", state)]
