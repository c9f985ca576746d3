"""Clients that misbehave: what each is told, what it pays, and that nothing of it stays behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import product
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from tests.fakes.backlog import full_backlog
from tests.fakes.upstream import ScriptedUpstream
from tests.harness.aftermath import watched
from tests.harness.anthropic import message
from tests.harness.callers import UNLIMITED, Departure, Fronted, RawCall, fronted, until
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawClient, request
from tests.integration.scripted import BOTH, CHAT, MESSAGES
from tests.integration.test_bodies import LOOSE
from tests.integration.test_http import AMBIGUOUS, BAD_CHUNKS

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def reads(gateway: GatewayProcess, metric: str, value: float) -> None:
    """Until a metric has a value."""
    async with asyncio.timeout(10):
        while await gateway.metric(metric) != value:
            await asyncio.sleep(0.01)


async def test_who_leaves_while_the_gateway_is_still_connecting_pays_nothing(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"HEALTH_INTERVAL_SECONDS": "3600", "CONNECT_TIMEOUT_SECONDS": "30"}
    async with (
        ScriptedUpstream() as upstream,
        GatewayProcess(folder=tmp_path, VLLM_URL=upstream.url, **UNLIMITED | settings) as gateway,
    ):
        await upstream.vanish()
        with full_backlog(upstream.port):
            async with watched(gateway) as after:
                for departure, is_stream in product(Departure, (True, False)):
                    body = chat("patience " * 20, stream=is_stream) | {"model": "m"}
                    async with RawCall(gateway, body) as call:
                        await reads(gateway, "gateway_upstream_in_flight", 1)
                        call.leave(departure)
                        await reads(gateway, "gateway_upstream_in_flight", 0)

    assert (after.tokens, after.requests) == (0, 0)
    assert after.outcomes == {"cancelled": 4}
    assert (after.faults, after.opened) == ({}, 0)


async def test_large_bodies_are_bounded_together_until_they_are_answered(tmp_path: Path) -> None:
    """Not by their number alone: what waits for a place and what runs holds its body."""
    slow = SimulatorConfig(ttft_seconds=60, max_model_len=2_000_000)
    places: dict[str, Any] = {"MAX_BODY_BYTES": "100000", "MAX_IN_FLIGHT": "8", "MAX_QUEUED": "20"}
    patience: dict[str, Any] = {"QUEUE_TIMEOUT_SECONDS": "60", "DAILY_TOKEN_QUOTA": "off"}
    async with fronted(tmp_path, pace=slow, **places | patience) as pair:
        gateway, large = pair.gateway, chat("x" * 95_000)
        async with watched(gateway) as after, AsyncExitStack() as opened:
            for _ in range(16):
                await opened.enter_async_context(RawCall(gateway, large))
            await reads(gateway, "gateway_queue_depth", 8)
            refused = [await gateway.client.post(CHAT, json=large) for _ in range(2)]
            await opened.enter_async_context(RawCall(gateway, chat("small")))
            await reads(gateway, "gateway_queue_depth", 9)

        pair.simulator.configure(SimulatorConfig(max_model_len=2_000_000))
        again = await gateway.client.post(CHAT, json=large)

    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["error"]["code"] for answer in refused} == {"server_is_overloaded"}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert again.status_code == 200
    assert after.outcomes == {"cancelled": 17, "rejected": 2}


ENDS = {CHAT: b"[DONE]", MESSAGES: b"message_stop"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    settings: dict[str, Any] = {
        "DAILY_TOKEN_QUOTA": "off",
        "HEADER_TIMEOUT_SECONDS": "1",
        "BODY_TIMEOUT_SECONDS": "1",
        "WRITE_TIMEOUT_SECONDS": "0.5",
        "KEEPALIVE_TIMEOUT_SECONDS": "1",
        "MAX_BODY_BYTES": "1000000",
        "CIRCUIT_FAILURE_THRESHOLD": "1",
    }
    pace = SimulatorConfig(inter_token_seconds=0.01, max_model_len=2_000_000)
    async with fronted(tmp_path_factory.mktemp("clients"), pace=pace, **settings) as running:
        yield running


@pytest.mark.parametrize("departure", Departure)
@pytest.mark.parametrize("path", BOTH)
async def test_whenever_a_client_leaves_it_pays_what_was_made_and_nothing_stays(
    pair: Fronted, path: str, departure: Departure
) -> None:
    """Within its head, within its body, in the middle of its answer, and right after the end."""
    ask = chat if path == CHAT else message
    body = ask("tell me", stream=True, max_tokens=1000)
    sent = request("POST", path, key=pair.gateway.key, body=orjson.dumps(body))
    generated_before = pair.generated_tokens
    for part, outcomes in ((sent[:30], {}), (sent[:-10], {"cancelled": 1})):
        async with watched(pair.gateway) as after, RawClient(pair.gateway.port) as raw:
            await raw.send(part)
            await asyncio.sleep(0.05)
        assert (after.tokens, after.requests, after.outcomes) == (0, 0, outcomes)
    assert pair.generated_tokens == generated_before

    async with watched(pair.gateway) as after, RawCall(pair.gateway, body, path=path) as call:
        await call.read_times(b"data: ", 9)
        call.leave(departure)
        await until(lambda: not pair.simulator.state.running)
    generated = pair.generated_tokens - generated_before
    assert generated - 3 <= after.tokens <= generated < 1000
    assert after.outcomes == {"cancelled": 1}

    await pair.gateway.client.post(CHAT, json=chat())
    generated_before = pair.generated_tokens
    async with watched(pair.gateway) as after:
        short = ask("tell me", stream=True, max_tokens=3)
        async with RawCall(pair.gateway, short, path=path) as call:
            await call.read_until(ENDS[path])
            call.leave(departure)
    assert after.tokens == pair.generated_tokens - generated_before
    assert (after.outcomes, after.faults, after.opened) == ({"ok": 1}, {}, 0)


async def test_pipelined_calls_are_booked_one_by_one(pair: Fronted) -> None:
    ids = ("first", "second", "third")
    generated_before = pair.generated_tokens
    async with watched(pair.gateway) as after, RawClient(pair.gateway.port) as raw:
        for name in ids:
            field = b"x-request-id: pipelined-" + name.encode()
            body = orjson.dumps(chat(name, max_tokens=len(name)))
            await raw.send(request("POST", CHAT, field, key=pair.gateway.key, body=body))
        answers = [await raw.answer(within=10) for _ in ids]
    generated = pair.generated_tokens - generated_before

    assert [answer.header("x-request-id") for answer in answers] == [f"pipelined-{n}" for n in ids]
    assert (after.tokens, after.requests, after.outcomes) == (generated, 3, {"ok": 3})


async def test_who_guesses_keys_is_refused_and_then_not_even_looked_at(tmp_path: Path) -> None:
    async with fronted(tmp_path, RATE_LIMIT_PER_IP="30/hour") as pair:
        stranger = pair.gateway.client_with("sk-guess")
        statuses = [(await stranger.post(CHAT, json=chat())).status_code for _ in range(40)]
        await stranger.aclose()
        outcomes = {
            outcome: await pair.gateway.metric(
                "gateway_requests_total", outcome=outcome, route=CHAT
            )
            for outcome in ("client_error", "rejected")
        }

    limited = statuses.count(429)
    assert statuses == [401] * (40 - limited) + [429] * limited
    assert outcomes == {"client_error": 40 - limited, "rejected": limited}
    assert 10 <= limited <= 15


async def test_who_reads_nothing_is_dropped_and_the_upstream_let_off(pair: Fronted) -> None:
    pair.simulator.configure(SimulatorConfig(max_model_len=2_000_000))
    body = chat("go", stream=True, max_tokens=900_000, ignore_eos=True)
    generated_before = pair.generated_tokens
    async with (
        watched(pair.gateway) as after,
        RawCall(pair.gateway, body, receive_buffer_bytes=4096) as call,
    ):
        await call.read_until(b"data: ")
        await until(lambda: not pair.simulator.state.running, within_seconds=20)
    generated = pair.generated_tokens - generated_before

    assert 0 < after.tokens <= generated < 900_000
    assert (after.outcomes, after.faults, after.opened) == ({"cancelled": 1}, {}, 0)


async def test_all_that_is_hostile_at_once_costs_nothing_and_disturbs_nobody(
    pair: Fronted,
) -> None:
    """What two parsers read differently, broken chunks and JSON, and clients that stop halfway."""
    gateway = pair.gateway
    pair.simulator.configure(SimulatorConfig(inter_token_seconds=0.02))
    chunked = request("POST", CHAT, b"transfer-encoding: chunked", key=gateway.key)
    whole = request("POST", CHAT, key=gateway.key, body=orjson.dumps(chat()))
    hostile = [
        *AMBIGUOUS.values(),
        *(chunked + chunks for chunks in BAD_CHUNKS.values()),
        *(
            request("POST", path, key=gateway.key, body=each)
            for path in BOTH
            for each in LOOSE.values()
        ),
        *(request("POST", path, key="sk-wrong", body=b"{}") for path in BOTH),
        request("POST", CHAT, b"content-length: 1000000000000", key=gateway.key),
        request("POST", CHAT, key=gateway.key, body=b"[" * 900_000),
        request("GET", "/health", b"x-filler: " + b"a" * 200_000),
        *(whole[:cut] for cut in (1, 40, len(whole) - 5)),
    ]
    process = psutil.Process(gateway.pid)
    resident = process.memory_info().rss

    async def attack(sent: bytes) -> bytes:
        async with RawClient(gateway.port) as raw:
            await raw.send(sent)
            return await raw.rest(within=20)

    pair.simulator.requests.clear()
    body = chat(stream=True, max_tokens=100, ignore_eos=True)
    async with watched(gateway) as after, RawCall(gateway, body) as call:
        await call.read_until(b"data: ")
        told = await asyncio.gather(*map(attack, hostile))
        await call.read_until(b"[DONE]")

    answered = [answer.split(b" ", 2)[1] for answer in told if answer]
    assert set(answered) <= {b"400", b"401", b"408", b"413", b"415", b"431", b"505"}
    assert all(answer.count(b"HTTP/1.1 ") == 1 for answer in told if answer)
    assert after.requests == 1
    assert after.outcomes.pop("ok") == 1
    assert set(after.outcomes) <= {"client_error", "cancelled"}
    assert pair.paths() == [CHAT]
    assert process.memory_info().rss - resident < 30 * 2**20
    assert "Traceback" not in gateway.log_path.read_text()
