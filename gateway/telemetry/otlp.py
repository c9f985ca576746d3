"""Spans by OpenTelemetry's SDK, sent over OTLP; it reads the standard OTEL_* variables itself."""

import threading
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import gateway
from gateway.exchange import Exchange, Outcome

CLOSE_SECONDS = 1.0
FAILED = frozenset({Outcome.ERROR, Outcome.TRUNCATED})


class OtlpTracing:
    """One server span per exchange.

    A caller is not trusted to choose our sampling: its trace is linked, not adopted. The
    upstream gets our span as its parent, so that vLLM's own spans join.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("gateway", gateway.__version__)
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def over(cls, protocol: str) -> Self:
        """`protocol` is `grpc` or `http/protobuf`, as in OTEL_EXPORTER_OTLP_PROTOCOL."""
        resource = Resource.create().merge(Resource({"service.version": gateway.__version__}))
        if resource.attributes.get(SERVICE_NAME) in (None, "unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "vllm-gateway"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_exporter(protocol)))
        return cls(provider)

    def start(self, exchange: Exchange) -> "OtlpSpan":
        incoming = {
            name.decode(): value.decode("latin-1") for name, value in exchange.trace_headers
        }
        context = self._propagator.extract(incoming)
        caller = trace.get_current_span(context).get_span_context()
        links = [trace.Link(caller)] if caller.is_valid else []
        span = self._tracer.start_span(
            exchange.method, context=Context(), kind=trace.SpanKind.SERVER, links=links
        )
        outgoing: dict[str, str] = {}
        self._propagator.inject(outgoing, trace.set_span_in_context(span))
        exchange.trace_headers = [(k.encode(), v.encode()) for k, v in outgoing.items()]
        return OtlpSpan(span)

    def close(self) -> None:
        """Send what is queued, if the collector takes it at once: nobody waits for a dead one."""
        sender = threading.Thread(target=self._provider.shutdown, name="otlp-close", daemon=True)
        sender.start()
        sender.join(CLOSE_SECONDS)


class OtlpSpan:
    """The span of one exchange. No content, no key: names, numbers and the outcome."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        is_sampled = context.trace_flags.sampled
        self.trace_id = trace.format_trace_id(context.trace_id) if is_sampled else ""
        self.span_id = trace.format_span_id(context.span_id) if is_sampled else ""

    def finish(self, exchange: Exchange, outcome: Outcome) -> None:
        span = self._span
        if span.is_recording():
            span.update_name(f"{exchange.method} {exchange.route}")
            span.set_attributes(_attributes(exchange, outcome))
            if outcome in FAILED:
                span.set_status(trace.StatusCode.ERROR, exchange.error_code)
        span.end()


def _attributes(exchange: Exchange, outcome: Outcome) -> dict[str, str | int | float | bool]:
    """OpenTelemetry's HTTP and GenAI names; ours start with `gateway.`."""
    attributes: dict[str, str | int | float | bool] = {
        "http.request.method": exchange.method,
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "gateway.request_id": exchange.request_id,
        "gateway.outcome": outcome.value,
    }
    if exchange.error_code is not None:
        attributes["error.type"] = exchange.error_code
    if exchange.upstream:
        attributes |= {
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": exchange.model,
            "gen_ai.request.stream": exchange.is_stream,
            "gen_ai.usage.input_tokens": exchange.usage.input_tokens,
            "gen_ai.usage.output_tokens": exchange.usage.output_tokens,
            "gateway.upstream": exchange.upstream,
        }
    if exchange.first_token_at is not None:
        ttft_seconds = exchange.first_token_at - exchange.started_at
        attributes["gen_ai.response.time_to_first_chunk"] = ttft_seconds
    return attributes


def _exporter(protocol: str) -> SpanExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HttpExporter,
    )

    return HttpExporter()
