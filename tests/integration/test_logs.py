"""What the log, the metrics and the error bodies say, and what they must never say."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import orjson
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import STANDING, Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.commands import KeyCommands
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawClient, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
UPSTREAM_KEY = "sk-upstream-0f1e2d3c4b5a"
PROMPT = "my-mothers-maiden-name-is-Xyzzy"
TRIED_KEY = "sk-tried-9a8b7c6d5e4f"
ENDLESS = (FaultKind.HANG, FaultKind.HANG_MID_STREAM, FaultKind.DIE)
COOKIE = "session-cookie-5a6b7c8d"
SECRETS = (UPSTREAM_KEY, PROMPT, TRIED_KEY, COOKIE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig(api_key=UPSTREAM_KEY)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(
        folder=tmp_path_factory.mktemp("logs"),
        VLLM_URL=simulator.url,
        VLLM_API_KEY=UPSTREAM_KEY,
        CIRCUIT_FAILURE_THRESHOLD="1000",
        CIRCUIT_FAILURE_RATIO="1",
        RATE_LIMIT_PER_IP="off",
        RATE_LIMIT_PER_KEY="off",
    ) as running:
        yield running


async def test_each_request_leaves_exactly_one_line(gateway: GatewayProcess) -> None:
    asked = {
        "line-ok": ("POST", CHAT, chat()),
        "line-stream": ("POST", CHAT, chat(stream=True)),
        "line-unknown": ("GET", "/nowhere", None),
        "line-method": ("DELETE", CHAT, None),
        "line-model": ("POST", CHAT, chat(model="none")),
        "line-bad": ("POST", CHAT, {"messages": 1}),
        "line-usage": ("GET", "/v1/usage", None),
    }

    for name, (method, path, body) in asked.items():
        await gateway.client.request(method, path, json=body, headers={"x-request-id": name})

    for name, (method, path, _) in asked.items():
        (line,) = await gateway.logged(request_id=name)
        assert line["event"] == "request"
        assert line["method"] == method
        assert line["route"] in (path, "other")
        assert line.get("key_id", "test") == "test"


async def test_a_client_that_left_is_logged_as_499_and_not_as_a_failure(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    simulator.arm(Fault(FaultKind.HANG, count=1))
    async with RawClient(gateway.port) as raw:
        body = orjson.dumps(chat())
        field = b"x-request-id: leaver"
        await raw.send(request("POST", CHAT, field, key=gateway.key, body=body))
        async with asyncio.timeout(3):
            while not await gateway.metric("gateway_calls_in_flight"):
                await asyncio.sleep(0.02)

    (line,) = await gateway.logged(request_id="leaver")
    assert (line["status"], line["outcome"]) == (499, "cancelled")
    assert line["level"] == "info"


async def test_nothing_secret_is_ever_shown(gateway: GatewayProcess, simulator: Simulator) -> None:
    shown = [await _hostile_session(gateway, simulator)]
    made = await KeyCommands(gateway.settings).create("careful")
    async with gateway.client_with(made.secret) as client:
        shown.append((await client.post(CHAT, json=chat(PROMPT, model=PROMPT))).text)
    shown.append((await gateway.client.get("/metrics")).text)
    await gateway.client.get("/health", headers={"x-request-id": "last-of-session"})
    await gateway.logged(request_id="last-of-session")
    log = gateway.log_path.read_text()

    for secret in (*SECRETS, gateway.key, made.secret):
        assert secret not in log, secret
        for text in shown:
            # A body may repeat what its own request said in `model`; nobody else's.
            assert secret not in text.replace(f"'{PROMPT}'", ""), secret


async def _hostile_session(gateway: GatewayProcess, simulator: Simulator) -> str:
    """Every kind of failure with secrets in every place; the answers' bodies together."""
    cookie = {"cookie": COOKIE}
    bodies = []
    for kind in FaultKind:
        if kind in STANDING or kind in ENDLESS:
            continue
        for stream in (False, True):
            simulator.arm(Fault(kind, count=1))
            try:
                answer = await gateway.client.post(
                    CHAT, json=chat(PROMPT, stream=stream), headers=cookie
                )
            except Exception as cut:
                bodies.append(str(cut))
            else:
                bodies.append("" if answer.status_code == 200 else answer.text)
            simulator.disarm()
    async with gateway.client_with(TRIED_KEY) as stranger:
        for path in (CHAT, "/v1/usage", f"/v1/models/{PROMPT}", f"/{PROMPT}?key={TRIED_KEY}"):
            answer = await stranger.post(path, json=chat(PROMPT), headers=cookie)
            bodies.append(answer.text.replace(f"/{PROMPT}", ""))
    for content in (
        b'{"messages": "' + PROMPT.encode(),
        orjson.dumps(chat(PROMPT, max_tokens=-1)),
        orjson.dumps(chat(PROMPT, kv_transfer_params={"a": PROMPT})),
        b"\xff" + PROMPT.encode(),
    ):
        headers = {"content-type": "application/json", "x-api-key": gateway.key, **cookie}
        bodies.append((await gateway.client.post(CHAT, content=content, headers=headers)).text)
    async with RawClient(gateway.port) as raw:
        await raw.send(b"GET /", PROMPT.encode(), b" HTTP/1.1\r\nx-api-key: ", TRIED_KEY.encode())
        await raw.send(b"\r\n\r\n")
        bodies.append((await raw.answer()).body.decode())
    return "\n".join(bodies)


