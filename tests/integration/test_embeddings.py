"""Pooling calls through a whole gateway: forwarded as they are, charged as the upstream reports."""

import json
from collections.abc import AsyncIterator
from typing import Any

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
    "base64": ("/v1/embeddings", {"input": "sea", "encoding_format": "base64"}),
    "rerank": ("/v1/rerank", {"query": "sea", "documents": ["a ship", "a tree", "the shore"]}),
    "score of a pair": ("/v1/score", {"text_1": "sea", "text_2": "ship"}),
    "score of one and many": ("/v1/score", {"text_1": "sea", "text_2": ["ship", "tree"]}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    async with fronted(tmp_path_factory.mktemp("embeddings")) as running:
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
