"""From start to end: what is said when something is missing, and how a gateway leaves."""

import asyncio
import re
import signal
import socket
import sqlite3
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path

import httpx2
import pytest

from gateway.database import prepare
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.commands import Finished, KeyCommands, run_gateway
from tests.harness.gateway import GatewayProcess, chat, free_port
from tests.harness.raw import RawClient, request

CHAT = "/v1/chat/completions"
CONFIGURATION = 78


def settings_in(folder: Path, **settings: str) -> dict[str, str]:
    """What a start needs, with a port of its own."""
    return {
        "GATEWAY_PORT": str(free_port()),
        "GATEWAY_API_KEYS": "sk-test-abcdefgh",
        "DATABASE_PATH": str(folder / "gateway.db"),
        "VLLM_URL": "http://127.0.0.1:9",
        "LOG_FORMAT": "json",
        **settings,
    }


async def start(folder: Path, **settings: str) -> Finished:
    """A start that is expected to fail."""
    return await run_gateway("serve", settings=settings_in(folder, **settings))


# Without vLLM.


async def test_without_vllm_it_starts_says_what_to_do_and_recovers_by_itself(
    tmp_path: Path,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with GatewayProcess(folder=tmp_path, until_ready=False, VLLM_URL=url) as gateway:
        (line,) = await gateway.logged(event="upstream is unhealthy")
        ready = await gateway.client.get("/ready")
        refused = await gateway.client.post(CHAT, json=chat())

        async with Simulator(SimulatorConfig(port=port)):
            async with asyncio.timeout(4):
                while (await gateway.client.get("/ready")).status_code != 200:
                    await asyncio.sleep(0.05)
            answered = await gateway.client.post(CHAT, json=chat())
        assert len(await gateway.logged(event="upstream is unhealthy")) == 1

    assert line["level"] == "warning"
    assert url in line["reason"]
    assert "make vllm" in line["reason"]
    assert ready.status_code == 503
    assert url in ready.json()["reasons"][0]
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "upstream_unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    assert answered.status_code == 200


# Starts that fail.


async def test_every_fault_of_the_settings_is_told_at_once(tmp_path: Path) -> None:
    ended = await start(
        tmp_path,
        GATEWAY_PORT="99999",
        DRAIN_SECONDS="soon",
        VLLM_URL="ftp://vllm",
        QUOTA_TIMEZONE="Mars/Olympus",
        GATEWAY_API_KEYS="sk-söcret-0123",
    )

    assert ended.code == CONFIGURATION
    for name in ("GATEWAY_PORT", "DRAIN_SECONDS", "VLLM_URL", "QUOTA_TIMEZONE", "GATEWAY_API_KEYS"):
        assert name in ended.err
    assert "5 fault" in ended.err
    assert "0123" not in ended.err
    assert "Traceback" not in ended.err


async def test_a_taken_port_is_told_with_its_variable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = await start(tmp_path, GATEWAY_PORT=str(taken.getsockname()[1]))

    _assert_told(ended, "GATEWAY_PORT", "in use")


async def test_a_taken_port_for_the_metrics_is_told_with_its_own_variable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = await start(tmp_path, METRICS_PORT=str(taken.getsockname()[1]))

    _assert_told(ended, "METRICS_PORT", "in use")
    assert "GATEWAY_PORT" not in ended.out + ended.err


async def test_no_key_at_all_is_never_an_open_door(tmp_path: Path) -> None:
    ended = await start(tmp_path, GATEWAY_API_KEYS="")

    _assert_told(ended, "GATEWAY_API_KEYS", "gateway keys create")


async def test_a_key_of_the_store_is_enough(tmp_path: Path) -> None:
    gateway = GatewayProcess(
        folder=tmp_path, until_ready=False, VLLM_URL="http://127.0.0.1:9", GATEWAY_API_KEYS=""
    )
    await KeyCommands(gateway.settings).create("only")

    async with gateway:
        assert (await gateway.client.get("/health")).status_code == 200


async def test_two_names_for_one_secret_are_refused(tmp_path: Path) -> None:
    ended = await start(tmp_path, GATEWAY_API_KEYS="a=sk-same-secret-1,b=sk-same-secret-1")

    _assert_told(ended, "same secret")
    assert "sk-same-secret-1" not in ended.out + ended.err


async def test_a_corrupt_database_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    database = tmp_path / "gateway.db"
    garbage = b"this is not a database" * 500
    database.write_bytes(garbage)

    ended = await start(tmp_path)

    _assert_told(ended, "DATABASE_PATH", "not a sound SQLite database")
    assert database.read_bytes() == garbage


async def test_a_damaged_row_is_told_and_not_just_an_exit_code(tmp_path: Path) -> None:
    prepare(tmp_path / "gateway.db")
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as file, file:
        file.execute("INSERT INTO usage VALUES ('0000-99-99', 'k', 'm', 1, 1, 1, 0)")

    ended = await start(tmp_path)

    assert ended.code == CONFIGURATION
    (line,) = [line for line in ended.out.splitlines() if "cannot start" in line]
    assert "ValueError" in line


async def test_a_second_gateway_on_the_same_database_is_refused(tmp_path: Path) -> None:
    async with GatewayProcess(
        folder=tmp_path, until_ready=False, VLLM_URL="http://127.0.0.1:9"
    ) as first:
        ended = await start(tmp_path)

        _assert_told(ended, "DATABASE_PATH", "another gateway uses it", str(first.pid))


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    ended = await start(tmp_path, DATABASE_PATH=str(tmp_path / "file" / "gateway.db"))

    _assert_told(ended, str(tmp_path / "file"))


async def test_an_unknown_variable_of_ours_is_warned_about_with_a_suggestion(
    tmp_path: Path,
) -> None:
    async with GatewayProcess(
        folder=tmp_path, until_ready=False, VLLM_URL="http://127.0.0.1:9", GATEWAY_PROT="1"
    ) as gateway:
        (line,) = await gateway.logged(event="settings")

    assert line["level"] == "warning"
    assert "GATEWAY_PROT" in line["what"]
    assert "GATEWAY_PORT" in line["what"]


def _assert_told(ended: Finished, *words: str) -> None:
    """Ended with the exit code of a configuration, in one line without a traceback."""
    told = ended.out + ended.err
    assert ended.code == CONFIGURATION, told
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if "cannot start" in line]
    for word in words:
        assert word in line


