"""The official SDK through the gateway to a real vLLM: answers, streams, tools, books."""

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.harness.gateway import GatewayProcess
from tests.harness.vllm import VllmProcess
from tests.transcripts.cases import NAMED_CALL, REQUIRED_CALL

QUESTION: list[Any] = [{"role": "user", "content": "Tell me about the weather in Paris."}]
FIXED: dict[str, Any] = {"model": "tiny", "temperature": 0, "seed": 7}


async def charged(gateway: GatewayProcess) -> tuple[int, int]:
    report = await gateway.usage()
    return report["input_tokens"], report["output_tokens"]


async def spent(vllm: VllmProcess, before: tuple[int, int]) -> tuple[int, int]:
    """What vLLM counted since then; its counters lag an engine step behind its answers."""
    await asyncio.sleep(0.5)
    now = await vllm.tokens()
    return now[0] - before[0], now[1] - before[1]


async def test_a_chat_is_charged_what_vllm_counts(
    openai: AsyncOpenAI, gateway: GatewayProcess, vllm: VllmProcess
) -> None:
    before = await vllm.tokens()

    answer = await openai.chat.completions.create(messages=QUESTION, max_tokens=12, **FIXED)

    assert answer.usage is not None
    assert answer.choices[0].message.content
    assert await charged(gateway) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert await spent(vllm, before) == await charged(gateway)


@pytest.mark.parametrize("asks_for_usage", [False, True])
async def test_a_stream_is_charged_whether_or_not_it_asks_for_usage(
    openai: AsyncOpenAI, gateway: GatewayProcess, vllm: VllmProcess, asks_for_usage: bool
) -> None:
    before = await vllm.tokens()
    request: dict[str, Any] = {**FIXED, "messages": QUESTION, "max_tokens": 20, "stream": True}
    if asks_for_usage:
        request["stream_options"] = {"include_usage": True}

    stream: Any = await openai.chat.completions.create(**request, extra_body={"ignore_eos": True})
    chunks = [chunk async for chunk in stream]

    seen = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(seen) == (1 if asks_for_usage else 0)
    assert await spent(vllm, before) == await charged(gateway)
    assert (await charged(gateway))[1] == 20


async def test_a_stream_passes_vllms_events_unchanged(
    gateway: GatewayProcess, vllm: VllmProcess
) -> None:
    request = {"messages": QUESTION, "max_tokens": 12, "stream": True, **FIXED}

    through = await gateway.client.post("/v1/chat/completions", json=request)
    direct = await gateway.client.post(f"{vllm.url}/v1/chat/completions", json=request)

    assert without_ids(through.text) == without_ids(direct.text)


def without_ids(events: str) -> list[str]:
    """The events less what differs between two answers to the same question.

    Asking for usage makes vLLM move its fingerprint into the usage event, which is held back.
    """
    kept = []
    for line in events.splitlines():
        head, mark, tail = line.partition('"object"')
        tail = tail.partition('"created":')[0] + tail.partition('"model"')[2]
        kept.append(
            (head.split('"id"')[0] + mark + tail).split(',"system_fingerprint"')[0].rstrip("}")
        )
    return kept


