"""The machine misbehaves: descriptors run out, the process is stopped, its terminal goes away."""

import asyncio
import resource
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import psutil

from scripts.simulator.config import SimulatorConfig
from tests.harness.aftermath import watched
from tests.harness.callers import RawCall, fronted
from tests.harness.gateway import chat
from tests.harness.raw import RawClient, request

CHAT = "/v1/chat/completions"


async def test_descriptors_that_run_out_cut_newcomers_and_blame_no_upstream(
    tmp_path: Path,
) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.02)
    async with fronted(tmp_path, pace=pace, CIRCUIT_FAILURE_THRESHOLD="1") as pair:
        gateway = pair.gateway
        process = psutil.Process(gateway.pid)
        await gateway.client.post(CHAT, json=chat())
        allowed, most = process.rlimit(resource.RLIMIT_NOFILE)
        body = chat(stream=True, max_tokens=60, ignore_eos=True)
        async with watched(gateway) as after, AsyncExitStack() as opened:
            call = await opened.enter_async_context(RawCall(gateway, body))
            await call.read_until(b"data: ")
            process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + 4, most))
            async with asyncio.timeout(10):
                for _ in range(30):
                    await opened.enter_async_context(RawClient(gateway.port))
            began_at = process.cpu_times().user
            refused = await gateway.client.post(CHAT, json=chat())
            await call.read_until(b"[DONE]")
            assert process.cpu_times().user - began_at < 0.4
            process.rlimit(resource.RLIMIT_NOFILE, (most, most))
            served = await gateway.client.post(CHAT, json=chat())

        assert allowed == most
        assert (refused.status_code, served.status_code) == (503, 200)
        assert refused.json()["error"]["code"] == "descriptors_exhausted"
        assert refused.headers["retry-after"] == "1"
        assert after.outcomes == {"ok": 2, "rejected": 1}
        assert (after.faults, after.opened) == ({}, 0)


async def test_a_hangup_ends_nothing_even_without_a_file_to_read_anew(tmp_path: Path) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.01)
    async with fronted(tmp_path, pace=pace) as pair:
        gateway = pair.gateway
        async with RawCall(gateway, chat(stream=True, max_tokens=40, ignore_eos=True)) as call:
            await call.read_until(b"data: ")
            gateway.signal(signal.SIGHUP)
            await call.read_until(b"[DONE]")
        (line,) = await gateway.logged(event="hangup ignored")
        assert "LOG_FILE" in line["reason"]
        assert (await gateway.client.post(CHAT, json=chat())).status_code == 200


async def test_a_process_that_stood_still_blames_nobody_for_its_own_silence(
    tmp_path: Path,
) -> None:
    """Longer than every deadline, while an upstream generates and a client sends."""
    names = ("IDLE", "FIRST_BYTE", "HEADER", "BODY")
    patience: dict[str, Any] = {f"{name}_TIMEOUT_SECONDS": "1.5" for name in names}
    pace = SimulatorConfig(inter_token_seconds=0.02)
    async with fronted(tmp_path, pace=pace, **patience) as pair:
        gateway = pair.gateway
        sent = request("POST", CHAT, key=gateway.key, body=orjson.dumps(chat()))
        async with watched(gateway) as after:
            for _ in range(2):
                body = chat(stream=True, max_tokens=80, ignore_eos=True)
                async with RawCall(gateway, body) as call, RawClient(gateway.port) as raw:
                    await call.read_until(b'"content":" ')
                    await raw.send(sent[:-9])
                    gateway.signal(signal.SIGSTOP)
                    await asyncio.sleep(1.8)
                    await raw.send(sent[-9:])
                    gateway.signal(signal.SIGCONT)
                    await call.read_until(b"[DONE]")
                    assert (await raw.answer()).status == 200

        assert after.tokens == pair.generated_tokens
        assert after.outcomes == {"ok": 4}
        assert (after.faults, after.opened) == ({}, 0)
