"""Pooling calls through a whole gateway: forwarded as they are, charged as the upstream reports."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.harness.callers import Fronted, fronted

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = {"model": "sim-embedding"}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("/v1/embeddings", {"input": "one calm sea"}),
    "texts": ("/v1/embeddings", {"input": ["one", "calm sea", "and a ship"]}),
    "token ids": ("/v1/embeddings", {"input": [353, 353, 353]}),
    "lists of token ids": ("/v1/embeddings", {"input": [[353, 353], [353]]}),
    "conversation": ("/v1/embeddings", {"messages": [{"role": "user", "content": "sea"}]}),
    "dimensions": ("/v1/embeddings", {"input": ["sea", "ship"], "dimensions": 4}),
    "base64": ("/v1/embeddings", {"input": "sea", "encoding_format": "base64"}),
    "rerank": ("/v1/rerank", {"query": "sea", "documents": ["a ship", "a tree", "the shore"]}),
    "rerank of the best": (
        "/v1/rerank",
        {"query": "sea", "documents": ["a ship", "the sea"], "top_n": 1},
    ),
    "score of a pair": ("/v1/score", {"text_1": "sea", "text_2": "ship"}),
    "score of one and many": ("/v1/score", {"text_1": "sea", "text_2": ["ship", "tree"]}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    folder = tmp_path_factory.mktemp("embeddings")
    async with fronted(folder, MODEL_ALIASES="text-embedding-*=sim-embedding") as running:
        yield running


@pytest.mark.parametrize("name", CALLS)
async def test_a_pooling_call_is_charged_the_prompt_the_upstream_counted(
    pair: Fronted, name: str
) -> None:
    path, fields = CALLS[name]
    before, generated_before = await pair.gateway.usage(), pair.generated_tokens
    answer = await pair.gateway.client.post(path, json=MODEL | fields)

    after = await pair.gateway.usage()
    spent = pair.generated_tokens - generated_before
    assert answer.json()["usage"]["total_tokens"] == spent > 0
    assert after["input_tokens"] - before["input_tokens"] == spent
    assert after["output_tokens"] == before["output_tokens"]
    assert after["reserved_tokens"] == 0


@pytest.mark.parametrize("name", CALLS)
async def test_a_pooling_call_reaches_the_upstream_as_it_was_asked(
    pair: Fronted, name: str
) -> None:
    path, fields = CALLS[name]
    await pair.gateway.client.post(path, json=MODEL | fields)

    sent = pair.simulator.requests[-1]
    assert sent.path == path
    assert json.loads(sent.body) == MODEL | fields


async def test_a_stream_wish_means_nothing_to_a_pooling_call(pair: Fronted) -> None:
    answer = await pair.gateway.client.post(
        "/v1/embeddings", json=MODEL | {"input": "sea", "stream": True}
    )

    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("name", CALLS)
async def test_a_pooling_call_by_an_alias_is_answered_under_that_name(
    pair: Fronted, name: str
) -> None:
    path, fields = CALLS[name]
    alias = {"model": "text-embedding-3-small"}
    real = (await pair.gateway.client.post(path, json=MODEL | fields)).json()
    answer = (await pair.gateway.client.post(path, json=alias | fields)).json()

    own = {"id", "created"}
    assert {key: answer[key] for key in answer.keys() - own} == {
        key: real[key] for key in real.keys() - own
    } | alias
    assert json.loads(pair.simulator.requests[-1].body) == MODEL | fields


@pytest.mark.parametrize(
    ("path", "fields", "param", "code"),
    [
        ("/v1/embeddings", {}, "input", "missing_required_parameter"),
        ("/v1/embeddings", {"input": []}, "input", "invalid_type"),
        ("/v1/embeddings", {"input": 3}, "input", "invalid_type"),
        ("/v1/embeddings", {"input": ["a", [1]]}, "input", "invalid_type"),
        ("/v1/embeddings", {"input": [1.5]}, "input", "invalid_type"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions", "invalid_value"),
        ("/v1/embeddings", {"input": "a", "dimensions": "4"}, "dimensions", "invalid_type"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format",
         "invalid_value"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "bytes"}, "encoding_format",
         "invalid_value"),
        ("/v1/rerank", {"documents": ["a"]}, "query", "missing_required_parameter"),
        ("/v1/rerank", {"query": "a"}, "documents", "missing_required_parameter"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents", "invalid_type"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n", "invalid_value"),
        ("/v1/score", {"text_1": "a"}, "text_2", "missing_required_parameter"),
        ("/v1/score", {"text_1": 1, "text_2": "a"}, "text_1", "invalid_type"),
    ],
)  # fmt: skip
async def test_a_wrong_pooling_call_is_refused_before_it_costs_anything(
    pair: Fronted, path: str, fields: dict[str, Any], param: str, code: str
) -> None:
    seen = len(pair.simulator.requests)
    answer = await pair.gateway.client.post(path, json=MODEL | fields)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert f"'{param}'" in error["message"]
    assert not [r for r in list(pair.simulator.requests)[seen:] if r.path == path]


async def test_the_openai_sdk_embeds_texts_and_token_ids(pair: Fronted) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{pair.gateway.url}/v1", api_key=pair.gateway.key, max_retries=0
    ) as client:
        # The SDK asks for base64 where nothing else is asked for, and decodes it.
        texts = await client.embeddings.create(model="sim-embedding", input=["sea", "ship"])
        plain = await client.embeddings.create(
            model="text-embedding-3-large", input=["sea", "ship"], encoding_format="float"
        )
        tokens = await client.embeddings.create(
            model="sim-embedding", input=[[353, 353], [353]], dimensions=3
        )
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model="sim-embedding", input="sea", dimensions=0)

    assert [len(row.embedding) for row in tokens.data] == [3, 3]
    assert plain.model == "text-embedding-3-large"
    for decoded, stated in zip(texts.data, plain.data, strict=True):
        assert decoded.embedding == pytest.approx(stated.embedding, abs=1e-6)
    assert refused.value.param == "dimensions"
