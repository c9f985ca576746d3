"""What the gateway's own size costs: the same load with few and many keys, upstreams, connections.

Each size is a gateway of its own; they are loaded in turns, and held against the smallest.
"""

import asyncio
import itertools
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.auth.keyring import digest_of
from gateway.auth.keystore import KeyStore
from gateway.clock import SystemClock
from gateway.database import writer
from tests.benchmarks import shapes
from tests.benchmarks.answers import Exactly, Expected
from tests.benchmarks.clients import Client, PlainClient, Tally, connect
from tests.benchmarks.measures import (
    CONNECTIONS,
    Bench,
    Numbers,
    plain_numbers,
    running,
    window_of,
)
from tests.benchmarks.processes import TargetFailed
from tests.benchmarks.targets import KEY, Target, open_gateway
from tests.benchmarks.upstream import Upstream

# What the largest size may cost of the smallest one's requests/s.
GOAL: Final = 0.10
_ONCE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A gateway of one size, and the clients that load it."""

    target: Target
    new_client: Callable[[], Client]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway is started."""

    bench: Bench
    home: Path
    core: int | None


@dataclass(frozen=True, slots=True)
class Kind:
    """Something there can be few or many of; the first size is the one to compare with."""

    one: str
    unit: str
    sizes: tuple[int, ...]
    open: Callable[[Place, int], AbstractAsyncContextManager[Subject]]

    def named(self, size: str) -> str:
        return f"{size} {self.one if size == '1' else self.unit}"


async def compare(
    kind: Kind, bench: Bench, *, rounds: int, folder: Path, core: int | None
) -> dict[str, list[Numbers]]:
    """The numbers of `plain` and resident bytes by size, in turns. Raises TargetFailed."""
    found: dict[str, list[Numbers]] = {}
    async with AsyncExitStack() as opened:
        subjects: dict[int, Subject] = {}
        for size in kind.sizes:
            home = folder / f"{kind.unit.replace(' ', '-')}-{size}"
            home.mkdir()
            place = Place(bench, home, core)
            subjects[size] = await opened.enter_async_context(kind.open(place, size))
        for number in range(rounds):
            # Each is first and last in turn: what follows a rest does better.
            start = number % len(kind.sizes)
            for size in [*kind.sizes, *kind.sizes][start : start + len(kind.sizes)]:
                sys.stderr.write(f"{kind.unit}, round {number + 1}: {size:,}\n")
                numbers = await _loaded(bench, subjects[size])
                found.setdefault(f"{size:,}", []).append(numbers)
    # By size, whichever was first.
    return {f"{size:,}": found[f"{size:,}"] for size in kind.sizes}


async def _loaded(bench: Bench, subject: Subject) -> Numbers:
    clients = await connect(subject.target.port, CONNECTIONS, subject.new_client)
    async with running(clients, stagger_seconds=0.0):
        window = await window_of(bench, subject.target)
    await subject.target.rest()
    return plain_numbers(window) | {"rss_bytes": subject.target.rss_bytes()}


@asynccontextmanager
async def _with_keys(place: Place, size: int) -> AsyncIterator[Subject]:
    """Every request has another key's name on it, and each key was used before."""
    issued = _issue(place.home / "gateway.db", size)
    turns = itertools.cycle(issued)
    async with open_gateway(place.bench.upstream.port, place.home, place.core) as target:
        expected = Exactly(shapes.plain_body())
        await _use_once(target, issued, expected)
        yield Subject(target, lambda: _ManyKeys(turns, place.bench.tally, expected=expected))


@asynccontextmanager
async def _with_upstreams(place: Place, size: int) -> AsyncIterator[Subject]:
    """Replicas of one model, all equally fast."""
    async with AsyncExitStack() as opened:
        upstreams = [await opened.enter_async_context(Upstream()) for _ in range(size)]
        urls = ",".join(f"http://127.0.0.1:{upstream.port}" for upstream in upstreams)
        port = upstreams[0].port
        settings = {"VLLM_URL": urls}
        async with open_gateway(port, place.home, place.core, settings=settings) as target:
            yield Subject(target, place.bench.new_client(plan=None))


