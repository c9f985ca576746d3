"""Whether GPUs that share a model share its work: one slow GPU holds up all the others."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit, limit
from monitoring.dashboards.selectors import gpu

BALANCE: Final = Row(
    "Balance of tensor parallelism",
    (
        Graph(
            title="Do all GPUs draw the same power?",
            shows="Largest less smallest power, as a share of the largest, for each host. A GPU "
            "that waits spins at 100 % use but draws less.",
            when_bad="Above 30 % under load: the weaker GPU or its link holds up the other; look "
            "at its clock, heat and NVLink.",
            queries=(Metric('instance:gpu_power:spread_ratio{instance=~"$host"}', "{{instance}}"),),
            unit=Unit.RATIO,
            thresholds=limit(0.3),
            most=1,
            empty="Fewer than two GPUs",
            runbook=("GpuImbalance",),
        ),
        Graph(
            title="Do all GPUs run at the same clock?",
            shows="Largest less smallest SM clock, as a share of the largest, for each host.",
            when_bad="Above 15 % under load: one GPU throttles; the others wait for it at every "
            "layer.",
            queries=(
                Metric('instance:gpu_sm_clock:spread_ratio{instance=~"$host"}', "{{instance}}"),
            ),
            unit=Unit.RATIO,
            thresholds=limit(0.15),
            most=1,
            empty="Fewer than two GPUs",
            runbook=("GpuImbalance",),
        ),
        Graph(
            title="Do all GPUs hold as much memory?",
            shows="Largest less smallest used memory, as a share of the largest, for each host.",
            when_bad="Tensor-parallel ranks hold the same: a difference is another process.",
            queries=(
                Metric(
                    f"(max by (instance) (gpu_memory_used_bytes{gpu()}) - "
                    f"min by (instance) (gpu_memory_used_bytes{gpu()})) / "
                    f"(max by (instance) (gpu_memory_used_bytes{gpu()}) > 0)",
                    "{{instance}}",
                ),
            ),
            unit=Unit.RATIO,
            thresholds=limit(0.1),
            most=1,
            empty="No GPU",
            runbook=("GpuImbalance",),
        ),
    ),
)
