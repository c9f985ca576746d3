"""The text that Prometheus reads: readings, inventory, XIDs and health as metric families."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter.families import FAMILIES, Family, Kind
from exporter.health import Health
from exporter.inventory import Inventory
from exporter.xids import XidBook

_DEVICE = ("gpu", "uuid")
_INFO = ("gpu", "uuid", "name", "pci_bus_id", "driver_version", "cuda_version")


class Exposition:
    """Renders what is known at the moment of the scrape; asks no driver anything."""

    def __init__(
        self, *, health: Health, inventory: Inventory, xids: XidBook, version: str
    ) -> None:
        self._health = health
        self._inventory = inventory
        self._xids = xids
        self._version = version
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The body and its content type, in the format the scraper prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client: every family, those without samples too."""
        yield from self._identity()
        yield from self._telemetry()
        yield from self._events()
        yield from self._devices()
        yield from self._health_series()

    def _identity(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("gpu_info", "What a GPU is; stays when it is lost.", labels=_INFO)
        is_up = GaugeMetricFamily(
            "gpu_up", "1 if the GPU answers, 0 if it is lost.", labels=_DEVICE
        )
        reading = self._health.reading
        for known in self._inventory:
            device = known.device
            label = (str(device.index), device.uuid)
            versions = (known.driver_version, known.cuda_version)
            info.add_metric([*label, device.name, device.pci_bus_id, *versions], 1)
            if reading is not None:
                is_up.add_metric(label, float(device.uuid in reading.uuids))
        yield info
        yield is_up

    def _telemetry(self) -> Iterator[Metric]:
        metrics = {family: _metric(family) for family in FAMILIES}
        reading = self._health.reading
        for found in reading.devices if reading else ():
            uuid = found.device.uuid
            label = (self._inventory.label_of(uuid), uuid)
            for sample in found.samples:
                metrics[sample.family].add_metric([*label, *sample.labels], sample.value)
        yield from metrics.values()

    def _events(self) -> Iterator[Metric]:
        labels = (*_DEVICE, "xid")
        count = CounterMetricFamily(
            "gpu_xid_errors", "XIDs the driver reported since the exporter started.", labels=labels
        )
        last = GaugeMetricFamily(
            "gpu_xid_last_timestamp_seconds", "When an XID was reported last.", labels=labels
        )
        for entry in self._xids:
            values = (self._inventory.label_of(entry.uuid), entry.uuid, str(entry.xid))
            count.add_metric(values, entry.count)
            last.add_metric(values, entry.last_seconds)
        yield count
        yield last

    def _devices(self) -> Iterator[Metric]:
        reading = self._health.reading
        visible = [] if reading is None else [len(reading.devices)]
        yield _single("devices_visible", "GPUs that answered; absent while nobody knows.", visible)
        expected = [self._inventory.expected_count]
        yield _single("devices_expected", "GPU_EXPECTED_COUNT, or all seen since start.", expected)

    def _health_series(self) -> Iterator[Metric]:
        health = self._health
        success, available = [health.is_success], [health.is_available]
        last = [health.last_success_seconds] if health.last_success_seconds else []
        took = [health.duration_seconds] if health.duration_seconds is not None else []
        yield _single("last_collect_success", "1 if the last collection worked.", success)
        yield _single("last_success_timestamp_seconds", "When one worked last.", last)
        yield _single("collect_duration_seconds", "How long the last one that ended took.", took)
        yield _single("nvml_available", "1 if NVML could be initialised.", available)
        errors = CounterMetricFamily(
            "gpu_exporter_errors",
            "Driver calls that failed, apart from values a GPU does not have.",
            labels=("call", "error"),
        )
        for key, number in health.errors.items():
            errors.add_metric(key, number)
        yield errors
        yield CounterMetricFamily(
            "gpu_exporter_nvml_reinitializations",
            "How often NVML was initialised anew.",
            value=health.reinitializations,
        )
        build = GaugeMetricFamily("gpu_exporter_build_info", "The exporter.", labels=("version",))
        build.add_metric((self._version,), 1)
        yield build


def _metric(family: Family) -> GaugeMetricFamily | CounterMetricFamily:
    labels = (*_DEVICE, *family.labels)
    if family.kind is Kind.COUNTER:
        return CounterMetricFamily(family.name, family.help, labels=labels)
    return GaugeMetricFamily(family.name, family.help, labels=labels)


def _single(name: str, text: str, values: Iterable[float]) -> Metric:
    """A series of the exporter itself, or none."""
    metric = GaugeMetricFamily(f"gpu_exporter_{name}", text, labels=())
    for value in values:
        metric.add_metric((), float(value))
    return metric
