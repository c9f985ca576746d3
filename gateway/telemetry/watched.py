"""Values that other rooms own, read when Prometheus asks."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector

from gateway.telemetry.exposition import number
from gateway.telemetry.tallies import label_text

Labels = tuple[tuple[str, str], ...]
ReadSeries = Callable[[], Iterable[tuple[Labels, float]]]


@dataclass(frozen=True, slots=True)
class WatchedValue:
    """A gauge or counter that a room owns. `labels` are constant pairs."""

    name: str
    help: str
    read: Callable[[], float]
    labels: tuple[tuple[str, str], ...] = ()
    is_counter: bool = False


class WatchedFamily:
    """One metric whose series are read from their owners."""

    def __init__(self, name: str, help_text: str, *, kind: str) -> None:
        self.name = name
        self.help = help_text
        self.kind = kind
        self._values: list[tuple[str, Callable[[], float]]] = []

    def add(self, labels: tuple[tuple[str, str], ...], read: Callable[[], float]) -> None:
        names, values = [name for name, _ in labels], [value for _, value in labels]
        self._values.append((label_text(names, values), read))

    def texts(self, *, is_openmetrics: bool) -> Iterator[str]:
        name = self.name + "_total" if self.kind == "counter" else self.name
        for labels, read in self._values:
            yield f"{name}{labels} {number(read())}\n"


class WatchedSeries:
    """One gauge whose series come and go: `read` yields those there are when it is scraped."""

    kind = "gauge"

    def __init__(self, name: str, help_text: str, *, read: ReadSeries) -> None:
        self.name = name
        self.help = help_text
        self._read = read

    def texts(self, *, is_openmetrics: bool) -> Iterator[str]:
        for labels, value in self._read():
            names, values = [name for name, _ in labels], [text for _, text in labels]
            yield f"{self.name}{label_text(names, values)} {number(value)}\n"


class SampledFamily:
    """One metric whose samples are complete: what was found out while it was scraped."""

    def __init__(
        self, name: str, help_text: str, *, kind: str, samples: Iterable[tuple[str, float]]
    ) -> None:
        self.name = name
        self.help = help_text
        self.kind = kind
        self._samples = list(samples)

    def texts(self, *, is_openmetrics: bool) -> Iterator[str]:
        name = self.name + "_total" if self.kind == "counter" else self.name
        for labels, value in self._samples:
            yield f"{name}{labels} {number(value)}\n"


class ProcessNumbers:
    """process_*: CPU, memory and open files of this process, as every Prometheus client has them.

    Reading them takes as long as /proc takes to list the open files, so that is a thread's work:
    one of their own, because those that all share may be waiting for a disk that hangs.
    """

    def __init__(self) -> None:
        self._collector = ProcessCollector(registry=None)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-numbers")

    async def read(self) -> list[SampledFamily]:
        loop = asyncio.get_running_loop()
        metrics = await loop.run_in_executor(self._thread, self._collect)
        return [_sampled(metric) for metric in metrics]

    def _collect(self) -> list[Metric]:
        return list(self._collector.collect())


def _sampled(metric: Metric) -> SampledFamily:
    samples = [
        (label_text(list(sample.labels), list(sample.labels.values())), sample.value)
        for sample in metric.samples
    ]
    return SampledFamily(metric.name, metric.documentation, kind=metric.type, samples=samples)
