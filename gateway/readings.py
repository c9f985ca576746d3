"""What the metrics page reads from the parts when it is scraped; nobody pushes these."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from gateway.admission import AdmissionConfig, AdmissionGate
from gateway.auth.watcher import KeyWatcher
from gateway.breaker import BreakerState
from gateway.quota.ledger import Ledger
from gateway.routing.fleet import Fleet
from gateway.routing.pool import UpstreamPool
from gateway.routing.upstream import Upstream
from gateway.routing.watcher import FleetWatcher
from gateway.telemetry.keys import KeyStanding
from gateway.telemetry.logs import Logging
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.streams import StreamTallies
from gateway.telemetry.traces import Tracing
from gateway.telemetry.watched import Labels, WatchedValue

CIRCUIT_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class Flushes(Protocol):
    """What takes counts to where they outlive this process."""

    flush_failures_total: int

    @property
    def seconds_since_flush(self) -> float: ...


class Line(Protocol):
    """How the shared Redis does; see shared/line.py."""

    errors_total: int

    @property
    def is_up(self) -> bool: ...


def show_redis(metrics: Metrics, line: Callable[[], Line]) -> Callable[[float], None]:
    """Let `metrics` read how the shared Redis does; what is given back is told of each answer."""
    up, errors = "1 if Redis answers.", "Questions Redis did not answer, or refused."
    metrics.watch(WatchedValue("redis_up", up, lambda: float(line().is_up)))
    metrics.watch(
        WatchedValue("redis_errors", errors, lambda: line().errors_total, is_counter=True)
    )
    return metrics.redis_calls().observe


def show_team(metrics: Metrics, *, restarts: int) -> None:
    """What one of several workers knows of itself."""
    text = "How often this worker ended by itself and was started again."
    metrics.watch(WatchedValue("worker_restarts", text, lambda: restarts, is_counter=True))


def show_parts(
    metrics: Metrics,
    *,
    pool: UpstreamPool,
    fleet: Fleet,
    watcher: FleetWatcher | None,
    gate: AdmissionGate,
    admission: AdmissionConfig,
    streams: StreamTallies,
    ledger: Ledger,
    flushes: Flushes,
    keys: KeyWatcher,
    logs: Logging,
    tracing: Tracing,
) -> None:
    """Let `metrics` read every part that owns a number."""
    _show_upstreams(metrics, pool)
    _show_limits(metrics, admission)
    metrics.watch_keys(partial(_standings, keys, ledger))

    gauges = {
        "calls_in_flight": ("Calls past the gate.", lambda: gate.in_flight),
        "queue_depth": ("Calls waiting for a place.", lambda: gate.queued),
        "upstreams_generation": (
            "How many times the upstreams were set, the start included.",
            lambda: fleet.generation,
        ),
        "streams_open": ("Event streams under way.", lambda: streams.open_streams),
        "ledger_flush_age_seconds": (
            "For how long counts have waited for the disk, or for Redis.",
            lambda: flushes.seconds_since_flush,
        ),
    }
    for name, (text, read) in gauges.items():
        metrics.watch(WatchedValue(name, text, read))

    counters = {
        "ledger_flush_failures": (
            "Flushes the disk or Redis refused.",
            lambda: flushes.flush_failures_total,
        ),
        "key_store_failures": (
            "Looks at the key store that failed.",
            lambda: keys.failures_total,
        ),
        "upstreams_reload_failures": (
            "Looks at the upstreams file that found it unusable.",
            lambda: watcher.failures_total if watcher else 0,
        ),
        "log_lines_dropped": (
            "Log lines nobody read in time or no disk took.",
            lambda: logs.dropped_lines,
        ),
        "spans_dropped": ("Spans that no collector took.", lambda: tracing.dropped_spans),
    }
    for name, (text, read) in counters.items():
        metrics.watch(WatchedValue(name, text, read, is_counter=True))


def _show_limits(metrics: Metrics, admission: AdmissionConfig) -> None:
    """What is not limited has no series: there is no number that says so."""
    in_flight_max, queued_max = admission.max_in_flight, admission.max_queued
    if in_flight_max is not None:
        text = "MAX_IN_FLIGHT: calls past the gate at the same time."
        metrics.watch(WatchedValue("calls_in_flight_limit", text, lambda: in_flight_max))
    text = "MAX_QUEUED: calls waiting at the same time."
    metrics.watch(WatchedValue("queue_depth_limit", text, lambda: queued_max))


def _standings(keys: KeyWatcher, ledger: Ledger) -> Iterator[KeyStanding]:
    """Every valid key, worked out one at a time as they are taken."""
    for principal in keys.ring.principals():
        standing = ledger.standing(principal)
        yield KeyStanding(principal.name, standing.used, standing.reserved, standing.limit)


def _show_upstreams(metrics: Metrics, pool: UpstreamPool) -> None:
    """A series for each upstream there is at the moment of the scrape."""
    for name, text, read in (
        ("circuit_state", "0 closed, 1 half open, 2 open.", _circuit_state),
        ("upstream_healthy", "1 if its last probe was good.", _is_healthy),
        ("upstream_in_flight", "Calls at this upstream.", _in_flight),
    ):
        metrics.watch_each(name, text, partial(_by_upstream, pool, read))


def _by_upstream(
    pool: UpstreamPool, read: Callable[[Upstream], float]
) -> Iterator[tuple[Labels, float]]:
    for upstream in pool.upstreams:
        yield (("upstream", upstream.name),), read(upstream)


def _circuit_state(upstream: Upstream) -> float:
    return CIRCUIT_STATES[upstream.breaker.state]


def _is_healthy(upstream: Upstream) -> float:
    return float(upstream.health.is_healthy)


def _in_flight(upstream: Upstream) -> float:
    return upstream.in_flight
