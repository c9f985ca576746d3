"""The endpoint of every inference call: body, parse, dispatch, and the client that is answered."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gateway.clock import Clock
from gateway.dispatch import Dispatcher
from gateway.edge.asgi import Receive, Scope, Send, dialect_of, exchange_of, header, respond
from gateway.edge.body import COUNTED_FROM_BYTES, BodyMemory, read_json_body
from gateway.edge.interruption import Interruption
from gateway.edge.lifecycle import Lifecycle
from gateway.edge.limits import LimitHeaders
from gateway.errors import ClientDisconnected
from gateway.exchange import Exchange, InferenceCall, Operation
from gateway.wire.dialect import Dialect

STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """`max_body_bytes` None means no bound. `session_header`, in lower case, names a session."""

    max_body_bytes: int | None = 32 * 1024 * 1024
    session_header: bytes | None = None


class AsgiClient:
    """dispatch's Client over ASGI."""

    __slots__ = ("_dialect", "_exchange", "_has_begun", "_limit_headers", "_send", "_send_now")

    def __init__(
        self,
        send: Send,
        exchange: Exchange,
        dialect: Dialect,
        limit_headers: LimitHeaders,
        *,
        send_now: Callable[[bytes], bool],
    ) -> None:
        self._send = send
        self._send_now = send_now
        self._exchange = exchange
        self._dialect = dialect
        self._limit_headers = limit_headers
        self._has_begun = False

    async def answer(self, *, content_type: bytes, body: bytes) -> None:
        headers = self._limit_headers(self._exchange, self._dialect)
        await respond(self._send, status=200, body=body, content_type=content_type, headers=headers)

    async def send(self, chunk: bytes) -> None:
        if not self._has_begun:
            await self._begin()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    def send_now(self, chunk: bytes) -> bool:
        if not self._has_begun or not self._send_now(chunk):
            return False
        self._exchange.bytes_sent += len(chunk)
        return True

    async def finish(self, last: bytes) -> None:
        if not self._has_begun:
            await self._begin()
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def _begin(self) -> None:
        self._has_begun = True
        limits = self._limit_headers(self._exchange, self._dialect)
        headers = [*STREAM_HEADERS, *limits]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})


class InferenceEndpoint:
    """One operation's endpoint, behind authentication and limits."""

    def __init__(
        self,
        operation: Operation,
        *,
        dispatch: Dispatcher,
        lifecycle: Lifecycle,
        limit_headers: LimitHeaders,
        memory: BodyMemory,
        clock: Clock,
        config: InferenceConfig,
    ) -> None:
        self._operation = operation
        self._dispatch = dispatch
        self._lifecycle = lifecycle
        self._limit_headers = limit_headers
        self._memory = memory
        self._clock = clock
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._lifecycle.admit()
        exchange, dialect = exchange_of(scope), dialect_of(scope)
        limit_bytes = self._config.max_body_bytes
        began_at = self._clock.monotonic()
        body = await read_json_body(scope, receive, limit_bytes=limit_bytes, memory=self._memory)
        exchange.upload_seconds = self._clock.monotonic() - began_at
        call, size = dialect.parse(self._operation, body), len(body)
        del body  # The call has all of it, for as long as another upstream may need it again.
        if size < COUNTED_FROM_BYTES:
            await self.answer(call, scope, send)
            return
        with self._memory.holding(size):
            await self.answer(call, scope, send)

    async def answer(self, call: InferenceCall, scope: Scope, send: Send) -> None:
        """Dispatch a call that was read, be it here or by who reads other bodies than JSON."""
        exchange = exchange_of(scope)
        if self._config.session_header is not None:
            exchange.session = header(scope, self._config.session_header)
        scope["headers"] = ()  # Nobody reads them any more, and the answer may last for minutes.
        client = AsgiClient(
            send,
            exchange,
            dialect_of(scope),
            self._limit_headers,
            send_now=scope["gateway.send_now"],
        )
        with Interruption() as interruption:
            self._lifecycle.enter(interruption)
            # Without this the GPU writes to nobody: sending to a client that left is no error.
            scope["gateway.departure"](partial(_leave, interruption))
            try:
                await self._dispatch(call, exchange, client)
            finally:
                self._lifecycle.leave(interruption)


def _leave(interruption: Interruption) -> None:
    interruption.interrupt(ClientDisconnected("The client left before the answer ended."))
