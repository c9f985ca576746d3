"""/v1/messages of the simulator: vLLM's own endpoint, with its flaws, or none at all."""

from typing import Any

import anthropic
import pytest

from scripts.simulator import Fault, FaultKind
from tests.harness.anthropic import COUNT, PATH, WEATHER, events, kinds, message, only
from tests.scripts.simulated import simulated

CACHED = message("again and again " * 20)


async def test_sdk_reads_a_message_and_its_stream() -> None:
    async with (
        simulated(output_tokens=8) as (simulator, _),
        anthropic.AsyncAnthropic(base_url=simulator.url, api_key="key", max_retries=0) as client,
    ):
        whole = await client.messages.create(**message(max_tokens=20))
        async with client.messages.stream(**message(max_tokens=20)) as stream:
            streamed = await stream.get_final_message()

    assert only(whole).text == only(streamed).text
    assert whole.usage.output_tokens == streamed.usage.output_tokens == 8
    assert whole.stop_reason == streamed.stop_reason == "end_turn"


async def test_it_counts_what_it_charges() -> None:
    body = message("one two three", tools=[WEATHER], system="Be brief.")
    async with simulated() as (simulator, client):
        counted = (await client.post(COUNT, json=body)).json()["input_tokens"]
        answer = (await client.post(PATH, json=body)).json()

        assert counted == answer["usage"]["input_tokens"] == simulator.state.prompt_tokens_total


async def test_the_cached_prompt_is_missing_from_the_end_but_not_from_the_start() -> None:
    async with simulated(prompt_tokens_details=True) as (_, client):
        await client.post(PATH, json=CACHED)
        told = events((await client.post(PATH, json=CACHED | {"stream": True})).content)

    start, end = told[0]["message"]["usage"], told[-2]["usage"]
    assert end["cache_read_input_tokens"] > 0
    assert end["input_tokens"] + end["cache_read_input_tokens"] == start["input_tokens"]


async def test_an_engine_that_dies_in_a_stream_dumps_a_schema() -> None:
    async with simulated() as (simulator, client):
        simulator.arm(Fault(FaultKind.STREAM_ERROR, events=4))
        answer = await client.post(PATH, json=message(stream=True))

    assert kinds(answer.content)[-1] == "error"
    assert "pydantic" in answer.text


async def test_a_malformed_call_is_a_400_after_the_tokens_were_spent() -> None:
    async with simulated() as (simulator, client):
        simulator.arm(Fault(FaultKind.MALFORMED_CALL))
        answer = await client.post(PATH, json=message())
        spent = simulator.state.generation_tokens_total

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "BadRequestError")
    assert spent == 8


@pytest.mark.parametrize("is_off", [False, True])
async def test_it_can_be_an_old_version_that_knows_nothing_of_it(is_off: bool) -> None:
    async with simulated(no_messages=is_off) as (_, client):
        answers = [await client.post(path, json=message()) for path in (PATH, COUNT)]
        described: dict[str, Any] = (await client.get("/openapi.json")).json()["paths"]

    assert {answer.status_code for answer in answers} == {404 if is_off else 200}
    assert (PATH in described, COUNT in described) == (not is_off, not is_off)
    assert "/v1/chat/completions" in described
