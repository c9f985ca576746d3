"""Several gateway processes over one real Redis, in front of one simulator."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from gateway.auth.record import KeyTerms
from gateway.auth.redis_keystore import RedisKeyStore
from gateway.clock import SystemClock
from gateway.shared.config import RedisConfig
from gateway.shared.tables import Tables
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED
from tests.harness.gateway import GatewayProcess
from tests.harness.redis import RedisProcess

SETTLED_SECONDS = 20.0
KNOWN_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Gateways with the same key, what they share, and what is behind them."""

    gateways: tuple[GatewayProcess, ...]
    redis: RedisProcess
    simulator: Simulator

    @property
    def settings(self) -> dict[str, str]:
        """For commands on the shared store."""
        return self.gateways[0].settings

    @property
    def generated_tokens(self) -> int:
        """Prompt and output tokens by the simulator's own books."""
        state = self.simulator.state
        return state.prompt_tokens_total + state.generation_tokens_total

    def make_key(self, name: str, **terms: Any) -> str:
        """A key in the shared store, as `gateway keys create` makes it; gives its secret."""
        tables = Tables(RedisConfig(self.redis.url))
        with closing(tables):
            _, secret = RedisKeyStore(tables, clock=SystemClock()).create(name, KeyTerms(**terms))
        return secret

    def post(self, number: int, body: dict[str, Any], **options: Any) -> Any:
        """A chat call at one of the gateways, in turn."""
        gateway = self.gateways[number % len(self.gateways)]
        return gateway.client.post("/v1/chat/completions", json=body, **options)

    async def usage(self, number: int = 0, **query: Any) -> dict[str, Any]:
        return await self.gateways[number].usage(**query)

    async def settled(self, number: int = 0) -> dict[str, Any]:
        """The usage, once nothing is reserved any more and the books equal the simulator's."""
        last: dict[str, Any] = {}
        try:
            async with asyncio.timeout(SETTLED_SECONDS):
                while True:
                    last = await self.usage(number)
                    is_whole = last["total_tokens"] == self.generated_tokens
                    if is_whole and last["reserved_tokens"] == 0:
                        return last
                    await asyncio.sleep(0.05)
        except TimeoutError:
            wanted = f"generated {self.generated_tokens}"
            raise AssertionError(f"{wanted}, booked {last}, held {self.holds()}") from None

    def holds(self) -> dict[str, dict[str, str]]:
        """What Redis holds: by key, the day and the tokens of each reservation."""
        with self.redis.client() as client:
            names = [str(name) for name in client.keys("gateway:holds:*")]
            return {name: dict(client.hgetall(name)) for name in names}


@asynccontextmanager
async def cluster(
    folder: Path,
    *,
    count: int = 2,
    pace: SimulatorConfig | None = None,
    is_durable: bool = False,
    **settings: Any,
) -> AsyncIterator[Cluster]:
    """`count` gateways without request limits, unless `settings` says otherwise."""
    key = "sk-test-" + secrets.token_urlsafe(24)
    async with AsyncExitStack() as held:
        redis = held.enter_context(RedisProcess(folder=folder, is_durable=is_durable))
        simulator = await held.enter_async_context(Simulator(pace or SimulatorConfig()))
        shared = {"VLLM_URL": simulator.url, "REDIS_URL": redis.url, "LOG_LEVEL": "INFO"}
        # A busy machine is no silent Redis, and no lease that ends gives back what was forgotten.
        shared |= {"REDIS_TIMEOUT_SECONDS": "5", "REDIS_LEASE_SECONDS": "600"}
        gateways = []
        for _ in range(count):
            gateway = GatewayProcess(folder=folder, key=key, **(UNLIMITED | shared | settings))
            gateways.append(await held.enter_async_context(gateway))
        yield Cluster(tuple(gateways), redis, simulator)


async def known(shared: Cluster, secret: str) -> dict[str, str]:
    """The headers with that key, once every process of every gateway knows it: each is asked on
    a new connection again and again."""
    headers = {"authorization": f"Bearer {secret}"}
    async with asyncio.timeout(KNOWN_SECONDS):
        for gateway in shared.gateways:
            needed = 1 if gateway.settings.get("WORKERS", "1") == "1" else 12
            streak = 0
            while streak < needed:
                async with gateway.client_with(secret) as client:
                    is_known = (await client.get("/v1/usage")).status_code == 200
                streak = streak + 1 if is_known else 0
    return headers


async def quiet(shared: Cluster, headers: dict[str, str]) -> dict[str, Any]:
    """The usage of a key, once it holds nothing any more."""
    async with asyncio.timeout(SETTLED_SECONDS):
        while True:
            try:
                answer = await shared.gateways[0].client.get("/v1/usage", headers=headers)
            except httpx2.TransportError:
                continue  # Its worker was killed.
            report: dict[str, Any] = answer.json()
            if report["reserved_tokens"] == 0:
                return report
            await asyncio.sleep(0.05)


async def killed(gateway: GatewayProcess) -> None:
    gateway.signal(signal.SIGKILL)
    await gateway.ended()


async def until(claim: Callable[[], bool], *, within_seconds: float = 20.0) -> None:
    async with asyncio.timeout(within_seconds):
        while not claim():
            await asyncio.sleep(0.02)


def codes(answers: list[httpx2.Response]) -> dict[int, int]:
    """How many answers of each status."""
    found: dict[int, int] = {}
    for answer in answers:
        found[answer.status_code] = found.get(answer.status_code, 0) + 1
    return found
