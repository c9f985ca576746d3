"""Tracing as a port: nothing, and then free, unless an OTLP endpoint is configured."""

from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.exchange import Exchange, NoTrace, Outcome, Trace
from gateway.telemetry.logs import Log

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

Trusts = Callable[[str], bool]


class TracingUnusable(Exception):
    """The way to the collector cannot be made ready; the message says why and what to do."""


class Span(Trace, Protocol):
    """One exchange in a trace; the ids are empty when it is not sampled."""

    @property
    def trace_id(self) -> str: ...
    @property
    def span_id(self) -> str: ...
    def finish(self, exchange: Exchange, outcome: Outcome, ended_at: float) -> None: ...


class Tracing(Protocol):
    """Starts a server span for an exchange and puts it into what goes to the upstream."""

    @property
    def dropped_spans(self) -> int:
        """Spans that no collector took: too many at once, or it could not be reached."""
        ...

    def start(self, exchange: Exchange) -> Span: ...
    def close(self) -> None: ...


class NoSpan(NoTrace):
    """What is not recorded: one for all of them."""

    __slots__ = ()
    trace_id = ""
    span_id = ""

    def finish(self, exchange: Exchange, outcome: Outcome, ended_at: float) -> None:
        return


NO_SPAN = NoSpan()


class NoTracing:
    """Nothing is traced; a caller's own traceparent passes through untouched."""

    dropped_spans = 0

    def start(self, exchange: Exchange) -> Span:
        return NO_SPAN

    def close(self) -> None:
        return


def open_tracing(otel: Mapping[str, str], *, trusts: Trusts, log: Log) -> Tracing:
    """Tracing as the standard OTEL_* variables say. OTLP's libraries are imported only where
    they are used. `trusts` says of a client's address whether its traces are continued.

    Raises TracingUnusable.
    """
    has_endpoint = any(otel.get(name, "").strip() for name in ENDPOINT_VARIABLES)
    is_disabled = otel.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not has_endpoint or is_disabled or otel.get("OTEL_TRACES_EXPORTER") == "none":
        return NoTracing()
    from gateway.telemetry.otlp import OtlpTracing

    try:
        return OtlpTracing.of(otel, trusts=trusts, log=log)
    except (OSError, ValueError) as cause:
        raise TracingUnusable(
            f"OTEL_EXPORTER_OTLP_*: {cause}. Correct it, or set OTEL_SDK_DISABLED=true."
        ) from cause
