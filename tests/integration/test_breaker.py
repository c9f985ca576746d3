"""The circuit breaker of a whole gateway: what opens it, who may probe, how it closes."""

import asyncio
import signal
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
import pytest

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.callers import (
    UNLIMITED,
    Departure,
    Fronted,
    RawCall,
    dechunked,
    fronted,
    settled,
    until,
)
from tests.harness.gateway import GatewayProcess, chat

CHAT = "/v1/chat/completions"
CLOSED, OPEN = 0, 2
QUICK: dict[str, Any] = {"CIRCUIT_FAILURE_THRESHOLD": "3", "CIRCUIT_OPEN_SECONDS": "0.5"}
STUBBORN: dict[str, Any] = {"CIRCUIT_FAILURE_THRESHOLD": "3", "CIRCUIT_OPEN_SECONDS": "60"}
STREAM = chat(stream=True, max_tokens=20)


async def state(gateway: GatewayProcess) -> float:
    return await gateway.metric("gateway_circuit_state")


async def ask(gateway: GatewayProcess, body: dict[str, Any] | None = None) -> httpx2.Response:
    return await gateway.client.post(CHAT, json=body or chat())


async def trip(pair: Fronted) -> None:
    """Open the breaker, and let the upstream be well again."""
    pair.simulator.arm(Fault(FaultKind.ERROR_500))
    for _ in range(3):
        await ask(pair.gateway)
    pair.simulator.disarm()
    pair.simulator.requests.clear()
    assert await state(pair.gateway) == OPEN


async def test_failures_in_a_row_open_it_and_then_the_upstream_is_left_alone(
    tmp_path: Path,
) -> None:
    async with fronted(tmp_path, **STUBBORN) as pair:
        pair.simulator.arm(Fault(FaultKind.ERROR_500))
        failed = [(await ask(pair.gateway)).status_code for _ in range(3)]
        started = monotonic()
        refused = [await ask(pair.gateway, body) for body in (chat(), STREAM) * 5]
        elapsed = monotonic() - started

        assert failed == [502] * 3
        assert {answer.status_code for answer in refused} == {503}
        assert {answer.json()["error"]["code"] for answer in refused} == {"circuit_open"}
        assert all(50 <= int(answer.headers["retry-after"]) <= 66 for answer in refused)
        assert pair.paths() == [CHAT] * 3
        assert elapsed < 0.5
        assert await state(pair.gateway) == OPEN
        assert await pair.gateway.metric("gateway_circuit_transitions_total", to="open") == 1
        (line,) = await pair.gateway.logged(event="circuit")
        assert (line["before"], line["after"], line["level"]) == ("closed", "open", "warning")


async def test_an_upstream_that_was_killed_opens_it_and_closes_it_by_coming_back(
    tmp_path: Path,
) -> None:
    async with Simulator(SimulatorConfig()) as first:
        port = first.port
        settings: dict[str, Any] = UNLIMITED | STUBBORN | {"HEALTH_INTERVAL_SECONDS": "0.3"}
        async with GatewayProcess(folder=tmp_path, VLLM_URL=first.url, **settings) as gateway:
            first.vanish()
            codes = [(await ask(gateway)).json()["error"]["code"] for _ in range(4)]
            assert codes == ["upstream_unavailable"] * 3 + ["circuit_open"]
            await _readiness_is(gateway, 503)

            async with Simulator(SimulatorConfig(port=port)):
                await _readiness_is(gateway, 200)
                assert (await ask(gateway)).status_code == 200
                assert await state(gateway) == CLOSED


@pytest.mark.parametrize("probes", [1, 3])
async def test_half_open_lets_exactly_the_probes_of_a_stampede_through(
    tmp_path: Path, probes: int
) -> None:
    settings = QUICK | {"CIRCUIT_HALF_OPEN_PROBES": str(probes)}
    async with fronted(tmp_path, pace=SimulatorConfig(ttft_seconds=0.4), **settings) as pair:
        await trip(pair)
        await asyncio.sleep(0.6)
        answers = await asyncio.gather(
            *(ask(pair.gateway, (chat(), STREAM)[number % 2]) for number in range(60))
        )

        assert pair.paths() == [CHAT] * probes
        assert sorted(answer.status_code for answer in answers) == [200] * probes + [503] * (
            60 - probes
        )
        assert await state(pair.gateway) == CLOSED
        assert (await ask(pair.gateway)).status_code == 200


async def test_a_probe_that_fails_opens_it_again(tmp_path: Path) -> None:
    async with fronted(tmp_path, **QUICK) as pair:
        await trip(pair)
        pair.simulator.arm(Fault(FaultKind.ERROR_500, count=1))
        await asyncio.sleep(0.6)

        assert (await ask(pair.gateway)).status_code == 502
        assert (await ask(pair.gateway)).json()["error"]["code"] == "circuit_open"


