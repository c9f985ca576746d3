"""What the GPUs do: computing and memory."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit
from monitoring.dashboards.selectors import gpu

EACH: Final = "{{instance}} GPU {{gpu}}"


def each(metric: str, *more: str, legend: str = EACH) -> Metric:
    """One line per GPU."""
    return Metric(f"max by (instance, gpu) ({metric}{gpu(*more)})", legend)


WORK: Final = Row(
    "Work and memory",
    (
        Graph(
            title="How busy is each GPU?",
            shows="Share of time in which any kernel ran. With tensor parallelism both GPUs read "
            "100 % even when one only waits for the other.",
            when_bad="Do not judge balance by this: use row 'Balance of tensor parallelism'.",
            queries=(each("gpu_utilization_ratio"),),
            unit=Unit.RATIO,
            most=1,
            empty="No GPU",
            runbook=("GpuImbalance",),
        ),
        Graph(
            title="Do the cores really compute?",
            shows="Share of time in which streaming multiprocessors and tensor cores were active "
            "(Hopper and newer).",
            when_bad="Busy without activity: waiting for memory, a peer or the CPU.",
            queries=(
                each("gpu_sm_active_ratio", legend=f"{EACH} SM"),
                each("gpu_tensor_active_ratio", legend=f"{EACH} tensor"),
            ),
            unit=Unit.RATIO,
            most=1,
            empty="Not told by these GPUs",
            runbook=("GpuImbalance",),
        ),
        Graph(
            title="Is memory bandwidth the limit?",
            shows="Share of time in which device memory was read or written; the finer measure "
            "where the GPU has it.",
            when_bad="Nothing is bad about it: decoding is bound by bandwidth. Larger batches use "
            "it better.",
            queries=(
                each("gpu_memory_bandwidth_utilization_ratio", legend=f"{EACH} any access"),
                each("gpu_dram_active_ratio", legend=f"{EACH} DRAM active"),
            ),
            unit=Unit.RATIO,
            most=1,
            empty="No GPU",
        ),
        Graph(
            title="How much memory is used?",
            shows="Used device memory; the dashed line is the largest card's total.",
            when_bad="Growing while vLLM runs: another process. Unequal between tensor-parallel "
            "peers: the same.",
            queries=(
                each("gpu_memory_used_bytes"),
                Metric(f"max(gpu_memory_total_bytes{gpu()})", "total"),
            ),
            unit=Unit.BYTES,
            ceilings=("total",),
            empty="No GPU",
            runbook=("GpuImbalance",),
        ),
        Graph(
            title="Who else uses the GPUs?",
            shows="Number of compute processes on each GPU.",
            when_bad="More than vLLM's own: somebody shares the card. GPU_EXPORTER_PROCESSES=on "
            "names them below.",
            queries=(each("gpu_processes"),),
            unit=Unit.NUMBER,
            empty="Not told by these GPUs",
        ),
        Graph(
            title="Which process holds the memory?",
            shows="Device memory by process, where GPU_EXPORTER_PROCESSES is on; and of MIG "
            "instances, where MIG is.",
            when_bad="A process that is not vLLM's: ask its owner to leave.",
            queries=(
                Metric(
                    f"sum by (instance, gpu, pid, name) (gpu_process_memory_bytes{gpu()})",
                    f"{EACH} {{{{pid}}}} {{{{name}}}}",
                ),
                Metric(
                    f"sum by (instance, gpu, gi) (gpu_mig_memory_used_bytes{gpu()})",
                    f"{EACH} MIG {{{{gi}}}}",
                ),
            ),
            unit=Unit.BYTES,
            empty="Not asked for",
        ),
    ),
)
