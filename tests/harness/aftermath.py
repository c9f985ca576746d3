"""What a fault leaves behind in a gateway: its books, its counters, and nothing that is held."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil

from tests.harness.gateway import GatewayProcess

REST_SECONDS = 10.0
_LOOKED_AT = frozenset({"/metrics", "/v1/usage", "/health", "/ready"})
_HELD = frozenset(
    {
        "gateway_calls_in_flight",
        "gateway_upstream_in_flight",
        "gateway_queue_depth",
        "gateway_streams_open",
    }
)
_SAMPLE = re.compile(r"^(gateway_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(slots=True)
class Aftermath:
    """What has changed: tokens and requests in the books of the gateway's own key, requests by
    outcome, upstream faults by kind, and how often a circuit opened."""

    tokens: int = 0
    requests: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    opened: int = 0


@asynccontextmanager
async def watched(gateway: GatewayProcess) -> AsyncIterator[Aftermath]:
    """What happens in the block is told by the Aftermath, when the block was left.

    Leaving waits until the gateway is at rest: no call in flight, no place in the queue taken,
    no token reserved, and no more descriptors open than before. It fails where one stays.
    """
    process = psutil.Process(gateway.pid)
    before = await _at_rest(gateway)
    descriptors = process.num_fds()
    after = Aftermath()
    yield after
    async with asyncio.timeout(REST_SECONDS):
        now = await _at_rest(gateway)
        while process.num_fds() > descriptors:
            await asyncio.sleep(0.01)
    after.tokens = now.tokens - before.tokens
    after.requests = now.requests - before.requests
    after.opened = now.opened - before.opened
    after.outcomes = dict(Counter(now.outcomes) - Counter(before.outcomes))
    after.faults = dict(Counter(now.faults) - Counter(before.faults))


async def _at_rest(gateway: GatewayProcess) -> Aftermath:
    """All counts since the start, once nothing is under way."""
    async with asyncio.timeout(REST_SECONDS):
        while True:
            page = (await gateway.client.get("/metrics")).text
            usage = await gateway.usage()
            if not usage["reserved_tokens"] and _holds_nothing(page):
                return _read(page, tokens=usage["total_tokens"], requests=usage["requests"])
            await asyncio.sleep(0.01)


def _holds_nothing(page: str) -> bool:
    for name, _, value in _samples(page):
        # The scrape that tells it is itself in flight.
        if name == "gateway_requests_in_flight" and value > 1:
            return False
        if name in _HELD and value:
            return False
    return True


def _read(page: str, *, tokens: int, requests: int) -> Aftermath:
    outcomes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    opened = 0
    for name, labels, value in _samples(page):
        if name == "gateway_requests_total" and labels["route"] not in _LOOKED_AT:
            outcomes[labels["outcome"]] += value
        elif name == "gateway_upstream_errors_total":
            faults[labels["kind"]] += value
        elif name == "gateway_circuit_transitions_total" and labels["to"] == "open":
            opened += value
    return Aftermath(tokens, requests, dict(outcomes), dict(faults), opened)


def _samples(page: str) -> Iterator[tuple[str, dict[str, str], int]]:
    for name, labels, value in _SAMPLE.findall(page):
        yield name, dict(_LABEL.findall(labels)), int(float(value))
