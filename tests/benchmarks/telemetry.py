"""What all telemetry costs: the same gateway blind, as shipped, and with everything on.

"blind" counts, traces and logs nothing (see silent.py). "shipped" has metrics and a line for each
request. "all" is scraped every second, writes LOG_FILE beside its output, and sends a tenth of its
traces to a collector; "all, 100 %" sends every trace.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
from rich.console import Console
from rich.table import Table

from tests.benchmarks import measures, tracing
from tests.benchmarks.measures import Bench, Numbers
from tests.benchmarks.targets import Target, open_gateway

NAME: Final = "telemetry"
# What everything together may cost of the throughput.
GOAL: Final = 0.10
# Five times as often as the configuration of Prometheus in monitoring/ asks.
SCRAPE_SECONDS: Final = 1.0
OPENMETRICS: Final = {"accept": "application/openmetrics-text;version=1.0.0"}

Measure = Callable[[Bench, Target], Awaitable[Numbers]]


@dataclass(frozen=True, slots=True)
class Watching:
    """How much of the gateway is watched. `share` is that of the traces sent, empty for none."""

    name: str
    share: str = ""
    is_blind: bool = False

    @property
    def is_everything(self) -> bool:
        return bool(self.share)


@dataclass(frozen=True, slots=True)
class Line:
    """One measure in the table: its rate and its CPU by the names of `measures`."""

    measure: Measure
    title: str
    rate: str
    cpu: str


BLIND: Final = Watching("blind", is_blind=True)
WATCHINGS: Final = (BLIND, Watching("shipped"), Watching("all", "0.1"), Watching("all, 100 %", "1"))
LINES: Final = (
    Line(measures.plain, "whole answers", "requests_per_second", "cpu_us_per_request"),
    Line(measures.burst, "streams at full speed", "events_per_second", "cpu_us_per_event"),
    Line(measures.paced, "paced streams", "events_per_second", "cpu_us_per_event"),
)

Rounds = dict[tuple[str, str], list[Numbers]]


async def compare(bench: Bench, *, rounds: int, folder: Path, core: int | None) -> Rounds:
    """Every measure of every kind of watching, in turns. Raises TargetFailed."""
    found: Rounds = {}
    async with tracing.collector() as port, AsyncExitStack() as opened:
        targets = {
            watching: await opened.enter_async_context(
                _gateway(watching, bench, collector_port=port, folder=folder, core=core)
            )
            for watching in WATCHINGS
        }
        for number in range(rounds):
            # Each is first and last in turn: what follows a rest does better.
            start = number % len(WATCHINGS)
            for line in LINES:
                for watching in [*WATCHINGS, *WATCHINGS][start : start + len(WATCHINGS)]:
                    sys.stderr.write(f"{line.title}, round {number + 1}: {watching.name}\n")
                    async with _scraped(targets[watching], watching):
                        numbers = await line.measure(bench, targets[watching])
                    found.setdefault((line.title, watching.name), []).append(numbers)
    return found


def show(rounds: Rounds) -> None:
    """Print the best of each and what it is of the blind gateway's best.

    What else a machine does only ever takes away, so the best round is the least disturbed.
    """
    table = Table(title="The gateway with telemetry, against one that nobody watches (best rounds)")
    for title in ("", "watched", "a second", "of blind", "CPU each, us", "of blind"):
        table.add_column(title, justify="right" if title else "left")
    for line in LINES:
        for watching in WATCHINGS:
            found, base = rounds[line.title, watching.name], rounds[line.title, BLIND.name]
            rate, cpu = (
                max(each[line.rate] for each in found),
                min(each[line.cpu] for each in found),
            )
            rate_share = rate / max(each[line.rate] for each in base)
            cpu_share = cpu / min(each[line.cpu] for each in base)
            row = (f"{rate:,.0f}", f"{rate_share:.3f}", f"{cpu:.1f}", f"{cpu_share:.3f}")
            is_last = watching is WATCHINGS[-1]
            table.add_row(line.title, watching.name, *row, end_section=is_last)
    console = Console()
    console.print(table)
    console.print(f"The goal: all of it costs less than {GOAL:.0%} of the throughput.", style="dim")


@asynccontextmanager
async def _gateway(
    watching: Watching, bench: Bench, *, collector_port: int, folder: Path, core: int | None
) -> AsyncIterator[Target]:
    home = folder / f"watched-{watching.name.replace(' ', '-')}"
    home.mkdir()
    settings = dict(tracing.settings(watching.share, collector_port))
    if watching.is_everything:
        settings["LOG_FILE"] = str(home / "gateway.log")
    under = ["-m", "tests.benchmarks.silent"] if watching.is_blind else []
    port = bench.upstream.port
    async with open_gateway(port, home, core, under=under, settings=settings) as target:
        yield target


@asynccontextmanager
async def _scraped(target: Target, watching: Watching) -> AsyncIterator[None]:
    """Takes the page as Prometheus does while the block runs, where everything is on."""
    if not watching.is_everything:
        yield
        return
    scraping = asyncio.create_task(_scrape(target.port))
    try:
        yield
    finally:
        scraping.cancel()
        await asyncio.wait([scraping])


async def _scrape(port: int) -> None:
    async with httpx2.AsyncClient(trust_env=False, headers=OPENMETRICS) as client:
        while True:
            (await client.get(f"http://127.0.0.1:{port}/metrics")).raise_for_status()
            await asyncio.sleep(SCRAPE_SECONDS)
