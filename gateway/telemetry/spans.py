"""The spans of a finished exchange, in OTLP's own words. No content, no key: names and numbers.

They are written as protobuf messages at once: through the SDK's span objects and their encoder
the two spans of a request cost 120 us, more than the request itself; so they cost 25.
"""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.resources import SERVICE_NAME
from opentelemetry.sdk.resources import Resource as DetectedResource

import gateway
from gateway.errors import GatewayError
from gateway.exchange import STAND_INS, Exchange, Operation, Outcome

Value = str | int | float | bool
FAILED = frozenset({Outcome.ERROR, Outcome.TRUNCATED})
# OpenTelemetry's words; ours where it has none. A path not listed is its own last part.
OPERATIONS = {
    Operation.CHAT.value: "chat",
    Operation.RESPONSES.value: "chat",
    Operation.MESSAGES.value: "chat",
    Operation.COMPLETIONS.value: "text_completion",
    Operation.EMBEDDINGS.value: "embeddings",
}
# Where the answer to a route may have come from besides the same path; all else only counted.
ELSEWHERE = {asked.value: served.value for asked, served in STAND_INS.items()}
DEFAULT_PORTS = {"http": 80, "https": 443}
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
FIELDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
NO_ROUTE = "other"
UNNAMED = "unknown_service"  # What the SDK says where nobody has, with the program's name.
CANCELLED = "cancelled"
# Of `flags`: we know whether the parent is remote, and it is.
KNOWN_REMOTE, IS_REMOTE = 0x100, 0x200


class Caller(NamedTuple):
    """The span of whoever asked us, in its own trace."""

    trace_id: int
    span_id: int
    state: bytes


class Spans(Protocol):
    """The spans of a batch, to which one is added in place: copying it would cost as much."""

    def add(self) -> Span: ...


class UpstreamCall:
    """One call to an upstream; times are `Clock.monotonic` seconds."""

    __slots__ = (
        "began_at",
        "ended_at",
        "error",
        "output_limit",
        "path",
        "span_id",
        "upstream",
        "url",
    )

    def __init__(
        self,
        span_id: int,
        upstream: str,
        url: str,
        path: str,
        output_limit: int | None,
        began_at: float,
    ) -> None:
        self.span_id = span_id
        self.upstream = upstream
        self.url = url
        self.path = path
        self.output_limit = output_limit
        self.began_at = began_at
        self.ended_at = began_at
        self.error = ""

    def end(self, error: BaseException | None, at: float) -> None:
        self.ended_at = at
        self.error = _error_type(error)


def _error_type(error: BaseException | None) -> str:
    """A word of a closed set."""
    if error is None:
        return ""
    if isinstance(error, GatewayError):
        return error.fault.value if error.fault else error.code or str(error.status)
    return CANCELLED if isinstance(error, asyncio.CancelledError) else type(error).__qualname__


