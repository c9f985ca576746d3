"""The measures of speed: each loads one target for a few seconds and gives its numbers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from tests.benchmarks import shapes
from tests.benchmarks.answers import (
    Exactly,
    Expected,
    InMeaning,
    Meaning,
    stream_meaning,
    whole_meaning,
)
from tests.benchmarks.clients import Client, PlainClient, StreamClient, Tally, connect
from tests.benchmarks.disturbance import Watch
from tests.benchmarks.processes import UNPINNED, Cores
from tests.benchmarks.targets import KEY, Target
from tests.benchmarks.upstream import Upstream

CONNECTIONS: Final = 64
BURST: Final = shapes.StreamPlan(tokens=256)
PACED: Final = shapes.StreamPlan(tokens=50, interval_seconds=0.02)
# 200 of them send 10,000 events a second, 1,000 send 50,000.
PACED_STREAMS: Final = 200
MANY_STREAMS: Final = 1000

_WARM_UP_SECONDS: Final = 0.5
_END_SECONDS: Final = 20.0
# Some peers take a minute for what the others have done in a second; cut off, it would be done
# while the next one is measured.
_PEER_END_SECONDS: Final = 60.0

Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measure needs besides its target. `tally` counts the faults of the whole run."""

    upstream: Upstream
    tally: Tally
    seconds: float
    cores: Cores = UNPINNED

    def new_client(
        self, *, plan: shapes.StreamPlan | None, target: Target | None = None
    ) -> Callable[[], Client]:
        """For whole answers, or for streams by `plan`."""
        tokens = plan.tokens if plan else 32
        request = shapes.request(
            host="127.0.0.1",
            key=KEY,
            is_stream=plan is not None,
            tokens=tokens,
            headers=target.headers if target else shapes.NO_HEADERS,
        )
        is_exact = target is None or not target.is_peer
        if plan is None:
            whole = _expected(shapes.plain_body(), whole_meaning, is_exact=is_exact)
            return lambda: PlainClient(request, self.tally, expected=whole)
        self.upstream.plan = plan
        payload = shapes.script(tokens, has_usage=False).payload
        stream = _expected(payload, stream_meaning, is_exact=is_exact)
        return lambda: StreamClient(request, self.tally, expected=stream)


def _expected(payload: bytes, read: Callable[[bytes], Meaning], *, is_exact: bool) -> Expected:
    return Exactly(payload) if is_exact else InMeaning(payload, read)


async def plain(bench: Bench, target: Target) -> Numbers:
    """Whole answers: requests/s and latency of kept-alive connections that never rest."""
    new_client = bench.new_client(plan=None, target=target)
    clients = await connect(target.port, CONNECTIONS, new_client)
    async with running(clients, stagger_seconds=0.0, end_seconds=_patience(target)):
        window = await window_of(bench, target)
    return plain_numbers(window)


def plain_numbers(window: "Window") -> Numbers:
    """The numbers of `plain`, for whoever loads a target with other clients."""
    tally = window.tally
    return window.share() | {
        "requests_per_second": tally.answers / window.seconds,
        **percentiles("", tally.latencies_seconds),
        **window.cpu_us("cpu_us_per_request", tally.answers),
    }


async def burst(bench: Bench, target: Target) -> Numbers:
    """Streams as fast as the upstream can write them, one write per event."""
    new_client = bench.new_client(plan=BURST, target=target)
    clients = await connect(target.port, CONNECTIONS, new_client)
    async with running(clients, stagger_seconds=0.0, end_seconds=_patience(target)):
        window = await window_of(bench, target)
    tally = window.tally
    return window.share() | {
        "events_per_second": tally.events / window.seconds,
        **window.cpu_us("cpu_us_per_event", tally.events),
        "events_per_read": tally.events / max(tally.reads, 1),
    }


async def paced(bench: Bench, target: Target) -> Numbers:
    """Streams at the pace of a model: time to the first event, and the worst pause."""
    return await _paced(bench, target, PACED_STREAMS)


async def paced_many(bench: Bench, target: Target) -> Numbers:
    """Five times as many."""
    return await _paced(bench, target, MANY_STREAMS)


async def _paced(bench: Bench, target: Target, count: int) -> Numbers:
    clients = await connect(target.port, count, bench.new_client(plan=PACED, target=target))
    stream_seconds = PACED.tokens * PACED.interval_seconds
    async with running(clients, stagger_seconds=stream_seconds, end_seconds=_patience(target)):
        window = await window_of(bench, target)
    tally = window.tally
    sent_per_second = count / PACED.interval_seconds
    return window.share() | {
        **percentiles("ttft_", tally.latencies_seconds),
        **({"worst_gap_ms": tally.worst_gap_seconds * 1000} if tally.events else {}),
        **window.cpu_us("cpu_us_per_event", tally.events),
        "events_per_second": tally.events / window.seconds,
        "kept_pace": tally.events / window.seconds / sent_per_second,
    }


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two moments; CPU and wall time in seconds."""

    tally: Tally
    seconds: float
    target_cpu_seconds: float
    disturbance: Numbers

    def cpu_us(self, name: str, count: int) -> Numbers:
        """Of each of so many; no number where there was none."""
        return {name: self.target_cpu_seconds * 1e6 / count} if count else {}

    def share(self) -> Numbers:
        """How much of its core the target used, and others of ours; how much it rewrote."""
        return self.disturbance | {
            "target_core": self.target_cpu_seconds / self.seconds,
            "rewritten": self.tally.rewritten / max(self.tally.answers, 1),
        }


async def window_of(bench: Bench, target: Target) -> Window:
    await asyncio.sleep(_WARM_UP_SECONDS)
    watch = Watch(bench.cores)
    bench.tally.take()
    began, cpu = time.perf_counter(), target.cpu_seconds()
    await asyncio.sleep(bench.seconds)
    seconds = time.perf_counter() - began
    seen = bench.tally.take()
    used = target.cpu_seconds() - cpu
    return Window(seen, seconds, used, watch.end(target_seconds=used))


@asynccontextmanager
async def running(
    clients: list[Client], *, stagger_seconds: float, end_seconds: float = _END_SECONDS
) -> AsyncIterator[None]:
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
        _, late = await asyncio.wait([client.ended for client in clients], timeout=end_seconds)
        for client in clients:
            if client.ended in late:
                client.fail("an answer that did not end")
        vigil.end()


def _patience(target: Target) -> float:
    return _PEER_END_SECONDS if target.is_peer else _END_SECONDS


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


def percentiles(prefix: str, seconds: list[float]) -> Numbers:
    """Median and 99th percentile in ms; nothing of nothing, as that is no latency of zero."""
    shares = {"p50": 0.50, "p99": 0.99} if seconds else {}
    return {f"{prefix}{name}_ms": percentile(seconds, at) * 1000 for name, at in shares.items()}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
