"""Responses and pooling calls on real vLLMs, two models behind one gateway, by alias as well."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio

from tests.harness.callers import settled
from tests.harness.gateway import GatewayProcess
from tests.harness.vllm import VllmProcess

EMBEDDER = "tiny-embed"
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("/v1/embeddings", {"input": "one calm sea"}),
    "texts": ("/v1/embeddings", {"input": ["one", "calm sea", "and a ship"]}),
    "token ids": ("/v1/embeddings", {"input": [35, 36, 37]}),
    "lists of token ids": ("/v1/embeddings", {"input": [[35, 36], [37]]}),
    "conversation": ("/v1/embeddings", {"messages": [{"role": "user", "content": "sea"}]}),
    "base64": ("/v1/embeddings", {"input": "sea", "encoding_format": "base64"}),
    "rerank": ("/v1/rerank", {"query": "sea", "documents": ["a ship", "a tree"], "top_n": 1}),
    "score": ("/v1/score", {"text_1": "sea", "text_2": ["ship", "tree"]}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(
    vllm: VllmProcess, embedder: VllmProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(
        folder=tmp_path_factory.mktemp("both"),
        VLLM_URL=f"{vllm.url},{embedder.url}",
        MODEL_ALIASES="text-embedding-*=tiny-embed,gpt-4o=tiny",
    ) as running:
        yield running


@pytest.mark.parametrize("name", CALLS)
async def test_a_pooling_call_is_vllms_own_answer_under_the_name_asked_for(
    both: GatewayProcess, embedder: VllmProcess, name: str
) -> None:
    path, fields = CALLS[name]
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as direct:
        own = (await direct.post(embedder.url + path, json=fields | {"model": EMBEDDER})).json()
    before = await settled(both)
    answer = (
        await both.client.post(path, json=fields | {"model": "text-embedding-3-small"})
    ).json()
    after = await settled(both)

    assert answer["model"] == "text-embedding-3-small"
    changing = {"id", "created", "model"}
    assert {key: answer[key] for key in answer.keys() - changing} == {
        key: own[key] for key in own.keys() - changing
    }
    assert after["input_tokens"] - before["input_tokens"] == own["usage"]["prompt_tokens"] > 0
    assert after["output_tokens"] == before["output_tokens"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"input": "a", "dimensions": "x"}),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}),
        ("/v1/embeddings", {"input": "a", "dimensions": 8}),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": 3}),
        ("/v1/embeddings", {}),
        ("/v1/embeddings", {"input": [1.5]}),
        ("/v1/embeddings", {"input": [99999999]}),
        ("/v1/rerank", {"query": "a"}),
        ("/v1/rerank", {"query": "a", "documents": []}),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": "x"}),
        ("/v1/score", {"text_1": "a"}),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["b", "c", "d"]}),
    ],
)
async def test_what_vllm_refuses_is_refused_with_400_here_too(
    both: GatewayProcess, embedder: VllmProcess, path: str, fields: dict[str, Any]
) -> None:
    body = fields | {"model": EMBEDDER}
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as direct:
        assert (await direct.post(embedder.url + path, json=body)).status_code == 400
    answer = await both.client.post(path, json=body)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert "validation errors" not in error["message"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_response_by_an_alias_is_charged_what_it_states(
    both: GatewayProcess, is_stream: bool
) -> None:
    before = await settled(both)
    body = {"model": "gpt-4o", "input": "hi", "max_output_tokens": 8, "stream": is_stream}
    answer = await both.client.post("/v1/responses", json=body)
    after = await settled(both)

    if is_stream:
        data = [json.loads(line[6:]) for line in answer.text.splitlines() if line[:6] == "data: "]
        responses = [event["response"] for event in data if "response" in event]
    else:
        responses = [answer.json()]
    assert {response["model"] for response in responses} == {"gpt-4o"}
    assert after["total_tokens"] - before["total_tokens"] == responses[-1]["usage"]["total_tokens"]


async def test_the_openai_sdk_responds_and_embeds(both: GatewayProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{both.url}/v1", api_key=both.key) as client:
        whole = await client.responses.create(model="tiny", input="hello", max_output_tokens=8)
        assert whole.usage is not None
        assert whole.usage.output_tokens == 8
        async with client.responses.stream(
            model="gpt-4o", input="hello", max_output_tokens=8
        ) as stream:
            kinds = {event.type async for event in stream}
            assert (await stream.get_final_response()).model == "gpt-4o"
        assert "response.completed" in kinds
        vectors = await client.embeddings.create(model=EMBEDDER, input=["a", "b"])
        assert len(vectors.data) == 2


async def test_vllm_without_ears_offers_no_transcription(both: GatewayProcess) -> None:
    answer = await both.client.post(
        "/v1/audio/transcriptions", data={"model": "tiny"}, files={"file": ("a.wav", b"RIFF")}
    )
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].endswith("does not offer this operation.")
