"""config/nginx in a real nginx: TLS, HTTP/2, streams, departures, addresses and its own errors."""

import asyncio
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED, until
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.nginx import NAME, NginxProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
INTER_TOKEN_SECONDS = 0.05
TRUSTED: dict[str, Any] = {"TRUSTED_PROXIES": "127.0.0.1"}
TLS_VERSIONS = {"tls1_3": True, "tls1_2": True, "tls1_1": False, "tls1": False}


@dataclass(frozen=True, slots=True)
class Site:
    """nginx, the gateway behind it, and the simulator behind that."""

    nginx: NginxProcess
    gateway: GatewayProcess
    simulator: Simulator

    @property
    def key(self) -> tuple[str, str]:
        return ("--header", f"Authorization: Bearer {self.gateway.key}")

    def post(self, body: dict[str, Any] | Path) -> tuple[str, ...]:
        """curl's arguments for a POST of JSON with the key."""
        data = f"@{body}" if isinstance(body, Path) else json.dumps(body)
        return (*self.key, "--header", "Content-Type: application/json", "--data-binary", data)


@asynccontextmanager
async def site(
    folder: Path, *, pace: SimulatorConfig | None = None, **settings: str
) -> AsyncIterator[Site]:
    async with (
        Simulator(pace or SimulatorConfig()) as simulator,
        GatewayProcess(
            folder=folder, VLLM_URL=simulator.url, **(UNLIMITED | TRUSTED | settings)
        ) as gateway,
        NginxProcess(folder=folder, gateway_port=gateway.port) as nginx,
    ):
        yield Site(nginx, gateway, simulator)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One for the tests that leave it as it was: unhurried, with room for large prompts."""
    pace = SimulatorConfig(inter_token_seconds=INTER_TOKEN_SECONDS, max_model_len=50_000_000)
    folder = tmp_path_factory.mktemp("nginx")
    settings = {"DAILY_TOKEN_QUOTA": "off", "METRICS_ALLOW": "127.0.0.0/8"}
    async with site(folder, pace=pace, **settings) as running:
        yield running


# TLS and the way in.


async def test_a_call_is_answered_over_http2_and_tls(it: Site) -> None:
    answer = await it.nginx.fetch(CHAT, *it.post(chat()))
    old = await it.nginx.fetch("/health", "--http1.1")

    assert (answer.http_version, answer.status) == ("HTTP/2", 200)
    assert json.loads(answer.body)["usage"]["completion_tokens"] == 8
    assert (old.http_version, old.status) == ("HTTP/1.1", 200)


async def test_plain_http_is_sent_on_to_https(it: Site) -> None:
    plain = await it.nginx.fetch("", url=f"http://{NAME}:{it.nginx.plain_port}/v1/models?limit=1")
    mistaken = await it.nginx.fetch("", url=f"http://{NAME}:{it.nginx.port}/health")

    assert plain.status == 308
    assert plain.headers["location"] == f"https://{NAME}/v1/models?limit=1"
    assert mistaken.status == 308


async def test_old_tls_is_refused(tmp_path: Path) -> None:
    async with NginxProcess(folder=tmp_path, gateway_port=1) as nginx:
        shakes_hands = {version: await nginx.shakes_hands(version) for version in TLS_VERSIONS}

    assert shakes_hands == TLS_VERSIONS


async def test_metrics_stay_inside_however_they_are_spelt(it: Site) -> None:
    spellings = ("/metrics", "//metrics", "/%6detrics", "/x/../metrics", "/metrics?a=b")
    answers = [await it.nginx.fetch(path) for path in spellings]

    assert {answer.status for answer in answers} == {404}
    assert {answer.error["code"] for answer in answers} == {"not_found"}


# Streams.


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_events_arrive_one_by_one(it: Site, version: str) -> None:
    body = chat(stream=True, max_tokens=40, ignore_eos=True)
    async with it.nginx.stream(CHAT, version, *it.post(body)) as stream:
        arrivals = [time.monotonic() async for line in stream if line.startswith(b"data:")]

    assert len(arrivals) >= 40
    assert arrivals[-1] - arrivals[0] > 1.0
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert max(gaps) < 0.8, "events came in lumps"


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_the_upstream(
    it: Site, version: str, stream: bool
) -> None:
    aborted = it.simulator.state.aborted_total
    body = chat(stream=stream, max_tokens=4000, ignore_eos=True)
    async with it.nginx.stream(CHAT, version, *it.post(body)) as answer:
        if stream:
            await answer.readline()
        await until(lambda: it.simulator.state.running == 1)
    await until(lambda: it.simulator.state.running == 0, within_seconds=2.0)

    assert it.simulator.state.aborted_total == aborted + 1


# Who calls.


async def test_the_gateway_sees_the_client_and_believes_no_stranger(tmp_path: Path) -> None:
    claims = ("X-Forwarded-For: {}", "Forwarded: for={}", "X-Real-IP: {}")

    async def models(at: Site, source: str, claimed: str) -> int:
        headers = [word for claim in claims for word in ("--header", claim.format(claimed))]
        arguments = ("--interface", source, *at.key, *headers)
        return (await at.nginx.fetch("/v1/models", *arguments)).status

    async with site(tmp_path, RATE_LIMIT_PER_IP="3/minute") as limited:
        seen = [await models(limited, "127.0.0.2", f"203.0.113.{n}") for n in range(4)]
        neighbour = await models(limited, "127.0.0.3", "127.0.0.2")
        await limited.gateway.logged(route="/v1/models", client="127.0.0.3")
        lines = await limited.gateway.logged(route="/v1/models")

    assert seen == [200, 200, 200, 429]
    assert neighbour == 200
    assert {line["client"] for line in lines} == {"127.0.0.2", "127.0.0.3"}


async def test_the_access_log_holds_no_key(it: Site) -> None:
    answer = await it.nginx.fetch(f"/version?api_key={it.gateway.key}", *it.key)
    async with asyncio.timeout(5):
        while not (lines := [line for line in it.nginx.lines() if line["path"] == "/version"]):
            await asyncio.sleep(0.02)

    (line,) = lines
    assert (line["status"], line["client"]) == (200, "127.0.0.1")
    assert line["request_id"] == answer.headers["x-request-id"]
    assert it.gateway.key not in it.nginx.access_log.read_text()


# Bodies, errors, endings.


def body_of(folder: Path, size: int) -> Path:
    """A chat request of so many bytes."""
    empty = json.dumps(chat("")).encode()
    path = folder / f"{size}.json"
    path.write_bytes(json.dumps(chat("a" * (size - len(empty)))).encode())
    return path


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_large_bodies_pass_or_are_refused_in_words(
    it: Site, tmp_path: Path, version: str
) -> None:
    large = it.post(body_of(tmp_path, 10_000_000))
    wrong = ("--header", "Authorization: Bearer sk-wrong")
    passed = await it.nginx.fetch(CHAT, version, *large)
    stranger = await it.nginx.fetch(CHAT, version, *large[2:], *wrong)
    too_large = await it.nginx.fetch(CHAT, version, *it.post(body_of(tmp_path, 33_554_433)))

    assert passed.status == 200
    assert json.loads(passed.body)["usage"]["prompt_tokens"] > 1_000_000
    assert (stranger.status, stranger.error["code"]) == (401, "invalid_api_key")
    assert (too_large.status, too_large.error["code"]) == (413, "request_too_large")
    assert too_large.headers["content-type"] == "application/json"
    assert "buffered to a temporary file" not in it.nginx.told()


async def test_a_gateway_that_is_away_is_an_error_that_sdks_understand(tmp_path: Path) -> None:
    async with NginxProcess(folder=tmp_path, gateway_port=1) as nginx:
        answer = await nginx.fetch(CHAT, "--json", "{}")

    assert answer.status == 502
    assert answer.error["code"] == "gateway_unreachable"
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_gateway_that_is_slower_than_nginx_waits_is_a_504(tmp_path: Path) -> None:
    pace = SimulatorConfig(ttft_seconds=30)
    async with (
        Simulator(pace) as simulator,
        GatewayProcess(
            folder=tmp_path, VLLM_URL=simulator.url, TRUSTED_PROXIES="127.0.0.1"
        ) as gateway,
        NginxProcess(
            folder=tmp_path,
            gateway_port=gateway.port,
            **{"proxy_read_timeout 660s": "proxy_read_timeout 1s"},
        ) as nginx,
    ):
        slow = Site(nginx, gateway, simulator)
        answer = await nginx.fetch(CHAT, *slow.post(chat()))
        await until(lambda: simulator.state.running == 0)

    assert (answer.status, answer.error["code"]) == (504, "gateway_timeout")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_head_that_is_too_large_is_refused_in_words(tmp_path: Path) -> None:
    async with NginxProcess(folder=tmp_path, gateway_port=1) as nginx:
        answer = await nginx.fetch("/health", "--http1.1", "--header", "X-Large: " + "a" * 20_000)

    assert (answer.status, answer.error["code"]) == (400, "bad_http")


async def test_the_gateways_own_errors_pass_unchanged(tmp_path: Path) -> None:
    async with site(tmp_path) as lonely:
        lonely.simulator.vanish()
        answer = await lonely.nginx.fetch(CHAT, *lonely.post(chat()))

    assert answer.status in (502, 503)
    assert answer.error["code"] in ("upstream_unavailable", "bad_gateway")


async def test_no_call_of_many_meets_a_connection_that_goes_away(tmp_path: Path) -> None:
    """Pauses around the time at which nginx lets go of what it kept: the dangerous moment."""
    pauses = (0.0, 0.9, 1.0, 1.05, 1.1)
    async with (
        Simulator(SimulatorConfig()) as simulator,
        GatewayProcess(
            folder=tmp_path,
            VLLM_URL=simulator.url,
            KEEPALIVE_TIMEOUT_SECONDS="2",
            **(UNLIMITED | TRUSTED),
        ) as gateway,
        NginxProcess(
            folder=tmp_path,
            gateway_port=gateway.port,
            **{"keepalive_timeout 60s": "keepalive_timeout 1s"},
        ) as nginx,
        httpx2.AsyncClient(
            verify=ssl.create_default_context(cafile=str(nginx.certificate)),
            headers={"authorization": f"Bearer {gateway.key}", "host": NAME},
            trust_env=False,
            timeout=10,
        ) as client,
    ):
        url = f"https://127.0.0.1:{nginx.port}{CHAT}"
        options = {"sni_hostname": NAME}

        async def call() -> int:
            return (await client.post(url, json=chat(), extensions=options)).status_code

        statuses = []
        for pause in pauses:
            await asyncio.sleep(pause)
            statuses += await asyncio.gather(*(call() for _ in range(40)))

    assert statuses == [200] * 40 * len(pauses)
