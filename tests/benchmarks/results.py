"""What a run found: every round's numbers, and what they come to. As JSON and back."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Self

import orjson

from tests.benchmarks.measures import Numbers
from tests.benchmarks.peers.catalogue import PEERS
from tests.benchmarks.targets import DIRECT, GATEWAY, NGINX

_BUSY: Final = 0.9
_FULL_SPEED: Final = ("plain", "burst")
_PACED: Final = ("paced", "paced1000")
# From here on a figure is somebody else's too.
DISTURBED: Final = 0.05
_OURS: Final = (DIRECT, NGINX, GATEWAY)

Faults = dict[str, dict[str, dict[str, int]]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. `is_added` lines are differences to the direct connection."""

    measure: str
    number: str
    title: str
    form: str
    is_added: bool = False
    has_direct: bool = True
    scale: float = 1.0


LINES: Final = (
    Line("plain", "requests_per_second", "whole answers: requests/s", ",.0f"),
    Line("plain", "p50_ms", "  latency p50, ms", ".2f"),
    Line("plain", "p99_ms", "  latency p99, ms", ".2f"),
    Line("plain", "cpu_us_per_request", "  CPU per request, us", ".1f", has_direct=False),
    Line("burst", "events_per_second", "streams at full speed: events/s", ",.0f"),
    Line("burst", "cpu_us_per_event", "  CPU per event, us", ".1f", has_direct=False),
    Line("burst", "events_per_read", "  events per read of the client", ".1f"),
    Line("paced", "ttft_p50_ms", "200 paced streams: added TTFT p50, ms", ".2f", is_added=True),
    Line("paced", "ttft_p99_ms", "  added TTFT p99, ms", ".2f", is_added=True),
    Line("paced", "worst_gap_ms", "  worst gap (20 ms sent), ms", ".1f"),
    # Microseconds for an event are hundredths of a core for ten thousand a second.
    Line("paced", "cpu_us_per_event", "  CPU for 10,000 events/s, % of a core", ".1f",
         has_direct=False),
    Line("paced1000", "ttft_p50_ms", "1,000 paced streams: added TTFT p50, ms", ".2f",
         is_added=True),
    Line("paced1000", "ttft_p99_ms", "  added TTFT p99, ms", ".2f", is_added=True),
    Line("paced1000", "worst_gap_ms", "  worst gap (20 ms sent), ms", ".1f"),
    Line("paced1000", "kept_pace", "  share of 50,000 events/s", ".2f"),
    Line("memory", "bytes_per_stream", "memory per open stream, bytes", ",.0f", has_direct=False),
    Line("drift", "first_bytes", "memory after 10,000 requests, MB", ".1f", has_direct=False,
         scale=1e-6),
    Line("drift", "second_bytes", "  after 110,000 requests, MB", ".1f", has_direct=False,
         scale=1e-6),
    Line("drift", "growth_bytes", "  grown by, kB", ",.0f", has_direct=False, scale=1e-3),
)  # fmt: skip


