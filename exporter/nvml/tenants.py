"""Who uses a GPU: its processes, and the instances it is split into (MIG)."""

from collections.abc import Iterator
from typing import Any

import pynvml  # type: ignore[import-untyped]  # theirs

from exporter import families
from exporter.nvml.calls import Calls, is_value
from exporter.snapshot import Sample

_NAME_CHARACTERS = 64


def processes(calls: Calls, *, wants_memory: bool) -> Iterator[Sample]:
    found = calls.ask(pynvml.nvmlDeviceGetComputeRunningProcesses)
    if found is None:
        return
    # Under MIG a process appears once per instance.
    yield Sample(families.PROCESS_COUNT, len({process.pid for process in found}))
    if not wants_memory:
        return
    memory: dict[int, float] = {}
    for process in found:
        # Not known: in a container without the host's pids, or not permitted.
        if process.usedGpuMemory is not None and is_value(process.usedGpuMemory):
            memory[process.pid] = memory.get(process.pid, 0) + process.usedGpuMemory
    for pid, used in memory.items():
        yield Sample(families.PROCESS_MEMORY, used, (str(pid), _name_of(calls, pid)))


def instances(calls: Calls) -> Iterator[Sample]:
    modes = calls.ask(pynvml.nvmlDeviceGetMigMode)
    if modes is None:
        return
    is_enabled = modes[0] == pynvml.NVML_FEATURE_ENABLED
    yield Sample(families.MIG_ENABLED, float(is_enabled))
    if not is_enabled:
        return
    seen: set[int] = set()
    for slot in range(calls.ask(pynvml.nvmlDeviceGetMaxMigDeviceCount) or 0):
        handle = _instance(calls, slot)
        if handle is None:
            continue
        part = calls.on(handle)
        number = part.ask(pynvml.nvmlDeviceGetGpuInstanceId)
        # Compute instances of one GPU instance share its memory: count it once.
        if number is not None and number not in seen:
            seen.add(number)
            yield from _memory_of(part, number)


def _instance(calls: Calls, slot: int) -> Any:
    try:
        return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(calls.handle, slot)
    except pynvml.NVMLError as error:
        if error.value != pynvml.NVML_ERROR_NOT_FOUND:  # an empty slot is no failure
            calls.failed("nvmlDeviceGetMigDeviceHandleByIndex", error.value)
        return None


def _memory_of(part: Calls, number: int) -> Iterator[Sample]:
    memory = part.ask(pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2)
    if memory is None:
        memory = part.ask(pynvml.nvmlDeviceGetMemoryInfo)
    if memory is None:
        return
    labels = (str(number), _profile_of(part))
    if is_value(memory.used):
        yield Sample(families.MIG_USED, memory.used, labels)
    if is_value(memory.total):
        yield Sample(families.MIG_TOTAL, memory.total, labels)


def _profile_of(part: Calls) -> str:
    """`1g.18gb` of `NVIDIA H200 MIG 1g.18gb`, and `3g.71gb` of `... MIG 1c.3g.71gb`."""
    name: str = part.ask(pynvml.nvmlDeviceGetName) or ""
    profile = name.rpartition("MIG ")[2]
    compute, dot, instance = profile.partition(".")
    return instance if dot and compute.endswith("c") else profile


def _name_of(calls: Calls, pid: int) -> str:
    """The program alone: arguments may hold secrets."""
    whole: str = calls.plain(pynvml.nvmlSystemGetProcessName, pid) or ""
    words = whole.split()
    return words[0].rpartition("/")[2][:_NAME_CHARACTERS] if words else ""
