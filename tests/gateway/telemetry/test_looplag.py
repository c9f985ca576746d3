"""Event-loop lag: a loop that stands still is seen, and the looking ends with its block."""

import asyncio
import time

from gateway.clock import SystemClock
from gateway.telemetry.looplag import INTERVAL_SECONDS, LoopLag
from gateway.telemetry.tallies import Distribution

STILL_SECONDS = 0.3


async def observed(seen: Distribution, count: int) -> None:
    async with asyncio.timeout(10):
        while sum(seen.counts) < count:
            await asyncio.sleep(0.005)


async def test_a_loop_that_stands_still_is_one_long_lag() -> None:
    seen = Distribution((0.2, 10.0))

    async with LoopLag(seen, clock=SystemClock()):
        await asyncio.sleep(INTERVAL_SECONDS / 10)
        time.sleep(INTERVAL_SECONDS + STILL_SECONDS)
        await observed(seen, 1)

    assert seen.counts[1] == 1
    assert seen.total >= STILL_SECONDS * 0.9


async def test_nothing_is_seen_after_the_block() -> None:
    seen = Distribution((1.0,))
    async with LoopLag(seen, clock=SystemClock()):
        await observed(seen, 1)

    before = sum(seen.counts)
    await asyncio.sleep(INTERVAL_SECONDS * 2)

    assert sum(seen.counts) == before
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "loop-lag"]