@dataclass(slots=True)
class Results:
    """Numbers by measure and target, in the order in which they were taken.

    `faults` are counted answers that were wrong, by measure and target; `left_out` says of what was
    asked for, a target or a comparison, why it is not there.
    """

    rounds: dict[str, dict[str, list[Numbers]]] = field(default_factory=dict)
    faults: Faults = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """What `as_json` wrote. Raises ValueError or LookupError for anything else."""
        document = orjson.loads(text)
        parts = ("rounds", "faults", "left_out", "facts")
        return cls(**{name: document[name] for name in parts})

    def add(self, measure: str, target: str, numbers: Numbers) -> None:
        self.rounds.setdefault(measure, {}).setdefault(target, []).append(numbers)

    def blame(self, measure: str, target: str, seen: Counter[str]) -> None:
        """Count what was wrong, and take it off `seen`."""
        for words, count in seen.items():
            found = self.faults.setdefault(measure, {}).setdefault(target, {})
            found[words] = found.get(words, 0) + count
        seen.clear()

    @property
    def is_ours_at_fault(self) -> bool:
        """A peer's wrong answers, and why it is left out, are its own affair."""
        wrong = any(name in _OURS for found in self.faults.values() for name in found)
        return wrong or any(name not in PEERS for name in self.left_out)

    def targets(self) -> list[str]:
        """Everything measured but the sizes of `growth`, in the order in which it was started."""
        measures = {line.measure for line in LINES}
        names = [name for key, found in self.rounds.items() if key in measures for name in found]
        seen = dict.fromkeys(names)
        order: list[str] = [name for name in (DIRECT, NGINX) if name in seen]
        order += [name for name in seen if name not in _OURS]
        return order + [GATEWAY] * (GATEWAY in seen)

    def median(self, measure: str, target: str, number: str) -> float | None:
        values = [numbers[number] for numbers in self._rounds(measure, target, number)]
        return median(values) if values else None

    def shown(self, line: Line, target: str) -> float | None:
        """A line's value; of an added one what the target adds to the direct connection."""
        if line.is_added and target != DIRECT:
            value = self._of_each(line.measure, line.number, target, DIRECT, _difference)
        else:
            value = self.median(line.measure, target, line.number)
        return None if value is None else value * line.scale

    def ratio(self, measure: str, number: str, target: str, base: str) -> float | None:
        """The median of the rounds' ratios: a machine's other work comes and goes."""
        return self._of_each(measure, number, target, base, _quotient)

    def rewritten(self) -> list[str]:
        """Targets whose answers were right and had other bytes than the upstream's."""
        return [
            target
            for target in self.targets()
            if any(self.median(measure, target, "rewritten") for measure in self.rounds)
        ]

    def limits(self) -> list[str]:
        """Where something else than the target was the limit."""
        found = []
        for measure in _FULL_SPEED:
            shares = {
                target: self.median(measure, target, "target_core") or 0.0
                for target in self.rounds.get(measure, {})
                if target != DIRECT
            }
            idle = [f"{name} {share:.0%}" for name, share in shares.items() if share < _BUSY]
            if idle:
                found.append(
                    f"{measure}: not the whole core was used by {', '.join(idle)}; the load "
                    "generator, its core at 100 %, or other work on this machine was the limit"
                )
        for measure in _PACED:
            kept = self.median(measure, DIRECT, "kept_pace")
            if kept is not None and kept < _BUSY:
                found.append(f"{measure}: the load generator kept {kept:.0%} of the pace itself")
        for target, rounds in self.rounds.get("drift", {}).items():
            if "growth_bytes" not in rounds[0]:
                count = rounds[0]["requests"]
                found.append(f"drift, {target}: it got to {count:,.0f} requests in its time only")
        return found

    def disturbances(self) -> list[str]:
        """Measures in which others had more than a twentieth of a core."""
        found = []
        for measure, by_target in self.rounds.items():
            shares = {
                kind: max(self.median(measure, name, kind) or 0.0 for name in by_target)
                for kind in ("others_core", "stolen_core")
            }
            if max(shares.values()) > DISTURBED:
                others, stolen = shares["others_core"], shares["stolen_core"]
                found.append(
                    f"disturbed: in {measure} other programs had up to {others:.0%} of a core, "
                    f"and the hypervisor withheld up to {stolen:.0%}"
                )
        return found

    def as_json(self, verdicts: Mapping[str, object]) -> bytes:
        document = {
            "facts": self.facts,
            "rounds": self.rounds,
            "table": {
                f"{line.measure}.{'added_' if line.is_added else ''}{line.number}": {
                    name: self.shown(line, name) for name in self.rounds.get(line.measure, {})
                }
                for line in LINES
                if line.measure in self.rounds
            },
            "targets_of_the_project": verdicts,
            "rewritten": self.rewritten(),
            "left_out": self.left_out,
            "limits": self.limits(),
            "disturbances": self.disturbances(),
            "faults": self.faults,
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)

    def _of_each(
        self,
        measure: str,
        number: str,
        target: str,
        base: str,
        combine: Callable[[float, float], float],
    ) -> float | None:
        pairs = zip(
            self._rounds(measure, target, number), self._rounds(measure, base, number), strict=False
        )
        values = [combine(ours[number], theirs[number]) for ours, theirs in pairs]
        return median(values) if values else None

    def _rounds(self, measure: str, target: str, number: str) -> Iterator[Numbers]:
        found = self.rounds.get(measure, {}).get(target, [])
        return (numbers for numbers in found if number in numbers)


def _difference(ours: float, theirs: float) -> float:
    return ours - theirs


def _quotient(ours: float, theirs: float) -> float:
    return ours / theirs if theirs else 0.0
