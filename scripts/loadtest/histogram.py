"""A histogram of seconds with logarithmic buckets: any number of values in bounded memory.

A percentile is at most 0.25 % away from the exact one: a bucket is 0.5 % wide and answers with its
geometric middle. Count, sum, smallest and largest are exact. A month of values between 1 us and
10,000 s fills at most some 4,600 buckets.
"""

import math
from collections.abc import Iterator
from typing import Final, TypedDict

ERROR_BOUND: Final = 0.0025
_GROWTH: Final = 1.005
_SMALLEST_SECONDS: Final = 1e-6
_PER_LOG: Final = 1 / math.log(_GROWTH)


class HistogramRecord(TypedDict):
    """A histogram as it travels between processes."""

    buckets: list[tuple[int, int]]
    total: float
    smallest: float
    largest: float


class Histogram:
    """Counts of seconds; merging two is exact."""

    __slots__ = ("_buckets", "_largest", "_smallest", "count", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._smallest = math.inf
        self._largest = 0.0
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one value; a negative one counts as nothing."""
        seconds = max(seconds, 0.0)
        index = 0
        if seconds > _SMALLEST_SECONDS:
            index = math.ceil(math.log(seconds / _SMALLEST_SECONDS) * _PER_LOG)
        buckets = self._buckets
        buckets[index] = buckets.get(index, 0) + 1
        self.count += 1
        self.total += seconds
        # Comparisons, because two calls of built-ins per value can be felt.
        if seconds > self._largest:  # noqa: PLR1730
            self._largest = seconds
        if seconds < self._smallest:  # noqa: PLR1730
            self._smallest = seconds

    def merge(self, other: "Histogram") -> None:
        """Take in all that the other one counted."""
        for index, times in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + times
        self.count += other.count
        self.total += other.total
        self._smallest = min(self._smallest, other._smallest)
        self._largest = max(self._largest, other._largest)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def smallest(self) -> float | None:
        return self._smallest if self.count else None

    @property
    def largest(self) -> float | None:
        return self._largest if self.count else None

    def quantile(self, ratio: float) -> float | None:
        """The nearest-rank percentile: the smallest value that `ratio` of all do not exceed."""
        if not self.count:
            return None
        rank = max(1, math.ceil(ratio * self.count))
        if rank == self.count:
            return self._largest
        seen = 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen >= rank:
                return self._within(_middle(index))
        return self._largest

    def steps(self) -> Iterator[tuple[float, float]]:
        """The cumulative distribution: seconds, and the share of values up to there."""
        seen = 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            yield self._within(_middle(index)), seen / self.count

    def record(self) -> HistogramRecord:
        """All of it, for another process."""
        return {
            "buckets": list(self._buckets.items()),
            "total": self.total,
            "smallest": self._smallest if self.count else 0.0,
            "largest": self._largest,
        }

    @classmethod
    def from_record(cls, record: HistogramRecord) -> "Histogram":
        """The histogram whose record this is."""
        histogram = cls()
        histogram._buckets = dict(record["buckets"])
        histogram.count = sum(histogram._buckets.values())
        histogram.total = record["total"]
        histogram._largest = record["largest"]
        if histogram.count:
            histogram._smallest = record["smallest"]
        return histogram

    def _within(self, seconds: float) -> float:
        return min(max(seconds, self._smallest), self._largest)


def _middle(index: int) -> float:
    """The geometric middle of a bucket, which is what bounds the error."""
    return float(_SMALLEST_SECONDS * _GROWTH ** (index - 0.5))
