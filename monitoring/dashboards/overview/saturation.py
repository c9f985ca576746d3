"""How much room is left: places, queue, event loop, process, books."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.promql import or_zero, per_second
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit, limit, rising
from monitoring.dashboards.selectors import GATEWAY_IS_THERE, gateway, percentiles

_PROCESS: Final = 'job="gateway"'


def _lost(metric: str, legend: str) -> Metric:
    return Metric(or_zero(per_second(metric, gateway()), beside=GATEWAY_IS_THERE), legend)


SATURATION: Final = Row(
    "Saturation",
    (
        Graph(
            title="Is there room for more calls?",
            shows="Calls in flight against MAX_IN_FLIGHT; at the dashed line new ones queue.",
            when_bad="At the line for minutes: add an upstream, or raise the limit if vLLM has "
            "free KV cache.",
            queries=(
                Metric(f"sum(gateway_calls_in_flight{gateway()})", "in flight"),
                Metric(f"sum(gateway_calls_in_flight_limit{gateway()})", "limit"),
            ),
            unit=Unit.NUMBER,
            ceilings=("limit",),
            empty="No gateway",
            runbook=("GatewayShedding",),
        ),
        Graph(
            title="Does anyone wait for a place?",
            shows="Calls in the gateway's queue against MAX_QUEUED; at the dashed line the next is "
            "refused with 503.",
            when_bad="Short spikes are what the queue is for; a plateau is missing capacity.",
            queries=(
                Metric(f"sum(gateway_queue_depth{gateway()})", "waiting"),
                Metric(f"sum(gateway_queue_depth_limit{gateway()})", "limit"),
            ),
            unit=Unit.NUMBER,
            ceilings=("limit",),
            empty="No gateway",
            runbook=("GatewayShedding",),
        ),
        Graph(
            title="How long do they wait?",
            shows="Time in the queue of those calls that had to wait; the others are not counted.",
            when_bad="Near QUEUE_TIMEOUT_SECONDS the next step is refusals.",
            queries=percentiles("gateway_queue_wait_seconds", gateway()),
            unit=Unit.SECONDS,
            empty="Nobody waits",
            runbook=("GatewayShedding",),
        ),
        Graph(
            title="The event loop is on time",
            shows="How late the gateway's event loop runs what is due: every stream waits for it.",
            when_bad="CPU at one core: the process is full, run another. CPU low: something blocks "
            "the loop, or the machine starves it.",
            queries=percentiles("gateway_event_loop_lag_seconds", gateway(), levels=(50, 99)),
            unit=Unit.SECONDS,
            thresholds=rising(0.05, 0.25),
            empty="No gateway",
            runbook=("GatewayEventLoopLag",),
        ),
        Graph(
            title="How much of its core does it use?",
            shows="CPU time per second of each gateway process; 1 is the one core it can use.",
            when_bad="Above 0.8: start another gateway process behind the proxy.",
            queries=(
                Metric(
                    per_second("process_cpu_seconds_total", gateway(_PROCESS), by=("instance",)),
                    "{{instance}}",
                ),
            ),
            unit=Unit.RATIO,
            thresholds=rising(0.8, 0.95),
            empty="No gateway",
            runbook=("GatewayEventLoopLag",),
        ),
        Graph(
            title="Does the process grow?",
            shows="Resident memory of each gateway process.",
            when_bad="A steady climb without more streams is a leak: note the version, restart, "
            "report it.",
            queries=(
                Metric(
                    f"sum by (instance) (process_resident_memory_bytes{gateway(_PROCESS)})",
                    "{{instance}}",
                ),
            ),
            unit=Unit.BYTES,
            empty="No gateway",
            runbook=("ProcessRestarting",),
        ),
        Graph(
            title="Are there file descriptors left?",
            shows="Open file descriptors as a share of what the process may open; every connection "
            "takes one, every call two.",
            when_bad="Raise LimitNOFILE of the service, or find who opens connections and keeps "
            "them.",
            queries=(
                Metric(
                    f"sum by (instance) (process_open_fds{gateway(_PROCESS)}) / "
                    f"sum by (instance) (process_max_fds{gateway(_PROCESS)})",
                    "{{instance}}",
                ),
            ),
            unit=Unit.RATIO,
            thresholds=rising(0.5, 0.8),
            empty="No gateway",
            runbook=("GatewayFileDescriptorsLow",),
        ),
        Graph(
            title="Usage reaches the disk in time",
            shows="Age of the oldest usage that is not on disk yet: what a crash would lose.",
            when_bad="Full or slow disk under DATABASE_PATH. Quotas still hold while the process "
            "lives.",
            queries=(Metric(f"max(gateway_ledger_flush_age_seconds{gateway()})", "oldest"),),
            unit=Unit.SECONDS,
            thresholds=rising(10, 60),
            empty="No gateway",
            runbook=("QuotaFlushStale",),
        ),
        Graph(
            title="Is anything lost on the way?",
            shows="Log lines and spans dropped, and failures to write usage or to read the keys.",
            when_bad="Lines and spans: the collector or the disk is too slow. Usage and keys: look "
            "at the database file now.",
            queries=(
                _lost("gateway_log_lines_dropped_total", "log lines"),
                _lost("gateway_spans_dropped_total", "spans"),
                _lost("gateway_ledger_flush_failures_total", "usage not written"),
                _lost("gateway_key_store_failures_total", "keys not read"),
            ),
            unit=Unit.EVENTS_PER_SECOND,
            thresholds=limit(0.1),
            empty="No gateway",
            runbook=("TelemetryDropped", "QuotaFlushStale", "KeyStoreFailing"),
        ),
    ),
)
