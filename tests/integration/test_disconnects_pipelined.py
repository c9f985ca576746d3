"""Clients that leave a connection on which more than one request was sent."""

import asyncio
from dataclasses import replace

import orjson

from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawClient


async def test_leaving_with_requests_in_the_pipeline_stops_the_one_that_is_answered(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    body = orjson.dumps(chat(stream=True, max_tokens=20_000, ignore_eos=True))
    simulator.configure(replace(simulator.config, inter_token_seconds=0.05))
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {gateway.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    async with RawClient(gateway.port) as raw:
        await raw.send(head, body, head, body)
        await raw.reader.readuntil(b"data: ")

    async with asyncio.timeout(1.0):
        while simulator.state.running > 0:
            await asyncio.sleep(0.02)
    assert simulator.state.aborted_total == 1
