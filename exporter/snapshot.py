"""What one collection found: the GPUs that answered and what they said, apart from any health."""

from dataclasses import dataclass

from exporter.families import Family


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU. Only the uuid names it for good: indices shift when the bus is enumerated again."""

    uuid: str
    index: int
    name: str
    pci_bus_id: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One value in the family's base unit; `labels` in the family's order."""

    family: Family
    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """A GPU that answered, and its samples."""

    device: Device
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A driver call that failed; `uuid` is empty where no one GPU is meant.

    `is_absence`: this card or driver has no such value, which is nothing to alarm about.
    """

    call: str
    error: str
    uuid: str = ""
    is_absence: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One collection. A GPU that was lost is not in `devices`; `faults` tell why."""

    driver_version: str
    cuda_version: str
    devices: tuple[DeviceReading, ...]
    faults: tuple[Fault, ...] = ()

    @property
    def uuids(self) -> frozenset[str]:
        return frozenset(reading.device.uuid for reading in self.devices)


@dataclass(frozen=True, slots=True)
class XidEvent:
    """The driver reported an XID at that wall-clock time, in seconds since the epoch."""

    uuid: str
    xid: int
    at_seconds: float
