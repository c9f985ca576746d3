"""What sharing costs, and what more workers give: `python -m tests.benchmarks.scaling`.

One process alone, one and several workers over a Redis, in turns in one run. Load and upstream run
in this process, on the first core; Redis and the gateways have all others. With two cores the rate
of two workers says little, because the load takes one: there the CPU per request is the figure.
"""

import argparse
import asyncio
import gc
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks import measures
from tests.benchmarks.clients import Tally
from tests.benchmarks.measures import Bench, Numbers
from tests.benchmarks.processes import TargetFailed
from tests.benchmarks.targets import Target, open_gateway
from tests.benchmarks.upstream import Upstream
from tests.harness.redis import RedisProcess

ROUNDS: Final = 3
FIGURES: Final = {
    "p50_ms": 2,
    "p99_ms": 2,
    "cpu_us_per_request": 1,
    "redis_us": 1,
    "questions": 2,
}
_SETTLE_SECONDS: Final = 0.3
_TOKENS: Final = "100000000000"


@dataclass(frozen=True, slots=True)
class Size:
    """How many workers, over Redis or alone with everything in memory."""

    name: str
    workers: int
    is_shared: bool


def sizes(counts: Sequence[int]) -> list[Size]:
    shared = [Size(f"{n} worker{'s' if n > 1 else ''} over Redis", n, True) for n in counts]
    return [Size("1 process alone", 1, False), *shared]


def main() -> int:
    """Exit code 0 if every answer was right."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling")
    parser.add_argument("--workers", default="1,2", help="1,2 unless said otherwise")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measure")
    said = parser.parse_args()
    counts = [int(part) for part in said.workers.split(",")]
    cores = sorted(os.sched_getaffinity(0))
    others = set(cores[1:]) or set(cores)
    gc.disable()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="gateway-scaling-") as folder:
        try:
            found = uvloop.run(
                _run(sizes(counts), said.rounds, said.seconds, Path(folder), tally, others)
            )
        except TargetFailed as fault:
            sys.stderr.write(f"{fault}\n")
            return 1
    _show(found, cores=len(cores))
    for what, count in tally.faults.items():
        sys.stderr.write(f"{count} x {what}\n")
    return 1 if tally.faults else 0


async def _run(
    wanted: list[Size],
    rounds: int,
    seconds: float,
    folder: Path,
    tally: Tally,
    others: set[int],
) -> Mapping[str, list[Numbers]]:
    found: dict[str, list[Numbers]] = {size.name: [] for size in wanted}
    async with Upstream() as upstream, AsyncExitStack() as held:
        # What is started from here on has the other cores, and this process the first.
        first = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, others)
        redis = held.enter_context(RedisProcess(folder=folder))
        targets = [
            await held.enter_async_context(_target(size, upstream.port, folder, redis))
            for size in wanted
        ]
        if len(others) > 1 or others != {first}:
            os.sched_setaffinity(0, {first})
        bench = Bench(upstream, tally, seconds)
        for _ in range(rounds):
            for size, target in zip(wanted, targets, strict=True):
                found[size.name].append(await _measured(bench, target, redis))
    return found


@asynccontextmanager
async def _target(
    size: Size, upstream_port: int, folder: Path, redis: RedisProcess
) -> AsyncIterator[Target]:
    home = folder / size.name.replace(" ", "-")
    home.mkdir()
    settings = {"DAILY_TOKEN_QUOTA": _TOKENS, "MAX_CONCURRENT_PER_KEY": "100000"}
    if size.is_shared:
        settings |= {"REDIS_URL": redis.url, "WORKERS": str(size.workers)}
    async with open_gateway(upstream_port, home, None, settings=settings) as target:
        yield target


async def _measured(bench: Bench, target: Target, redis: RedisProcess) -> Numbers:
    before = _Ledgered.of(redis)
    numbers = await measures.plain(bench, target)
    await asyncio.sleep(_SETTLE_SECONDS)
    after = _Ledgered.of(redis)
    requests = after.requests - before.requests
    if requests == 0:
        return numbers
    return numbers | {
        "questions": (after.questions - before.questions) / requests,
        "redis_us": (after.cpu_seconds - before.cpu_seconds) * 1e6 / requests,
    }


@dataclass(frozen=True, slots=True)
class _Ledgered:
    """What Redis has done so far, and for how many requests by its own books."""

    requests: int
    questions: int
    cpu_seconds: float

    @classmethod
    def of(cls, redis: RedisProcess) -> "_Ledgered":
        with redis.client() as client:
            rows = [client.hgetall(name) for name in client.keys("gateway:usage:*")]
        fields: list[tuple[str, str]] = [pair for row in rows for pair in dict(row).items()]
        counted = sum(int(value) for name, value in fields if name.startswith("n"))
        times = psutil.Process(redis.pid).cpu_times()
        return cls(counted, redis.calls().get("evalsha", 0), times.user + times.system)


def _show(found: Mapping[str, list[Numbers]], *, cores: int) -> None:
    table = Table(title=f"whole answers, 64 connections, every limit on, {cores} cores")
    for column in (
        "",
        "requests/s",
        "of one alone",
        "p50 ms",
        "p99 ms",
        "CPU us",
        "Redis us",
        "questions",
    ):
        table.add_column(column, justify="left" if column == "" else "right")
    alone = median(n["requests_per_second"] for n in next(iter(found.values())))
    for name, rounds in found.items():
        rate = median(numbers["requests_per_second"] for numbers in rounds)
        rest = [
            f"{median(numbers[key] for numbers in rounds):.{digits}f}"
            for key, digits in FIGURES.items()
            if key in rounds[0]
        ]
        table.add_row(name, f"{rate:,.0f}", f"{rate / alone:.2f}", *rest)
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