@asynccontextmanager
async def _with_idle(place: Place, size: int) -> AsyncIterator[Subject]:
    """Connections that were answered once and then say nothing, beside those that work."""
    settings = {"KEEPALIVE_TIMEOUT_SECONDS": "3600"}
    port = place.bench.upstream.port
    async with open_gateway(port, place.home, place.core, settings=settings) as target:
        request = shapes.request(host="127.0.0.1", key=KEY, is_stream=False, tokens=32)
        expected = Exactly(shapes.plain_body())
        tally = Tally(faults=place.bench.tally.faults)
        resting = [_Resting(request, tally, expected=expected) for _ in range(size)]
        waiting = iter(resting)
        await connect(target.port, size, lambda: next(waiting))
        for client in resting:
            client.ask()
            await asyncio.wait({client.rested, client.ended}, return_when=asyncio.FIRST_COMPLETED)
        try:
            yield Subject(target, place.bench.new_client(plan=None))
        finally:
            lost = sum(1 for client in resting if client.ended.done())
            for client in resting:
                client.cut()
        if lost:
            tally.faults["an idle connection that was closed"] += lost


async def _use_once(target: Target, requests: list[bytes], expected: Expected) -> None:
    """Every key's first request, which makes its limits and its books; then they are there."""
    turns, tally = iter(requests), Tally()
    clients = await connect(
        target.port, CONNECTIONS, lambda: _ManyKeys(turns, tally, expected=expected)
    )
    for client in clients:
        client.ask()
    _, late = await asyncio.wait([client.ended for client in clients], timeout=_ONCE_SECONDS)
    if late or tally.faults or tally.answers != len(requests):
        raise TargetFailed(f"{tally.answers} of {len(requests)} keys worked: {dict(tally.faults)}")


def _issue(path: Path, size: int) -> list[bytes]:
    """A request for each of so many new keys. All at once: `gateway keys create` takes its time."""
    now = SystemClock().now().isoformat(timespec="seconds")
    issued = {f"bench{number:07d}": secrets.token_urlsafe(24) for number in range(size)}
    KeyStore(path=path, clock=SystemClock()).prepare()
    with writer(path) as connection:
        connection.executemany(
            "INSERT INTO api_keys (key_id, name, created_at) VALUES (?, ?, ?)",
            [(key_id, key_id, now) for key_id in issued],
        )
        connection.executemany(
            "INSERT INTO api_key_secrets (digest, key_id, created_at) VALUES (?, ?, ?)",
            [(digest_of(secret), key_id, now) for key_id, secret in issued.items()],
        )
    return [
        shapes.request(host="127.0.0.1", key=secret, is_stream=False, tokens=32)
        for secret in issued.values()
    ]


class _ManyKeys(PlainClient):
    """Asks with the next key each time, and ends when there is none; many clients take turns."""

    def __init__(self, turns: Iterator[bytes], tally: Tally, *, expected: Expected) -> None:
        super().__init__(b"", tally, expected=expected)
        self._turns = turns

    def ask(self) -> None:
        request = next(self._turns, None)
        if request is None:
            self.stop()
            self._go_on()
            return
        self._request = request
        super().ask()


class _Resting(PlainClient):
    """Asks once, and then keeps its connection and says nothing."""

    def __init__(self, request: bytes, tally: Tally, *, expected: Expected) -> None:
        super().__init__(request, tally, expected=expected)
        self.rested: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _go_on(self) -> None:
        self.rested.set_result(None)


KINDS: Final[Mapping[str, Kind]] = {
    "keys": Kind("key", "keys", (10, 10_000, 100_000), _with_keys),
    "upstreams": Kind("upstream", "upstreams", (1, 64), _with_upstreams),
    "idle": Kind("idle connection", "idle connections", (10, 5_000), _with_idle),
}
