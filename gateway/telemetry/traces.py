"""Tracing as a port: nothing, and then free, unless an OTLP endpoint is configured."""

from collections.abc import Mapping
from typing import Protocol

from gateway.exchange import Exchange, Outcome

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Span(Protocol):
    """One exchange in a trace; the ids are empty when it is not sampled."""

    @property
    def trace_id(self) -> str: ...
    @property
    def span_id(self) -> str: ...
    def finish(self, exchange: Exchange, outcome: Outcome) -> None: ...


class Tracing(Protocol):
    """Starts a server span for an exchange and puts it into what goes to the upstream."""

    def start(self, exchange: Exchange) -> Span: ...
    def close(self) -> None: ...


class NoTracing:
    """Nothing is traced; a caller's own traceparent passes through untouched."""

    trace_id = ""
    span_id = ""

    def start(self, exchange: Exchange) -> Span:
        return self

    def finish(self, exchange: Exchange, outcome: Outcome) -> None:
        return

    def close(self) -> None:
        return


def open_tracing(otel: Mapping[str, str]) -> Tracing:
    """Tracing as the standard OTEL_* variables say. The SDK is imported only where it is used."""
    has_endpoint = any(otel.get(name) for name in ENDPOINT_VARIABLES)
    is_disabled = otel.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not has_endpoint or is_disabled or otel.get("OTEL_TRACES_EXPORTER") == "none":
        return NoTracing()
    from gateway.telemetry.otlp import OtlpTracing

    protocol = next((otel[name] for name in PROTOCOL_VARIABLES if otel.get(name)), "grpc")
    return OtlpTracing.over(protocol)
