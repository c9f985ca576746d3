"""What a killed gateway leaves behind, and limits of strangers, over one Redis."""

import asyncio
from pathlib import Path
from typing import Any

from scripts.simulator.config import SimulatorConfig
from tests.harness.callers import RawCall
from tests.harness.cluster import cluster, codes, killed
from tests.harness.gateway import chat

LEASE_SECONDS = 2.0
LONG: dict[str, Any] = {"max_tokens": 4000, "ignore_eos": True, "stream": True}


async def test_a_killed_gateway_gives_its_reservations_back_and_keeps_its_charges(
    tmp_path: Path,
) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.02)
    lease: dict[str, Any] = {"REDIS_LEASE_SECONDS": str(LEASE_SECONDS)}
    async with cluster(tmp_path, pace=pace, **lease) as shared:
        doomed, other = shared.gateways
        async with RawCall(doomed, chat(**LONG)) as stream:
            await stream.read_times(b'"content":"', 30)
            charged_before = await charges(other, at_least=30)
            await killed(doomed)
            generated = shared.generated_tokens

        async with asyncio.timeout(LEASE_SECONDS + 15):
            # Nobody calls with that key any more: the other gateway finds it out by itself.
            while await other.metric("gateway_quota_reserved_tokens", key="test") > 0:
                await asyncio.sleep(0.1)
        report = await other.usage()
        assert report["reserved_tokens"] == 0
        # Nothing of what was charged is lost, and nothing is invented.
        assert charged_before <= report["total_tokens"] <= generated


async def charges(gateway: Any, *, at_least: int) -> int:
    async with asyncio.timeout(10):
        while (tokens := int((await gateway.usage())["total_tokens"])) < at_least:
            await asyncio.sleep(0.05)
    return tokens


async def test_an_address_is_counted_over_both_gateways_without_a_key_too(tmp_path: Path) -> None:
    async with cluster(tmp_path, RATE_LIMIT_PER_IP="60/hour") as shared:
        strange = {"authorization": "Bearer sk-guessed-guessed-guessed"}
        calls = (shared.post(number, chat(), headers=strange) for number in range(100))
        # What the harness asks, /ready, is not limited.
        assert codes(list(await asyncio.gather(*calls))) == {401: 60, 429: 40}
        listing = await shared.gateways[0].client.get("/v1/models")
        assert listing.status_code == 429
