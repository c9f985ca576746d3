"""Inventory: every GPU seen since the exporter started, and how many there should be."""

from collections.abc import Iterator
from dataclasses import dataclass

from exporter.snapshot import Device, Reading


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """A GPU, and the versions it was last seen with."""

    device: Device
    driver_version: str
    cuda_version: str


class Inventory:
    """Keyed by uuid. A GPU keeps the index it was first seen with.

    After a GPU fell off the bus the others move up by one: a label that followed would make their
    series break off and begin anew as those of the GPU that is missing.
    """

    def __init__(self, *, expected_count: int | None) -> None:
        self._expected_count = expected_count
        self._known: dict[str, KnownGpu] = {}

    @property
    def expected_count(self) -> int:
        """What the operator said; else all that were ever seen."""
        return len(self._known) if self._expected_count is None else self._expected_count

    def learn(self, reading: Reading) -> None:
        for found in reading.devices:
            before = self._known.get(found.device.uuid)
            device = before.device if before else found.device
            known = KnownGpu(device, reading.driver_version, reading.cuda_version)
            self._known[device.uuid] = known

    def misses(self, reading: Reading) -> bool:
        """Whether a GPU that should be there did not answer."""
        is_known_missing = bool(self._known.keys() - reading.uuids)
        return is_known_missing or len(reading.devices) < self.expected_count

    def label_of(self, uuid: str) -> str:
        known = self._known.get(uuid)
        return str(known.device.index) if known else ""

    def __iter__(self) -> Iterator[KnownGpu]:
        return iter(sorted(self._known.values(), key=lambda gpu: (gpu.device.index,)))
