"""The measures of memory: what an open stream takes, and what a hundred thousand requests leave."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.benchmarks import shapes
from tests.benchmarks.clients import Client, connect
from tests.benchmarks.measures import CONNECTIONS, Bench, Numbers, running
from tests.benchmarks.targets import Target

OPEN_STREAMS: Final = 1000
# What is loaded with the very first ones is not theirs.
FIRST_STREAMS: Final = 20
IDLE: Final = shapes.StreamPlan(tokens=60, interval_seconds=1.0)
# Caches and free lists are full after the first ten thousand; what comes later is growth.
FIRST_READING: Final = 10_000
SECOND_READING: Final = 110_000
# A peer that is a hundred times slower shows what it can in a minute.
OURS_SECONDS: Final = 300.0
PEER_SECONDS: Final = 60.0

_OPENING_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 1.5
_LOOK_SECONDS: Final = 0.02


async def memory(bench: Bench, target: Target) -> Numbers:
    """Resident bytes of the target for each stream that is open and nearly silent.

    Only of a process that has not done anything else yet: what it gave back would hide them.
    """
    async with _open_streams(bench, target, FIRST_STREAMS):
        pass
    before = target.rss_bytes()
    async with _open_streams(bench, target, OPEN_STREAMS):
        after = target.rss_bytes()
    return {"bytes_per_stream": (after - before) / OPEN_STREAMS}


async def drift(bench: Bench, target: Target) -> Numbers:
    """Resident bytes after the 10,000th and the 110,000th whole answer, if it gets that far.

    Only of a process that has not done anything else yet, for the same reason.
    """
    until = time.perf_counter() + (PEER_SECONDS if target.is_peer else OURS_SECONDS)
    bench.tally.take()
    found: Numbers = {}
    new_client = bench.new_client(plan=None, target=target)
    clients = await connect(target.port, CONNECTIONS, new_client)
    async with running(clients, stagger_seconds=0.0):
        answers = await _answered(bench, FIRST_READING, until)
        if answers >= FIRST_READING:
            found["first_bytes"] = target.rss_bytes()
            answers += await _answered(bench, SECOND_READING - answers, until)
        if answers >= SECOND_READING:
            found["second_bytes"] = target.rss_bytes()
            found["growth_bytes"] = found["second_bytes"] - found["first_bytes"]
    return found | {"requests": answers}


@asynccontextmanager
async def _open_streams(bench: Bench, target: Target, count: int) -> AsyncIterator[None]:
    """So many streams that have begun; at the end they are cut."""
    clients = await connect(target.port, count, bench.new_client(plan=IDLE, target=target))
    try:
        for client in clients:
            client.ask()
        silent = await _begun(clients)
        if silent:
            bench.tally.faults["an open stream without its first event"] += silent
        await asyncio.sleep(_SETTLE_SECONDS)
        yield
    finally:
        for client in clients:
            client.cut()
        await asyncio.sleep(_SETTLE_SECONDS)


async def _begun(clients: list[Client]) -> int:
    """How many have no first event after a while that is long enough for all of them."""
    until = time.perf_counter() + _OPENING_SECONDS
    while silent := sum(1 for client in clients if not client.has_begun):
        if time.perf_counter() > until or all(client.ended.done() for client in clients):
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return silent


async def _answered(bench: Bench, count: int, until: float) -> int:
    """Until so many were answered, or time is up; how many it were."""
    answers = 0
    while answers < count and time.perf_counter() < until:
        await asyncio.sleep(_LOOK_SECONDS)
        # Taken often, as every latency is kept until then.
        answers += bench.tally.take().answers
    return answers