async def test_a_cancelled_probe_returns_its_permit(tmp_path: Path) -> None:
    async with fronted(tmp_path, **QUICK) as pair:
        await trip(pair)
        pair.simulator.configure(SimulatorConfig(ttft_seconds=60))
        await asyncio.sleep(0.6)
        async with RawCall(pair.gateway, chat()) as probe:
            await until(lambda: pair.simulator.state.running == 1)
            assert (await ask(pair.gateway)).json()["error"]["code"] == "circuit_open"
            probe.leave(Departure.RST)
            await until(lambda: pair.simulator.state.running == 0)
        pair.simulator.configure(SimulatorConfig())
        await settled(pair.gateway)

        assert (await ask(pair.gateway)).status_code == 200
        assert await state(pair.gateway) == CLOSED


async def test_refusals_of_the_upstream_and_departures_of_clients_do_not_count(
    tmp_path: Path,
) -> None:
    async with fronted(tmp_path, pace=SimulatorConfig(ttft_seconds=0.05), **STUBBORN) as pair:
        gateway = pair.gateway
        for _ in range(5):
            assert (await ask(gateway, chat(temperature=-1))).status_code == 400
        pair.simulator.arm(Fault(FaultKind.ERROR_429, count=5))
        for _ in range(5):
            assert (await ask(gateway)).status_code == 429
        for body in (chat(), STREAM) * 5:
            async with RawCall(gateway, body) as call:
                await until(lambda: pair.simulator.state.running > 0)
                call.leave(Departure.RST)
                await until(lambda: pair.simulator.state.running == 0)

        assert await state(gateway) == CLOSED
        assert await gateway.metric("gateway_circuit_transitions_total") == 0


@pytest.mark.parametrize(
    "kind", [FaultKind.RESET_MID_STREAM, FaultKind.CLOSE_MID_STREAM, FaultKind.STREAM_ERROR]
)
async def test_streams_that_die_open_it(tmp_path: Path, kind: FaultKind) -> None:
    async with fronted(tmp_path, **STUBBORN) as pair:
        pair.simulator.arm(Fault(kind))
        for _ in range(3):
            async with RawCall(pair.gateway, STREAM) as call:
                heard = dechunked(await call.read_to_end())
            assert b"[DONE]" not in heard

        assert await state(pair.gateway) == OPEN


async def test_a_tokenizer_that_answers_says_nothing_about_the_engine(tmp_path: Path) -> None:
    async with fronted(tmp_path, **QUICK) as pair:
        tokenize = {"model": "sim-model", "prompt": "well?"}
        pair.simulator.arm(Fault(FaultKind.ERROR_500, path=CHAT))
        for _ in range(3):
            assert (await pair.gateway.client.post("/tokenize", json=tokenize)).status_code == 200
            assert (await ask(pair.gateway)).status_code == 502
        assert await state(pair.gateway) == OPEN

        await asyncio.sleep(0.6)
        assert (await pair.gateway.client.post("/tokenize", json=tokenize)).status_code == 200
        assert await state(pair.gateway) != CLOSED


@pytest.mark.parametrize("is_stream", [True, False])
async def test_silence_before_the_first_byte_is_a_504_in_time_and_counts(
    tmp_path: Path, is_stream: bool
) -> None:
    async with fronted(tmp_path, FIRST_BYTE_TIMEOUT_SECONDS="0.4", **STUBBORN) as pair:
        pair.simulator.arm(Fault(FaultKind.HANG))
        for _ in range(3):
            started = monotonic()
            answer = await ask(pair.gateway, chat(stream=is_stream))

            assert answer.status_code == 504
            assert answer.json()["error"]["code"] == "upstream_timeout"
            assert 0.4 <= monotonic() - started < 0.8
        assert await state(pair.gateway) == OPEN
        await until(lambda: pair.simulator.state.hanging == 0, within_seconds=1)


async def test_silence_in_the_middle_of_a_stream_ends_it_and_counts(tmp_path: Path) -> None:
    async with fronted(tmp_path, IDLE_TIMEOUT_SECONDS="0.4", **STUBBORN) as pair:
        pair.simulator.arm(Fault(FaultKind.HANG_MID_STREAM))
        for _ in range(3):
            async with RawCall(pair.gateway, STREAM) as call:
                raw = await call.read_to_end()
            heard = dechunked(raw)

            assert heard.count(b'data: {"error"') == 1
            assert b'"code":"upstream_timeout"' in heard.rpartition(b"data: ")[2]
            assert b"[DONE]" not in heard
            assert not raw.endswith(b"0\r\n\r\n")
        assert await state(pair.gateway) == OPEN
        await until(lambda: not pair.simulator.state.running, within_seconds=1)


async def test_the_state_does_not_outlive_the_process(tmp_path: Path) -> None:
    async with fronted(tmp_path, **STUBBORN) as pair:
        await trip(pair)
        pair.gateway.signal(signal.SIGTERM)
        await pair.gateway.ended()
        await pair.gateway.start()

        assert (await ask(pair.gateway)).status_code == 200


async def _readiness_is(gateway: GatewayProcess, status: int) -> None:
    async with asyncio.timeout(5):
        while (await gateway.client.get("/ready")).status_code != status:
            await asyncio.sleep(0.05)
