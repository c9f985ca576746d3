"""A real vLLM that is left alone by its client, and one whose engine is killed."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx2

from tests.harness.gateway import GatewayProcess, free_port
from tests.harness.vllm import VllmProcess
from tests.vllm.conftest import warm_up

# The gateway hangs up at once; vLLM's own gauge, polled on a busy machine, lags behind that.
ABORTED_WITHIN_SECONDS = 2.0
LONG = {
    "model": "tiny",
    "prompt": "Once upon a time",
    "max_tokens": 1900,
    "ignore_eos": True,
    "temperature": 0,
}


async def test_a_client_that_leaves_stops_vllm_and_pays_what_was_generated(
    gateway: GatewayProcess, vllm: VllmProcess
) -> None:
    before = await vllm.tokens()
    async with gateway.client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as s:
        events = s.aiter_lines()
        for _ in range(40):
            await anext(events)
        left_at = time.monotonic()

    await idle(vllm)
    stopped_after = time.monotonic() - left_at
    await gateway.logged(outcome="cancelled")
    report = await gateway.usage()
    now = await vllm.tokens()
    generated = now[1] - before[1]
    assert stopped_after < ABORTED_WITHIN_SECONDS
    assert generated < 1900
    assert report["input_tokens"] == now[0] - before[0]
    # What vLLM makes while the news travels was never seen by anybody.
    assert generated * 0.8 <= report["output_tokens"] <= generated


async def test_leaving_an_answer_that_is_not_streamed_stops_vllm_too(
    gateway: GatewayProcess, vllm: VllmProcess
) -> None:
    call = asyncio.create_task(gateway.client.post("/v1/completions", json=LONG))
    await busy(vllm)
    call.cancel()
    left_at = time.monotonic()

    await idle(vllm)

    assert time.monotonic() - left_at < ABORTED_WITHIN_SECONDS
    [line] = await gateway.logged(outcome="cancelled")
    assert line["usage_estimated"] is True


async def test_a_killed_engine_opens_the_circuit_and_a_new_vllm_closes_it(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "vllm.log"
    settings = {"VLLM_URL": f"http://127.0.0.1:{port}", "CIRCUIT_FAILURE_THRESHOLD": "3"}
    async with GatewayProcess(folder=tmp_path, until_ready=False, **settings) as gateway:
        async with VllmProcess(port=port, log=log) as vllm:
            await warm_up(vllm)
            await ready(gateway)
            load = [asyncio.create_task(stream(gateway)) for _ in range(6)]
            await busy(vllm)
            await asyncio.sleep(0.5)
            os.kill(vllm.engine_pid, signal.SIGKILL)
            ends = await asyncio.gather(*load)

        assert all("[DONE]" not in end and '"error"' in end for end in ends)
        refusals = [await gateway.client.post("/v1/completions", json=LONG) for _ in range(4)]
        assert {refusal.status_code for refusal in refusals} <= {502, 503}
        assert all("error" in refusal.json() for refusal in refusals)
        assert refusals[-1].status_code == 503
        assert int(refusals[-1].headers["retry-after"]) >= 1
        assert await gateway.metric("gateway_circuit_state") == 2

        async with VllmProcess(port=port, log=log) as vllm:
            await ready(gateway)
            answer = await gateway.client.post("/v1/completions", json={**LONG, "max_tokens": 4})
            assert answer.status_code == 200
            assert await gateway.metric("gateway_circuit_state") == 0


async def stream(gateway: GatewayProcess) -> str:
    """All a client sees of one long stream, to its end, whatever that is."""
    seen = ""
    try:
        request: dict[str, Any] = {**LONG, "stream": True}
        async with gateway.client.stream("POST", "/v1/completions", json=request) as answer:
            async for text in answer.aiter_text():
                seen += text
    except httpx2.RemoteProtocolError:
        pass  # The connection is cut behind the error event: truncation stays visible.
    return seen


async def busy(vllm: VllmProcess) -> None:
    async with asyncio.timeout(10):
        while await vllm.metric("vllm:num_requests_running") == 0:
            await asyncio.sleep(0.02)


async def idle(vllm: VllmProcess) -> None:
    async with asyncio.timeout(10):
        while await vllm.metric("vllm:num_requests_running") > 0:
            await asyncio.sleep(0.02)


async def ready(gateway: GatewayProcess) -> None:
    async with asyncio.timeout(30):
        while (await gateway.client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.1)
