"""Clients that leave a connection on which more than one request was sent."""

import asyncio
import socket
import struct
from dataclasses import replace

import orjson
import pytest

from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawClient, request


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


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_leaving_a_call_that_is_not_streamed_stops_it_in_spite_of_a_pipelined_request(
    gateway: GatewayProcess, simulator: Simulator, end: str
) -> None:
    body = orjson.dumps(chat(max_tokens=20_000, ignore_eos=True))
    simulator.configure(replace(simulator.config, inter_token_seconds=0.05))
    async with RawClient(gateway.port) as raw:
        await raw.send(
            request("POST", "/v1/chat/completions", key=gateway.key, body=body),
            request("GET", "/health"),
        )
        await _until_running(simulator, 1)
        if end == "reset":
            lingering = raw.writer.get_extra_info("socket")
            lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.writer.close()
        await _until_running(simulator, 0)

    assert simulator.state.aborted_total == 1


async def test_a_client_that_waits_with_a_request_in_the_pipeline_gets_both_answers(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    simulator.configure(replace(simulator.config, inter_token_seconds=0.1))
    body = orjson.dumps(chat(max_tokens=12, ignore_eos=True))
    async with RawClient(gateway.port) as raw:
        await raw.send(
            request("POST", "/v1/chat/completions", key=gateway.key, body=body),
            request("GET", "/health"),
        )
        answers = [await raw.answer(), await raw.answer()]

    assert [answer.status for answer in answers] == [200, 200]


async def _until_running(simulator: Simulator, count: int) -> None:
    async with asyncio.timeout(1.0):
        while simulator.state.running != count:
            await asyncio.sleep(0.02)
