"""Clients that leave: what they are charged, and how soon the upstream is let off."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from gateway.exchange import Operation
from gateway.wire.openai import OpenAIConfig, OpenAIDialect
from scripts.simulator.config import SimulatorConfig
from tests.fakes.upstream import STREAM_HEAD, Hang, Receive, ScriptedUpstream, Send, chunk
from tests.harness.callers import Departure, Fronted, RawCall, dechunked, fronted, settled, until
from tests.harness.gateway import GatewayProcess, chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
INTER_TOKEN_SECONDS = 0.05
# What the upstream may make between the last read and the cut: two steps of 50 ms each. The cut
# itself takes about a millisecond; the rest is for a busy machine.
STEPS_UNSEEN = 2
LETS_OFF_SECONDS = 1.0
LONG: dict[str, Any] = {"max_tokens": 4000, "ignore_eos": True, "stream": True}
NUMBERS = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    pace = SimulatorConfig(ttft_seconds=0.01, inter_token_seconds=INTER_TOKEN_SECONDS)
    folder = tmp_path_factory.mktemp("disconnects")
    async with fronted(folder, pace=pace, DAILY_TOKEN_QUOTA="10000000") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def thoughtful(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    """An upstream that thinks for a minute before its first token."""
    folder = tmp_path_factory.mktemp("thoughtful")
    async with fronted(folder, pace=SimulatorConfig(ttft_seconds=60)) as running:
        yield running


def guess(body: bytes, operation: Operation = Operation.CHAT) -> int:
    """The documented estimate of a prompt: what a call costs of which nobody heard the count."""
    return OpenAIDialect(OpenAIConfig()).parse(operation, body).prompt.estimate


def sent_body(pair: Fronted) -> bytes:
    return pair.simulator.requests[-1].body


async def charged(pair: Fronted) -> int:
    total: int = (await settled(pair.gateway))["total_tokens"]
    return total


async def let_off(pair: Fronted) -> None:
    """The upstream works for nobody any more, and learnt it in time."""
    state = pair.simulator
    await until(lambda: not state.state.running, within_seconds=LETS_OFF_SECONDS)


@pytest.mark.parametrize("departure", Departure)
@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("options", [None, {"include_usage": True}], ids=["silent", "usage"])
async def test_who_leaves_mid_stream_pays_for_what_was_generated_until_then(
    pair: Fronted, departure: Departure, choices: int, options: dict[str, Any] | None
) -> None:
    charged_before, generated_before = await charged(pair), pair.generated_tokens
    aborted_before = pair.simulator.state.aborted_total
    body = chat("tell me", n=choices, **LONG)
    if options:
        body["stream_options"] = options
    async with RawCall(pair.gateway, body) as call:
        await call.read_times(b'"content":" ', 6 * choices)
        call.leave(departure)
        await let_off(pair)

    generated = pair.generated_tokens - generated_before
    spent = await charged(pair) - charged_before
    heard = dechunked(call.received).count(b'"content":" ')
    assert generated - STEPS_UNSEEN * choices <= spent <= generated
    assert spent > heard
    assert pair.simulator.state.aborted_total == aborted_before + 1


async def test_who_leaves_mid_stream_is_logged_as_gone_and_not_as_a_fault(pair: Fronted) -> None:
    async with RawCall(pair.gateway, chat(**LONG), request_id="gone") as call:
        await call.read_until(b'"content":" ')
        call.leave(Departure.RST)
        await let_off(pair)

    (line,) = await pair.gateway.logged(request_id="gone")
    assert (line["outcome"], line["level"]) == ("cancelled", "info")
    assert line["output_tokens"] > 0


@pytest.mark.parametrize("departure", Departure)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_who_leaves_before_the_first_byte_pays_the_estimate_of_the_prompt(
    thoughtful: Fronted, departure: Departure, is_stream: bool
) -> None:
    pair = thoughtful
    before = await charged(pair)
    request_id = f"early-{next(NUMBERS)}"
    body = chat("patience " * 20, stream=is_stream)
    async with RawCall(pair.gateway, body, request_id=request_id) as call:
        await until(lambda: pair.simulator.state.running == 1)
        call.leave(departure)
        await let_off(pair)

    # The upstream's copy of the body has some fields more; they weigh at most a few tokens.
    spent = await charged(pair) - before
    assert 0 < spent <= guess(sent_body(pair))
    assert pair.simulator.state.generation_tokens_total == 0
    (line,) = await pair.gateway.logged(request_id=request_id)
    assert (line["status"], line["outcome"]) == (499, "cancelled")
    assert line["input_tokens"] == spent
    assert line["usage_estimated"] is True


async def test_a_whole_answer_is_cancelled_upstream_when_its_client_leaves(pair: Fronted) -> None:
    charged_before = await charged(pair)
    body = chat("tell me", max_tokens=4000, ignore_eos=True)
    async with RawCall(pair.gateway, body) as call:
        await until(lambda: pair.simulator.state.running == 1)
        await asyncio.sleep(4 * INTER_TOKEN_SECONDS)
        call.leave(Departure.FIN)
        await let_off(pair)

    assert await charged(pair) - charged_before == guess(sent_body(pair))


@pytest.mark.parametrize("departure", Departure)
async def test_who_leaves_right_after_the_terminator_was_served_well(
    pair: Fronted, departure: Departure
) -> None:
    charged_before, generated_before = await charged(pair), pair.generated_tokens
    request_id = f"done-{departure.value}"
    body = chat("short", max_tokens=2, stream=True)
    async with RawCall(pair.gateway, body, request_id=request_id) as call:
        await call.read_until(b"[DONE]")
        call.leave(departure)

        assert await charged(pair) - charged_before == pair.generated_tokens - generated_before
    (line,) = await pair.gateway.logged(request_id=request_id)
    assert line["outcome"] == "ok"


async def test_who_leaves_after_the_terminator_was_served_well_however_slowly_it_is_closed(
    tmp_path: Path,
) -> None:
    """An upstream that has said [DONE] and does not end its answer: nobody waits for that."""
    word = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    said = STREAM_HEAD + chunk(word) + chunk(b"data: [DONE]\n\n")
    async with (
        ScriptedUpstream((Receive(), Send(said), Hang()), listing={"m": 4096}) as upstream,
        GatewayProcess(folder=tmp_path, VLLM_URL=upstream.url) as gateway,
    ):
        body = chat("hi", stream=True) | {"model": "m"}
        async with RawCall(gateway, body, request_id="lingering") as call:
            await call.read_until(b"[DONE]")
            call.leave(Departure.RST)
            (line,) = await gateway.logged(request_id="lingering")

    assert line["outcome"] == "ok"
    assert line["output_tokens"] == 1


async def test_who_leaves_the_queue_was_never_there(tmp_path: Path) -> None:
    pace = SimulatorConfig(inter_token_seconds=INTER_TOKEN_SECONDS)
    settings = {"MAX_IN_FLIGHT": "1", "QUEUE_TIMEOUT_SECONDS": "30"}
    async with fronted(tmp_path, pace=pace, **settings) as pair:
        gateway = pair.gateway
        async with RawCall(gateway, chat(**LONG)) as running:
            await running.read_until(b"data: ")
            for departure in Departure:
                async with RawCall(gateway, chat("waiting")) as queued:
                    await _queue_is(pair, 1)
                    queued.leave(departure)
                    await _queue_is(pair, 0)
            running.leave(Departure.FIN)
            await let_off(pair)

        report = await settled(gateway)
        assert report["requests"] == 1
        assert pair.paths() == [CHAT]
        assert (await gateway.client.post(CHAT, json=chat(max_tokens=1))).status_code == 200


async def test_a_hundred_departures_leave_nothing_behind(pair: Fronted) -> None:
    gateway = pair.gateway
    process = psutil.Process(gateway.pid)
    await settled(gateway)
    descriptors_before = process.num_fds()

    async def depart(number: int) -> None:
        is_stream = number % 4 != 3
        departure = (Departure.FIN, Departure.RST)[number % 2]
        body = chat("bye", max_tokens=4000, ignore_eos=True, stream=is_stream)
        async with RawCall(gateway, body) as call:
            if is_stream:
                await call.read_until(b'"content":" ')
            else:
                await asyncio.sleep(0.002 * number)
            call.leave(departure)
            await asyncio.sleep(0.01)

    await asyncio.gather(*map(depart, range(100)))
    await let_off(pair)

    report = await settled(gateway)
    assert report["reserved_tokens"] == 0
    assert await gateway.metric("gateway_upstream_in_flight") == 0
    assert await gateway.metric("gateway_queue_depth") == 0
    # The scrape that asks is itself in flight.
    assert await gateway.metric("gateway_requests_in_flight") == 1
    await until(lambda: process.num_fds() <= descriptors_before)
    assert "Traceback" not in gateway.log_path.read_text()


async def _queue_is(pair: Fronted, depth: int) -> None:
    async with asyncio.timeout(5):
        while await pair.gateway.metric("gateway_queue_depth") != depth:
            await asyncio.sleep(0.01)