async def test_several_choices_of_a_stream_are_charged_together(
    openai: AsyncOpenAI, gateway: GatewayProcess, vllm: VllmProcess
) -> None:
    before = await vllm.tokens()

    stream = await openai.completions.create(
        model="tiny", prompt=["The sun", "The moon and the stars"], n=2, max_tokens=9,
        temperature=1, seed=3, stream=True, extra_body={"ignore_eos": True},
    )  # fmt: skip
    indexes = {choice.index async for chunk in stream for choice in chunk.choices}

    assert indexes == {0, 1, 2, 3}
    # vLLM's own counter takes a prompt once per choice, the usage it reports once per prompt.
    prompt_tokens, generated = await spent(vllm, before)
    assert await charged(gateway) == (prompt_tokens // 2, generated)
    assert generated == 36


@pytest.mark.parametrize("request_fields", [NAMED_CALL, REQUIRED_CALL], ids=["named", "required"])
async def test_a_forced_tool_call_comes_back_whole(
    openai: AsyncOpenAI, request_fields: dict[str, Any]
) -> None:
    calls: Any = None
    for seed in (request_fields["seed"], *range(20)):
        # A random model may fill its tokens with white space; some seed writes a whole call.
        fields: dict[str, Any] = {**request_fields, "model": "tiny", "seed": seed}
        answer: Any = await openai.chat.completions.create(**fields)
        calls = answer.choices[0].message.tool_calls
        if calls and answer.choices[0].finish_reason != "length":
            break

    assert calls[0].function.name == "weather"
    assert json.loads(calls[0].function.arguments)["city"] in ("Oslo", "Rome")


async def test_a_streamed_tool_call_is_charged(
    openai: AsyncOpenAI, gateway: GatewayProcess, vllm: VllmProcess
) -> None:
    before = await vllm.tokens()

    request: dict[str, Any] = {**NAMED_CALL, "model": "tiny", "stream": True}
    stream: Any = await openai.chat.completions.create(**request)
    names = [
        call.function.name
        async for chunk in stream
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
        if call.function is not None and call.function.name
    ]

    assert names == ["weather"]
    assert await charged(gateway) == await spent(vllm, before)


async def test_responses_are_charged_streamed_or_not(
    openai: AsyncOpenAI, gateway: GatewayProcess, vllm: VllmProcess
) -> None:
    before = await vllm.tokens()

    await openai.responses.create(model="tiny", input="Say something.", max_output_tokens=8)
    stream = await openai.responses.create(
        model="tiny", input="Say something.", max_output_tokens=8, stream=True
    )
    kinds = [event.type async for event in stream]

    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert await charged(gateway) == await spent(vllm, before)


async def test_near_the_quota_the_prompt_is_counted_exactly_and_the_output_bounded(
    vllm: VllmProcess, tmp_path: Any
) -> None:
    settings: dict[str, Any] = {"VLLM_URL": vllm.url, "DAILY_TOKEN_QUOTA": "60"}
    async with GatewayProcess(folder=tmp_path, **settings) as gateway:
        request = {"messages": QUESTION, "max_tokens": 500, "ignore_eos": True, **FIXED}

        answer = await gateway.client.post("/v1/chat/completions", json=request)
        refused = await gateway.client.post("/v1/chat/completions", json=request)

        usage = answer.json()["usage"]
        assert usage["total_tokens"] == 60
        assert answer.json()["choices"][0]["finish_reason"] == "length"
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert refused.headers["x-should-retry"] == "false"
        assert (await gateway.usage())["total_tokens"] == 60


async def test_embeddings_of_a_second_vllm_are_served_and_charged(
    vllm: VllmProcess, embedder: VllmProcess, tmp_path: Any
) -> None:
    urls = f"{vllm.url},{embedder.url}"
    async with (
        GatewayProcess(folder=tmp_path, VLLM_URL=urls) as gateway,
        AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as openai,
    ):
        await models_are_listed(openai, 2)
        answer = await openai.embeddings.create(model="tiny-embed", input=["one", "two words"])
        scores = await gateway.client.post(
            "/v1/score", json={"model": "tiny-embed", "text_1": "a cat", "text_2": ["a dog", "sun"]}
        )
        reranked = await gateway.client.post(
            "/v1/rerank", json={"model": "tiny-embed", "query": "cat", "documents": ["dog", "sun"]}
        )

        answers = [scores.json(), reranked.json()]
        charged = answer.usage.prompt_tokens + sum(a["usage"]["prompt_tokens"] for a in answers)
        assert len(answer.data) == 2
        assert (await gateway.usage())["total_tokens"] == charged


async def models_are_listed(openai: AsyncOpenAI, count: int) -> None:
    async with asyncio.timeout(20):
        while len((await openai.models.list()).data) < count:
            await asyncio.sleep(0.2)
