"""SimulatedSource: GPUs that suffer what they are told to, and behave as real ones do then."""

import threading
import time
from collections.abc import Iterable
from queue import Empty, SimpleQueue

from exporter.simulated.gpu import SimulatedGpu
from exporter.snapshot import DeviceReading, Fault, Reading, XidEvent
from exporter.source import SimulatedFault, Trouble


class SimulatedSource:
    """`count` H200s that work together, as with tensor parallelism."""

    def __init__(self, *, count: int, since_seconds: float) -> None:
        self.activity = "idle"
        self._gpus = [SimulatedGpu(index, since_seconds=since_seconds) for index in range(count)]
        self._on_the_bus: frozenset[int] | None = None
        self._faults: tuple[SimulatedFault, ...] = ()
        self._xids: SimpleQueue[XidEvent] = SimpleQueue()

    def open(self) -> None:
        """Nothing can fail."""

    def suffer(self, faults: Iterable[SimulatedFault]) -> None:
        self._faults = tuple(faults)
        for fault in self._faults:
            if fault.kind is Trouble.XID and fault.gpu < len(self._gpus):
                uuid = self._gpus[fault.gpu].device.uuid
                self._xids.put(XidEvent(uuid, fault.xid, time.time()))

    def read(self) -> Reading:
        now = time.monotonic()
        lost = self._sufferers(Trouble.LOST, now)
        if self._on_the_bus is None:
            # As NVML does: who is on the bus is found out once, when it is initialised.
            self._on_the_bus = frozenset(range(len(self._gpus))) - lost
        devices, faults = [], []
        for gpu in self._gpus:
            device = gpu.device
            if device.index not in self._on_the_bus:
                continue
            if device.index in self._sufferers(Trouble.HANG, now):
                self._hang(device.uuid)
            if device.index in lost:
                faults.append(Fault("nvmlDeviceGetUtilizationRates", "GpuIsLost", device.uuid))
                continue
            devices.append(DeviceReading(device, tuple(gpu.samples(self._faults, now=now))))
        return Reading("580.95.05", "13.0", tuple(devices), tuple(faults))

    def wait_for_xids(self, *, seconds: float) -> tuple[XidEvent, ...]:
        try:
            return (self._xids.get(timeout=seconds),)
        except Empty:
            return ()

    def _sufferers(self, kind: Trouble, now: float) -> frozenset[int]:
        return frozenset(
            fault.gpu for fault in self._faults if fault.kind is kind and fault.ended_seconds > now
        )

    def _hang(self, uuid: str) -> None:
        self.activity = f"nvmlDeviceGetUtilizationRates on {uuid}"
        threading.Event().wait()