FORGED = '{"event":"forged","level":"critical"}'


async def test_nobody_can_forge_a_line(gateway: GatewayProcess) -> None:
    for path in (f"/%0a{FORGED}", f"/%0d%0a{FORGED}%0a", "/%1b[31m", f"/v1/models/%0a{FORGED}"):
        await gateway.client.get(path)
    await gateway.client.post(CHAT, json=chat(model=f"\n{FORGED}\n\x1b[2J"))
    async with RawClient(gateway.port) as raw:
        await raw.send(request("GET", "/health", b"x-request-id: a\x1b[31m" + FORGED.encode()))
        await raw.answer()
    await gateway.client.get("/health", headers={"x-request-id": "after-forgery"})
    await gateway.logged(request_id="after-forgery")

    log = gateway.log_path.read_bytes()
    assert b"\x1b" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert not [line for line in lines if line["event"] == "forged"]


async def test_invented_names_make_no_series_of_their_own(gateway: GatewayProcess) -> None:
    async def series() -> int:
        text = (await gateway.client.get("/metrics")).text
        return sum(not line.startswith("#") for line in text.splitlines())

    await gateway.client.get("/nowhere")
    before = await series()
    gate = asyncio.Semaphore(20)

    async def invent(number: int) -> None:
        async with gate:
            match number % 3:
                case 0:
                    await gateway.client.get(f"/invented/{number}")
                case 1:
                    await gateway.client.post(CHAT, json=chat(model=f"invented-{number}"))
                case _:
                    method = ("PROPFIND", "LINK", "PURGE", "REPORT")[number % 4]
                    await gateway.client.request(method, f"/v1/models/invented-{number}")

    await asyncio.gather(*(invent(number) for number in range(1500)))

    assert await series() - before < 40


async def test_the_key_of_the_upstream_reaches_the_upstream_and_nobody_else(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    answer = await gateway.client.post(CHAT, json=chat(), headers={"cookie": COOKIE})

    seen = simulator.requests[-1].headers
    assert seen["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert "cookie" not in seen
    assert UPSTREAM_KEY not in answer.text + repr(answer.headers)


async def test_an_upstream_that_refuses_our_key_is_our_fault_and_not_the_clients(
    tmp_path: Path,
) -> None:
    async with (
        Simulator(SimulatorConfig(api_key=UPSTREAM_KEY)) as guarded,
        GatewayProcess(
            folder=tmp_path, until_ready=False, VLLM_URL=guarded.url, VLLM_API_KEY="sk-outdated-1"
        ) as misconfigured,
    ):
        (line,) = await misconfigured.logged(event="upstream is unhealthy")
        answer = await misconfigured.client.post(CHAT, json=chat())

        assert "VLLM_API_KEY" in line["reason"]
        assert answer.status_code in (502, 503)
        assert "sk-outdated-1" not in misconfigured.log_path.read_text()


async def test_nobody_reading_the_log_stalls_no_request_and_no_end(tmp_path: Path) -> None:
    unread = GatewayProcess(folder=tmp_path, until_ready=False, VLLM_URL="http://127.0.0.1:9")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        "serve",
        env={"PATH": os.environ["PATH"], **unread.settings},
        stdout=asyncio.subprocess.PIPE,
        limit=1024,
    )
    async with unread.client, asyncio.timeout(15):
        while await _status(unread) != 200:
            await asyncio.sleep(0.05)
        for _ in range(1500):  # Some 300 KB of lines, more than any pipe holds.
            assert await _status(unread) == 200

    process.terminate()
    async with asyncio.timeout(4):
        while process.returncode is None:
            await asyncio.sleep(0.05)
    assert process.returncode == 0
    assert process.stdout is not None
    await process.stdout.read()


async def _status(gateway: GatewayProcess) -> int:
    try:
        return (await gateway.client.get("/health")).status_code
    except httpx2.TransportError:
        return 0
