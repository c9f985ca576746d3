"""The metric families of a GPU: name, kind, labels and help of everything that is exported."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What Prometheus may do with the values."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric of a GPU; `labels` come after `gpu` and `uuid`, which every one has."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(name, Kind.GAUGE, text, labels)


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(name, Kind.COUNTER, text, labels)


UTILIZATION = _gauge(
    "gpu_utilization_ratio",
    "Share of time any kernel ran; a kernel that only waits for another GPU counts as running.",
)
BANDWIDTH_UTILIZATION = _gauge(
    "gpu_memory_bandwidth_utilization_ratio", "Share of time memory was read or written."
)
MEMORY_TOTAL = _gauge("gpu_memory_total_bytes", "Memory of the GPU.")
MEMORY_USED = _gauge("gpu_memory_used_bytes", "Memory in use, without what the driver reserves.")
MEMORY_FREE = _gauge("gpu_memory_free_bytes", "Memory that is free.")
MEMORY_RESERVED = _gauge("gpu_memory_reserved_bytes", "Memory that the driver keeps for itself.")
TEMPERATURE = _gauge("gpu_temperature_celsius", "Temperature by sensor.", "sensor")
TEMPERATURE_MARGIN = _gauge(
    "gpu_temperature_margin_celsius", "Degrees left before the GPU slows itself down."
)
POWER_DRAW = _gauge("gpu_power_draw_watts", "Power drawn by the whole board.")
POWER_LIMIT = _gauge("gpu_power_limit_watts", "Power that the board may draw.")
ENERGY = _counter("gpu_energy_joules_total", "Energy used since the driver was loaded.")
CLOCK = _gauge("gpu_clock_hertz", "Clock by domain.", "clock")
CLOCK_MAX = _gauge("gpu_clock_max_hertz", "The highest clock of a domain.", "clock")
THROTTLE_ACTIVE = _gauge(
    "gpu_throttle_active", "1 while this reason holds the clocks down.", "reason"
)
THROTTLE_SECONDS = _counter(
    "gpu_throttle_seconds_total", "Time a reason held the clocks down.", "reason"
)
ECC_ERRORS = _counter(
    "gpu_ecc_errors_total", "Memory errors over the life of the GPU.", "type", "counter"
)
ECC_VOLATILE = _gauge(
    "gpu_ecc_errors_volatile", "Memory errors since the driver was loaded.", "type"
)
REMAPPED_ROWS = _gauge("gpu_remapped_rows", "Memory rows replaced, by kind of error.", "type")
REMAPPED_PENDING = _gauge(
    "gpu_remapped_rows_pending", "1 if a row waits for a GPU reset to be replaced."
)
REMAPPED_FAILURE = _gauge(
    "gpu_remapped_rows_failure", "1 if a row could not be replaced: the GPU needs service."
)
RECOVERY_ACTION = _gauge(
    "gpu_recovery_action",
    "What the driver asks for: 0 nothing, 1 GPU reset, 2 node reboot, 3 drain peer-to-peer, "
    "4 drain and reset, 5 recover IMEX domain, 6 bus reset, 7 system reboot.",
)
PCIE_TRANSMIT = _gauge("gpu_pcie_transmit_bytes_per_second", "PCIe traffic from the GPU.")
PCIE_RECEIVE = _gauge("gpu_pcie_receive_bytes_per_second", "PCIe traffic to the GPU.")
PCIE_GENERATION = _gauge(
    "gpu_pcie_link_generation", "PCIe generation; an idle GPU lowers it by design.", "state"
)
PCIE_WIDTH = _gauge("gpu_pcie_link_width", "PCIe lanes.", "state")
PCIE_REPLAYS = _counter("gpu_pcie_replays_total", "PCIe packets sent again.")
NVLINK_TRANSMIT = _counter("gpu_nvlink_transmit_bytes_total", "Data sent over all NVLinks.")
NVLINK_RECEIVE = _counter("gpu_nvlink_receive_bytes_total", "Data received over all NVLinks.")
NVLINK_ERRORS = _counter("gpu_nvlink_errors_total", "NVLink errors, all links together.", "kind")
NVLINK_UP = _gauge("gpu_nvlink_link_up", "1 if the link is up.", "link")
SM_ACTIVE = _gauge("gpu_sm_active_ratio", "Share of multiprocessors that did work.")
TENSOR_ACTIVE = _gauge("gpu_tensor_active_ratio", "Share of time the tensor cores worked.")
DRAM_ACTIVE = _gauge("gpu_dram_active_ratio", "Share of the memory bandwidth in use.")
PROCESS_COUNT = _gauge("gpu_processes", "Processes that compute on the GPU.")
PROCESS_MEMORY = _gauge("gpu_process_memory_bytes", "Memory of a process.", "pid", "name")
MIG_ENABLED = _gauge("gpu_mig_enabled", "1 if the GPU is split into instances.")
MIG_USED = _gauge("gpu_mig_memory_used_bytes", "Memory in use in an instance.", "gi", "profile")
MIG_TOTAL = _gauge("gpu_mig_memory_total_bytes", "Memory of an instance.", "gi", "profile")

# In the order in which they are shown.
FAMILIES = (
    UTILIZATION,
    BANDWIDTH_UTILIZATION,
    MEMORY_TOTAL,
    MEMORY_USED,
    MEMORY_FREE,
    MEMORY_RESERVED,
    TEMPERATURE,
    TEMPERATURE_MARGIN,
    POWER_DRAW,
    POWER_LIMIT,
    ENERGY,
    CLOCK,
    CLOCK_MAX,
    THROTTLE_ACTIVE,
    THROTTLE_SECONDS,
    ECC_ERRORS,
    ECC_VOLATILE,
    REMAPPED_ROWS,
    REMAPPED_PENDING,
    REMAPPED_FAILURE,
    RECOVERY_ACTION,
    PCIE_TRANSMIT,
    PCIE_RECEIVE,
    PCIE_GENERATION,
    PCIE_WIDTH,
    PCIE_REPLAYS,
    NVLINK_TRANSMIT,
    NVLINK_RECEIVE,
    NVLINK_ERRORS,
    NVLINK_UP,
    SM_ACTIVE,
    TENSOR_ACTIVE,
    DRAM_ACTIVE,
    PROCESS_COUNT,
    PROCESS_MEMORY,
    MIG_ENABLED,
    MIG_USED,
    MIG_TOTAL,
)