class FinishedTrace(NamedTuple):
    """All that is known of an exchange when it has ended; nothing in it changes any more."""

    exchange: Exchange
    outcome: Outcome
    ended_at: float
    began_ns: int
    trace_id: int
    span_id: int
    flags: int
    state: bytes
    parent: Caller | None
    link: Caller | None
    calls: tuple[UpstreamCall, ...]

    @property
    def size(self) -> int:
        """How many spans it makes."""
        return 1 + len(self.calls)

    def add_to(self, spans: Spans) -> None:
        self._add_server_span(spans)
        for call in self.calls:
            self._add_client_span(spans, call)

    def _add_server_span(self, spans: Spans) -> None:
        exchange = self.exchange
        span = self._add_span(spans, self.span_id, self.began_ns, self._ns(self.ended_at))
        span.MergeFromString(
            _server_template(exchange.method, exchange.route, exchange.status, self.outcome)
        )
        facts: dict[str, Value | None] = {
            "error.type": exchange.error_code,
            "gateway.request_id": exchange.request_id,
            "gateway.key_id": exchange.principal.key_id if exchange.principal else None,
            "gateway.limit": exchange.limit,
            "gateway.queue_seconds": exchange.queue_seconds or None,
        }
        _add(span.attributes, facts)
        if self.parent is not None:
            span.parent_span_id = self.parent.span_id.to_bytes(8, "big")
            span.flags |= IS_REMOTE
        if self.link is not None:
            span.links.add(
                trace_id=self.link.trace_id.to_bytes(16, "big"),
                span_id=self.link.span_id.to_bytes(8, "big"),
                trace_state=self.link.state.decode("latin-1"),
                flags=KNOWN_REMOTE | IS_REMOTE,
            )
        for call, following in zip(self.calls, self.calls[1:], strict=False):
            if call.error and self._is_answer(following) == self._is_answer(call):
                event = span.events.add(name="failover", time_unix_nano=self._ns(call.ended_at))
                _add(
                    event.attributes,
                    {"gateway.upstream": call.upstream, "error.type": call.error},
                )
        if self.outcome in FAILED:
            span.status.code = Status.STATUS_CODE_ERROR
            span.status.message = exchange.error_code or ""

    def _add_client_span(self, spans: Spans, call: UpstreamCall) -> None:
        exchange = self.exchange
        error = call.error
        if error == CANCELLED:
            # Who ended it is known outside: the client, the end of the process.
            error = exchange.error_code or CANCELLED
        began_ns, ended_ns = self._ns(call.began_at), self._ns(call.ended_at)
        span = self._add_span(spans, call.span_id, began_ns, ended_ns)
        span.MergeFromString(_client_template(call.path, exchange.model, call.url))
        span.parent_span_id = self.span_id.to_bytes(8, "big")
        facts: dict[str, Value | None] = {
            "gen_ai.request.max_tokens": call.output_limit,
            "error.type": error or None,
        }
        if call is self.calls[-1] and self._is_answer(call):
            facts |= self._answer(call)
            if exchange.first_token_at is not None:
                span.events.add(
                    name="first_token", time_unix_nano=self._ns(exchange.first_token_at)
                )
        _add(span.attributes, facts)
        if error and call.error != CANCELLED:
            span.status.code = Status.STATUS_CODE_ERROR
            span.status.message = error

    def _is_answer(self, call: UpstreamCall) -> bool:
        """Whether the call was for the answer itself, and not for a count before it."""
        route = self.exchange.route
        return call.path in (route, ELSEWHERE.get(route))

    def _answer(self, call: UpstreamCall) -> dict[str, Value | None]:
        """What only the call that was answered has."""
        exchange = self.exchange
        usage = exchange.usage
        facts: dict[str, Value | None] = {
            "gen_ai.request.stream": exchange.is_stream,
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gateway.usage_estimated": True if usage.is_estimated else None,
        }
        if exchange.first_token_at is not None:
            seconds = exchange.first_token_at - call.began_at
            facts["gen_ai.response.time_to_first_chunk"] = seconds
        return facts

    def _add_span(self, spans: Spans, span_id: int, began_ns: int, ended_ns: int) -> Span:
        span = spans.add()
        span.trace_id = self.trace_id.to_bytes(16, "big")
        span.span_id = span_id.to_bytes(8, "big")
        span.flags = self.flags | KNOWN_REMOTE
        span.start_time_unix_nano = began_ns
        span.end_time_unix_nano = ended_ns
        if self.state:
            span.trace_state = self.state.decode("latin-1")
        return span

    def _ns(self, at: float) -> int:
        """A monotonic time on the wall clock of this trace."""
        return self.began_ns + max(0, int((at - self.exchange.started_at) * 1e9))


class Attributes(Protocol):
    """The attributes of a span, an event or a resource."""

    def add(self) -> KeyValue: ...


def _add(attributes: Attributes, values: Mapping[str, Value | None]) -> None:
    """What is None is not known, and absent."""
    for key, value in values.items():
        if value is None:
            continue
        pair = attributes.add()
        pair.key = key
        setattr(pair.value, FIELDS[type(value)], value)


# What most spans have in common is written once, and then merged as bytes: a third of the price.


@lru_cache(maxsize=1024)
def _server_template(method: str, route: str, status: int, outcome: Outcome) -> bytes:
    has_route = route != NO_ROUTE
    is_known = method in METHODS
    verb = method if is_known else "HTTP"
    span = Span(name=f"{verb} {route}" if has_route else verb, kind=Span.SPAN_KIND_SERVER)
    facts: dict[str, Value | None] = {
        "http.request.method": method if is_known else "_OTHER",
        "http.route": route if has_route else None,
        "http.response.status_code": status or None,
        "url.scheme": "http",
        "gateway.outcome": outcome.value,
    }
    _add(span.attributes, facts)
    return bytes(span.SerializeToString())


@lru_cache(maxsize=1024)
def _client_template(path: str, model: str, url: str) -> bytes:
    operation = OPERATIONS.get(path) or path.rpartition("/")[2]
    address = urlsplit(url)
    span = Span(name=f"{operation} {model}", kind=Span.SPAN_KIND_CLIENT)
    facts: dict[str, Value | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": model,
        "server.address": address.hostname,
        "server.port": address.port or DEFAULT_PORTS.get(address.scheme),
    }
    _add(span.attributes, facts)
    return bytes(span.SerializeToString())


def describe_resource() -> Resource:
    """Who sends the spans, with OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES."""
    detected = dict(DetectedResource.create().attributes)
    if str(detected.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
        detected[SERVICE_NAME] = "vllm-gateway"
    detected.setdefault("service.version", gateway.__version__)
    resource = Resource()
    _add(resource.attributes, {key: str(value) for key, value in detected.items()})
    return resource
