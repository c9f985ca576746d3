"""What a while of the run came to: counts and histograms that add up."""

from dataclasses import dataclass, field, fields
from typing import Final, cast

import orjson

from scripts.loadtest.failure import Failure
from scripts.loadtest.histogram import Histogram, HistogramRecord

# How often a worker reports.
FRAME_SECONDS: Final = 0.25
# Codes are the server's words: a server that invents them cannot fill the memory.
_MOST_LABELS: Final = 60
_OTHER: Final = "other"


@dataclass(slots=True)
class FailureCount:
    """One name of failure: how often, and the first message that came with it."""

    count: int
    is_refusal: bool
    message: str

    def merge(self, other: "FailureCount") -> None:
        self.count += other.count
        self.message = self.message or other.message


@dataclass(slots=True)
class Tally:
    """`begun` to `good` and the histograms count the sample: requests due within the window.

    `finished` and the tokens count what ended well within the window, whenever it was due: that
    is the throughput. The `live` ones count everything at all times.
    """

    begun: int = 0
    ok: int = 0
    unfinished: int = 0
    not_sent: int = 0
    good: int = 0
    finished: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    without_usage: int = 0
    live_ok: int = 0
    live_tokens: int = 0
    failures: dict[str, FailureCount] = field(default_factory=dict)
    time_to_first_token: Histogram = field(default_factory=Histogram)
    inter_token: Histogram = field(default_factory=Histogram)
    time_per_output_token: Histogram = field(default_factory=Histogram)
    end_to_end: Histogram = field(default_factory=Histogram)
    send_lag: Histogram = field(default_factory=Histogram)

    def count_failure(self, failure: Failure) -> None:
        count = FailureCount(1, failure.is_refusal, failure.message)
        self._add_failure(failure.label, count)

    @property
    def failed(self) -> int:
        """Failures that are no refusals."""
        return sum(each.count for each in self.failures.values() if not each.is_refusal)

    @property
    def refused(self) -> int:
        return sum(each.count for each in self.failures.values() if each.is_refusal)

    def merge(self, other: "Tally") -> None:
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in HISTOGRAMS:
            getattr(self, name).merge(getattr(other, name))
        for label, count in other.failures.items():
            self._add_failure(label, FailureCount(count.count, count.is_refusal, count.message))

    def record(self) -> dict[str, object]:
        """All of it, for another process."""
        record: dict[str, object] = {name: getattr(self, name) for name in _COUNTS}
        record["failures"] = self.failures
        for name in HISTOGRAMS:
            record[name] = getattr(self, name).record()
        return record

    @classmethod
    def from_record(cls, record: dict[str, object]) -> "Tally":
        """The tally whose record this is."""
        tally = cls()
        for name in _COUNTS:
            setattr(tally, name, record[name])
        failures = cast(dict[str, dict[str, object]], record["failures"])
        tally.failures = {
            label: FailureCount(**count)  # type: ignore[arg-type]  # our own record, just read
            for label, count in failures.items()
        }
        for name in HISTOGRAMS:
            setattr(tally, name, Histogram.from_record(cast(HistogramRecord, record[name])))
        return tally

    def _add_failure(self, label: str, count: FailureCount) -> None:
        if label not in self.failures and len(self.failures) >= _MOST_LABELS:
            label, count = _OTHER, FailureCount(count.count, False, "")
        known = self.failures.get(label)
        if known is None:
            self.failures[label] = count
        else:
            known.merge(count)


HISTOGRAMS: Final = tuple(each.name for each in fields(Tally) if each.default_factory is Histogram)
_COUNTS: Final = tuple(each.name for each in fields(Tally) if each.default == 0)


@dataclass(frozen=True, slots=True)
class Frame:
    """What one worker reports a few times a second: the difference to its last report."""

    worker: int
    at: float
    in_flight: int
    cpu_seconds: float
    starved_seconds: float
    loop_lag: Histogram
    tally: Tally
    is_last: bool

    def to_json(self) -> bytes:
        """One line."""
        record = {name: getattr(self, name) for name in _PLAIN}
        record |= {"loop_lag": self.loop_lag.record(), "tally": self.tally.record()}
        return orjson.dumps(record)

    @classmethod
    def from_json(cls, line: bytes) -> "Frame":
        """The frame that `to_json` wrote."""
        record = orjson.loads(line)
        record["loop_lag"] = Histogram.from_record(record["loop_lag"])
        record["tally"] = Tally.from_record(record["tally"])
        return cls(**record)


_PLAIN: Final = ("worker", "at", "in_flight", "cpu_seconds", "starved_seconds", "is_last")
