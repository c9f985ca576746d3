"""An engine that hangs behind a healthy /health is found out, and one that works is left alone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.supervision.engine import Sample, VllmEngine, vllm_sample
from tests.harness.gateway import free_port
from tests.scripts.simulated import chat as simulated_chat
from tests.scripts.simulated import eventually, simulated
from tests.scripts.watched import Watched


@pytest.mark.parametrize(
    "fault",
    [
        # It stands still in the midst of its work, and its metrics say that requests run.
        "stalled",
        # It hangs before it has told anybody of the request: only the gateway knows of it.
        "hang",
    ],
)
async def test_hung_vllm_is_restarted(tmp_path: Path, fault: str) -> None:
    pace = {"SIM_TTFT": "0.1", "SIM_INTER_TOKEN": "0.05"}
    async with Watched(tmp_path, WATCHDOG_STALL_SECONDS="1", **pace) as up:
        await up.ready()
        before = {name: up.pid(name) for name in ("gateway", "sim")}
        first = asyncio.create_task(up.chat(max_tokens=1000))
        await up.running(1)
        await up.sim.post("/sim/faults", json={"kind": fault})
        second = asyncio.create_task(up.chat(max_tokens=1000))
        if fault == "hang":
            first.cancel()
        healthy = await up.sim.get("/health")
        await up.said("sim: it has requests and has made no token for")
        await up.said("sim is up", times=2)
        answer = await eventually_answered(up)
        await asyncio.wait({first, second})

    assert healthy.status_code == 200
    assert before["sim"] != 0
    assert up.log.count("; ending it") == 1
    assert answer == 200
    assert "gateway: it" not in up.log


async def eventually_answered(up: Watched) -> int:
    """The status of the first answer that vLLM gave again."""
    async with asyncio.timeout(10):
        while (answer := await up.chat()).status_code != 200:
            await asyncio.sleep(0.1)
    return answer.status_code


async def test_vllm_whose_health_fails_is_restarted(tmp_path: Path) -> None:
    async with Watched(tmp_path, WATCHDOG_HEALTH_SECONDS="1") as up:
        await up.ready()
        gone = up.pid("sim")
        await up.sim.post("/sim/faults", json={"kind": "unhealthy"})
        await up.said("sim: not healthy for 1 s: not ready (503): no reason given; ending it")
        await up.said("sim is up", times=2)

        assert up.pid("sim") not in (0, gone)


async def test_stalled_simulator_says_that_it_is_well_and_makes_no_token() -> None:
    async with simulated(inter_token_seconds=0.01) as (simulator, client):
        body = simulated_chat(max_tokens=30)
        answering = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await eventually(lambda: simulator.state.generation_tokens_total > 3)
        await client.post("/sim/faults", json={"kind": "stalled"})
        made = simulator.state.generation_tokens_total
        late = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await eventually(lambda: simulator.state.waiting == 1)
        health = await client.get("/health")
        await asyncio.sleep(0.1)
        stalled = simulator.state
        await client.delete("/sim/faults")
        answers = await asyncio.gather(answering, late)

    assert health.status_code == 200
    assert (stalled.running, stalled.generation_tokens_total) == (1, made)
    assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [30, 30]


async def test_sample_is_read_from_vllms_metrics() -> None:
    async with simulated(inter_token_seconds=1, kv_cache_tokens=100) as (simulator, client):
        request = asyncio.create_task(client.post("/v1/chat/completions", json=simulated_chat()))
        await eventually(lambda: simulator.state.running == 1)
        sample = await asyncio.to_thread(
            lambda: vllm_sample(
                vllm=simulator.url,
                gateway_metrics=f"http://127.0.0.1:{free_port()}/metrics",
                upstreams=(),
            )
        )
        state = simulator.state
        request.cancel()

    assert sample.requests == 1
    # Tokens and the engine's steps: the one that took the prompt has made the first token too.
    steps = 1
    assert sample.work == state.prompt_tokens_total + state.generation_tokens_total + steps
    assert sample.cache_usage > 0


def stalled_after(*samples: Sample | OSError, every_seconds: float = 10) -> float:
    """Seconds without progress, as the engine's watch tells after these samples."""
    engine = VllmEngine(told(iter(samples)).__next__)
    engine.begin(0)
    return [engine.stalled_seconds(i * every_seconds) for i, _ in enumerate(samples, 1)][-1]


def told(samples: Iterator[Sample | OSError]) -> Iterator[Sample]:
    for sample in samples:
        if isinstance(sample, OSError):
            raise sample
        yield sample


def test_engine_without_requests_rests() -> None:
    assert stalled_after(*[Sample(requests=0, work=7, cache_usage=0)] * 20) == 0


def test_engine_with_requests_and_no_progress_is_stalled_since_its_last_token() -> None:
    assert stalled_after(Sample(1, 7, 0.1), *[Sample(1, 8, 0.1)] * 3) == 20


def test_engine_that_reads_a_long_prompt_works() -> None:
    """No token is counted before the prompt is read, but each chunk of it takes cache."""
    chunks = [Sample(requests=1, work=7, cache_usage=i / 100) for i in range(40)]

    assert stalled_after(*chunks) == 0


def test_request_that_leaves_a_hung_engine_is_no_progress() -> None:
    left = [Sample(requests=3 - i, work=7, cache_usage=0.3 - i / 10) for i in range(3)]

    assert stalled_after(*left) == 20


def test_engine_that_does_not_tell_is_left_to_the_health_check() -> None:
    assert stalled_after(Sample(1, 7, 0.1), Sample(1, 7, 0.1), OSError()) == 0
