"""How the GPUs talk to each other and to the host."""

from typing import Final

from monitoring.dashboards.gpus.work import EACH
from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.promql import WINDOW
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit, demanded, limit
from monitoring.dashboards.selectors import gpu


def _rate(metric: str, legend: str, *labels: str) -> Metric:
    by = ", ".join(("instance", "gpu", *labels))
    return Metric(f"sum by ({by}) (rate({metric}{gpu()}[{WINDOW}]))", f"{EACH} {legend}")


def _attained(metric: str) -> str:
    """The present state as a share of the highest."""
    current, highest = gpu('state="current"'), gpu('state="max"')
    return (
        f"max by (instance, gpu) ({metric}{current}) / "
        f"(max by (instance, gpu) ({metric}{highest}) > 0)"
    )


LINKS: Final = Row(
    "Links",
    (
        Graph(
            title="How much goes over NVLink?",
            shows="Bytes per second sent and received over all NVLinks of each GPU.",
            when_bad="Nothing under tensor parallelism: NCCL uses PCIe, answers are slow; look at "
            "the links' state.",
            queries=(
                _rate("gpu_nvlink_transmit_bytes_total", "sent"),
                _rate("gpu_nvlink_receive_bytes_total", "received"),
            ),
            unit=Unit.BYTES_PER_SECOND,
            empty="No NVLink",
            runbook=("GpuLinkDegraded", "GpuImbalance"),
        ),
        Graph(
            title="How much goes over PCIe?",
            shows="Bytes per second sent and received over PCIe, sampled for 20 ms at each look.",
            when_bad="Without NVLink, near the link's limit (gen 5 x16: 63 GB/s) tokens become "
            "slow: use pipeline parallelism or fewer GPUs per model.",
            queries=(
                Metric(
                    f"max by (instance, gpu) (gpu_pcie_transmit_bytes_per_second{gpu()})",
                    f"{EACH} sent",
                ),
                Metric(
                    f"max by (instance, gpu) (gpu_pcie_receive_bytes_per_second{gpu()})",
                    f"{EACH} received",
                ),
            ),
            unit=Unit.BYTES_PER_SECOND,
            empty="Not sampled",
        ),
        Graph(
            title="The PCIe link is as wide as it can be",
            shows="Lanes and generation as a share of the highest. The generation falls when idle, "
            "by design; the width should not.",
            when_bad="Width below 100 %: reseat the card or its riser. Generation below under "
            "load: firmware.",
            queries=(
                Metric(_attained("gpu_pcie_link_width"), f"{EACH} width"),
                Metric(_attained("gpu_pcie_link_generation"), f"{EACH} generation"),
            ),
            unit=Unit.RATIO,
            thresholds=demanded(1),
            most=1,
            empty="No GPU",
            runbook=("GpuLinkDegraded", "GpuImbalance"),
        ),
        Graph(
            title="All NVLinks are up",
            shows="Share of each GPU's NVLinks that are up.",
            when_bad="A link that is down slows every layer; XID 74 usually stands beside it.",
            queries=(Metric(f"avg by (instance, gpu) (gpu_nvlink_link_up{gpu()})", EACH),),
            unit=Unit.RATIO,
            thresholds=demanded(1),
            most=1,
            empty="No NVLink",
            runbook=("GpuLinkDegraded", "GpuXidCritical"),
        ),
        Graph(
            title="NVLink carries without errors",
            shows="Errors per second on NVLink by kind.",
            when_bad="Rising: a bad bridge or connector; take the host out of service.",
            queries=(_rate("gpu_nvlink_errors_total", "{{kind}}", "kind"),),
            unit=Unit.EVENTS_PER_SECOND,
            thresholds=limit(0.01),
            empty="No NVLink",
            runbook=("GpuLinkDegraded", "GpuXidCritical"),
        ),
        Graph(
            title="PCIe does not repeat itself",
            shows="Packets per second that had to be sent again over PCIe.",
            when_bad="A steady rate: signal trouble; riser, slot or cable.",
            queries=(_rate("gpu_pcie_replays_total", "replays"),),
            unit=Unit.EVENTS_PER_SECOND,
            thresholds=limit(1),
            empty="Not told by these GPUs",
            runbook=("GpuLinkDegraded", "GpuXidCritical"),
        ),
    ),
)
