"""What is charged is what the upstream counted, whatever the client asked to see of it."""

import asyncio
import re
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from tests.harness.callers import Fronted, events, fronted, settled
from tests.harness.gateway import chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
REQUEST_ID = {"x-request-id": "same-for-both"}
ALL_USAGE = {"include_usage": True, "continuous_usage_stats": True}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, chat("sing")),
    "chat of three choices": (CHAT, chat("sing", n=3)),
    "tool call": (CHAT, chat("rain?", max_tokens=64, tools=[WEATHER], tool_choice="required")),
    "stop": (CHAT, chat("sing", stop=[" sea", " tree", " hill"], max_tokens=40)),
    "completion": (COMPLETIONS, {"model": "sim-model", "prompt": "sing", "max_tokens": 9}),
    "two prompts of two choices": (
        COMPLETIONS,
        {"model": "sim-model", "prompt": ["sing", "dance a"], "n": 2, "max_tokens": 5},
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    pace = SimulatorConfig(inter_token_seconds=0.0005, prompt_tokens_details=True)
    folder = tmp_path_factory.mktemp("metering")
    settings = {"CIRCUIT_FAILURE_THRESHOLD": "100000", "CIRCUIT_FAILURE_RATIO": "1"}
    async with fronted(folder, pace=pace, **settings) as running:
        yield running


async def streamed(pair: Fronted, path: str, body: dict[str, Any], options: Any = None) -> bytes:
    """What the gateway's client gets."""
    fields = body | {"stream": True} | ({"stream_options": options} if options else {})
    answer = await pair.gateway.client.post(path, json=fields, headers=REQUEST_ID)
    assert answer.status_code == 200, answer.text
    return _timeless(answer.content)


async def direct(pair: Fronted, path: str, body: dict[str, Any], options: Any = None) -> bytes:
    """What the simulator answers to the same words without a gateway."""
    fields = body | {"stream": True} | ({"stream_options": options} if options else {})
    async with httpx2.AsyncClient(base_url=pair.simulator.url, trust_env=False) as client:
        answer = await client.post(path, json=fields, headers=REQUEST_ID)
    return _timeless(answer.content)


async def charged(pair: Fronted) -> int:
    total: int = (await settled(pair.gateway))["total_tokens"]
    return total


def _timeless(stream: bytes) -> bytes:
    return re.sub(rb'"created":\d+', b'"created":0', stream)


def _without_usage(stream: bytes) -> bytes:
    kept = [block for block in stream.split(b"\n\n") if b'"choices":[]' not in block]
    return re.sub(rb',"usage":\{[^{}]*(\{[^{}]*\})?[^{}]*\}', b"", b"\n\n".join(kept))


@pytest.mark.parametrize("shape", STREAMS)
async def test_who_did_not_ask_sees_no_usage_and_else_the_upstreams_very_bytes(
    pair: Fronted, shape: str
) -> None:
    path, body = STREAMS[shape]
    seen = await streamed(pair, path, body)

    assert b'"usage"' not in seen
    assert seen == _without_usage(await direct(pair, path, body, ALL_USAGE))


@pytest.mark.parametrize("shape", STREAMS)
async def test_who_asked_for_usage_sees_exactly_the_final_chunk(pair: Fronted, shape: str) -> None:
    path, body = STREAMS[shape]
    options = {"include_usage": True}
    seen = await streamed(pair, path, body, options)

    told = [event for event in events(seen) if event.get("usage")]
    assert [event["choices"] for event in told] == [[]]
    assert seen == await direct(pair, path, body, options)


@pytest.mark.parametrize("shape", STREAMS)
async def test_who_asked_for_continuous_usage_sees_all_of_it(pair: Fronted, shape: str) -> None:
    path, body = STREAMS[shape]
    seen = await streamed(pair, path, body, ALL_USAGE)

    assert seen.count(b'"usage"') > 2
    assert seen == await direct(pair, path, body, ALL_USAGE)


@pytest.mark.parametrize("options", [None, {"include_usage": True}, ALL_USAGE], ids=str)
@pytest.mark.parametrize("shape", STREAMS)
async def test_every_stream_is_charged_what_the_upstream_generated(
    pair: Fronted, shape: str, options: Any
) -> None:
    path, body = STREAMS[shape]
    charged_before, generated_before = await charged(pair), pair.generated_tokens
    await streamed(pair, path, body, options)

    generated = pair.generated_tokens - generated_before
    assert await charged(pair) - charged_before == generated > 0


async def test_other_stream_options_of_the_client_are_passed_on(pair: Fronted) -> None:
    pair.simulator.requests.clear()
    await streamed(pair, CHAT, chat(), {"include_usage": False, "include_obfuscation": False})

    (sent,) = pair.bodies()
    assert sent["stream_options"] == {"include_obfuscation": False, **ALL_USAGE}


async def test_a_usage_that_is_only_spoken_of_is_left_in_the_text(pair: Fronted) -> None:
    """The model's own words are no report, whatever they look like."""
    text = 'say ,"usage":{"prompt_tokens":0} please'
    body = {"model": "sim-model", "prompt": text, "echo": True, "max_tokens": 3}
    seen = await streamed(pair, COMPLETIONS, body)

    assert text in "".join(event["choices"][0]["text"] for event in events(seen))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat("sing", n=4)),
        (COMPLETIONS, {"model": "sim-model", "prompt": ["a", "b c", "d e f"], "n": 2}),
        (COMPLETIONS, {"model": "sim-model", "prompt": [[353, 353], [353]], "max_tokens": 3}),
        (COMPLETIONS, {"model": "sim-model", "prompt": "a b", "echo": True, "max_tokens": 0}),
        (CHAT, chat("rain?", max_tokens=64, tools=[WEATHER], tool_choice="required")),
    ],
    ids=["choices", "prompts times choices", "token ids", "echo alone", "tool call"],
)
async def test_a_whole_answer_is_charged_its_own_usage(
    pair: Fronted, path: str, body: dict[str, Any]
) -> None:
    charged_before, generated_before = await charged(pair), pair.generated_tokens
    answer = await pair.gateway.client.post(path, json=body)

    spent = await charged(pair) - charged_before
    assert spent == answer.json()["usage"]["total_tokens"]
    assert spent == pair.generated_tokens - generated_before


