"""The gateway's metrics. Labels come from closed sets: no client can make a series."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import gateway
from gateway.errors import UpstreamFault
from gateway.exchange import Exchange, Outcome
from gateway.telemetry.exposition import Family, negotiate, render
from gateway.telemetry.goodput import GENERATING, JUDGED, Slo, pace_of
from gateway.telemetry.keys import KeyTallies, Standings
from gateway.telemetry.tallies import Counters, Distribution, Distributions, Exemplar, Tally
from gateway.telemetry.watched import (
    ProcessNumbers,
    ReadSeries,
    WatchedFamily,
    WatchedSeries,
    WatchedValue,
)

PREFIX = "gateway_"
TTFT_BUCKETS = (
    0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
)  # fmt: skip
PACE_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
DURATION_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
QUEUE_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
OVERHEAD_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
REDIS_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
NOTHING_SENT = "5xx"


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """`keys_max` keys have series of their own; `slo` is what goodput is judged by."""

    keys_max: int = 100
    slo: Slo = field(default_factory=Slo)


class _Series:
    """The children one kind of exchange is counted in, bound once."""

    __slots__ = (
        "duration",
        "first_token",
        "good",
        "input_tokens",
        "is_judged",
        "is_ok",
        "judged",
        "output_tokens",
        "overhead",
        "pace",
        "requests",
    )

    def __init__(self, metrics: "Metrics", exchange: Exchange, outcome: Outcome) -> None:
        route, model, upstream = exchange.route, exchange.model, exchange.upstream
        # Cut off before anything was said: the client saw a failure of ours.
        status = f"{exchange.status // 100}xx" if exchange.status else NOTHING_SENT
        is_stream = "true" if exchange.is_stream else "false"
        self.requests = metrics.requests.child(route, model, upstream, status, outcome.value)
        self.duration = metrics.duration.child(route, model, is_stream)
        self.is_ok = outcome is Outcome.OK
        self.is_judged = route in GENERATING and outcome in JUDGED
        if self.is_judged:
            self.judged = metrics.judged.child(model)
            self.good = metrics.good.child(model)
        if upstream and exchange.is_stream:
            self.first_token = metrics.first_token.child(model, upstream)
            self.pace = metrics.pace.child(model)
        else:
            self.first_token = self.pace = Distribution(())
        if upstream:
            self.overhead = metrics.overhead.child(route)
            self.input_tokens = metrics.tokens.child(model, "input")
            self.output_tokens = metrics.tokens.child(model, "output")
        else:
            self.input_tokens = self.output_tokens = Tally()


class Metrics:
    """Counts exchanges, and shows what other rooms own when Prometheus asks."""

    def __init__(self, config: MetricsConfig | None = None) -> None:
        config = config or MetricsConfig()
        self.in_flight = 0
        self._slo = config.slo
        self._families: list[Family] = []
        self._watched: dict[str, WatchedFamily] = {}
        self._series: dict[tuple[str, str, str, int, Outcome, bool], _Series] = {}
        self._process = ProcessNumbers()
        self._standings: Standings = tuple
        self._declare_requests()
        self._declare_answers()
        self._declare_upstreams()
        self.keys = KeyTallies(prefix=PREFIX, keys_max=config.keys_max)
        self._families.extend(self.keys.families)
        self.watch(
            WatchedValue("requests_in_flight", "Requests being answered.", lambda: self.in_flight)
        )
        version = (("version", gateway.__version__),)
        self.watch(WatchedValue("build_info", "The version that runs.", lambda: 1, version))

    def _declare_requests(self) -> None:
        self.requests = self._counters(
            "requests", "Requests answered.", "route", "model", "upstream", "status", "outcome"
        )
        self.duration = self._distributions(
            "request_duration_seconds", "From the request's head to the answer's end.",
            DURATION_BUCKETS, "route", "model", "stream",
        )  # fmt: skip
        self.overhead = self._distributions(
            "overhead_seconds", "What the gateway adds: neither queue, upload nor upstream.",
            OVERHEAD_BUCKETS, "route",
        )  # fmt: skip
        self.queue: Distribution = self._distributions(
            "queue_wait_seconds", "How long those that had to wait for a place waited.",
            QUEUE_BUCKETS,
        ).child()  # fmt: skip
        self.lag: Distribution = self._distributions(
            "event_loop_lag_seconds", "How late the event loop is, looked at ten times a second.",
            LAG_BUCKETS,
        ).child()  # fmt: skip
        self.refusals = self._counters("refusals", "Requests refused by a limit.", "limit")
        self.errors = self._counters("errors", "Answers that are not a model's.", "code")
        self.protocol_refusals = self._counters(
            "protocol_refusals", "Requests refused as no valid HTTP, before any route.", "status"
        )

    def _declare_answers(self) -> None:
        self.first_token = self._distributions(
            "time_to_first_token_seconds", "From the request's head to the first content event.",
            TTFT_BUCKETS, "model", "upstream",
        )  # fmt: skip
        self.pace = self._distributions(
            "time_per_output_token_seconds", "Of a stream, for each token after the first.",
            PACE_BUCKETS, "model",
        )  # fmt: skip
        self.gaps = self._distributions(
            "inter_event_seconds", "Between two reads of a stream that carried events.",
            PACE_BUCKETS, "model",
        )  # fmt: skip
        self.tokens = self._counters("tokens", "Tokens charged.", "model", "type")
        self.judged = self._counters(
            "slo_requests", "Generations judged by the SLO_* limits: none refused or left.",
            "model",
        )  # fmt: skip
        self.good = self._counters(
            "goodput_requests", "Generations that went well and met every SLO_* limit.", "model"
        )

    def _declare_upstreams(self) -> None:
        self.failovers = self._counters("failovers", "Calls moved on to another upstream.", "model")
        self.aborts = self._counters(
            "upstream_aborts", "Answers that the gateway cut before their end.", "upstream"
        )
        self.faults = self._counters(
            "upstream_errors", "Attempts that failed, also those another upstream made good.",
            "upstream", "kind",
        )  # fmt: skip
        self.transitions = self._counters(
            "circuit_transitions", "Changes of a circuit breaker's state.", "upstream", "to"
        )

    def expect_upstream(self, name: str, *, circuit_states: Iterable[str]) -> None:
        """Show its failures as 0 from the start: an increase from nothing is none to Prometheus."""
        self.aborts.child(name)
        for fault in UpstreamFault:
            self.faults.child(name, fault.value)
        for state in circuit_states:
            self.transitions.child(name, state)

    def forget_upstream(self, name: str) -> None:
        """It is gone for good: its series would stand still for ever."""
        for family in (self.requests, self.first_token, self.aborts, self.faults, self.transitions):
            family.drop_all(name, label="upstream")
        self._series = {key: series for key, series in self._series.items() if key[2] != name}

    def count(
        self,
        exchange: Exchange,
        outcome: Outcome,
        duration_seconds: float,
        exemplar: Exemplar | None = None,
    ) -> None:
        """One finished exchange; `exemplar` names its trace if somebody can look at that."""
        upstream, is_stream = exchange.upstream, exchange.is_stream
        key = (exchange.route, exchange.model, upstream, exchange.status, outcome, is_stream)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(self, exchange, outcome)
        series.requests.value += 1
        series.duration.observe(duration_seconds)
        series.input_tokens.value += exchange.usage.input_tokens
        series.output_tokens.value += exchange.usage.output_tokens
        pace = pace_of(exchange)
        if upstream:
            self._count_call(exchange, series, duration_seconds)
        if pace is not None:
            series.first_token.observe(pace.ttft_seconds)
            if pace.seconds_per_token is not None:
                series.pace.observe(pace.seconds_per_token)
        if series.is_judged:
            series.judged.value += 1
            if series.is_ok:
                series.good.value += self._slo.is_met(exchange, pace, duration_seconds)
        if exemplar is not None:
            series.duration.point_out(duration_seconds, exemplar)
            if pace is not None:
                series.first_token.point_out(pace.ttft_seconds, exemplar)
        if exchange.principal is not None:
            self.keys.count(exchange.principal.name, exchange, outcome)
        if exchange.queue_seconds > 0:
            self.queue.observe(exchange.queue_seconds)
        if exchange.error_code is not None or exchange.faults or exchange.aborts:
            self._count_trouble(exchange)

    def _count_call(self, exchange: Exchange, series: _Series, duration_seconds: float) -> None:
        """What only a call that was sent to an upstream tells."""
        elsewhere_seconds = (
            exchange.queue_seconds + exchange.upload_seconds + exchange.upstream_seconds
        )
        series.overhead.observe(max(duration_seconds - elsewhere_seconds, 0.0))
        if exchange.attempts > 1:
            self.failovers.child(exchange.model).value += exchange.attempts - 1

    def _count_trouble(self, exchange: Exchange) -> None:
        if exchange.error_code is not None:
            self.errors.child(exchange.error_code).value += 1
        if exchange.limit is not None:
            self.refusals.child(exchange.limit).value += 1
        for upstream, fault in exchange.faults:
            self.faults.child(upstream, fault.value).value += 1
        for upstream in exchange.aborts:
            self.aborts.child(upstream).value += 1

    def count_transition(self, upstream: str, state: str) -> None:
        self.transitions.child(upstream, state).value += 1

    def count_protocol_refusal(self, status: int) -> None:
        self.protocol_refusals.child(str(status)).value += 1

    def watch(self, value: WatchedValue) -> None:
        """A value somebody else owns, read when it is scraped."""
        family = self._watched.get(value.name)
        if family is None:
            kind = "counter" if value.is_counter else "gauge"
            family = WatchedFamily(PREFIX + value.name, value.help, kind=kind)
            self._watched[value.name] = family
            self._families.append(family)
        family.add(value.labels, value.read)

    def watch_each(self, name: str, text: str, read: ReadSeries) -> None:
        """A gauge whose series somebody else owns, adds and takes away."""
        self._families.append(WatchedSeries(PREFIX + name, text, read=read))

    def redis_calls(self) -> Distribution:
        """How long the shared Redis takes; a series only where there is one."""
        return self._distributions(
            "redis_call_seconds", "From a question to Redis to its answer.", REDIS_BUCKETS
        ).child()

    def watch_keys(self, standings: Standings) -> None:
        """Where every valid key stands, asked when it is scraped and taken a few at a time."""
        self._standings = standings

    async def render(self, accept: str) -> tuple[bytes, bytes]:
        """The exposition and its content type."""
        form = negotiate(accept)
        quotas = await self.keys.quotas(self._standings)
        process = await self._process.read()
        body = await render([*self._families, *quotas, *process], form)
        return body, form.content_type.encode("ascii")

    def _counters(self, name: str, text: str, *labels: str) -> Counters:
        family = Counters(PREFIX + name, text, labels)
        self._families.append(family)
        return family

    def _distributions(
        self, name: str, text: str, bounds: Sequence[float], *labels: str
    ) -> Distributions:
        family = Distributions(PREFIX + name, text, labels, bounds)
        self._families.append(family)
        return family
