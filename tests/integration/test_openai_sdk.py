"""The official openai SDK, unchanged, in front of the gateway."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionMessageParam

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.commands import KeyCommands
from tests.harness.gateway import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "sim-model"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig(models=(MODEL, "other-model"))) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(
        folder=tmp_path_factory.mktemp("sdk"),
        VLLM_URL=simulator.url,
        CIRCUIT_FAILURE_THRESHOLD="1000",
        CIRCUIT_FAILURE_RATIO="1",
    ) as running:
        yield running


def sdk(gateway: GatewayProcess, key: str | None = None, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key=key or gateway.key, max_retries=retries, timeout=20
    )


def calls(simulator: Simulator) -> int:
    return sum(seen.method == "POST" for seen in simulator.requests)


# What works.


async def test_a_plain_call(gateway: GatewayProcess) -> None:
    async with sdk(gateway) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)

    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


async def test_a_stream(gateway: GatewayProcess) -> None:
    async with sdk(gateway) as client:
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=8, stream=True
            )
        ]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    # Usage is asked for on the client's behalf, and taken out again.
    assert {chunk.usage for chunk in chunks} == {None}


async def test_a_stream_with_usage(gateway: GatewayProcess) -> None:
    async with sdk(gateway) as client:
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=MODEL,
                messages=MESSAGES,
                max_tokens=8,
                stream=True,
                stream_options={"include_usage": True},
            )
        ]

    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


async def test_the_synchronous_client(gateway: GatewayProcess) -> None:
    def converse() -> tuple[str | None, list[str]]:
        base_url = f"{gateway.url}/v1"
        with openai.OpenAI(base_url=base_url, api_key=gateway.key, max_retries=0) as client:
            answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=4)
            stream = client.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=4, stream=True
            )
            return answer.choices[0].message.content, [
                chunk.choices[0].delta.content or "" for chunk in stream
            ]

    content, pieces = await asyncio.to_thread(converse)

    assert content
    assert "".join(pieces)


async def test_completions_embeddings_responses_and_models(gateway: GatewayProcess) -> None:
    async with sdk(gateway) as client:
        completion = await client.completions.create(model=MODEL, prompt="a", max_tokens=4)
        embedded = await client.embeddings.create(model="sim-embedding", input=["a", "b"])
        models = [model.id async for model in client.models.list()]
        model = await client.models.retrieve(MODEL)

    assert completion.choices[0].text
    assert len(embedded.data) == 2
    assert {MODEL, "other-model", "sim-embedding"} <= set(models)
    assert model.id == MODEL


# What fails, by its class.


async def test_an_unknown_key_is_an_authentication_error(gateway: GatewayProcess) -> None:
    async with sdk(gateway, key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()

    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id


async def test_a_model_of_others_is_a_permission_error(gateway: GatewayProcess) -> None:
    made = await KeyCommands(gateway.settings).create("sdk-narrow", "--models", MODEL)
    await _known(gateway, made.secret)

    async with sdk(gateway, key=made.secret) as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await client.chat.completions.create(model="other-model", messages=MESSAGES)

    assert caught.value.code == "model_not_allowed"


async def test_an_unknown_model_is_a_not_found_error(gateway: GatewayProcess) -> None:
    async with sdk(gateway) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="none", messages=MESSAGES)

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_wrong_value_is_a_bad_request(gateway: GatewayProcess) -> None:
    async with sdk(gateway) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=-1)

    assert caught.value.param == "max_tokens"


async def test_what_vllm_refuses_is_a_bad_request(gateway: GatewayProcess) -> None:
    async with sdk(gateway) as client:
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=-1)


async def test_a_broken_upstream_is_an_internal_server_error(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    simulator.arm(Fault(FaultKind.ERROR_500, count=1))

    async with sdk(gateway) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES)

    assert caught.value.status_code == 502


@pytest.mark.parametrize("kind", [FaultKind.RESET_MID_STREAM, FaultKind.STREAM_ERROR])
async def test_a_stream_that_breaks_is_an_api_error(
    gateway: GatewayProcess, simulator: Simulator, kind: FaultKind
) -> None:
    simulator.arm(Fault(kind, events=3, count=1))
    received = 0

    async with sdk(gateway) as client:
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=20, stream=True
            ):
                received += 1

    assert received >= 1


# What is tried again.


async def test_a_used_up_quota_is_a_rate_limit_error_that_is_not_tried_again(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    made = await KeyCommands(gateway.settings).create("sdk-poor", "--daily-tokens", "5")
    await _known(gateway, made.secret)

    async with sdk(gateway, key=made.secret, retries=2) as client:
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES)

    assert caught.value.code == "insufficient_quota"
    assert time.monotonic() - began < 0.4
    lines = await gateway.logged(key_id=made.key_id, error="insufficient_quota")
    assert len(lines) == 1


async def test_a_rate_limit_is_waited_out_as_told(gateway: GatewayProcess) -> None:
    made = await KeyCommands(gateway.settings).create("sdk-fast", "--rpm", "60")
    await _known(gateway, made.secret)

    async with sdk(gateway, key=made.secret, retries=1) as client:
        # 60 at once, and then one a second: the 61st is told to wait, waits, and succeeds.
        await asyncio.gather(*(_short_call(client) for _ in range(61)))

    refused = await gateway.logged(key_id=made.key_id, error="rate_limit_exceeded")
    assert len(refused) == 1


async def test_a_full_gateway_is_asked_again(tmp_path: Path) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.05, output_tokens=1000)
    async with (
        Simulator(pace) as slow,
        GatewayProcess(
            folder=tmp_path, VLLM_URL=slow.url, MAX_IN_FLIGHT="1", MAX_QUEUED="0"
        ) as full,
        sdk(full, retries=3) as client,
    ):
        for _ in range(3):  # From these the gateway knows how soon a place becomes free.
            await _short_call(client)
        first = asyncio.create_task(_short_call(client, max_tokens=10))
        await asyncio.sleep(0.2)
        await _short_call(client)
        await first

        refused = await full.logged(error="server_is_overloaded")
        assert len(refused) >= 1


async def _short_call(client: openai.AsyncOpenAI, *, max_tokens: int = 1) -> None:
    await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=max_tokens)


async def _known(gateway: GatewayProcess, secret: str) -> None:
    async with asyncio.timeout(2), gateway.client_with(secret) as client:
        while (await client.get("/v1/models")).status_code != 200:
            await asyncio.sleep(0.05)
