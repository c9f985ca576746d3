"""A simulated NVIDIA H200: its samples follow from the load and from what it suffers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from exporter import families
from exporter.families import Family
from exporter.simulated.load import Load
from exporter.snapshot import Device, Sample
from exporter.source import SimulatedFault, Trouble

_MEMORY: Final = 150_754_820_096.0
_RESERVED: Final = 640.0 * 2**20
_LINKS: Final = 18
_IDLE_WATTS: Final = 110.0
_BUSY_WATTS: Final = 555.0
_LIMIT_WATTS: Final = 700.0
_SLOWDOWN_CELSIUS: Final = 87.0
_NVLINK_BYTES_PER_SECOND: Final = 38e9
_REASONS: Final = (
    "gpu_idle",
    "app_clocks",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display",
)
_TIMED_REASONS: Final = ("sw_power_cap", "sync_boost", "sw_thermal", "hw_thermal", "hw_power_brake")


@dataclass(frozen=True, slots=True)
class _Condition:
    """What a trouble does to a GPU: shares of what a sound one would have."""

    power: float = 1.0
    clock: float = 1.0
    warmer_celsius: float = 0.0


_SOUND: Final = _Condition()
_CONDITIONS: Final = {
    Trouble.SLOW: _Condition(power=0.5, clock=0.6),
    Trouble.THERMAL: _Condition(power=0.8, clock=0.75, warmer_celsius=34.0),
}


class SimulatedGpu:
    """One H200. Times are monotonic seconds; `since_seconds` is when its counters stood at 0."""

    def __init__(self, index: int, *, since_seconds: float) -> None:
        self.device = Device(
            uuid=f"GPU-51a1a7ed-0000-4000-8000-{index:012x}",
            index=index,
            name="NVIDIA H200",
            pci_bus_id=f"00000000:{0x1B + 0x0D * index:02X}:00.0",
        )
        self._since = since_seconds
        self._load = Load(gpu=index)

    def samples(self, faults: Iterable[SimulatedFault], *, now: float) -> Iterator[Sample]:
        mine = [fault for fault in faults if fault.gpu == self.device.index]
        active = [fault.kind for fault in mine if fault.ended_seconds > now]
        condition = next((_CONDITIONS[kind] for kind in active if kind in _CONDITIONS), _SOUND)
        load = self._load.at(now - self._since)
        yield from self._vitals(load, condition, is_hot=Trouble.THERMAL in active)
        yield from self._counters(mine, now)
        yield from _healthy()
        yield from _links(load)

    def _vitals(self, load: float, condition: _Condition, *, is_hot: bool) -> Iterator[Sample]:
        # NCCL's kernels spin while they wait: the utilisation of every GPU is near 1.
        yield Sample(families.UTILIZATION, min(1.0, 0.96 + 0.05 * load))
        yield Sample(families.BANDWIDTH_UTILIZATION, 0.35 * load)
        used = _MEMORY * 0.9 + 2e9 * load
        yield Sample(families.MEMORY_TOTAL, _MEMORY)
        yield Sample(families.MEMORY_USED, used)
        yield Sample(families.MEMORY_FREE, _MEMORY - used - _RESERVED)
        yield Sample(families.MEMORY_RESERVED, _RESERVED)
        core = 34.0 + 24.0 * load * condition.power + condition.warmer_celsius
        yield Sample(families.TEMPERATURE, core, ("core",))
        yield Sample(families.TEMPERATURE, core + 9.0, ("memory",))
        yield Sample(families.TEMPERATURE_MARGIN, max(_SLOWDOWN_CELSIUS - core, 0.0))
        yield Sample(families.POWER_DRAW, (_IDLE_WATTS + _BUSY_WATTS * load) * condition.power)
        yield Sample(families.POWER_LIMIT, _LIMIT_WATTS)
        yield from _clocks(load, condition)
        reasons = {"sw_power_cap": load > 0.85, "hw_thermal": is_hot, "hw_slowdown": is_hot}
        for reason in _REASONS:
            yield Sample(families.THROTTLE_ACTIVE, float(reasons.get(reason, False)), (reason,))
        yield Sample(families.SM_ACTIVE, (0.2 + 0.65 * load) * condition.power)
        yield Sample(families.TENSOR_ACTIVE, (0.05 + 0.45 * load) * condition.power)
        yield Sample(families.DRAM_ACTIVE, (0.25 + 0.6 * load) * condition.power)

    def _counters(self, faults: list[SimulatedFault], now: float) -> Iterator[Sample]:
        done = self._load.until(now - self._since)
        joules = self._joules(self._since, now)
        hot_seconds = 0.0
        for fault in faults:
            condition = _CONDITIONS.get(fault.kind, _SOUND)
            began, ended = fault.began_seconds, min(fault.ended_seconds, now)
            joules -= self._joules(began, ended) * (1.0 - condition.power)
            hot_seconds += (ended - began) * (fault.kind is Trouble.THERMAL)
        seconds = {"sw_power_cap": 0.06 * done, "hw_thermal": hot_seconds}
        yield Sample(families.ENERGY, joules)
        for reason in _TIMED_REASONS:
            yield Sample(families.THROTTLE_SECONDS, seconds.get(reason, 0.0), (reason,))
        yield Sample(families.NVLINK_TRANSMIT, done * _NVLINK_BYTES_PER_SECOND)
        yield Sample(families.NVLINK_RECEIVE, done * _NVLINK_BYTES_PER_SECOND)

    def _joules(self, began: float, ended: float) -> float:
        """Energy of a sound GPU between two times."""
        work = self._load.until(ended - self._since) - self._load.until(began - self._since)
        return _IDLE_WATTS * (ended - began) + _BUSY_WATTS * work


def _clocks(load: float, condition: _Condition) -> Iterator[Sample]:
    # At full load the power limit takes some of the clock away.
    now = (1980e6 - 900e6 * max(0.0, load - 0.75)) * condition.clock
    clocks = {"graphics": (now, 1980e6), "sm": (now, 1980e6), "memory": (3201e6, 3201e6)}
    clocks["video"] = (now * 0.78, 1545e6)
    for clock, (hertz, highest) in clocks.items():
        yield Sample(families.CLOCK, hertz, (clock,))
        yield Sample(families.CLOCK_MAX, highest, (clock,))


def _healthy() -> Iterator[Sample]:
    for kind in ("corrected", "uncorrected"):
        yield Sample(families.ECC_ERRORS, 0.0, (kind, "aggregate"))
        yield Sample(families.ECC_VOLATILE, 0.0, (kind,))
    for kind in ("correctable", "uncorrectable"):
        yield Sample(families.REMAPPED_ROWS, 0.0, (kind,))
    zeros: tuple[Family, ...] = (
        families.REMAPPED_PENDING,
        families.REMAPPED_FAILURE,
        families.RECOVERY_ACTION,
        families.PCIE_REPLAYS,
        families.MIG_ENABLED,
    )
    yield from (Sample(family, 0.0) for family in zeros)
    yield Sample(families.PROCESS_COUNT, 1.0)


def _links(load: float) -> Iterator[Sample]:
    yield Sample(families.PCIE_TRANSMIT, 2e8 + 9e8 * load)
    yield Sample(families.PCIE_RECEIVE, 1e8 + 6e8 * load)
    for state in ("current", "max"):
        yield Sample(families.PCIE_GENERATION, 5.0, (state,))
        yield Sample(families.PCIE_WIDTH, 16.0, (state,))
    for kind in ("replay", "recovery", "crc"):
        yield Sample(families.NVLINK_ERRORS, 0.0, (kind,))
    for link in range(_LINKS):
        yield Sample(families.NVLINK_UP, 1.0, (str(link),))
