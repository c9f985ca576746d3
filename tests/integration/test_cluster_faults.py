"""Redis stands still, dies and forgets under load: what callers see, and the books afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from scripts.simulator.config import SimulatorConfig
from tests.harness.cluster import Cluster, cluster
from tests.harness.gateway import chat

CALLERS = 8
TIMEOUT_SECONDS = 0.25


class Load:
    """Callers who ask without a pause, at each gateway in turn; every answer is kept."""

    def __init__(self, shared: Cluster) -> None:
        self._shared = shared
        self.answers: list[tuple[float, float, httpx2.Response]] = []
        self._is_over = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        tasks = [asyncio.create_task(self._ask(number)) for number in range(CALLERS)]
        try:
            yield self
        finally:
            # Each hears its last answer: one who leaves is charged an estimate.
            self._is_over.set()
            async with asyncio.timeout(40):
                await asyncio.gather(*tasks)

    def of(self, status: int, *, since: float = 0.0) -> list[httpx2.Response]:
        return [a for at, _, a in self.answers if a.status_code == status and at >= since]

    async def until(self, status: int) -> float:
        """Wait for an answer of that status that begins from now on; gives the moment."""
        began_at = time.monotonic()
        async with asyncio.timeout(20):
            while not self.of(status, since=began_at):
                await asyncio.sleep(0.02)
        return began_at

    async def _ask(self, number: int) -> None:
        body = chat("count this", max_tokens=5, stream=number % 2 == 0)
        while not self._is_over.is_set():
            began_at = time.monotonic()
            answer = await self._shared.post(number, body)
            self.answers.append((began_at, time.monotonic() - began_at, answer))
            await asyncio.sleep(0.01)


def pace() -> SimulatorConfig:
    return SimulatorConfig(inter_token_seconds=0.002)


async def test_a_redis_that_stands_still_costs_one_time_out_and_then_nothing(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"REDIS_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS)}
    async with cluster(tmp_path, pace=pace(), **settings) as shared:
        async with Load(shared).running() as load:
            await load.until(200)
            shared.redis.stop()
            await load.until(503)
            await asyncio.sleep(1.0)
            silent_since = time.monotonic()
            ready = [await gateway.client.get("/ready") for gateway in shared.gateways]
            await asyncio.sleep(0.5)
            refused = load.of(503, since=silent_since)
            assert len(refused) > CALLERS
            shared.redis.go_on()
            await load.until(200)

        error = refused[0].json()["error"]
        assert error["code"] == "shared_state_unavailable"
        assert refused[0].headers["retry-after"] == "1"
        assert "redis" not in refused[0].text.lower()
        assert all("redis: no answer" in answer.json()["reasons"][0] for answer in ready)
        # Once it is known to be silent nobody waits for it: what remains is a busy machine.
        waits = sorted(took for at, took, a in load.answers if a in refused)
        assert waits[len(waits) // 2] < TIMEOUT_SECONDS / 2
        await shared.settled()


async def test_a_redis_that_dies_and_comes_back_empty_is_told_the_books(tmp_path: Path) -> None:
    async with cluster(tmp_path, pace=pace(), is_durable=False) as shared:
        async with Load(shared).running() as load:
            await load.until(200)
            await asyncio.sleep(0.5)
            shared.redis.kill()
            await load.until(503)
            shared.redis.start()
            await load.until(200)
            before = min(at for at, _, a in load.answers if a.status_code == 503)
            await asyncio.sleep(0.3)

        assert not {a.status_code for _, _, a in load.answers} - {200, 503}
        used = [
            1_000_000 - int(a.headers["x-ratelimit-remaining-tokens"])
            for at, _, a in load.answers
            if a.status_code == 200 and at > before
        ]
        # Nobody was ever shown a quota that had grown back.
        assert min(used) > 0
        await shared.settled()
        for gateway in shared.gateways:
            assert any("forgotten" in str(line) for line in gateway.log_lines())


async def test_a_durable_redis_that_is_killed_again_and_again_keeps_exact_books(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path, pace=pace(), is_durable=True) as shared:
        async with Load(shared).running() as load:
            for _ in range(3):
                await load.until(200)
                shared.redis.kill()
                await load.until(503)
                shared.redis.start()
            await load.until(200)
        await shared.settled()


async def test_open_policies_serve_without_redis_and_count_it_all_later(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"REDIS_FAILURE_QUOTA": "open", "RATE_LIMIT_PER_KEY": "600/minute"}
    async with cluster(tmp_path, pace=pace(), **settings) as shared:
        assert (await shared.post(0, chat())).status_code == 200
        shared.redis.kill()
        for number in range(20):
            answer = await shared.post(number, chat(stream=number % 2 == 0))
            assert answer.status_code == 200, answer.text
        ready = await shared.gateways[0].client.get("/ready")
        assert ready.status_code == 200
        assert "redis" in ready.json()["degraded"][0]
        assert await shared.gateways[0].metric("gateway_redis_up") == 0
        assert await shared.gateways[0].metric("gateway_redis_errors_total") > 0

        shared.redis.start()
        await shared.settled()
        assert await shared.gateways[0].metric("gateway_redis_up") == 1


async def test_closed_rates_refuse_what_cannot_be_counted(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "REDIS_FAILURE_RATE": "closed",
        "DAILY_TOKEN_QUOTA": "off",
        "RATE_LIMIT_PER_IP": "6000/minute",
    }
    async with cluster(tmp_path, count=1, **settings) as shared:
        assert (await shared.post(0, chat())).status_code == 200
        shared.redis.kill()
        async with asyncio.timeout(10):
            while (answer := await shared.post(0, chat())).status_code == 200:
                await asyncio.sleep(0.02)
        assert answer.json()["error"]["code"] == "shared_state_unavailable"
        models = await shared.gateways[0].client.get("/v1/models")
        assert models.status_code == 503
        shared.redis.start()


async def test_keys_outlive_an_emptied_redis_for_as_long_as_a_gateway_runs(tmp_path: Path) -> None:
    async with cluster(tmp_path, count=1) as shared:
        secret = shared.make_key("survivor")
        async with shared.gateways[0].client_with(secret) as client:
            async with asyncio.timeout(10):
                while (await client.get("/v1/usage")).status_code != 200:
                    await asyncio.sleep(0.05)
            shared.redis.kill()
            shared.redis.start()
            async with asyncio.timeout(10):
                while not is_stored(shared):
                    assert (await client.get("/v1/usage")).status_code == 200
                    await asyncio.sleep(0.05)


def is_stored(shared: Cluster) -> bool:
    with shared.redis.client() as client:
        return bool(client.hlen("gateway:keys:records"))
