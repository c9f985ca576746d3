"""Tallies: counters and distributions as plain numbers, shown to Prometheus when it asks.

prometheus_client's own children take a lock and several checks for every operation, 8 us per
request here; these take 1.5. They are changed on the event loop alone and only ever grow, so that
the rendering thread can read them at any time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Distribution:
    """How many observations fell below which bound; the last count is of those above all."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """A value equal to a bound lies below it, as Prometheus' `le` says."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


Child = TypeVar("Child", Tally, Distribution)


class _Family(Collector, Generic[Child]):
    """One metric: its name, its labels, and a child for every combination that occurred."""

    def __init__(
        self, name: str, help_text: str, labels: tuple[str, ...], *, new: Callable[[], Child]
    ) -> None:
        self._name = name
        self._help = help_text
        self._labels = labels
        self._new: Callable[[], Child] = new
        self._children: dict[tuple[str, ...], Child] = {}

    def child(self, *labels: str) -> Child:
        """The same one for the same labels; bind it once, then only count."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._new()
        return child

    def _items(self) -> list[tuple[tuple[str, ...], Child]]:
        return list(self._children.items())


class Counters(_Family[Tally]):
    """A counter; Prometheus' text adds `_total` to the name."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        super().__init__(name, help_text, labels, new=Tally)

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for labels, tally in self._items():
            family.add_metric(labels, tally.value)
        yield family


class Distributions(_Family[Distribution]):
    """A histogram with fixed bounds."""

    def __init__(
        self, name: str, help_text: str, labels: tuple[str, ...], bounds: Sequence[float]
    ) -> None:
        super().__init__(name, help_text, labels, new=partial(Distribution, tuple(bounds)))
        marks = (floatToGoString(bound) for bound in (*bounds, float("inf")))  # type: ignore[no-untyped-call]  # untyped upstream
        self._marks = list(marks)

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for labels, seen in self._items():
            buckets = list(zip(self._marks, accumulate(seen.counts), strict=True))
            family.add_metric(labels, buckets, seen.total)
        yield family