# The end.

PACED = SimulatorConfig(inter_token_seconds=0.02, output_tokens=5000)


async def test_an_idle_gateway_ends_at_once(gateway: GatewayProcess) -> None:
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)

    assert await gateway.ended() == 0
    assert time.monotonic() - began < 1.5
    assert gateway.log_lines()[-1]["event"] == "stopped"


async def test_interrupt_is_an_orderly_end_too(gateway: GatewayProcess) -> None:
    gateway.signal(signal.SIGINT)

    assert await gateway.ended(within_seconds=3) == 0


async def test_a_drain_lets_streams_finish_and_takes_no_new_work(tmp_path: Path) -> None:
    async with AsyncExitStack() as opened:
        simulator = await opened.enter_async_context(Simulator(PACED))
        gateway = await opened.enter_async_context(
            GatewayProcess(folder=tmp_path, VLLM_URL=simulator.url)
        )
        body = chat(stream=True, max_tokens=60, stream_options={"include_usage": True})
        async with gateway.client.stream("POST", CHAT, json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            gateway.signal(signal.SIGTERM)
            await asyncio.sleep(0.25)
            async with gateway.client_with(gateway.key) as newcomer:
                ready = await newcomer.get("/ready")
                alive = await newcomer.get("/health")
                refused = await newcomer.post(CHAT, json=chat())
            events = [line async for line in lines if line]
        code = await gateway.ended(within_seconds=5)

        assert (ready.status_code, alive.status_code) == (503, 200)
        assert "draining" in ready.json()["reasons"][0]
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_is_draining"
        assert refused.headers["connection"] == "close"
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-should-retry"] == "true"
        assert events[-1] == "data: [DONE]"
        assert code == 0
        total = re.search(r'"total_tokens":\s*(\d+)', events[-2])
        assert total is not None
        await gateway.start()
        assert (await gateway.usage())["total_tokens"] == int(total[1])


async def test_what_outlasts_the_drain_ends_with_an_error_event_and_is_aborted_upstream(
    tmp_path: Path,
) -> None:
    async with (
        Simulator(PACED) as simulator,
        GatewayProcess(folder=tmp_path, VLLM_URL=simulator.url, DRAIN_SECONDS="0.5") as gateway,
    ):
        received = b""
        whole = asyncio.create_task(gateway.client.post(CHAT, json=chat(max_tokens=3000)))
        with pytest.raises(httpx2.RemoteProtocolError):
            async with gateway.client.stream(
                "POST", CHAT, json=chat(stream=True, max_tokens=3000)
            ) as stream:
                chunks = stream.aiter_bytes()
                received = await anext(chunks)
                gateway.signal(signal.SIGTERM)
                began = time.monotonic()
                async for chunk in chunks:
                    received += chunk
        code = await gateway.ended(within_seconds=4)
        took_seconds = time.monotonic() - began
        unstreamed = await whole

        assert code == 0
        assert 0.4 < took_seconds < 2.5
        assert b"[DONE]" not in received
        assert b'"code":"server_is_draining"' in received.rsplit(b"data: ", 1)[1]
        assert unstreamed.status_code == 503
        assert simulator.state.running == 0
        assert simulator.state.aborted_total == 2
        await gateway.start()
        assert (await gateway.usage())["output_tokens"] > 0


async def test_a_second_signal_ends_at_once_and_loses_no_count(tmp_path: Path) -> None:
    async with (
        Simulator(PACED) as simulator,
        GatewayProcess(
            folder=tmp_path, VLLM_URL=simulator.url, QUOTA_FLUSH_SECONDS="60"
        ) as gateway,
    ):
        async with gateway.client.stream(
            "POST", CHAT, json=chat(stream=True, max_tokens=3000)
        ) as stream:
            chunks = stream.aiter_bytes()
            for _ in range(10):
                await anext(chunks)
            gateway.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            began = time.monotonic()
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended(within_seconds=4) == 0
            took_seconds = time.monotonic() - began

        assert took_seconds < 2.0
        (line,) = await gateway.logged(event="request", route=CHAT)
        charged = line["output_tokens"]
        assert charged >= 10
        await gateway.start()
        assert (await gateway.usage())["output_tokens"] == charged


async def test_connections_that_do_nothing_do_not_hold_the_end(gateway: GatewayProcess) -> None:
    async with AsyncExitStack() as opened:
        idle, begun, half_sent, kept = [
            await opened.enter_async_context(RawClient(gateway.port)) for _ in range(4)
        ]
        assert await idle.is_silent(seconds=0.01)
        await begun.send(b"POST /v1/chat/comp")
        await half_sent.send(
            request("POST", CHAT, b"content-length: 1000", key=gateway.key), b'{"model'
        )
        await kept.send(request("GET", "/health"))
        await kept.answer()

        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        code = await gateway.ended(within_seconds=4)
        took_seconds = time.monotonic() - began
        late = await half_sent.answer()

    assert code == 0
    assert took_seconds < 2.0
    assert (late.status, late.error["code"]) == (503, "server_is_draining")


async def test_a_client_that_does_not_read_does_not_hold_the_end(tmp_path: Path) -> None:
    fast = SimulatorConfig(max_model_len=2_000_000, output_tokens=900_000)
    async with (
        Simulator(fast) as simulator,
        GatewayProcess(folder=tmp_path, VLLM_URL=simulator.url, DRAIN_SECONDS="0.3") as gateway,
        RawClient(gateway.port) as raw,
    ):
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's has it
        body = b'{"model":"sim-model","prompt":"a","stream":true,"max_tokens":900000}'
        await raw.send(request("POST", "/v1/completions", key=gateway.key, body=body))
        async with asyncio.timeout(3):
            while not await gateway.metric("gateway_calls_in_flight"):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert await gateway.metric("gateway_calls_in_flight") == 1
        gateway.signal(signal.SIGTERM)
        began = time.monotonic()

        assert await gateway.ended(within_seconds=4) == 0
        assert time.monotonic() - began < 0.3 + 2.0


async def test_a_port_of_its_own_takes_the_metrics_away_from_the_public_one(
    simulator: Simulator, tmp_path: Path
) -> None:
    port = free_port()
    async with GatewayProcess(
        folder=tmp_path, VLLM_URL=simulator.url, METRICS_PORT=str(port)
    ) as gateway:
        public = await gateway.client.get("/metrics")
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False
        ) as operator:
            metrics = await operator.get("/metrics")
            other = await operator.get("/v1/models")
        gateway.signal(signal.SIGTERM)
        code = await gateway.ended(within_seconds=3)

    assert public.status_code == 404
    assert metrics.status_code == 200
    assert "gateway_build_info" in metrics.text
    assert other.status_code == 404
    assert code == 0
