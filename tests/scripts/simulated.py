"""A running simulator with a client for it, and small readers of what it answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson

from scripts.simulator import Simulator, SimulatorConfig

GREETING = [{"role": "user", "content": "Say hi to the old oak."}]


@asynccontextmanager
async def simulated(**settings: Any) -> AsyncIterator[tuple[Simulator, httpx2.AsyncClient]]:
    """A simulator of these settings and a client at its root."""
    async with (
        Simulator(SimulatorConfig(**settings)) as simulator,
        httpx2.AsyncClient(base_url=simulator.url, trust_env=False, timeout=10) as client,
    ):
        yield simulator, client


def chat(**fields: Any) -> dict[str, Any]:
    """A chat body."""
    return {"model": "sim-model", "messages": GREETING, **fields}


async def streamed(client: httpx2.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a streamed chat; asserts that [DONE] ends them."""
    answer = await client.post("/v1/chat/completions", json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [orjson.loads(event.removeprefix("data: ")) for event in events]


def said(events: list[dict[str, Any]], index: int = 0) -> str:
    """The text that one choice's deltas add up to."""
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        for choice in event["choices"]
        if choice["index"] == index
    )


async def metric(client: httpx2.AsyncClient, name: str, labels: str = "") -> float:
    """The sum of one metric's series, those only that hold `labels`."""
    text = (await client.get("/metrics")).text
    series = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in series if labels in line)


async def eventually(claim: Callable[[], bool], seconds: float = 3.0) -> None:
    """Wait until `claim` holds; asserts that it does in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not claim() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.005)
    assert claim()
