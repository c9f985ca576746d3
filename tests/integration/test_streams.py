"""Event streams through a whole gateway: nothing added, nothing delayed, no end that is none."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from tests.harness.callers import (
    Departure,
    Fronted,
    RawCall,
    dechunked,
    events,
    fronted,
    settled,
    until,
)
from tests.harness.gateway import chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
PATIENT: dict[str, Any] = {"CIRCUIT_FAILURE_THRESHOLD": "100000", "CIRCUIT_FAILURE_RATIO": "1"}
STREAM = chat("sing", stream=True, max_tokens=20)
MIB = 2**20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    async with fronted(tmp_path_factory.mktemp("streams"), **PATIENT) as running:
        yield running


async def charged(pair: Fronted) -> dict[str, Any]:
    return await settled(pair.gateway)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.CLOSE_MID_STREAM, events=5),
        Fault(FaultKind.RESET_MID_STREAM, events=5),
        Fault(FaultKind.STREAM_ERROR, events=5),
    ],
    ids=lambda fault: fault.kind.value,
)
async def test_a_stream_that_dies_ends_with_one_error_event_and_a_cut(
    pair: Fronted, fault: Fault
) -> None:
    before = await charged(pair)
    pair.simulator.arm(fault)
    async with RawCall(pair.gateway, STREAM, request_id=fault.kind.value) as call:
        raw = await call.read_to_end()
    pair.simulator.disarm()
    after = await charged(pair)

    heard = dechunked(raw)
    *told, error = events(heard)
    assert len(told) == fault.events
    assert all("choices" in event for event in told)
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert b"[DONE]" not in heard
    assert not raw.endswith(b"0\r\n\r\n")
    # One of the events told the role, the others a token each.
    assert after["output_tokens"] - before["output_tokens"] == fault.events - 1
    (line,) = await pair.gateway.logged(request_id=fault.kind.value)
    assert (line["outcome"], line["level"]) == ("truncated", "warning")


async def test_a_dead_engines_words_stay_behind_the_gateway(pair: Fronted) -> None:
    pair.simulator.arm(Fault(FaultKind.STREAM_ERROR, count=1))
    async with RawCall(pair.gateway, STREAM) as call:
        heard = dechunked(await call.read_to_end())

    assert b"EngineCore" not in heard
    assert b"internal error" in heard


async def test_a_drip_of_single_bytes_arrives_as_the_very_same_bytes(pair: Fronted) -> None:
    answers = []
    for fault in (Fault(), Fault(FaultKind.DRIP, count=1)):
        pair.simulator.arm(fault)
        answer = await pair.gateway.client.post(CHAT, json=STREAM, headers={"x-request-id": "drip"})
        answers.append(re.sub(rb'"created":\d+', b"", answer.content))

    assert answers[1] == answers[0]
    assert answers[1].endswith(b"data: [DONE]\n\n")


async def test_every_token_arrives_when_it_is_made(tmp_path: Path) -> None:
    pace = SimulatorConfig(ttft_seconds=0.1, inter_token_seconds=0.05)
    async with fronted(tmp_path, pace=pace) as pair:
        lags = []
        async with RawCall(pair.gateway, STREAM) as call:
            for made in range(1, 12):
                await _has_made(pair, made)
                started = monotonic()
                await call.read_times(b'"content":" ', made)
                lags.append(monotonic() - started)
            await call.read_until(b"[DONE]")

        assert sorted(lags)[len(lags) // 2] < 0.02


async def test_a_slow_client_slows_the_upstream_and_nobody_else(tmp_path: Path) -> None:
    pace = SimulatorConfig(max_model_len=2_000_000, inter_token_seconds=0.0)
    tokens = 400_000
    body = chat("go", stream=True, max_tokens=tokens, ignore_eos=True)
    async with fronted(tmp_path, pace=pace, DAILY_TOKEN_QUOTA="off") as pair:
        process = psutil.Process(pair.gateway.pid)
        await pair.gateway.client.post(CHAT, json=chat(stream=True))
        resident_before = process.memory_info().rss
        async with RawCall(pair.gateway, body, receive_buffer_bytes=4096) as call:
            await call.read_until(b"data: ")
            await _comes_to_rest(pair)
            held_back = pair.simulator.state.generation_tokens_total
            latencies = []
            for _ in range(20):
                started = monotonic()
                await pair.gateway.client.post(CHAT, json=chat())
                latencies.append(monotonic() - started)

            # What the kernel's socket buffers take, on both sides, is a few MB; the whole
            # stream would be 100 MB.
            assert held_back < tokens / 4
            assert process.memory_info().rss - resident_before < 8 * MIB
            assert sorted(latencies)[10] < 0.05
            call.leave(Departure.RST)
            await until(lambda: not pair.simulator.state.running, within_seconds=1)
        report = await settled(pair.gateway)
        assert report["total_tokens"] <= pair.generated_tokens


async def _has_made(pair: Fronted, tokens: int) -> None:
    await until(lambda: pair.simulator.state.generation_tokens_total >= tokens)


async def _comes_to_rest(pair: Fronted) -> None:
    """Wait until the upstream makes no more tokens: everything between is full."""
    async with asyncio.timeout(10):
        seen = -1
        while seen != (seen := pair.simulator.state.generation_tokens_total):
            await asyncio.sleep(0.3)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_garbage_with_status_200_is_a_502_in_our_words(
    pair: Fronted, is_stream: bool
) -> None:
    before = await charged(pair)
    pair.simulator.arm(Fault(FaultKind.GARBAGE, count=1))
    answer = await pair.gateway.client.post(CHAT, json=chat(stream=is_stream))

    assert answer.status_code == 502
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert b"<html>" not in answer.content
    assert (await charged(pair))["total_tokens"] == before["total_tokens"]


@pytest.mark.parametrize(
    "kind", [FaultKind.TRUNCATE, FaultKind.CLOSE_MID_STREAM, FaultKind.RESET_MID_STREAM]
)
async def test_a_whole_answer_shorter_than_promised_is_a_502_and_no_half_json(
    pair: Fronted, kind: FaultKind
) -> None:
    pair.simulator.arm(Fault(kind, count=1))
    answer = await pair.gateway.client.post(CHAT, json=chat())

    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_truncated"


async def test_an_upstream_that_dies_under_streams_cuts_each_of_them_once(tmp_path: Path) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.01)
    body = chat(stream=True, max_tokens=4000, ignore_eos=True)
    async with fronted(tmp_path, pace=pace, **PATIENT) as pair:

        async def listen() -> bytes:
            async with RawCall(pair.gateway, body) as call:
                return dechunked(await call.read_to_end())

        listeners = [asyncio.create_task(listen()) for _ in range(20)]
        await until(lambda: pair.simulator.state.generation_tokens_total > 400)
        pair.simulator.vanish()
        heard = await asyncio.gather(*listeners)

        assert [stream.count(b'data: {"error"') for stream in heard] == [1] * 20
        assert not any(b"[DONE]" in stream for stream in heard)
        report = await settled(pair.gateway)
        assert report["output_tokens"] == sum(s.count(b'"content":" ') for s in heard)
