"""The four measures: each loads one target for a few seconds and gives its numbers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from tests.benchmarks import shapes
from tests.benchmarks.clients import Client, PlainClient, StreamClient, Tally, connect
from tests.benchmarks.targets import KEY, Target
from tests.benchmarks.upstream import Upstream

CONNECTIONS: Final = 64
BURST: Final = shapes.StreamPlan(tokens=256)
PACED_STREAMS: Final = 200
PACED: Final = shapes.StreamPlan(tokens=50, interval_seconds=0.02)
OPEN_STREAMS: Final = 1000
IDLE: Final = shapes.StreamPlan(tokens=60, interval_seconds=1.0)

_WARM_UP_SECONDS: Final = 0.5
_END_SECONDS: Final = 20.0
_SETTLE_SECONDS: Final = 1.5

Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measure needs besides its target. `tally` counts the faults of the whole run."""

    upstream: Upstream
    tally: Tally
    seconds: float

    def new_client(self, *, plan: shapes.StreamPlan | None) -> Callable[[], Client]:
        """For whole answers, or for streams by `plan`."""
        tokens = plan.tokens if plan else 32
        request = shapes.request(
            host="127.0.0.1", key=KEY, is_stream=plan is not None, tokens=tokens
        )
        if plan is None:
            expected = shapes.plain_body()
            return lambda: PlainClient(request, self.tally, expected=expected)
        self.upstream.plan = plan
        payload = shapes.script(tokens, has_usage=False).payload
        return lambda: StreamClient(request, self.tally, expected=payload)


async def plain(bench: Bench, target: Target) -> Numbers:
    """Whole answers: requests/s and latency of kept-alive connections that never rest."""
    clients = await connect(target.port, CONNECTIONS, bench.new_client(plan=None))
    async with running(clients, stagger_seconds=0.0):
        window = await _window(bench, target)
    tally = window.tally
    return window.share() | {
        "requests_per_second": tally.answers / window.seconds,
        "p50_ms": percentile(tally.latencies_seconds, 0.50) * 1000,
        "p99_ms": percentile(tally.latencies_seconds, 0.99) * 1000,
        "cpu_us_per_request": window.cpu_us_per(tally.answers),
    }


async def burst(bench: Bench, target: Target) -> Numbers:
    """Streams as fast as the upstream can write them, one write per event."""
    clients = await connect(target.port, CONNECTIONS, bench.new_client(plan=BURST))
    async with running(clients, stagger_seconds=0.0):
        window = await _window(bench, target)
    tally = window.tally
    return window.share() | {
        "events_per_second": tally.events / window.seconds,
        "cpu_us_per_event": window.cpu_us_per(tally.events),
        "events_per_read": tally.events / max(tally.reads, 1),
    }


async def paced(bench: Bench, target: Target) -> Numbers:
    """Streams at the pace of a model: time to the first event, and the worst pause."""
    clients = await connect(target.port, PACED_STREAMS, bench.new_client(plan=PACED))
    stream_seconds = PACED.tokens * PACED.interval_seconds
    async with running(clients, stagger_seconds=stream_seconds):
        window = await _window(bench, target)
    tally = window.tally
    return window.share() | {
        "ttft_p50_ms": percentile(tally.latencies_seconds, 0.50) * 1000,
        "ttft_p99_ms": percentile(tally.latencies_seconds, 0.99) * 1000,
        "worst_gap_ms": tally.worst_gap_seconds * 1000,
        "cpu_us_per_event": window.cpu_us_per(tally.events),
        "events_per_second": tally.events / window.seconds,
    }


async def memory(bench: Bench, target: Target) -> Numbers:
    """Resident bytes of the target for each stream that is open and nearly silent."""
    before = target.rss_bytes()
    clients = await connect(target.port, OPEN_STREAMS, bench.new_client(plan=IDLE))
    try:
        for client in clients:
            client.ask()
        await asyncio.sleep(_SETTLE_SECONDS)
        after = target.rss_bytes()
        silent = sum(1 for client in clients if not client.has_begun)
        if silent:
            bench.tally.faults["an open stream without its first event"] += silent
    finally:
        for client in clients:
            client.cut()
        await asyncio.sleep(_SETTLE_SECONDS)
    return {"bytes_per_stream": (after - before) / OPEN_STREAMS}


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two moments; CPU and wall time in seconds."""

    tally: Tally
    seconds: float
    target_cpu_seconds: float

    def cpu_us_per(self, count: int) -> float:
        return self.target_cpu_seconds * 1e6 / max(count, 1)

    def share(self) -> Numbers:
        """How much of its core the target used."""
        return {"target_core": self.target_cpu_seconds / self.seconds}


async def _window(bench: Bench, target: Target) -> Window:
    await asyncio.sleep(_WARM_UP_SECONDS)
    bench.tally.take()
    began, cpu = time.perf_counter(), target.cpu_seconds()
    await asyncio.sleep(bench.seconds)
    seconds = time.perf_counter() - began
    seen = bench.tally.take()
    return Window(seen, seconds, target.cpu_seconds() - cpu)


@asynccontextmanager
async def running(clients: list[Client], *, stagger_seconds: float) -> AsyncIterator[None]:
    """Clients at work, begun evenly over `stagger_seconds`; at the end each finishes its answer."""
    loop = asyncio.get_running_loop()
    vigil = _Vigil(loop)
    for place, client in enumerate(clients):
        loop.call_later(stagger_seconds * place / len(clients), client.ask)
    await asyncio.sleep(stagger_seconds)
    try:
        yield
    finally:
        for client in clients:
            client.stop()
        _, late = await asyncio.wait([client.ended for client in clients], timeout=_END_SECONDS)
        for client in clients:
            if client.ended in late:
                client.fail("an answer that did not end")
        vigil.end()


class _Vigil:
    """Keeps the load's core from sleeping.

    Else each write of the target pays for waking it, which in a virtual machine costs more
    than the write itself; a network card on a real link asks for no such thing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watch()

    def end(self) -> None:
        self._next.cancel()

    def _watch(self) -> None:
        self._next = self._loop.call_soon(self._watch)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
