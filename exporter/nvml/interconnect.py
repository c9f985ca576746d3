"""What a GPU exchanges with the host and with its peers: PCIe and NVLink."""

from collections.abc import Iterator
from typing import Final

import pynvml  # type: ignore[import-untyped]  # theirs

from exporter import families
from exporter.nvml.calls import Calls
from exporter.snapshot import Sample

# NVML says KB/s here, and KiB where it means 1024.
_KILO: Final = 1000.0
_KIBI: Final = 1024.0
_ALL_LINKS: Final = 0xFFFFFFFF
_LINK_COUNT: Final = (pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT, 0)
_ERROR_KINDS: Final = {
    "replay": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY,
    "recovery": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY,
    "crc": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC,
}
# Cards without the counters above have these, of which only totals of lanes are asked here.
_OLDER_ERROR_KINDS: Final = {
    "replay": pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    "recovery": pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
    "crc_flit": pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    "crc_data": pynvml.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
}


def pcie(calls: Calls, *, samples_throughput: bool) -> Iterator[Sample]:
    """The link, and with `samples_throughput` its traffic: the driver blocks 20 ms for each way."""
    for family, now, best in (
        (
            families.PCIE_GENERATION,
            pynvml.nvmlDeviceGetCurrPcieLinkGeneration,
            pynvml.nvmlDeviceGetMaxPcieLinkGeneration,
        ),
        (
            families.PCIE_WIDTH,
            pynvml.nvmlDeviceGetCurrPcieLinkWidth,
            pynvml.nvmlDeviceGetMaxPcieLinkWidth,
        ),
    ):
        yield from calls.samples(family, now, labels=("current",))
        yield from calls.samples(family, best, labels=("max",))
    yield from calls.samples(families.PCIE_REPLAYS, pynvml.nvmlDeviceGetPcieReplayCounter)
    if samples_throughput:
        ask = pynvml.nvmlDeviceGetPcieThroughput
        sent, received = pynvml.NVML_PCIE_UTIL_TX_BYTES, pynvml.NVML_PCIE_UTIL_RX_BYTES
        yield from calls.samples(families.PCIE_TRANSMIT, ask, sent, scale=_KILO)
        yield from calls.samples(families.PCIE_RECEIVE, ask, received, scale=_KILO)


class NvLinks:
    """The NVLinks of one GPU.

    Sums over links stay monotonic: a link that does not answer keeps its last count, for a sum
    that drops would look like a counter that began anew.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], float] = {}
        self._counts_bytes = False

    def read(self, calls: Calls) -> Iterator[Sample]:
        count = int(calls.fields([_LINK_COUNT]).get(_LINK_COUNT, 0))
        links = range(min(count, pynvml.NVML_NVLINK_MAX_LINKS))
        if not links:
            return
        for link in links:
            labels = (str(link),)
            yield from calls.samples(
                families.NVLINK_UP, pynvml.nvmlDeviceGetNvLinkState, link, labels=labels
            )
        yield from self._traffic(calls, links)
        yield from self._errors(calls, links)

    def _traffic(self, calls: Calls, links: range) -> Iterator[Sample]:
        if self._counts_bytes:
            yield from self._traffic_by_link(calls, links)
            return
        sent = (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _ALL_LINKS)
        received = (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, _ALL_LINKS)
        found = calls.fields([sent, received])
        if sent in found and received in found:
            yield Sample(families.NVLINK_TRANSMIT, found[sent] * _KIBI)
            yield Sample(families.NVLINK_RECEIVE, found[received] * _KIBI)
        elif not self._last:
            # Decided once: two sets of counters must not alternate in one series.
            by_link = tuple(self._traffic_by_link(calls, links))
            self._counts_bytes = bool(by_link)
            yield from by_link

    def _traffic_by_link(self, calls: Calls, links: range) -> Iterator[Sample]:
        for family, field in (
            (families.NVLINK_TRANSMIT, pynvml.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES),
            (families.NVLINK_RECEIVE, pynvml.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES),
        ):
            if (total := self._sum(calls, field, links)) is not None:
                yield Sample(family, total)

    def _errors(self, calls: Calls, links: range) -> Iterator[Sample]:
        sums = {kind: self._sum(calls, field, links) for kind, field in _ERROR_KINDS.items()}
        if not any(total is not None for total in sums.values()):
            found = calls.fields([(field, 0) for field in _OLDER_ERROR_KINDS.values()])
            sums = {kind: found.get((field, 0)) for kind, field in _OLDER_ERROR_KINDS.items()}
        for kind, total in sums.items():
            if total is not None:
                yield Sample(families.NVLINK_ERRORS, total, (kind,))

    def _sum(self, calls: Calls, field: int, links: range) -> float | None:
        self._last |= calls.fields([(field, link) for link in links])
        known = [self._last[field, link] for link in links if (field, link) in self._last]
        return sum(known) if known else None
