"""The gateway's metrics, in a registry of its own. Labels come from closed sets."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import gateway
from gateway.exchange import Exchange, Outcome

PREFIX = "gateway_"
TTFT_BUCKETS = (
    0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
)  # fmt: skip
DURATION_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
QUEUE_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class WatchedValue:
    """A gauge or counter that a room owns. `labels` are constant pairs."""

    name: str
    help: str
    read: Callable[[], float]
    labels: tuple[tuple[str, str], ...] = ()
    is_counter: bool = False


class Metrics:
    """Counts exchanges. Children are bound once per combination of labels: looking one up by
    `labels()` costs more than everything else here."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped upstream
        self.registry = CollectorRegistry()
        self._requests = self._counter(
            "requests", "Requests answered.", "route", "model", "upstream", "status", "outcome"
        )
        self._duration = self._histogram(
            "request_duration_seconds", "From the request's head to the answer's end.",
            DURATION_BUCKETS, "route", "model",
        )  # fmt: skip
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From the request's head to the first content event.",
            TTFT_BUCKETS, "model", "upstream",
        )  # fmt: skip
        self._queue = self._histogram(
            "queue_wait_seconds", "Time a request waited for a free place.", QUEUE_BUCKETS
        )
        self._tokens = self._counter("tokens", "Tokens charged.", "model", "type")
        self._refusals = self._counter("refusals", "Requests refused by a limit.", "limit")
        self._errors = self._counter("errors", "Answers that are not a model's.", "code")
        self._failovers = self._counter("failovers", "Calls moved on to another upstream.", "model")
        self._transitions = self._counter(
            "circuit_transitions", "Changes of a circuit breaker's state.", "upstream", "to"
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests being answered.")
        build = self._gauge("build_info", "The version that runs.", "version")
        build.labels(gateway.__version__).set(1)
        self._series: dict[tuple[str, str, str, int, Outcome], Callable[[Exchange, float], None]]
        self._series = {}
        self._watched = _WatchedCollector()
        self.registry.register(self._watched)

    def count(self, exchange: Exchange, outcome: Outcome, duration_seconds: float) -> None:
        """One finished exchange."""
        key = (exchange.route, exchange.model, exchange.upstream, exchange.status, outcome)
        record = self._series.get(key)
        if record is None:
            record = self._series[key] = self._bind(*key)
        record(exchange, duration_seconds)
        if exchange.error_code is not None:
            self._errors.labels(exchange.error_code).inc()
        if exchange.limit is not None:
            self._refusals.labels(exchange.limit).inc()
        if exchange.attempts > 1:
            self._failovers.labels(exchange.model).inc(exchange.attempts - 1)

    def count_transition(self, upstream: str, state: str) -> None:
        self._transitions.labels(upstream, state).inc()

    def watch(self, gauge: WatchedValue) -> None:
        """A value somebody else owns, read when it is scraped."""
        self._watched.values.append(gauge)

    async def render(self, accept: str) -> tuple[bytes, bytes]:
        """The exposition and its content type, made in a thread: it takes milliseconds."""
        encode, content_type = choose_encoder(accept)
        self._watched.look()
        body = await asyncio.to_thread(encode, self.registry)
        return body, content_type.encode("ascii")

    def _bind(
        self, route: str, model: str, upstream: str, status: int, outcome: Outcome
    ) -> Callable[[Exchange, float], None]:
        requests = self._requests.labels(route, model, upstream, str(status), outcome.value)
        duration = self._duration.labels(route, model)
        if not upstream:
            return _RecordLocal(requests, duration)
        first_token = self._first_token.labels(model, upstream)
        input_tokens = self._tokens.labels(model, "input")
        output_tokens = self._tokens.labels(model, "output")

        def record(exchange: Exchange, seconds: float) -> None:
            requests.inc()
            duration.observe(seconds)
            self._queue.observe(exchange.queue_seconds)
            if exchange.first_token_at is not None:
                first_token.observe(exchange.first_token_at - exchange.started_at)
            input_tokens.inc(exchange.usage.input_tokens)
            output_tokens.inc(exchange.usage.output_tokens)

        return record

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)


class _RecordLocal:
    """What is counted of an exchange that no upstream saw."""

    def __init__(self, requests: Counter, duration: Histogram) -> None:
        self._requests = requests
        self._duration = duration

    def __call__(self, _exchange: Exchange, seconds: float) -> None:
        self._requests.inc()
        self._duration.observe(seconds)


class _WatchedCollector(Collector):
    """Reads values on the event loop, where they live, and shows them to the rendering thread."""

    def __init__(self) -> None:
        self.values: list[WatchedValue] = []
        self._seen: list[Metric] = []

    def look(self) -> None:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for value in self.values:
            family = families.get(value.name)
            if family is None:
                kind = CounterMetricFamily if value.is_counter else GaugeMetricFamily
                names = [name for name, _ in value.labels]
                family = families[value.name] = kind(PREFIX + value.name, value.help, labels=names)
            family.add_metric([label for _, label in value.labels], value.read())
        self._seen = list(families.values())

    def collect(self) -> Iterable[Metric]:
        return self._seen