async def test_a_cached_prompt_is_charged_as_the_upstream_reports_it(pair: Fronted) -> None:
    body = chat("the same long prompt " * 40)
    await pair.gateway.client.post(CHAT, json=body)
    before = await charged(pair)
    usage = (await pair.gateway.client.post(CHAT, json=body)).json()["usage"]

    assert usage["prompt_tokens_details"]["cached_tokens"] > 0
    assert await charged(pair) - before == usage["total_tokens"]


@pytest.mark.parametrize("kind", [FaultKind.ERROR_500, FaultKind.ERROR_503, FaultKind.ERROR_429])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_call_the_upstream_failed_costs_nothing(
    pair: Fronted, kind: FaultKind, is_stream: bool
) -> None:
    before = await charged(pair)
    pair.simulator.arm(Fault(kind, count=1))
    answer = await pair.gateway.client.post(CHAT, json=chat(stream=is_stream))

    assert answer.status_code >= 400
    assert await charged(pair) == before


async def test_a_call_the_upstream_refused_costs_nothing(pair: Fronted) -> None:
    before = await charged(pair)
    answer = await pair.gateway.client.post(CHAT, json=chat(temperature=-1))

    assert answer.status_code == 400
    assert await charged(pair) == before


async def test_the_books_equal_the_upstreams_after_five_hundred_mixed_calls(pair: Fronted) -> None:
    random = Random(7)
    before = await settled(pair.gateway)
    generated_before = pair.generated_tokens
    pair.simulator.arm(Fault(FaultKind.ERROR_500, ratio=0.05))
    pair.simulator.arm(Fault(FaultKind.ERROR_429, ratio=0.05))
    crowd = asyncio.Semaphore(40)

    async def call(number: int) -> int:
        path, body = random.choice(_MIX)
        fields = dict(body)
        if path in (CHAT, COMPLETIONS) and random.random() < 0.5:
            fields |= {"stream": True}
            if random.random() < 0.3:
                fields |= {"stream_options": random.choice([ALL_USAGE, {"include_usage": True}])}
        async with crowd:
            answer = await pair.gateway.client.post(path, json=fields)
        return answer.status_code

    statuses = await asyncio.gather(*map(call, range(500)))
    pair.simulator.disarm()
    report = await settled(pair.gateway)

    assert {200, 400, 429, 502} >= set(statuses) > {200, 400}
    assert report["total_tokens"] - before["total_tokens"] == (
        pair.generated_tokens - generated_before
    )
    assert report["total_tokens"] == sum(m["total_tokens"] for m in report["models"].values())
    assert report["reserved_tokens"] == 0
    assert await pair.gateway.metric("gateway_upstream_in_flight") == 0
    assert await pair.gateway.metric("gateway_tokens_total") == report["total_tokens"]


_MIX: list[tuple[str, dict[str, Any]]] = [
    *STREAMS.values(),
    (CHAT, chat("x" * 900, max_tokens=None)),
    (CHAT, chat(temperature=-1)),
    (CHAT, chat(priority=7)),
    ("/v1/embeddings", {"model": "sim-embedding", "input": ["a b", "c", "d e f"]}),
    ("/v1/rerank", {"model": "sim-embedding", "query": "q", "documents": ["a", "b c"]}),
    ("/v1/score", {"model": "sim-embedding", "text_1": "q", "text_2": ["a", "b c"]}),
    ("/v1/responses", {"model": "sim-model", "input": "hi", "max_output_tokens": 6}),
    ("/v1/responses", {"model": "sim-model", "input": "hi", "stream": True}),
    ("/tokenize", {"model": "sim-model", "prompt": "free of charge"}),
]
