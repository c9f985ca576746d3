"""The one place where an exchange is recorded: a log line, metrics and a span."""

import logging
from types import TracebackType

from gateway.clock import Clock
from gateway.exchange import Exchange, Outcome
from gateway.telemetry.logs import Logging, timestamp
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tallies import Exemplar
from gateway.telemetry.traces import NO_SPAN, Span, Tracing

QUIET_ROUTES = frozenset({"/health", "/ready", "/readyz", "/metrics", "/version"})
LEVELS = {Outcome.ERROR: logging.WARNING, Outcome.TRUNCATED: logging.WARNING}
LEVEL_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


class Recorder:
    """Records each exchange once, on leaving the block `record` opens."""

    def __init__(
        self, *, logging: Logging, metrics: Metrics, tracing: Tracing, clock: Clock
    ) -> None:
        self._logging = logging
        self._metrics = metrics
        self._tracing = tracing
        self._clock = clock

    def record(self, exchange: Exchange) -> "Recording":
        span = self._tracing.start(exchange)
        exchange.trace = span
        return Recording(self, exchange, span)

    def begin(self) -> None:
        self._metrics.in_flight += 1

    def finish(self, exchange: Exchange, span: Span) -> None:
        """The facts are complete: count, trace, log."""
        self._metrics.in_flight -= 1
        now = self._clock.monotonic()
        seconds = now - exchange.started_at
        outcome = exchange.outcome or _outcome_of(exchange.status)
        level = LEVELS.get(outcome, logging.INFO)
        if exchange.route in QUIET_ROUTES:
            # Asked every few seconds for ever: nobody looks for these.
            level, span = logging.DEBUG, NO_SPAN
        self._metrics.count(exchange, outcome, seconds, self._exemplar(span))
        span.finish(exchange, outcome, now)
        if self._logging.is_enabled_for(level):
            self._logging.write(_line(exchange, outcome, seconds, level, span))

    def _exemplar(self, span: Span) -> Exemplar | None:
        """Only a sampled trace can be looked at."""
        if not span.trace_id:
            return None
        return Exemplar(span.trace_id, self._clock.now().timestamp())


class Recording:
    """One exchange under observation."""

    __slots__ = ("_exchange", "_recorder", "_span")

    def __init__(self, recorder: Recorder, exchange: Exchange, span: Span) -> None:
        self._recorder = recorder
        self._exchange = exchange
        self._span = span

    def __enter__(self) -> None:
        self._recorder.begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._exchange.outcome is None:
            self._exchange.outcome = Outcome.ERROR
        self._recorder.finish(self._exchange, self._span)


def _outcome_of(status: int) -> Outcome:
    if status < 400:
        return Outcome.OK
    return Outcome.CLIENT_ERROR if status < 500 else Outcome.ERROR


def _line(
    exchange: Exchange, outcome: Outcome, seconds: float, level: int, span: Span
) -> dict[str, object]:
    """The canonical line: closed sets, numbers and ids; no prompt, no key, no header."""
    fields: dict[str, object] = {
        "timestamp": timestamp(),
        "level": LEVEL_NAMES[level],
        "event": "request",
        "request_id": exchange.request_id,
        "method": exchange.method,
        "route": exchange.route,
        "status": exchange.status,
        "outcome": outcome.word,
        "duration_seconds": round(seconds, 6),
        "client": exchange.client_address,
    }
    if exchange.principal is not None:
        fields["key_id"] = exchange.principal.key_id
    if exchange.upstream:
        _add_call(fields, exchange)
    if exchange.error_code is not None:
        fields["error"] = exchange.error_code
    if exchange.limit is not None:
        fields["limit"] = exchange.limit
    if span.trace_id:
        fields["trace_id"] = span.trace_id
        fields["span_id"] = span.span_id
    return fields


def _add_call(fields: dict[str, object], exchange: Exchange) -> None:
    """What is known of a call that went to an upstream; no second dict, this is the hot path."""
    usage = exchange.usage
    fields["model"] = exchange.model
    fields["upstream"] = exchange.upstream
    fields["stream"] = exchange.is_stream
    fields["input_tokens"] = usage.input_tokens
    fields["output_tokens"] = usage.output_tokens
    fields["bytes"] = exchange.bytes_sent
    if usage.is_estimated:
        fields["usage_estimated"] = True
    if exchange.attempts > 1:
        fields["attempts"] = exchange.attempts
    if exchange.queue_seconds > 0:
        fields["queue_seconds"] = round(exchange.queue_seconds, 6)
    if exchange.first_token_at is not None:
        fields["ttft_seconds"] = round(exchange.first_token_at - exchange.started_at, 6)
