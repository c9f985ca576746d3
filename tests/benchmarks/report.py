"""The table people read on a terminal, and what its numbers hold for."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import httptools
from rich.console import Console
from rich.table import Table

import gateway
from tests.benchmarks import markdown, nginx, shapes
from tests.benchmarks.footprint import OPEN_STREAMS
from tests.benchmarks.goals import State, verdicts
from tests.benchmarks.growth import KINDS
from tests.benchmarks.measures import BURST, CONNECTIONS
from tests.benchmarks.peers.catalogue import PEERS
from tests.benchmarks.processes import Cores
from tests.benchmarks.results import LINES, Results
from tests.benchmarks.targets import GATEWAY, NGINX

_WIDTH: Final = 160
_STYLES: Final = {State.REACHED: "green", State.MISSED: "red", State.UNKNOWN: "dim"}


def facts(cores: Cores, names: Sequence[str]) -> dict[str, str]:
    """What the numbers hold for."""
    binary = nginx.find_nginx()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gateway": f"{gateway.__version__}{_commit()}",
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "httptools": httptools.__version__,
        "uvicorn": version("uvicorn"),
        "nginx": nginx.version(binary) if binary else "not installed",
        **{name: PEERS[name].home.version() or "?" for name in names if name in PEERS},
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.platform(terse=True)}",
        "pinned": f"target on core {cores.target}, load and upstream on core {cores.load}"
        if cores.target is not None
        else "no: fewer than two cores",
    }


def show(results: Results) -> None:
    """Print everything."""
    console = _console()
    names = results.targets()
    if names:
        console.print(_main_table(results, names))
    if any(name in results.rounds for name in KINDS):
        console.print(_growth_table(results))
    console.print(_goals_table(results))
    told = ", ".join(f"{name} {value}" for name, value in results.facts.items())
    console.print(told, style="dim")
    console.print(_conditions(results), style="dim")
    for name, why in results.left_out.items():
        console.print(f"left out: {name}: {why}", style="yellow", markup=False)
    for words in [*results.limits(), *results.disturbances()]:
        console.print(words, style="yellow", markup=False)


def show_faults(results: Results) -> None:
    """What was wrong with answers, in a comparison too, where it is all that a report has."""
    console = _console()
    for measure, by_target in results.faults.items():
        for target, found in by_target.items():
            for words, count in found.items():
                line = f"ERROR, {count} times in {measure}, {target}: {words}"
                console.print(line, style="bold red", markup=False)


def _console() -> Console:
    # Into a file or a pipe the whole width: rich would cut the columns for 80.
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def _main_table(results: Results, names: Sequence[str]) -> Table:
    table = Table(title="The gateway with everything on, and others (medians of rounds in turns)")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    bases = [name for name in (NGINX, *PEERS) if name in names][:2] if GATEWAY in names else []
    for base in bases:
        table.add_column(f"gateway / {base}", justify="right")
    for line in LINES:
        if line.measure in results.rounds:
            cells = [markdown.cell(results, line, name) for name in names]
            ratios = [markdown.ratio(results, line, base) for base in bases]
            table.add_row(line.title, *cells, *ratios)
    return table


def _growth_table(results: Results) -> Table:
    table = Table(title="What the gateway's size costs (whole answers; ratios of the same rounds)")
    for title in ("", "requests/s", "of the smallest", "CPU each, us", "of the smallest", "MB"):
        table.add_column(title, justify="right" if title else "left")
    for name, kind in KINDS.items():
        sizes = list(results.rounds.get(name, {}))
        for size in sizes:
            cells = []
            for number, form in (("requests_per_second", ",.0f"), ("cpu_us_per_request", ".1f")):
                value = results.median(name, size, number) or 0.0
                share = results.ratio(name, number, size, sizes[0]) or 0.0
                cells += [format(value, form), f"{share:.3f}"]
            megabytes = (results.median(name, size, "rss_bytes") or 0.0) / 1e6
            row = (kind.named(size), *cells, f"{megabytes:.0f}")
            table.add_row(*row, end_section=size == sizes[-1])
    return table


def _goals_table(results: Results) -> Table:
    table = Table(title="Targets")
    for title in ("", "found", "verdict"):
        table.add_column(title, justify="right" if title == "found" else "left")
    for verdict in verdicts(results):
        words = f"[{_STYLES[verdict.state]}]{verdict.state.value}[/]"
        table.add_row(verdict.title, verdict.found, words)
    return table


def _conditions(results: Results) -> str:
    plain = len(shapes.script(BURST.tokens, has_usage=False).payload)
    counted = len(shapes.script(BURST.tokens, has_usage=True).payload)
    rewritten = ", ".join(results.rewritten())
    return (
        f"{CONNECTIONS} connections, {OPEN_STREAMS} open streams. Every answer was verified byte "
        f"by byte{f', of {rewritten} its meaning: other bytes' if rewritten else ''}. The gateway "
        "asks the upstream for a token count in every event and takes it out again: it reads "
        f"{counted / BURST.tokens:.0f} bytes per event where nginx reads "
        f"{plain / BURST.tokens:.0f}. In brackets: direct, as it is. With !: wrong or missing "
        "answers."
    )


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    folder = Path(__file__).parent
    said = subprocess.run(
        [git, "describe", "--always", "--dirty=+"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return f" ({said.stdout.strip()})" if said.returncode == 0 else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
