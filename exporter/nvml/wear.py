"""What is wrong with a GPU for good: memory errors, replaced rows, the repair it asks for."""

from collections.abc import Iterator
from typing import Final

import pynvml  # type: ignore[import-untyped]  # theirs

from exporter import families
from exporter.nvml.calls import Calls
from exporter.snapshot import Sample

_ECC_TYPES: Final = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
_RECOVERY_ACTION: Final = (pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, 0)


def wear(calls: Calls) -> Iterator[Sample]:
    count = pynvml.nvmlDeviceGetTotalEccErrors
    for kind, code in _ECC_TYPES.items():
        for_life = (kind, "aggregate")
        aggregate, volatile = pynvml.NVML_AGGREGATE_ECC, pynvml.NVML_VOLATILE_ECC
        yield from calls.samples(families.ECC_ERRORS, count, code, aggregate, labels=for_life)
        yield from calls.samples(families.ECC_VOLATILE, count, code, volatile, labels=(kind,))
    yield from _rows(calls)
    action = calls.fields([_RECOVERY_ACTION]).get(_RECOVERY_ACTION)
    if action is not None:
        yield Sample(families.RECOVERY_ACTION, action)


def _rows(calls: Calls) -> Iterator[Sample]:
    rows = calls.ask(pynvml.nvmlDeviceGetRemappedRows)
    if rows is None:
        return
    correctable, uncorrectable, is_pending, has_failed = rows
    yield Sample(families.REMAPPED_ROWS, correctable, ("correctable",))
    yield Sample(families.REMAPPED_ROWS, uncorrectable, ("uncorrectable",))
    yield Sample(families.REMAPPED_PENDING, is_pending)
    yield Sample(families.REMAPPED_FAILURE, has_failed)
