"""What this gateway is meant to reach, and whether a run showed it."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tests.benchmarks.growth import GOAL as GROWTH_GOAL
from tests.benchmarks.growth import KINDS
from tests.benchmarks.peers.routers import VLLM_ROUTER
from tests.benchmarks.results import LINES, Results
from tests.benchmarks.targets import GATEWAY, NGINX

# Ten bytes for a request: an allocator's page here and there, but nothing kept of each.
GROWTH_BYTES_MAX: Final = 1_000_000.0


class State(Enum):
    """`UNKNOWN`: the run did not measure it."""

    REACHED = "reached"
    MISSED = "not reached"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure of the gateway's and the limit it has to keep."""

    title: str
    read: Callable[[Results], float | None]
    holds: Callable[[float, float], bool]
    limit: float
    form: str

    def verdict(self, results: Results) -> "Verdict":
        found = self.read(results)
        if found is None:
            return Verdict(self.title, "-", State.UNKNOWN)
        state = State.REACHED if self.holds(found, self.limit) else State.MISSED
        return Verdict(self.title, format(found, self.form), state)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`found` is the figure as people read it, - for none."""

    title: str
    found: str
    state: State


def verdicts(results: Results) -> list[Verdict]:
    return [goal.verdict(results) for goal in GOALS]


def _ratio(measure: str, number: str, base: str) -> Callable[[Results], float | None]:
    return lambda results: results.ratio(measure, number, GATEWAY, base)


def _line(measure: str, number: str) -> Callable[[Results], float | None]:
    line = next(line for line in LINES if (line.measure, line.number) == (measure, number))
    return lambda results: results.shown(line, GATEWAY)


def _growth(name: str) -> Goal:
    kind = KINDS[name]
    least, most = f"{kind.sizes[0]:,}", f"{kind.sizes[-1]:,}"
    return Goal(
        f"requests/s with {kind.named(most)} by those with {least}: at least {1 - GROWTH_GOAL:.2f}",
        lambda results: results.ratio(name, "requests_per_second", most, least),
        operator.ge,
        1 - GROWTH_GOAL,
        ".2f",
    )


GOALS: Final = (
    Goal(
        "requests/s of vllm-router's: at least 1",
        _ratio("plain", "requests_per_second", VLLM_ROUTER.name),
        operator.ge,
        1.0,
        ".2f",
    ),
    Goal(
        "streamed events/s of nginx's: at least 1",
        _ratio("burst", "events_per_second", NGINX),
        operator.ge,
        1.0,
        ".2f",
    ),
    Goal(
        "added TTFT p50 at 200 streams: under 0.2 ms",
        _line("paced", "ttft_p50_ms"),
        operator.lt,
        0.2,
        ".2f",
    ),
    Goal(
        "added TTFT p99 at 200 streams: under 1 ms",
        _line("paced", "ttft_p99_ms"),
        operator.lt,
        1.0,
        ".2f",
    ),
    Goal(
        "memory per open stream: under 20,000 bytes",
        _line("memory", "bytes_per_stream"),
        operator.lt,
        20_000.0,
        ",.0f",
    ),
    Goal(
        "growth over 100,000 requests: none (under 1,000 kB)",
        _line("drift", "growth_bytes"),
        operator.lt,
        GROWTH_BYTES_MAX / 1000,
        ",.0f",
    ),
    *(_growth(name) for name in KINDS),
)
