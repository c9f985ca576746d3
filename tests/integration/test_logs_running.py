"""What an operator does to the log of a running gateway: its level, its file, its full disk."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # has no stubs of its own
import pytest

from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawClient, request

CHAT = "/v1/chat/completions"
SCHEMA = json.loads(Path(__file__).with_name("log_line.schema.json").read_text())
FORGED = "2026-01-01T00:00:00.000Z [critical ] forged"
CONSOLE_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[(debug|info|warning|error) ")


def process(folder: Path, simulator: Simulator, **settings: str) -> GatewayProcess:
    merged: dict[str, Any] = {"RATE_LIMIT_PER_IP": "off", "RATE_LIMIT_PER_KEY": "off", **settings}
    return GatewayProcess(folder=folder, VLLM_URL=simulator.url, **merged)


async def test_the_level_changes_while_it_runs(simulator: Simulator, tmp_path: Path) -> None:
    async with process(tmp_path, simulator, LOG_LEVEL="INFO") as gateway:
        await gateway.client.get("/health", headers={"x-request-id": "too-fine"})
        gateway.signal(signal.SIGUSR1)
        await gateway.logged(event="log level changed", log_level="DEBUG")
        await gateway.client.get("/health", headers={"x-request-id": "fine-enough"})
        await gateway.logged(request_id="fine-enough")
        for level in ("INFO", "WARNING", "ERROR"):
            gateway.signal(signal.SIGUSR2)
            await gateway.logged(event="log level changed", log_level=level)
        await gateway.client.post(CHAT, json=chat(), headers={"x-request-id": "too-coarse"})
        for _ in ("WARNING", "INFO"):
            seen = len(gateway.log_lines())
            gateway.signal(signal.SIGUSR1)
            while len(gateway.log_lines()) == seen:
                await asyncio.sleep(0.01)
        await gateway.client.post(CHAT, json=chat(), headers={"x-request-id": "again"})
        await gateway.logged(request_id="again")

    told = {line["request_id"] for line in gateway.log_lines() if line["event"] == "request"}
    assert {"fine-enough", "again"} <= told
    assert not {"too-fine", "too-coarse"} & told


async def test_a_rotated_file_loses_no_line(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "gateway.log"
    settings = {"LOG_FILE": str(path), "LOG_FORMAT": "console", "LOG_LEVEL": "INFO"}
    count, rotations = 200, 5
    async with process(tmp_path, simulator, **settings) as gateway:

        async def ask(number: int) -> None:
            headers = {"x-request-id": f"r-{number}"}
            answer = await gateway.client.post(CHAT, json=chat(), headers=headers)
            assert answer.status_code == 200

        for rotation in range(rotations):
            first = rotation * count // rotations
            asking = [asyncio.create_task(ask(first + n)) for n in range(count // rotations)]
            path.rename(path.with_suffix(f".{rotation}"))
            gateway.signal(signal.SIGHUP)
            await asyncio.gather(*asking)
            while not path.exists():
                await asyncio.sleep(0.01)

    files = sorted(path.parent.iterdir())
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    told = [line["request_id"] for line in lines if line["event"] == "request"]
    assert len(files) == rotations + 1
    assert sorted(told) == sorted(f"r-{number}" for number in range(count))
    assert sum(line["event"] == "log file reopened" for line in lines) == rotations
    # Where people look, it stays as people like it.
    assert CONSOLE_LINE.match(gateway.log_path.read_text())


@pytest.mark.parametrize("below", ["", "a-file/gateway.log"])
async def test_a_file_that_cannot_be_written_is_a_fault_at_the_start(
    simulator: Simulator, tmp_path: Path, below: str
) -> None:
    (tmp_path / "a-file").write_text("")
    gateway = process(tmp_path, simulator, LOG_FILE=str(tmp_path / below))

    with pytest.raises(RuntimeError, match="the gateway ended"):
        await gateway.start()
    await gateway.client.aclose()

    assert await gateway.ended() == 78
    said = gateway.log_path.read_text()
    assert f"LOG_FILE={tmp_path / below}: cannot be written" in said
    assert "leave LOG_FILE empty" in said
    assert "Traceback" not in said


async def test_a_full_disk_ends_nothing_and_is_counted(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with process(tmp_path, simulator, LOG_FILE="/dev/full") as gateway:
        for _ in range(20):
            assert (await gateway.client.post(CHAT, json=chat())).status_code == 200
        (said,) = await gateway.logged(event="the log file cannot be written")
        async with asyncio.timeout(5):  # Lines are written in batches.
            while await gateway.metric("gateway_log_lines_dropped_total") <= 20:
                await asyncio.sleep(0.02)

    assert said["error"] == "No space left on device"


async def hostile_session(gateway: GatewayProcess, simulator: Simulator) -> None:
    """A client that would like to write our log, and an upstream that fails in every quick way."""
    line = f"a\n{FORGED}\r\n\x1b[31m"
    for path in (f"/%0a{FORGED}", f"/v1/models/%0d%0a{FORGED}%1b[2J", "/%c2%9b31m"):
        await gateway.client.get(path)
    for model in (line, "\u2028" + FORGED, "\u202e\x9b"):
        await gateway.client.post(CHAT, json=chat(model=model))
        await gateway.client.post(CHAT, json=chat(line, user=model, stop=[model]))
    for field in (
        b"x-request-id: a\x1b[31m" + FORGED.encode(),
        b"x-forwarded-for: 1.2.3.4\x1b[31m, " + FORGED.encode(),
        b"traceparent: 00-\x1b[31m" + FORGED.encode(),
        b"user-agent: \x9b31m" + FORGED.encode(),
    ):
        async with RawClient(gateway.port) as raw:
            await raw.send(request("GET", "/health", field))
            await raw.answer()
    async with RawClient(gateway.port) as raw:
        await raw.send(b"GET\x1b[31m /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await raw.answer()
    for method in ("PURGE", "PROPFIND", "OPTIONS"):
        await gateway.client.request(method, CHAT)
    for kind in (FaultKind.ERROR_500, FaultKind.RESET, FaultKind.GARBAGE, FaultKind.ERROR_429):
        simulator.arm(Fault(kind, count=1))
        await gateway.client.post(CHAT, json=chat(line))
    await gateway.client.post(CHAT, content=b"\xff\x00\n" + FORGED.encode())
    await gateway.client.get("/health", headers={"x-request-id": "last"})


@pytest.fixture
async def behind_proxy(simulator: Simulator, tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with process(tmp_path, simulator, TRUSTED_PROXIES="127.0.0.1") as gateway:
        yield gateway


async def test_every_line_fits_the_schema_whatever_clients_send(
    behind_proxy: GatewayProcess, simulator: Simulator
) -> None:
    await hostile_session(behind_proxy, simulator)
    await behind_proxy.logged(request_id="last")
    behind_proxy.signal(signal.SIGTERM)
    assert await behind_proxy.ended() == 0

    log = behind_proxy.log_path.read_bytes()
    validator = jsonschema.Draft202012Validator(SCHEMA)
    lines = [json.loads(line) for line in log.splitlines()]
    faults = [(line, error.message) for line in lines for error in validator.iter_errors(line)]
    assert faults == []
    assert len([line for line in lines if line["event"] == "request"]) > 20
    assert b"forged" not in log
    assert log.isascii() or log.decode().replace("\n", "").isprintable()


async def test_the_form_for_people_cannot_be_forged_either(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with process(
        tmp_path, simulator, LOG_FORMAT="console", TRUSTED_PROXIES="127.0.0.1"
    ) as gateway:
        await hostile_session(gateway, simulator)
        async with asyncio.timeout(5):
            while "request_id=last" not in gateway.log_path.read_text():
                await asyncio.sleep(0.02)

    log = gateway.log_path.read_text()
    assert all(CONSOLE_LINE.match(line) for line in log.splitlines())
    assert "forged" not in log
    assert log.replace("\n", "").isprintable()
