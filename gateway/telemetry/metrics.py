"""The gateway's metrics, in a registry of its own. Labels come from closed sets."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import gateway
from gateway.exchange import Exchange, Outcome
from gateway.telemetry.tallies import Counters, Distributions, Tally

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


class _Series:
    """The children one kind of exchange is counted in, bound once."""

    __slots__ = ("duration", "first_token", "input_tokens", "output_tokens", "requests")

    def __init__(self, metrics: "Metrics", exchange: Exchange, outcome: Outcome) -> None:
        route, model, upstream = exchange.route, exchange.model, exchange.upstream
        status = str(exchange.status)
        self.requests = metrics.requests.child(route, model, upstream, status, outcome.value)
        self.duration = metrics.duration.child(route, model)
        self.first_token = metrics.first_token.child(model, upstream) if upstream else None
        self.input_tokens = metrics.tokens.child(model, "input") if upstream else Tally()
        self.output_tokens = metrics.tokens.child(model, "output") if upstream else Tally()


class Metrics:
    """Counts exchanges, and shows what other rooms own when Prometheus asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = 0
        self.requests = self._counters(
            "requests", "Requests answered.", "route", "model", "upstream", "status", "outcome"
        )
        self.duration = self._distributions(
            "request_duration_seconds", "From the request's head to the answer's end.",
            DURATION_BUCKETS, "route", "model",
        )  # fmt: skip
        self.first_token = self._distributions(
            "time_to_first_token_seconds", "From the request's head to the first content event.",
            TTFT_BUCKETS, "model", "upstream",
        )  # fmt: skip
        self.queue = self._distributions(
            "queue_wait_seconds", "How long those that had to wait for a place waited.",
            QUEUE_BUCKETS,
        )  # fmt: skip
        self.tokens = self._counters("tokens", "Tokens charged.", "model", "type")
        self.refusals = self._counters("refusals", "Requests refused by a limit.", "limit")
        self.errors = self._counters("errors", "Answers that are not a model's.", "code")
        self.protocol_refusals = self._counters(
            "protocol_refusals", "Requests refused as no valid HTTP, before any route.", "status"
        )
        self.failovers = self._counters("failovers", "Calls moved on to another upstream.", "model")
        self.transitions = self._counters(
            "circuit_transitions", "Changes of a circuit breaker's state.", "upstream", "to"
        )
        self._series: dict[tuple[str, str, str, int, Outcome], _Series] = {}
        self._watched = _WatchedCollector()
        self.registry.register(self._watched)
        self.watch(
            WatchedValue("requests_in_flight", "Requests being answered.", lambda: self.in_flight)
        )
        version = (("version", gateway.__version__),)
        self.watch(WatchedValue("build_info", "The version that runs.", lambda: 1, version))

    def count(self, exchange: Exchange, outcome: Outcome, duration_seconds: float) -> None:
        """One finished exchange."""
        key = (exchange.route, exchange.model, exchange.upstream, exchange.status, outcome)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(self, exchange, outcome)
        series.requests.value += 1
        series.duration.observe(duration_seconds)
        series.input_tokens.value += exchange.usage.input_tokens
        series.output_tokens.value += exchange.usage.output_tokens
        if exchange.first_token_at is not None and series.first_token is not None:
            series.first_token.observe(exchange.first_token_at - exchange.started_at)
        if exchange.queue_seconds > 0:
            self.queue.child().observe(exchange.queue_seconds)
        if exchange.error_code is not None:
            self.errors.child(exchange.error_code).value += 1
        if exchange.limit is not None:
            self.refusals.child(exchange.limit).value += 1
        if exchange.attempts > 1:
            self.failovers.child(exchange.model).value += exchange.attempts - 1

    def count_transition(self, upstream: str, state: str) -> None:
        self.transitions.child(upstream, state).value += 1

    def count_protocol_refusal(self, status: int) -> None:
        self.protocol_refusals.child(str(status)).value += 1

    def watch(self, value: WatchedValue) -> None:
        """A value somebody else owns, read when it is scraped."""
        self._watched.values.append(value)

    async def render(self, accept: str) -> tuple[bytes, bytes]:
        """The exposition and its content type, made in a thread: it takes milliseconds."""
        encode, content_type = choose_encoder(accept)
        self._watched.look()
        body = await asyncio.to_thread(encode, self.registry)
        return body, content_type.encode("ascii")

    def _counters(self, name: str, text: str, *labels: str) -> Counters:
        family = Counters(PREFIX + name, text, labels)
        self.registry.register(family)
        return family

    def _distributions(
        self, name: str, text: str, bounds: Sequence[float], *labels: str
    ) -> Distributions:
        family = Distributions(PREFIX + name, text, labels, bounds)
        self.registry.register(family)
        return family


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
