"""GPM: what the multiprocessors really did between two samples (Hopper and later)."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pynvml  # type: ignore[import-untyped]  # theirs

from exporter import families
from exporter.families import Family
from exporter.nvml.calls import Calls, is_value
from exporter.snapshot import Sample

_MEBI: Final = 1024.0 * 1024.0
_PERCENT: Final = 0.01
# NVML asks for at least 100 ms between the two samples.
_SHORTEST_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class _Metric:
    family: Family
    number: int
    scale: float


_METRICS: Final = (
    _Metric(families.SM_ACTIVE, pynvml.NVML_GPM_METRIC_SM_UTIL, _PERCENT),
    _Metric(families.TENSOR_ACTIVE, pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, _PERCENT),
    _Metric(families.DRAM_ACTIVE, pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, _PERCENT),
    _Metric(families.PCIE_TRANSMIT, pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC, _MEBI),
    _Metric(families.PCIE_RECEIVE, pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, _MEBI),
)


class Gpm:
    """Two samples of one GPU, allocated once and used in turn; none where there is no GPM."""

    def __init__(self, calls: Calls) -> None:
        self._older: Any = None
        self._newer: Any = None
        self._older_at = 0.0
        support = calls.ask(pynvml.nvmlGpmQueryDeviceSupport)
        if support is None or not support.isSupportedDevice:
            return
        self._newer = calls.plain(pynvml.nvmlGpmSampleAlloc)
        self._older = calls.plain(pynvml.nvmlGpmSampleAlloc)
        if self.is_supported:
            self._take(calls, self._older)
            self._older_at = time.monotonic()

    @property
    def is_supported(self) -> bool:
        return self._older is not None and self._newer is not None

    def read(self, calls: Calls) -> Iterator[Sample]:
        """Averages since the last read; waits if that was a moment ago."""
        if not self.is_supported:
            return
        too_soon_seconds = self._older_at + _SHORTEST_SECONDS - time.monotonic()
        if too_soon_seconds > 0:
            time.sleep(too_soon_seconds)
        if self._take(calls, self._newer) is None:
            return
        asked = pynvml.c_nvmlGpmMetricsGet_t()
        asked.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        asked.numMetrics = len(_METRICS)
        asked.sample1, asked.sample2 = self._older, self._newer
        for position, metric in enumerate(_METRICS):
            asked.metrics[position].metricId = metric.number
        answer = calls.plain(pynvml.nvmlGpmMetricsGet, asked)
        self._older, self._newer = self._newer, self._older
        self._older_at = time.monotonic()
        if answer is None:
            return
        for position, metric in enumerate(_METRICS):
            found = answer.metrics[position]
            if found.nvmlReturn == pynvml.NVML_SUCCESS and is_value(found.value):
                yield Sample(metric.family, found.value * metric.scale)

    def _take(self, calls: Calls, sample: Any) -> Any:
        return calls.ask(pynvml.nvmlGpmSampleGet, sample)
