"""What a run found, in the numbers that people and programs read."""

from dataclasses import dataclass
from typing import Final

from scripts.loadtest.health import Health
from scripts.loadtest.histogram import Histogram
from scripts.loadtest.plan import Plan
from scripts.loadtest.tally import FailureCount, Tally
from scripts.loadtest.timeline import Timeline

_LIMITS_OF_THE_KEY: Final = (
    "rate_limit_exceeded",
    "concurrency_limit_exceeded",
    "insufficient_quota",
)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """One latency in seconds; all None where nothing was measured."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, histogram: Histogram) -> "Percentiles":
        p50, p90, p95, p99 = (histogram.quantile(ratio) for ratio in (0.5, 0.9, 0.95, 0.99))
        return cls(histogram.count, histogram.mean, p50, p90, p95, p99, histogram.largest)


@dataclass(frozen=True, slots=True)
class Latency:
    """A measured latency, with the name and the meaning that reports give it."""

    name: str
    title: str
    meaning: str
    percentiles: Percentiles


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was collected; `seconds` is the length of the measured window."""

    plan: Plan
    started_at: str
    url: str
    seconds: float
    is_interrupted: bool
    tally: Tally
    timeline: Timeline
    health: Health


class Summary:
    """The outcome, judged."""

    def __init__(self, outcome: Outcome, *, max_error_ratio: float) -> None:
        self.outcome = outcome
        self.plan = outcome.plan
        self.tally = outcome.tally
        self.max_error_ratio = max_error_ratio

    @property
    def error_ratio(self) -> float:
        """Failures, refusals and what could not be sent, among all that came to an end."""
        lost = self.tally.failed + self.tally.refused + self.tally.not_sent
        judged = self.tally.ok + lost
        return lost / judged if judged else 0.0

    @property
    def is_fine(self) -> bool:
        return self.tally.ok > 0 and self.error_ratio <= self.max_error_ratio

    @property
    def requests_per_second(self) -> float:
        return self._rate(self.tally.finished)

    @property
    def input_tokens_per_second(self) -> float:
        return self._rate(self.tally.input_tokens)

    @property
    def output_tokens_per_second(self) -> float:
        return self._rate(self.tally.output_tokens)

    @property
    def goodput_per_second(self) -> float:
        """Requests begun in the window that met every limit, per second of it."""
        return self._rate(self.tally.good)

    @property
    def goodput_ratio(self) -> float:
        """The share of all requests that were due and came to an end."""
        judged = self.tally.begun - self.tally.unfinished
        return self.tally.good / judged if judged else 0.0

    @property
    def failures(self) -> list[tuple[str, FailureCount]]:
        """The most frequent first."""
        return sorted(self.tally.failures.items(), key=lambda item: (-item[1].count, item[0]))

    @property
    def latencies(self) -> list[Latency]:
        tally = self.tally
        rows = (
            ("time_to_first_token", "Time to first token", "until the first token arrived",
             tally.time_to_first_token),
            ("inter_token", "Inter-token", "between two arrivals of tokens in a stream",
             tally.inter_token),
            ("time_per_output_token", "Time per output token",
             "mean of one answer over all its tokens but the first", tally.time_per_output_token),
            ("end_to_end", "End to end", "until the answer was complete", tally.end_to_end),
        )  # fmt: skip
        shown = rows if self.plan.is_stream else rows[-1:]
        return [Latency(name, title, why, Percentiles.of(each)) for name, title, why, each in shown]

    def warnings(self) -> list[str]:
        """What must be known before a number is believed; the gravest first."""
        tally = self.tally
        found = []
        if tally.not_sent:
            found.append(
                f"{tally.not_sent:,} of {tally.begun:,} requests were NOT SENT, because "
                f"{self.plan.max_outstanding:,} were outstanding (MAX_OUTSTANDING): the server is "
                "slower than the rate, and the latencies leave those requests out."
            )
        found += self.outcome.health.warnings(tally)
        if tally.unfinished:
            cure = "" if self.outcome.is_interrupted else " (a longer DRAIN waits for them)"
            found.append(
                f"{tally.unfinished:,} requests were cut at the end before their answer was "
                f"complete; the latencies leave them out{cure}."
            )
        if tally.ok and not tally.finished:
            found.append("Nothing finished within the window: take a longer DURATION.")
        if tally.without_usage:
            found.append(
                f"{tally.without_usage:,} answers said nothing about their usage: their output "
                "tokens are counted by events, their input tokens not at all."
            )
        return found + self._hints()

    def _hints(self) -> list[str]:
        limited = sum(
            count.count
            for label, count in self.tally.failures.items()
            if label.endswith(_LIMITS_OF_THE_KEY)
        )
        if not limited:
            return []
        return [
            f"{limited:,} requests met a limit of the gateway, not of vLLM: RATE_LIMIT_PER_IP for "
            "this address, or the key's own (gateway keys create --name loadtest --rpm off "
            "--concurrent off --daily-tokens off)."
        ]

    def _rate(self, count: int) -> float:
        return count / self.outcome.seconds if self.outcome.seconds > 0 else 0.0
