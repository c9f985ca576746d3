"""Real vLLMs side by side: the classic pair, and two replicas of which one is killed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletionMessageParam

from tests.harness.gateway import GatewayProcess, free_port
from tests.harness.vllm import VllmProcess
from tests.vllm.conftest import warm_up

LONG: dict[str, Any] = {"max_tokens": 200, "extra_body": {"ignore_eos": True}}
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(
    vllm: VllmProcess, embedder: VllmProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    folder: Path = tmp_path_factory.mktemp("pair")
    path = folder / "upstreams.toml"
    path.write_text(f"""
        [[upstream]]
        name = "gen"
        url = "{vllm.url}"
        kind = "generate"

        [[upstream]]
        name = "emb"
        url = "{embedder.url}"
        kind = "embed"

        [aliases]
        "gpt-4o" = "tiny"
        "text-embedding-*" = "tiny-embed"
    """)
    async with GatewayProcess(folder=folder, UPSTREAMS_FILE=str(path)) as gateway:
        async with asyncio.timeout(20):
            while await gateway.metric("gateway_upstream_healthy") < 2:
                await asyncio.sleep(0.05)
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def client(pair: GatewayProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{pair.url}/v1", api_key=pair.key, max_retries=0) as client:
        yield client


async def test_both_are_there(pair: GatewayProcess, client: AsyncOpenAI) -> None:
    health = await pair.client.get("/health/upstreams")
    names = [model.id async for model in client.models.list()]

    assert health.status_code == 200, health.text
    assert names == ["gpt-4o", "tiny", "tiny-embed"]


async def test_one_client_generates_and_embeds(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=4)
    vectors = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])

    assert answer.model == "gpt-4o"
    assert vectors.model == "text-embedding-3-small"
    assert len(vectors.data) == 2
    assert len(vectors.data[0].embedding) > 8


async def test_a_stream_carries_the_name_that_was_asked_for(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o", messages=HELLO, max_tokens=4, stream=True
    )

    assert {chunk.model async for chunk in stream} == {"gpt-4o"}


async def test_crowds_of_both_kinds_find_their_way(client: AsyncOpenAI) -> None:
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2)
            for _ in range(8)
        )
    )
    vectors = await asyncio.gather(
        *(client.embeddings.create(model="tiny-embed", input="text") for _ in range(8))
    )

    assert all(answer.usage and answer.usage.completion_tokens for answer in answers)
    assert all(len(vector.data) == 1 for vector in vectors)


async def test_what_nobody_of_them_serves_is_told(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError, match="Did you mean gpt-4o"):
        await client.chat.completions.create(model="gpt-4", messages=HELLO)


async def test_a_model_of_the_other_kind_is_told(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError, match="'tiny' does text generation only"):
        await client.embeddings.create(model="tiny", input="text")
    with pytest.raises(BadRequestError, match="'tiny-embed' does embeddings only"):
        await client.chat.completions.create(model="tiny-embed", messages=HELLO)


async def test_the_prober_finds_out_who_speaks_anthropic(
    vllm: VllmProcess, embedder: VllmProcess
) -> None:
    """What HttpProbe goes by: a GET of a path that only takes POST."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        native = await http.get(f"{vllm.url}/v1/messages")
        foreign = await http.get(f"{embedder.url}/v1/messages")

    assert native.status_code == 405
    assert foreign.status_code == 404


async def ask(client: AsyncOpenAI, number: int) -> tuple[bool, bool]:
    """One answer to its end: whether it had begun, and whether it is whole."""
    has_begun = False
    words: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"number {number}"}]
    try:
        if number % 2:
            answer = await client.chat.completions.create(model="tiny", messages=words, **LONG)
            return True, answer.usage is not None
        stream = await client.chat.completions.create(
            model="tiny", messages=words, stream=True, **LONG
        )
        finish = None
        async for chunk in stream:
            has_begun = True
            finish = chunk.choices[0].finish_reason or finish
        return True, finish is not None
    except APIError:
        return has_begun, False


async def test_one_of_two_replicas_killed_under_load_loses_nothing_that_had_not_begun(
    vllm: VllmProcess, logs: Path, tmp_path: Path
) -> None:
    async with VllmProcess(port=free_port(), log=logs / "victim.log") as victim:
        await warm_up(victim)
        both = f"stays={vllm.url},dies={victim.url}"
        async with GatewayProcess(folder=tmp_path, UPSTREAMS=both) as gateway:
            async with asyncio.timeout(20):
                while await gateway.metric("gateway_upstream_healthy") < 2:
                    await asyncio.sleep(0.05)
            async with AsyncOpenAI(
                base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=120
            ) as client:
                calls = [asyncio.create_task(ask(client, number)) for number in range(48)]
                async with asyncio.timeout(60):
                    while await gateway.metric("gateway_upstream_in_flight", upstream="dies") < 12:
                        await asyncio.sleep(0.005)
                await victim.kill()
                ended = await asyncio.gather(*calls)
            moved = await gateway.metric("gateway_failovers_total")

    lost = [has_begun for has_begun, is_whole in ended if not is_whole]
    assert all(lost)
    assert len(lost) < len(ended) // 2
    assert moved >= 5
