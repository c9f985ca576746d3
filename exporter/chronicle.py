"""Chronicle: what the log tells of the GPUs, each thing once and again only when it changes."""

from collections import defaultdict
from collections.abc import Iterable

from exporter.logs import Log
from exporter.snapshot import Fault, Reading, XidEvent


class Chronicle:
    """A line per change: a GPU that keeps failing the same way fills no log."""

    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._answering: frozenset[str] = frozenset()
        self._faults: dict[tuple[str, str], Fault] = {}
        self._absent: set[tuple[str, str]] = set()
        self._failure = ""

    def collected(self, reading: Reading, *, known: Iterable[str]) -> None:
        """A collection that ended; `known` are the GPUs seen before it."""
        if self._failure:
            self._log.info("collecting again", after=self._failure)
            self._failure = ""
        known = frozenset(known)
        for device in (found.device for found in reading.devices):
            if device.uuid not in self._answering:
                event = "GPU is back" if device.uuid in known else "GPU found"
                where = {"uuid": device.uuid, "name": device.name, "pci": device.pci_bus_id}
                self._log.info(event, gpu=device.index, **where)
        for uuid in sorted((self._answering & known) - reading.uuids):
            self._log.error("GPU is lost", uuid=uuid, cure="see `dmesg` and `nvidia-smi`")
        self._answering = reading.uuids
        self._tell_faults(reading)

    def failed(self, *, call: str, error: str, cure: str) -> None:
        """A collection that brought nothing."""
        failure = f"{call}: {error}"
        if failure != self._failure:
            self._log.error("no GPU metrics", call=call, error=error, cure=cure)
            self._failure = failure

    def xid(self, event: XidEvent) -> None:
        self._log.error("XID", uuid=event.uuid, xid=event.xid)

    def _tell_faults(self, reading: Reading) -> None:
        absent = defaultdict(list)
        now = {}
        for fault in reading.faults:
            key = (fault.uuid, fault.call)
            if fault.is_absence:
                if key not in self._absent:
                    absent[fault.uuid].append(fault.call)
                    self._absent.add(key)
                continue
            now[key] = fault
            if self._faults.get(key) != fault:
                self._log.warning(
                    "call failed", call=fault.call, error=fault.error, uuid=fault.uuid
                )
        self._faults = now
        for uuid, calls in absent.items():
            self._log.info("not offered by this GPU, driver or user", uuid=uuid, calls=calls)
