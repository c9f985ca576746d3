"""/v1/responses through a whole gateway: its own field names, its own events, the same books."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.callers import (
    Departure,
    Fronted,
    RawCall,
    dechunked,
    fronted,
    settled,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSES = "/v1/responses"


def events_of(stream: str) -> list[dict[str, Any]]:
    """The events of a stream of responses."""
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]


def respond(text: str = "tell me", **fields: Any) -> dict[str, Any]:
    return {"model": "sim-model", "input": text, "max_output_tokens": 12, **fields}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    pace = SimulatorConfig(inter_token_seconds=0.02)
    folder = tmp_path_factory.mktemp("responses")
    async with fronted(folder, pace=pace, MODEL_ALIASES="gpt-4o=sim-model") as running:
        yield running


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("fields", [{}, {"instructions": "be brief"}], ids=["plain", "instructed"])
async def test_a_response_is_charged_what_the_upstream_generated(
    pair: Fronted, is_stream: bool, fields: dict[str, Any]
) -> None:
    before, generated_before = await settled(pair.gateway), pair.generated_tokens
    answer = await pair.gateway.client.post(RESPONSES, json=respond(stream=is_stream, **fields))

    assert answer.status_code == 200
    spent = (await settled(pair.gateway))["total_tokens"] - before["total_tokens"]
    assert spent == pair.generated_tokens - generated_before > 0


async def test_a_streamed_response_passes_whole(pair: Fronted) -> None:
    answer = await pair.gateway.client.post(RESPONSES, json=respond(stream=True))

    assert answer.text.startswith("event: response.created\n")
    assert "event: response.completed\n" in answer.text
    assert '"usage":{"input_tokens":' in answer.text


async def test_nothing_of_chats_stream_options_is_added(pair: Fronted) -> None:
    await pair.gateway.client.post(RESPONSES, json=respond(stream=True))

    assert "stream_options" not in pair.simulator.requests[-1].json()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_alias_answers_under_its_own_name(pair: Fronted, is_stream: bool) -> None:
    text = 'say "model":"sim-model"'
    body = respond(text, model="gpt-4o", instructions=text, stream=is_stream)
    answer = await pair.gateway.client.post(RESPONSES, json=body)

    assert pair.simulator.requests[-1].json()["model"] == "sim-model"
    if not is_stream:
        assert answer.json()["model"] == "gpt-4o"
        return
    shown = [event["response"] for event in events_of(answer.text) if "response" in event]
    assert [response["model"] for response in shown] == ["gpt-4o"] * 3


async def test_the_openai_sdk_creates_and_streams(pair: Fronted) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{pair.gateway.url}/v1", api_key=pair.gateway.key, max_retries=0
    ) as client:
        whole = await client.responses.create(
            model="gpt-4o", input="tell me", instructions="be brief", max_output_tokens=8
        )
        assert (whole.model, whole.usage is not None) == ("gpt-4o", True)
        assert whole.output_text

        async with client.responses.stream(
            model="sim-model", input=[{"role": "user", "content": "hi"}], max_output_tokens=8
        ) as stream:
            said = [
                event.delta async for event in stream if event.type == "response.output_text.delta"
            ]
            final = await stream.get_final_response()
        assert "".join(said) == final.output_text != ""
        assert final.usage is not None
        assert final.usage.output_tokens == 8

        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="sim-model", input=[])
        assert (refused.value.param, refused.value.code) == ("input", "invalid_type")
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="sim-model", input="x", background=True)
        assert refused.value.param == "background"


async def test_who_leaves_a_response_pays_for_the_deltas_until_then(pair: Fronted) -> None:
    before, generated_before = await settled(pair.gateway), pair.generated_tokens
    body = respond(stream=True, max_output_tokens=4000)
    pair.simulator.configure(SimulatorConfig(inter_token_seconds=0.05, output_tokens=4000))
    async with RawCall(pair.gateway, body, path=RESPONSES) as call:
        await call.read_times(b"event: response.output_text.delta", 8)
        call.leave(Departure.RST)
        await until(lambda: not pair.simulator.state.running, within_seconds=1)
    pair.simulator.configure(SimulatorConfig(inter_token_seconds=0.02))
    after = await settled(pair.gateway)

    assert after["output_tokens"] - before["output_tokens"] >= 8
    # The prompt is a guess until the last event states it, and that one never came.
    spent, generated = after["total_tokens"] - before["total_tokens"], pair.generated_tokens
    assert abs(spent - (generated - generated_before)) <= 12


async def test_a_response_that_dies_ends_with_one_error_event_and_no_completion(
    pair: Fronted,
) -> None:
    pair.simulator.arm(Fault(FaultKind.CLOSE_MID_STREAM, events=8, count=1))
    async with RawCall(pair.gateway, respond(stream=True), path=RESPONSES) as call:
        heard = dechunked(await call.read_to_end())

    assert b"response.completed" not in heard
    assert heard.count(b'"error"') - heard.count(b'"error":null') == 1


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_response_near_the_quota_is_bounded_to_what_remains(
    tmp_path: Path, is_stream: bool
) -> None:
    pace = SimulatorConfig(output_tokens=400)
    async with Simulator(pace) as simulator, httpx2.AsyncClient(trust_env=False) as direct:
        answer = await direct.post(simulator.url + RESPONSES, json=respond(instructions="sing"))
        prompt = answer.json()["usage"]["input_tokens"]

    async with fronted(tmp_path, pace=pace, DAILY_TOKEN_QUOTA=str(prompt + 7)) as pair:
        body = respond(stream=is_stream, max_output_tokens=300, instructions="sing")
        answer = await pair.gateway.client.post(RESPONSES, json=body)

        assert answer.status_code == 200
        assert pair.paths() == ["/tokenize", RESPONSES]
        assert pair.bodies(RESPONSES)[0]["max_output_tokens"] == 7
        assert (await settled(pair.gateway))["remaining_tokens"] == 0
