"""NvmlSource: the GPUs of this machine through NVIDIA's management library."""

from collections.abc import Iterable, Iterator
from typing import Any

import pynvml  # type: ignore[import-untyped]  # theirs

from exporter.nvml.calls import Calls, DeviceLost, is_void, name_of, unavailable
from exporter.nvml.gpm import Gpm
from exporter.nvml.interconnect import NvLinks, pcie
from exporter.nvml.tenants import instances, processes
from exporter.nvml.vitals import vitals
from exporter.nvml.wear import wear
from exporter.nvml.xids import XidWatch
from exporter.snapshot import Device, DeviceReading, Fault, Reading, Sample, XidEvent
from exporter.source import SimulatedFault


class NvmlSource:
    """Opened once in a process: what came or went on the bus is seen by a new process alone.

    NVML lists the GPUs when it is initialised, and a driver that was upgraded meanwhile needs the
    new library, so starting anew is the whole of re-initialisation.
    """

    def __init__(self, *, wants_processes: bool, wants_pcie: bool) -> None:
        self.activity = "starting"
        self._wants_processes = wants_processes
        self._wants_pcie = wants_pcie
        self._gpus: tuple[_Gpu, ...] = ()
        self._lost: list[Fault] = []
        self._driver_version = ""
        self._cuda_version = ""
        self._xids = XidWatch({})

    def open(self) -> None:
        self.activity = "nvmlInit"
        try:
            pynvml.nvmlInit()
            self._driver_version = _text(pynvml.nvmlSystemGetDriverVersion())
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise unavailable("nvmlInit", error.value) from None
        self._cuda_version = _cuda_version()
        self._gpus = tuple(gpu for index in range(count) if (gpu := self._opened(index)))
        self._xids = XidWatch({gpu.device.uuid: gpu.handle for gpu in self._gpus})
        self.activity = "idle"

    def read(self) -> Reading:
        devices = []
        faults = list(self._lost)
        for gpu in self._gpus:
            calls = Calls(gpu.handle, uuid=gpu.device.uuid, on_call=self._note)
            try:
                samples = tuple(self._samples(gpu, calls))
            except DeviceLost as lost:
                faults.append(Fault(lost.call, lost.error, gpu.device.uuid))
                continue
            faults += calls.faults
            if samples:  # a GPU that answers nothing at all is not there
                devices.append(DeviceReading(gpu.device, samples))
        self.activity = "idle"
        return Reading(self._driver_version, self._cuda_version, tuple(devices), tuple(faults))

    def wait_for_xids(self, *, seconds: float) -> tuple[XidEvent, ...]:
        return self._xids.wait(seconds=seconds)

    def suffer(self, faults: Iterable[SimulatedFault]) -> None:
        """A real driver has its own."""

    def _samples(self, gpu: "_Gpu", calls: Calls) -> Iterator[Sample]:
        yield from vitals(calls)
        yield from wear(calls)
        yield from gpu.gpm.read(calls)
        # GPM measures PCIe without blocking; without it the driver samples for 20 ms each way.
        samples_throughput = self._wants_pcie and not gpu.gpm.is_supported
        yield from pcie(calls, samples_throughput=samples_throughput)
        yield from gpu.links.read(calls)
        yield from processes(calls, wants_memory=self._wants_processes)
        yield from instances(calls)

    def _opened(self, index: int) -> "_Gpu | None":
        self.activity = f"nvmlDeviceGetHandleByIndex {index}"
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            device = Device(
                uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
                index=index,
                name=_text(pynvml.nvmlDeviceGetName(handle)),
                pci_bus_id=_text(pynvml.nvmlDeviceGetPciInfo(handle).busId),
            )
            return _Gpu(device, handle, Calls(handle, uuid=device.uuid, on_call=self._note))
        except pynvml.NVMLError as error:
            if is_void(error.value):
                raise unavailable("nvmlDeviceGetHandleByIndex", error.value) from None
            self._lost.append(Fault("nvmlDeviceGetHandleByIndex", name_of(error.value)))
        except DeviceLost as lost:
            self._lost.append(Fault(lost.call, lost.error))
        return None

    def _note(self, activity: str) -> None:
        self.activity = activity


class _Gpu:
    """A GPU with its handle, and what has to be kept from one read to the next."""

    def __init__(self, device: Device, handle: Any, calls: Calls) -> None:
        self.device = device
        self.handle = handle
        self.links = NvLinks()
        self.gpm = Gpm(calls)


def _cuda_version() -> str:
    """`13.0` of 13000."""
    try:
        number = pynvml.nvmlSystemGetCudaDriverVersion()
    except pynvml.NVMLError:
        return ""
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(raw: str | bytes) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
