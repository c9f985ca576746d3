"""What the simulator generates, how it counts it and how it refuses."""

import json
from typing import Any

import pytest

from tests.scripts.simulated import GREETING, chat, metric, said, simulated, streamed

CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


async def test_usage_agrees_with_tokenize() -> None:
    async with simulated() as (_, client):
        answer = (await client.post("/v1/chat/completions", json=chat(max_tokens=7))).json()
        prompt = (await client.post("/tokenize", json={"messages": GREETING})).json()
        text = answer["choices"][0]["message"]["content"]
        output = (await client.post("/tokenize", json={"prompt": text})).json()

    assert answer["usage"]["prompt_tokens"] == prompt["count"]
    assert answer["usage"]["completion_tokens"] == output["count"] == 7
    assert answer["usage"]["total_tokens"] == prompt["count"] + 7


@pytest.mark.parametrize("text", ["", "plain words", "  blänk\n\n日本語\x00 🎉 x"])
async def test_detokenize_gives_back_what_tokenize_took(text: str) -> None:
    async with simulated() as (_, client):
        tokens = (await client.post("/tokenize", json={"prompt": text})).json()["tokens"]
        answer = await client.post("/detokenize", json={"tokens": tokens})

    assert answer.json() == {"prompt": text}


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_limit_ends_an_answer_with_length(limit: str) -> None:
    async with simulated(output_tokens=20) as (_, client):
        answer = (await client.post("/v1/chat/completions", json=chat(**{limit: 5}))).json()

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


async def test_unlimited_answer_stops_by_itself_and_charges_its_end_token() -> None:
    async with simulated(output_tokens=6) as (_, client):
        answer = (await client.post("/v1/chat/completions", json=chat())).json()

    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 6
    assert len(answer["choices"][0]["message"]["content"].split()) == 5


async def test_ignore_eos_and_min_tokens_lengthen_an_answer() -> None:
    async with simulated(output_tokens=4) as (_, client):
        endless = await streamed(client, chat(max_tokens=50, ignore_eos=True))
        longer = (await client.post("/v1/chat/completions", json=chat(min_tokens=9))).json()

    assert len(said(endless).split()) == 50
    assert longer["usage"]["completion_tokens"] == 9


async def test_stop_string_cuts_the_text_and_is_named() -> None:
    async with simulated() as (_, client):
        whole = (await client.post("/v1/chat/completions", json=chat(max_tokens=8))).json()
        text = whole["choices"][0]["message"]["content"]
        stop = text.split()[3]
        events = await streamed(client, chat(max_tokens=8, stop=[stop]))

    assert said(events) == text[: text.index(stop)]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"][0]["stop_reason"] == stop


async def test_stream_says_what_the_whole_answer_says() -> None:
    async with simulated() as (_, client):
        whole = (await client.post("/v1/chat/completions", json=chat(max_tokens=9))).json()
        events = await streamed(client, chat(max_tokens=9))

    assert said(events) == whole["choices"][0]["message"]["content"]
    assert "usage" not in events[-1]


async def test_continuous_usage_counts_every_token_of_every_choice() -> None:
    async with simulated() as (_, client):
        events = await streamed(client, chat(max_tokens=4, n=2, stream_options=CONTINUOUS))

    for index in (0, 1):
        own = [e for e in events if e["choices"] and e["choices"][0]["index"] == index]
        assert [event["usage"]["completion_tokens"] for event in own] == [0, 1, 2, 3, 4]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 8


async def test_completions_answer_every_prompt_n_times() -> None:
    body = {"prompt": ["one sea", "two"], "n": 2, "max_tokens": 3, "echo": True}
    async with simulated() as (_, client):
        answer = (await client.post("/v1/completions", json=body)).json()

    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert all(text.startswith("one sea ") for text in texts[:2])
    assert all(text.startswith("two ") for text in texts[2:])
    assert answer["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize(
    ("tool_choice", "finish"),
    [
        ("required", "tool_calls"),
        ({"type": "function", "function": {"name": "weather"}}, "stop"),
    ],
)
async def test_forced_tool_is_called_with_valid_arguments(tool_choice: Any, finish: str) -> None:
    body = chat(tools=[WEATHER], tool_choice=tool_choice)
    async with simulated() as (_, client):
        choice = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
        events = await streamed(client, body)

    call = choice["message"]["tool_calls"][0]["function"]
    deltas = [event["choices"][0]["delta"] for event in events]
    parts = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "calm", "days": 1})
    assert parts[0] == {"name": "weather"}
    assert "".join(part["arguments"] for part in parts[1:]) == call["arguments"]
    assert choice["finish_reason"] == events[-1]["choices"][0]["finish_reason"] == finish


async def test_embeddings_depend_on_the_text_alone() -> None:
    body = {"model": "sim-embedding", "input": ["a ship", "a ship", "rain"], "dimensions": 8}
    async with simulated() as (_, client):
        answer = (await client.post("/v1/embeddings", json=body)).json()

    first, second, third = (row["embedding"] for row in answer["data"])
    assert first == second != third
    assert len(first) == 8
    assert answer["usage"]["completion_tokens"] == 0


async def test_rerank_puts_the_fitting_document_first() -> None:
    body = {"model": "sim-embedding", "query": "old oak", "documents": ["a ship", "the old oak"]}
    async with simulated() as (_, client):
        answer = (await client.post("/v1/rerank", json=body | {"top_n": 1})).json()

    assert [result["index"] for result in answer["results"]] == [1]


async def test_cached_prefix_is_reported_and_counted() -> None:
    long = [{"role": "user", "content": "the ship sails " * 40}]
    async with simulated(prompt_tokens_details=True) as (_, client):
        first = (await client.post("/v1/chat/completions", json=chat(messages=long))).json()
        second = (await client.post("/v1/chat/completions", json=chat(messages=long))).json()
        hits = await metric(client, "vllm:prefix_cache_hits_total")

    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached == hits
    assert cached % 16 == 0
    assert cached > second["usage"]["prompt_tokens"] - 17


@pytest.mark.parametrize(
    ("fields", "status", "kind", "param"),
    [
        ({"model": "nobody"}, 404, "NotFoundError", "model"),
        (
            {"messages": [{"role": "user", "content": "w " * 400}]},
            400,
            "BadRequestError",
            "input_tokens",
        ),
        ({"max_tokens": 0}, 400, "BadRequestError", "max_tokens"),
        ({"max_tokens": "many"}, 400, "Bad Request", "body.max_tokens"),
        ({"messages": None}, 400, "Bad Request", "body.messages"),
        ({"temperature": -1}, 400, "BadRequestError", "temperature"),
        ({"stream_options": CONTINUOUS}, 400, "BadRequestError", "stream_options"),
        ({"tool_choice": "required", "tools": []}, 400, "BadRequestError", "tool_choice"),
    ],
)
async def test_refusals_are_vllms(
    fields: dict[str, Any], status: int, kind: str, param: str
) -> None:
    async with simulated(max_model_len=256) as (_, client):
        answer = await client.post("/v1/chat/completions", json=chat(**fields))

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status)
    assert (error["type"], error["param"]) == (kind, param)


async def test_key_guards_v1_alone() -> None:
    async with simulated(api_key="secret") as (_, client):
        wrong = await client.get("/v1/models", headers={"authorization": "Bearer wrong"})
        right = await client.get("/v1/models", headers={"authorization": "Bearer secret"})
        health = await client.get("/health")

    assert (wrong.status_code, wrong.json()) == (401, {"error": "Unauthorized"})
    assert (right.status_code, health.status_code) == (200, 200)
