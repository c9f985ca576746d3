"""What the metrics page reads from the parts when it is scraped; nobody pushes these."""

from functools import partial

from gateway.admission import AdmissionGate
from gateway.auth.watcher import KeyWatcher
from gateway.breaker import BreakerState
from gateway.quota.journal import Journal
from gateway.routing.pool import UpstreamPool
from gateway.routing.upstream import Upstream
from gateway.telemetry.metrics import Metrics, WatchedValue
from gateway.telemetry.sink import LogSink

CIRCUIT_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


def show_parts(
    metrics: Metrics,
    *,
    pool: UpstreamPool,
    gate: AdmissionGate,
    journal: Journal,
    keys: KeyWatcher,
    sink: LogSink,
) -> None:
    """Let `metrics` read every part that owns a number."""
    for upstream in pool.upstreams:
        _show_upstream(metrics, upstream)

    gauges = {
        "calls_in_flight": ("Calls past the gate.", lambda: gate.in_flight),
        "queue_depth": ("Calls waiting for a place.", lambda: gate.queued),
        "ledger_flush_age_seconds": (
            "For how long counts have waited for the disk.",
            lambda: journal.seconds_since_flush,
        ),
    }
    for name, (text, read) in gauges.items():
        metrics.watch(WatchedValue(name, text, read))

    counters = {
        "ledger_flush_failures": (
            "Flushes the disk refused.",
            lambda: journal.flush_failures_total,
        ),
        "key_store_failures": (
            "Looks at the key store that failed.",
            lambda: keys.failures_total,
        ),
        "log_lines_dropped": ("Log lines nobody read in time.", lambda: sink.dropped_lines),
    }
    for name, (text, read) in counters.items():
        metrics.watch(WatchedValue(name, text, read, is_counter=True))


def _show_upstream(metrics: Metrics, upstream: Upstream) -> None:
    labels = (("upstream", upstream.name),)
    for name, text, read in (
        ("circuit_state", "0 closed, 1 half open, 2 open.", partial(_circuit_state, upstream)),
        ("upstream_healthy", "1 if its last probe was good.", partial(_is_healthy, upstream)),
        ("upstream_in_flight", "Calls at this upstream.", partial(_in_flight, upstream)),
    ):
        metrics.watch(WatchedValue(name, text, read, labels))


def _circuit_state(upstream: Upstream) -> float:
    return CIRCUIT_STATES[upstream.breaker.state]


def _is_healthy(upstream: Upstream) -> float:
    return float(upstream.health.is_healthy)


def _in_flight(upstream: Upstream) -> float:
    return upstream.in_flight
