"""Clients that misbehave: what each is told, what it pays, and that nothing of it stays behind."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backlog import full_backlog
from tests.fakes.upstream import ScriptedUpstream
from tests.harness.aftermath import watched
from tests.harness.callers import UNLIMITED, Departure, RawCall
from tests.harness.gateway import GatewayProcess, chat

CHAT = "/v1/chat/completions"


async def reads(gateway: GatewayProcess, metric: str, value: float) -> None:
    """Until a metric has a value."""
    async with asyncio.timeout(10):
        while await gateway.metric(metric) != value:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_who_leaves_while_the_gateway_is_still_connecting_pays_nothing(
    tmp_path: Path, is_stream: bool
) -> None:
    settings: dict[str, Any] = {"HEALTH_INTERVAL_SECONDS": "3600", "CONNECT_TIMEOUT_SECONDS": "30"}
    body = chat("patience " * 20, stream=is_stream) | {"model": "m"}
    async with (
        ScriptedUpstream() as upstream,
        GatewayProcess(folder=tmp_path, VLLM_URL=upstream.url, **UNLIMITED | settings) as gateway,
    ):
        await upstream.vanish()
        with full_backlog(upstream.port):
            async with watched(gateway) as after:
                for departure in Departure:
                    async with RawCall(gateway, body) as call:
                        await reads(gateway, "gateway_upstream_in_flight", 1)
                        call.leave(departure)
                        await reads(gateway, "gateway_upstream_in_flight", 0)

    assert (after.tokens, after.requests) == (0, 0)
    assert after.outcomes == {"cancelled": 2}
    assert (after.faults, after.opened) == ({}, 0)
