"""How busy, full, hot and fast a GPU is, and what holds it back."""

from collections.abc import Iterator
from typing import Final

import pynvml  # type: ignore[import-untyped]  # theirs

from exporter import families
from exporter.nvml.calls import Calls, is_value
from exporter.snapshot import Sample

_CLOCKS: Final = {
    "graphics": pynvml.NVML_CLOCK_GRAPHICS,
    "sm": pynvml.NVML_CLOCK_SM,
    "memory": pynvml.NVML_CLOCK_MEM,
    "video": pynvml.NVML_CLOCK_VIDEO,
}
_REASONS: Final = {
    "gpu_idle": pynvml.nvmlClocksEventReasonGpuIdle,
    "app_clocks": pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
    "sw_power_cap": pynvml.nvmlClocksEventReasonSwPowerCap,
    "hw_slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
    "sync_boost": pynvml.nvmlClocksEventReasonSyncBoost,
    "sw_thermal": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hw_thermal": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "hw_power_brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "display": pynvml.nvmlClocksEventReasonDisplayClockSetting,
}
_REASON_TIMES: Final = {
    "sw_power_cap": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP,
    "sync_boost": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST,
    "sw_thermal": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
    "hw_thermal": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
    "hw_power_brake": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
}
_MEMORY_TEMPERATURE: Final = (pynvml.NVML_FI_DEV_MEMORY_TEMP, 0)
_PERCENT: Final = 0.01
_MILLI: Final = 1e-3
_NANO: Final = 1e-9
_MEGA: Final = 1e6


def vitals(calls: Calls) -> Iterator[Sample]:
    yield from _utilization(calls)
    yield from _memory(calls)
    yield from _temperature(calls)
    yield from _power(calls)
    for clock, domain in _CLOCKS.items():
        ask_now, ask_max = pynvml.nvmlDeviceGetClockInfo, pynvml.nvmlDeviceGetMaxClockInfo
        yield from calls.samples(families.CLOCK, ask_now, domain, scale=_MEGA, labels=(clock,))
        yield from calls.samples(families.CLOCK_MAX, ask_max, domain, scale=_MEGA, labels=(clock,))
    yield from _throttling(calls)


def _utilization(calls: Calls) -> Iterator[Sample]:
    rates = calls.ask(pynvml.nvmlDeviceGetUtilizationRates)
    if rates is None:
        return
    if is_value(rates.gpu):
        yield Sample(families.UTILIZATION, rates.gpu * _PERCENT)
    if is_value(rates.memory):
        yield Sample(families.BANDWIDTH_UTILIZATION, rates.memory * _PERCENT)


def _memory(calls: Calls) -> Iterator[Sample]:
    # The first version of the call counts what the driver reserves as used.
    memory = calls.ask(pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2)
    if memory is None:
        memory = calls.ask(pynvml.nvmlDeviceGetMemoryInfo)
    elif is_value(memory.reserved):
        yield Sample(families.MEMORY_RESERVED, memory.reserved)
    if memory is None or not is_value(memory.total):
        return
    yield Sample(families.MEMORY_TOTAL, memory.total)
    if is_value(memory.used):
        yield Sample(families.MEMORY_USED, memory.used)
    if is_value(memory.free):
        yield Sample(families.MEMORY_FREE, memory.free)


def _temperature(calls: Calls) -> Iterator[Sample]:
    sensor = pynvml.NVML_TEMPERATURE_GPU
    core = calls.ask(pynvml.nvmlDeviceGetTemperatureV, sensor)
    if core is None:
        # Drivers before 560 have only the call that CUDA 14 takes away.
        core = calls.ask(pynvml.nvmlDeviceGetTemperature, sensor)
    if core is not None and is_value(core):
        yield Sample(families.TEMPERATURE, core, ("core",))
    yield from calls.samples(families.TEMPERATURE_MARGIN, pynvml.nvmlDeviceGetMarginTemperature)
    # A memory sensor that is not there reads 0.
    if memory := calls.fields([_MEMORY_TEMPERATURE]).get(_MEMORY_TEMPERATURE):
        yield Sample(families.TEMPERATURE, memory, ("memory",))


def _power(calls: Calls) -> Iterator[Sample]:
    draw, limit = pynvml.nvmlDeviceGetPowerUsage, pynvml.nvmlDeviceGetEnforcedPowerLimit
    energy = pynvml.nvmlDeviceGetTotalEnergyConsumption
    yield from calls.samples(families.POWER_DRAW, draw, scale=_MILLI)
    yield from calls.samples(families.POWER_LIMIT, limit, scale=_MILLI)
    yield from calls.samples(families.ENERGY, energy, scale=_MILLI)


def _throttling(calls: Calls) -> Iterator[Sample]:
    mask = calls.ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons)
    if mask is not None and is_value(mask):
        for reason, bit in _REASONS.items():
            yield Sample(families.THROTTLE_ACTIVE, float(bool(mask & bit)), (reason,))
    times = calls.fields([(field, 0) for field in _REASON_TIMES.values()])
    for reason, field in _REASON_TIMES.items():
        if (nanoseconds := times.get((field, 0))) is not None:
            yield Sample(families.THROTTLE_SECONDS, nanoseconds * _NANO, (reason,))
