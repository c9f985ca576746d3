"""What a run found: medians, the table people read, and the same numbers as JSON."""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

import httptools
import orjson
from rich.console import Console
from rich.table import Table

import gateway
from tests.benchmarks import nginx, shapes
from tests.benchmarks.measures import BURST, CONNECTIONS, OPEN_STREAMS, PACED_STREAMS, Numbers
from tests.benchmarks.processes import Cores
from tests.benchmarks.targets import DIRECT, GATEWAY, NGINX

_BUSY: Final = 0.9
_FULL_SPEED: Final = ("plain", "burst")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. `is_added` lines are differences to the direct connection."""

    measure: str
    number: str
    title: str
    form: str
    is_added: bool = False
    has_direct: bool = True


LINES: Final = (
    Line("plain", "requests_per_second", "whole answers: requests/s", ",.0f"),
    Line("plain", "p50_ms", "  latency p50, ms", ".2f"),
    Line("plain", "p99_ms", "  latency p99, ms", ".2f"),
    Line("plain", "cpu_us_per_request", "  CPU per request, us", ".1f", has_direct=False),
    Line("burst", "events_per_second", "streams at full speed: events/s", ",.0f"),
    Line("burst", "cpu_us_per_event", "  CPU per event, us", ".1f", has_direct=False),
    Line("burst", "events_per_read", "  events per read of the client", ".1f"),
    Line("paced", "ttft_p50_ms", "paced streams: added TTFT p50, ms", ".2f", is_added=True),
    Line("paced", "ttft_p99_ms", "  added TTFT p99, ms", ".2f", is_added=True),
    Line("paced", "worst_gap_ms", "  worst gap (20 ms sent), ms", ".1f"),
    Line("paced", "cpu_us_per_event", "  CPU per event, us", ".1f", has_direct=False),
    Line("memory", "bytes_per_stream", "memory per open stream, bytes", ",.0f", has_direct=False),
)


@dataclass(slots=True)
class Results:
    """Every round's numbers by measure and target, in the order in which they were taken."""

    rounds: dict[str, dict[str, list[Numbers]]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, measure: str, target: str, numbers: Numbers) -> None:
        self.rounds.setdefault(measure, {}).setdefault(target, []).append(numbers)

    def median(self, measure: str, target: str, number: str) -> float | None:
        found = self.rounds.get(measure, {}).get(target, [])
        values = [numbers[number] for numbers in found if number in numbers]
        return median(values) if values else None

    def shown(self, line: Line, target: str) -> float | None:
        """A line's value; of an added one what the target adds to the direct connection."""
        value = self.median(line.measure, target, line.number)
        if not line.is_added or target == DIRECT:
            return value
        direct = self.median(line.measure, DIRECT, line.number)
        return None if value is None or direct is None else value - direct

    def limits(self) -> list[str]:
        """Where a target that could have done more was not asked to."""
        found = []
        for measure in _FULL_SPEED:
            for target in self.rounds.get(measure, {}):
                share = self.median(measure, target, "target_core") or 0.0
                if target != DIRECT and share < _BUSY:
                    found.append(
                        f"{measure}, {target}: its core was busy for {share:.0%} only; the load "
                        "generator, its core at 100 %, or other work on this machine was the limit"
                    )
        return found

    def as_json(self, facts: dict[str, str]) -> bytes:
        document = {
            "facts": facts,
            "rounds": self.rounds,
            "table": {
                f"{line.measure}.{'added_' if line.is_added else ''}{line.number}": {
                    target: self.shown(line, target) for target in self.rounds.get(line.measure, {})
                }
                for line in LINES
                if line.measure in self.rounds
            },
            "limits": self.limits(),
            "faults": dict(self.faults),
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def facts(cores: Cores) -> dict[str, str]:
    """What the numbers hold for."""
    binary = nginx.find_nginx()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gateway": gateway.__version__,
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "httptools": httptools.__version__,
        "uvicorn": version("uvicorn"),
        "nginx": nginx.version(binary) if binary else "not installed",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.platform(terse=True)}",
        "pinned": f"target on core {cores.target}, load and upstream on core {cores.load}"
        if cores.target is not None
        else "no: fewer than two cores",
    }


def show(results: Results, *, names: Sequence[str], facts: dict[str, str]) -> None:
    """Print everything."""
    console = Console()
    table = Table(title="The gateway with everything on, against no proxy and nginx (medians)")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("gateway / nginx", justify="right")
    for line in LINES:
        if line.measure in results.rounds:
            table.add_row(
                line.title, *(_cell(results, line, n) for n in names), _ratio(results, line)
            )
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), style="dim")
    console.print(_conditions(), style="dim")
    for limit in results.limits():
        console.print(limit, style="yellow")


def show_faults(results: Results) -> None:
    """What was wrong with answers, in a comparison too, where it is all that a report has."""
    console = Console()
    for fault, count in results.faults.most_common():
        console.print(f"ERROR, {count} times: {fault}", style="bold red")


def _cell(results: Results, line: Line, target: str) -> str:
    value = results.shown(line, target)
    if value is None or (target == DIRECT and not line.has_direct):
        return "-"
    text = format(value, line.form)
    return f"({text})" if line.is_added and target == DIRECT else text


def _ratio(results: Results, line: Line) -> str:
    if line.is_added:
        return "-"  # A ratio of two differences near zero says nothing.
    ours, theirs = results.shown(line, GATEWAY), results.shown(line, NGINX)
    return f"{ours / theirs:.2f}" if ours is not None and theirs else "-"


def _conditions() -> str:
    plain = len(shapes.script(BURST.tokens, has_usage=False).payload)
    counted = len(shapes.script(BURST.tokens, has_usage=True).payload)
    return (
        f"{CONNECTIONS} connections, {PACED_STREAMS} paced streams, {OPEN_STREAMS} open ones. "
        "Every answer was compared byte by byte. The gateway asks the upstream for a token count "
        f"in every event and takes it out again: it reads {counted / BURST.tokens:.0f} bytes per "
        f"event where nginx reads {plain / BURST.tokens:.0f}. In brackets: direct, as it is."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
