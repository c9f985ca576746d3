"""Everything that clients do to a gateway, the bad things included, in one wave of seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from scripts.simulator.faults import Fault, FaultKind
from tests.harness.callers import Departure, RawCall
from tests.harness.commands import KeyCommands
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawClient
from tests.monitoring.box import Box

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Clients:
    """Keys with different fates."""

    usual: httpx2.AsyncClient
    near_quota: httpx2.AsyncClient
    spent: httpx2.AsyncClient
    hasty: httpx2.AsyncClient


@asynccontextmanager
async def clients_of(gateway: GatewayProcess) -> AsyncIterator[Clients]:
    """Makes their keys, and closes their connections."""
    keys = KeyCommands(gateway.settings)
    near = await keys.create("near-quota", "--daily-tokens", "2000")
    spent = await keys.create("spent", "--daily-tokens", "10")
    hasty = await keys.create("hasty", "--rpm", "2")
    async with (
        gateway.client_with(near.secret) as near_quota,
        gateway.client_with(spent.secret) as spent_up,
        gateway.client_with(hasty.secret) as hasty_one,
    ):
        # A gateway takes up new keys within two seconds; this one was made last.
        async with asyncio.timeout(5):
            while (await hasty_one.get("/v1/models")).status_code == 401:
                await asyncio.sleep(0.1)
        yield Clients(gateway.client, near_quota, spent_up, hasty_one)


async def wave(box: Box, clients: Clients) -> None:
    """One of each kind at least; every later wave repeats it, so that all counters grow."""
    await _well_behaved(clients)
    await _refused(box, clients)
    await _leaving(box)
    await _crowd(clients)
    await _upstream_faults(box, clients)


async def _well_behaved(clients: Clients) -> None:
    await asyncio.gather(
        *(_stream(clients.usual) for _ in range(4)),
        *(clients.usual.post(CHAT, json=chat("tell me " * 20)) for _ in range(4)),
        *(_stream(clients.near_quota) for _ in range(2)),
    )
    await clients.usual.get("/v1/models")
    await clients.usual.get("/v1/usage")


async def _refused(box: Box, clients: Clients) -> None:
    """By quota, by rate, for a wrong key, an unknown model, a body that is none, and no HTTP."""
    spent = await clients.spent.post(CHAT, json=chat(max_tokens=500))
    hasty = [await clients.hasty.post(CHAT, json=chat()) for _ in range(4)]
    wrong = await clients.usual.post(CHAT, json=chat(), headers={"authorization": "Bearer no"})
    unknown = await clients.usual.post(CHAT, json=chat(model="no-such-model"))
    malformed = await clients.usual.post(CHAT, content=b"{")

    assert spent.status_code == 429
    assert hasty[-1].status_code == 429
    assert wrong.status_code == 401
    assert unknown.status_code == 404
    assert malformed.status_code == 400
    async with RawClient(box.gateway.port) as raw:
        await raw.send(b"GET / NONSENSE/7\r\n\r\n")
        await raw.answer()


async def _leaving(box: Box) -> None:
    async with RawCall(box.gateway, chat(stream=True, max_tokens=2000)) as call:
        await call.read_until(b"data: ")
        call.leave(Departure.RST)


async def _crowd(clients: Clients) -> None:
    """More at once than there are places: some wait, some are refused."""
    answers = await asyncio.gather(
        *(clients.usual.post(CHAT, json=chat(max_tokens=60)) for _ in range(24))
    )
    assert {answer.status_code for answer in answers} == {200, 503}


async def _upstream_faults(box: Box, clients: Clients) -> None:
    """Failures that another upstream makes good, and one in mid-stream that nothing can."""
    _, sick = box.simulators
    sick.arm(Fault(FaultKind.ERROR_500, count=3))
    await asyncio.gather(*(clients.usual.post(CHAT, json=chat()) for _ in range(8)))
    sick.disarm()
    for simulator in box.simulators:
        simulator.arm(Fault(FaultKind.CLOSE_MID_STREAM, count=1))
    await asyncio.gather(*(_stream(clients.usual) for _ in range(4)))
    for simulator in box.simulators:
        simulator.disarm()


async def _stream(client: httpx2.AsyncClient, **fields: Any) -> None:
    """Read to its end, or to where it breaks."""
    body = chat("tell me a story", stream=True, max_tokens=20, **fields)
    try:
        async with client.stream("POST", CHAT, json=body) as answer:
            async for _ in answer.aiter_bytes():
                pass
    except httpx2.TransportError:
        return
