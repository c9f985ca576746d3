"""What being scraped costs the streams: event-loop lag with and without a scraper at 10 Hz.

The gateway has thousands of series and streams at the pace of a model while a scraper takes the
whole page ten times a second, a hundred times as often as Prometheus usually does.
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from tests.benchmarks.clients import Tally, connect
from tests.benchmarks.measures import PACED, Bench, percentile, running
from tests.benchmarks.processes import Cores, TargetFailed, pin
from tests.benchmarks.targets import KEY, Target, open_gateway
from tests.benchmarks.upstream import Upstream

SERIES_PER_KEY: Final = 5
PERIOD_SECONDS: Final = 0.1
OPENMETRICS: Final = "application/openmetrics-text;version=1.0.0"


@dataclass(slots=True)
class Phase:
    """A stretch of time, and what the clients and the scraper saw in it."""

    name: str
    began_at: float = 0.0
    ended_at: float = 0.0
    worst_gap_seconds: float = 0.0
    cpu_seconds: float = 0.0
    scrapes_seconds: list[float] = field(default_factory=list)
    page: bytes = b""


def main() -> int:
    """Exit code 0 if every answer was right."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.scrape", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--series", type=int, default=10_000, help="series on the page (10000)")
    parser.add_argument("--streams", type=int, default=100, help="streams at a time (100)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each phase (10)")
    options = parser.parse_args()
    cores = Cores.choose()
    pin(cores.load)
    with tempfile.TemporaryDirectory(prefix="gateway-scrape-") as folder:
        notes = Path(folder) / "lags.json"
        try:
            phases, tally = uvloop.run(_run(options, notes, Path(folder), cores.target))
        except TargetFailed as fault:
            sys.stderr.write(f"{fault}\n")
            return 1
        lags = json.loads(notes.read_text())
    for phase in phases:
        within = [lag for lag in lags if phase.began_at <= lag[0] <= phase.ended_at]
        _show(phase, [lag for _, lag, _ in within], [own for _, _, own in within])
    for words, count in tally.faults.most_common():
        sys.stderr.write(f"ERROR, {count} times: {words}\n")
    return 1 if tally.faults else 0


async def _run(
    options: argparse.Namespace, notes: Path, folder: Path, core: int | None
) -> tuple[list[Phase], Tally]:
    keys = options.series // SERIES_PER_KEY
    names = [f"bench={KEY}", *(f"k{n}={secrets.token_hex(8)}" for n in range(keys))]
    settings = {"GATEWAY_API_KEYS": ",".join(names), "METRICS_KEYS_MAX": str(keys + 1)}
    under = ["-m", "tests.benchmarks.lagging", str(notes)]
    async with (
        Upstream() as upstream,
        open_gateway(upstream.port, folder, core, under=under, settings=settings) as target,
    ):
        bench = Bench(upstream, Tally(), options.seconds)
        await _page(target.port)
        clients = await connect(target.port, options.streams, bench.new_client(plan=PACED))
        async with running(clients, stagger_seconds=PACED.tokens * PACED.interval_seconds):
            phases = [Phase("not scraped"), Phase("scraped at 10 Hz"), Phase("not scraped again")]
            for phase in phases:
                await _pass(phase, bench, target)
    return phases, bench.tally


async def _pass(phase: Phase, bench: Bench, target: Target) -> None:
    bench.tally.take()
    phase.began_at, cpu = time.monotonic(), target.cpu_seconds()
    until = phase.began_at + bench.seconds
    due = phase.began_at
    while due < until:
        if "at 10 Hz" in phase.name:
            asked_at = time.monotonic()
            phase.page = await _page(target.port)
            phase.scrapes_seconds.append(time.monotonic() - asked_at)
        due = max(due + PERIOD_SECONDS, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
    phase.ended_at = time.monotonic()
    phase.cpu_seconds = target.cpu_seconds() - cpu
    phase.worst_gap_seconds = bench.tally.take().worst_gap_seconds


async def _page(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    head = f"GET /metrics HTTP/1.1\r\nhost: bench\r\naccept: {OPENMETRICS}\r\n"
    writer.write(f"{head}connection: close\r\n\r\n".encode())
    page = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    if not page.startswith(b"HTTP/1.1 200") or not page.endswith(b"# EOF\n"):
        raise TargetFailed(f"no metrics: {page[:200]!r}")
    return page


def _show(phase: Phase, lags: list[float], own: list[float]) -> None:
    seconds = phase.ended_at - phase.began_at
    _say(f"{phase.name}: event-loop lag in ms {_marks(lags)}, {len(lags)} looks")
    _say(f"  of which by the loop's own work {_marks(own)}")
    _say(
        f"  worst gap between two events of a stream {phase.worst_gap_seconds * 1000:.1f} ms "
        f"(sent every {PACED.interval_seconds * 1000:.0f}), "
        f"CPU {phase.cpu_seconds / seconds:.0%} of a core"
    )
    if phase.page:
        lines = [line for line in phase.page.splitlines() if line.startswith(b"gateway_")]
        took = [percentile(phase.scrapes_seconds, share) * 1000 for share in (0.5, 1.0)]
        _say(
            f"  {len(phase.scrapes_seconds)} scrapes of {len(lines)} series, {len(phase.page)} "
            f"bytes, in p50 {took[0]:.1f} ms, at most {took[1]:.1f} ms"
        )


def _marks(values: list[float]) -> str:
    marks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return ", ".join(
        f"{name} {percentile(values, share) * 1000:.2f}" for name, share in marks.items()
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
