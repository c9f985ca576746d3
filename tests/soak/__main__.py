"""Soak a gateway: load and random faults for as long as you like, with a look at rest in between.

Replicas are killed and hang, streams are cut, clients leave or dawdle or send nonsense, keys come
and go, upstreams and log levels change, scrapers watch. At rest nothing may be held, memory,
descriptors and tasks may not grow, and the books must be exact (see books.py). Exit code 1 if not.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final

import psutil
import uvloop

from tests.harness.exposition import text_families
from tests.soak.books import Books
from tests.soak.callers import Callers
from tests.soak.mischief import Mischief, scrape
from tests.soak.plant import Plant, plant
from tests.soak.report import show
from tests.soak.told import Story
from tests.soak.vitals import Vitals, complaints, growth, open_files, resident_bytes

_REST_SECONDS: Final = 30.0
# Longer than the gateway keeps an idle connection to an upstream, and an idle upstream one to it.
_QUIET_SECONDS: Final = 6.0
_ZERO_AT_REST: Final = (
    "gateway_calls_in_flight",
    "gateway_queue_depth",
    "gateway_streams_open",
    "gateway_upstream_in_flight",
    "gateway_quota_reserved_tokens",
    "gateway_log_lines_dropped_total",
    "gateway_ledger_flush_failures_total",
    "gateway_key_store_failures_total",
)


class Soak:
    """One run: stretches of load and mischief, each followed by a rest and a look."""

    def __init__(self, running: Plant, *, seed: int, rate: float) -> None:
        self.plant = running
        self.story = Story()
        self.chance = Random(seed)
        self.callers = Callers(running, self.story, self.chance)
        self.mischief = Mischief(running, self.callers, self.story, self.chance)
        gateway = running.gateway
        today = datetime.now(UTC).date()
        self.books = Books(gateway.log_path, gateway.database, today)
        self.looks: list[Vitals] = []
        self.peak_bytes = 0
        self._rate = rate
        self._began_at = time.monotonic()

    async def stretch(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        scraping = asyncio.create_task(scrape(self.plant, self.story))
        async with asyncio.TaskGroup() as going:
            going.create_task(self.mischief.go_on(until=until))
            going.create_task(self._call(until, going))
        scraping.cancel()
        with suppress(asyncio.CancelledError):
            await scraping

    async def rest(self) -> None:
        """Until nothing is held any more, or for too long; then look, and balance the books."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _REST_SECONDS
        await asyncio.sleep(_QUIET_SECONDS)
        held = await self._held()
        while any(held.values()) and loop.time() < until:
            await asyncio.sleep(0.5)
            held = await self._held()
        inside = await self.plant.held()
        process = psutil.Process(self.plant.gateway.pid)
        look = Vitals(
            at_seconds=time.monotonic() - self._began_at,
            resident_bytes=resident_bytes(process.pid),
            descriptors=process.num_fds(),
            open_files=open_files(process.pid),
            threads=process.num_threads(),
            tasks=inside["tasks"],
            objects=inside["objects"],
            blocks=inside["blocks"],
            kinds=inside["kinds"],
            held=held,
        )
        self.looks.append(look)
        self.books.balance(self.story.take())
        sys.stderr.write(
            f"{look.at_seconds:6.0f} s: {look.resident_bytes / 2**20:.1f} MiB, "
            f"{look.descriptors} descriptors, {look.tasks_total} tasks, {look.objects} objects, "
            f"{self.story.outcomes.total()} calls, {self.books.charged_tokens} tokens, "
            f"wrong: {dict(self.books.wrong + self.story.faults) or 'nothing'}\n"
        )

    async def _call(self, until: float, going: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        due_at = loop.time()
        while due_at < until:
            await asyncio.sleep(due_at - loop.time())
            going.create_task(self.callers.call())
            due_at += self.chance.expovariate(self._rate)
            self.peak_bytes = max(self.peak_bytes, resident_bytes(self.plant.gateway.pid))

    async def _held(self) -> dict[str, float]:
        text = (await self.plant.gateway.client.get("/metrics")).text
        held = dict.fromkeys(_ZERO_AT_REST, 0.0)
        for family in text_families(text):
            for sample in family.samples:
                if sample.name in held:
                    held[sample.name] += sample.value
        return held


def main() -> int:
    options = _options()
    sys.stderr.write(f"seed {options.seed}\n")
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as folder:
        try:
            result = uvloop.run(_run(options, Path(folder)))
        except KeyboardInterrupt:
            return 130
    show(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2, default=str) + "\n")
    return 1 if result["complaints"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__.partition("\n")[0]
    )
    duration = float(os.environ.get("DURATION", "1200"))
    parser.add_argument("--seconds", type=float, default=duration, help="of load (1200; DURATION)")
    parser.add_argument("--stretch", type=float, default=100.0, help="seconds between rests (100)")
    parser.add_argument("--rate", type=float, default=25.0, help="calls a second (25)")
    parser.add_argument(
        "--seed", type=int, default=SystemRandom().randrange(10**6), help="of all that is random"
    )
    parser.add_argument("--json", type=Path, help="write the result to this file as well")
    return parser.parse_args()


async def _run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    async with plant(folder) as running:
        soak = Soak(running, seed=options.seed, rate=options.rate)
        cpu = psutil.Process(running.gateway.pid)
        began_at, before = time.monotonic(), cpu.cpu_times()
        left = options.seconds
        while left > 0:
            await soak.stretch(min(options.stretch, left))
            await soak.rest()
            left -= options.stretch
        after, seconds = cpu.cpu_times(), time.monotonic() - began_at
        generated = [await each.generated() for each in running.replicas]
        kills = sum(each.kills for each in running.replicas)
    soak.books.balance(soak.story.take())
    grown = growth(soak.looks)
    return {
        "seed": options.seed,
        "seconds": seconds,
        "calls": soak.story.outcomes.total(),
        "cpu_share": (after.user + after.system - before.user - before.system) / seconds,
        "peak_bytes": soak.peak_bytes,
        "looks": [asdict(look) for look in soak.looks],
        "growth": None if grown is None else asdict(grown),
        "outcomes": dict(soak.story.outcomes),
        "befell": dict(soak.story.befell),
        "kills": kills,
        "generated_tokens": sum(generated),
        "charged_tokens": soak.books.charged_tokens,
        "charged_by_key": soak.books.charged_by_key,
        "calls_by_ending": dict(soak.books.calls),
        "tokens_by_ending": dict(soak.books.tokens),
        "examples": soak.books.examples,
        "complaints": [
            *complaints(soak.looks),
            *soak.books.invented(generated=sum(generated), kills=kills),
            *(f"{count} times: {what}" for what, count in soak.books.wrong.items()),
            *(f"{count} times: {what}" for what, count in soak.story.faults.items()),
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
