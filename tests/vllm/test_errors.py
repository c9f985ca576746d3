"""vLLM's refusals through the gateway, as the SDK's own exceptions."""

from pathlib import Path

import openai as sdk
import pytest
from openai import AsyncOpenAI

from tests.harness.gateway import GatewayProcess
from tests.harness.vllm import VllmProcess

HELLO = [{"role": "user", "content": "hello"}]


async def test_an_unknown_model_is_not_found(openai: AsyncOpenAI) -> None:
    with pytest.raises(sdk.NotFoundError) as caught:
        await openai.chat.completions.create(model="tinny", messages=HELLO)  # type: ignore[arg-type]

    assert caught.value.code == "model_not_found"
    assert "tiny" in caught.value.message


async def test_a_prompt_too_long_is_a_bad_request(
    openai: AsyncOpenAI, gateway: GatewayProcess
) -> None:
    with pytest.raises(sdk.BadRequestError) as caught:
        await openai.completions.create(model="tiny", prompt="word " * 5000, max_tokens=5)

    assert caught.value.code == "context_length_exceeded"
    assert (await gateway.usage())["total_tokens"] == 0


async def test_a_wrong_parameter_is_vllms_to_judge(openai: AsyncOpenAI) -> None:
    with pytest.raises(sdk.BadRequestError) as caught:
        await openai.chat.completions.create(
            model="tiny", messages=HELLO, temperature=-3  # type: ignore[arg-type]
        )  # fmt: skip

    assert "temperature" in caught.value.message


async def test_what_vllm_does_not_serve_is_not_found(openai: AsyncOpenAI) -> None:
    with pytest.raises(sdk.NotFoundError):
        await openai.embeddings.create(model="tiny", input="hello")


async def test_tokenize_counts_what_the_answer_charges(gateway: GatewayProcess) -> None:
    request = {"model": "tiny", "messages": HELLO}

    counted = await gateway.client.post("/tokenize", json=request)
    answer = await gateway.client.post("/v1/chat/completions", json={**request, "max_tokens": 1})

    assert counted.json()["count"] == answer.json()["usage"]["prompt_tokens"]
    assert (await gateway.usage())["requests"] == 2


async def test_what_vllm_refuses_only_inside_a_stream_is_the_requests_fault(
    openai: AsyncOpenAI, gateway: GatewayProcess
) -> None:
    for _ in range(6):
        with pytest.raises(sdk.BadRequestError):
            await openai.chat.completions.create(
                model="tiny",
                messages=HELLO,  # type: ignore[arg-type]
                stream=True,
                extra_body={"structured_outputs": {"regex": "((("}},
            )

    answer = await openai.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1)  # type: ignore[arg-type]
    assert answer.choices
    assert await gateway.metric("gateway_circuit_state") == 0


async def test_streams_one_after_the_other_never_exceed_a_concurrency_of_one(
    vllm: VllmProcess, tmp_path: Path
) -> None:
    async with GatewayProcess(
        folder=tmp_path, VLLM_URL=vllm.url, MAX_CONCURRENT_PER_KEY="1"
    ) as gateway:
        request = {"model": "tiny", "messages": HELLO, "max_tokens": 2, "stream": True}
        statuses = {
            (await gateway.client.post("/v1/chat/completions", json=request)).status_code
            for _ in range(20)
        }

    assert statuses == {200}
