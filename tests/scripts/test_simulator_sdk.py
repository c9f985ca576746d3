"""The official OpenAI client against the simulator, and the simulator as a process."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
from openai import AsyncOpenAI

from scripts.simulator import Fault, FaultKind, Simulator, SimulatorConfig
from scripts.simulator.config import from_arguments


@asynccontextmanager
async def sdk(config: SimulatorConfig) -> AsyncIterator[tuple[Simulator, AsyncOpenAI]]:
    async with (
        Simulator(config) as simulator,
        AsyncOpenAI(base_url=f"{simulator.url}/v1", api_key="key", max_retries=0) as client,
    ):
        yield simulator, client


async def test_sdk_reads_a_chat_and_its_stream() -> None:
    async with sdk(SimulatorConfig(output_tokens=8, api_key="key")) as (_, client):
        whole = await client.chat.completions.create(
            model="sim-model", messages=[{"role": "user", "content": "hi"}]
        )
        stream = await client.chat.completions.create(
            model="sim-model",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 8


async def test_sdk_reads_a_response_and_its_stream() -> None:
    async with sdk(SimulatorConfig(output_tokens=5)) as (_, client):
        whole = await client.responses.create(model="sim-model", input="hi")
        stream = await client.responses.create(model="sim-model", input="hi", stream=True)
        events = [event async for event in stream]

    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_sdk_reads_embeddings_completions_and_models() -> None:
    async with sdk(SimulatorConfig(embedding_dimensions=12)) as (_, client):
        vectors = await client.embeddings.create(model="sim-embedding", input=["a", "b"])
        completion = await client.completions.create(model="sim-model", prompt="a", max_tokens=2)
        models = [model.id async for model in await client.models.list()]

    assert [len(row.embedding) for row in vectors.data] == [12, 12]
    assert completion.choices[0].finish_reason == "length"
    assert models == ["sim-model", "sim-embedding"]


async def test_sdk_raises_on_refusals_and_in_band_errors() -> None:
    async with sdk(SimulatorConfig()) as (simulator, client):
        with pytest.raises(openai.NotFoundError):
            await client.completions.create(model="nobody", prompt="a")
        simulator.arm(Fault(FaultKind.STREAM_ERROR, events=2))
        stream = await client.completions.create(model="sim-model", prompt="a", stream=True)
        with pytest.raises(openai.APIError, match="EngineCore"):
            async for _ in stream:
                pass


async def test_process_serves_until_sigterm_and_exits_cleanly() -> None:
    process = await started()
    line = await asyncio.wait_for(process.stdout.readline(), 20) if process.stdout else b""
    process.send_signal(signal.SIGTERM)
    rest, _ = await asyncio.wait_for(process.communicate(), 10)

    assert line.startswith(b"simulator serving one, two, sim-embedding on http://127.0.0.1:")
    assert (process.returncode, rest) == (0, b"")


def test_flags_win_over_variables_and_variables_over_defaults() -> None:
    environ = {"SIM_PORT": "9", "SIM_MODEL": "a,b", "SIM_TTFT": "0.5", "VLLM_API_KEY": "k"}

    config = from_arguments(["--port", "7", "--enable-prompt-tokens-details"], environ)

    assert (config.port, config.models, config.ttft_seconds) == (7, ("a", "b"), 0.5)
    assert (config.api_key, config.prompt_tokens_details) == ("k", True)


async def started() -> asyncio.subprocess.Process:
    """The simulator as a user starts it."""
    command = (sys.executable, "-m", "scripts.simulator", "--port", "0")
    return await asyncio.create_subprocess_exec(
        *command,
        "--model",
        "one",
        "--model",
        "two",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
