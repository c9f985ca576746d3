"""Limits on requests: who is refused, by which words, for how long, and what it costs others."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.commands import KeyCommands
from tests.harness.gateway import GatewayProcess, chat

CHAT = "/v1/chat/completions"
SLOW = SimulatorConfig(inter_token_seconds=0.02, output_tokens=2000)


@pytest.fixture
async def slow_simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SLOW) as running:
        yield running


def fronting(simulator: Simulator, folder: Path, **settings: str) -> GatewayProcess:
    return GatewayProcess(
        folder=folder,
        until_ready=True,
        VLLM_URL=simulator.url,
        **{"RATE_LIMIT_PER_IP": "off", "RATE_LIMIT_PER_KEY": "off"} | settings,
    )


def code_of(answer: httpx2.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code


async def ask(gateway: GatewayProcess, **fields: str) -> httpx2.Response:
    return await gateway.client.post(CHAT, json=chat(), headers=fields)


# Per key.


async def test_a_key_over_its_rate_hears_exactly_when_to_come_back(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(simulator, tmp_path, RATE_LIMIT_PER_KEY="3/3second") as gateway:
        allowed = [(await ask(gateway)).status_code for _ in range(3)]
        refused = await ask(gateway)
        before = len(simulator.requests)

        assert allowed == [200, 200, 200]
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        wait_seconds = int(refused.headers["retry-after-ms"]) / 1000
        assert int(refused.headers["retry-after"]) >= max(1, wait_seconds)

        await asyncio.sleep(wait_seconds / 2)
        assert (await ask(gateway)).status_code == 429
        await asyncio.sleep(wait_seconds / 2)
        assert (await ask(gateway)).status_code == 200

    posts = [seen for seen in list(simulator.requests)[before:] if seen.method == "POST"]
    assert len(posts) == 1


async def test_every_window_of_a_limit_holds(simulator: Simulator, tmp_path: Path) -> None:
    async with fronting(simulator, tmp_path, RATE_LIMIT_PER_KEY="2/second;3/minute") as gateway:
        burst = [(await ask(gateway)).status_code for _ in range(3)]
        await asyncio.sleep(1.1)
        later = [(await ask(gateway)).status_code for _ in range(2)]
        refused = await ask(gateway)

    assert burst == [200, 200, 429]
    assert later == [200, 429]
    assert float(refused.headers["retry-after-ms"]) > 5_000
    assert "the limit is 2 in 1 s and 3 in 60 s." in refused.json()["error"]["message"]


async def test_the_headers_count_down(simulator: Simulator, tmp_path: Path) -> None:
    async with fronting(
        simulator, tmp_path, RATE_LIMIT_PER_KEY="60/minute", DAILY_TOKEN_QUOTA="1000"
    ) as gateway:
        first = await ask(gateway)
        second = await gateway.client.post(CHAT, json=chat(stream=True))

    assert first.headers["x-ratelimit-limit-requests"] == "60"
    assert first.headers["x-ratelimit-remaining-requests"] == "59"
    assert first.headers["x-ratelimit-reset-requests"] in ("1s", "999ms", "1000ms")
    assert second.headers["x-ratelimit-remaining-requests"] == "58"
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    used = first.json()["usage"]["total_tokens"]
    assert first.headers["x-ratelimit-remaining-tokens"] == str(1000 - used)
    assert first.headers["x-ratelimit-reset-tokens"].endswith("s")
    # A stream's own tokens are still reserved when its head goes out.
    assert int(second.headers["x-ratelimit-remaining-tokens"]) < 1000 - used


async def test_off_means_no_limit_and_no_headers(simulator: Simulator, tmp_path: Path) -> None:
    async with fronting(simulator, tmp_path, DAILY_TOKEN_QUOTA="off") as gateway:
        answers = [await ask(gateway) for _ in range(40)]

    assert {answer.status_code for answer in answers} == {200}
    assert not [name for name in answers[0].headers if name.startswith("x-ratelimit")]


async def test_what_a_key_over_its_limits_may_still_ask(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(
        simulator, tmp_path, RATE_LIMIT_PER_KEY="1/minute", DAILY_TOKEN_QUOTA="5"
    ) as gateway:
        by_quota = await ask(gateway)
        await gateway.client.post("/tokenize", json={"model": "sim-model", "prompt": "a"})
        by_rate = await ask(gateway)
        paths = ("/health", "/ready", "/v1/models", "/v1/models/sim-model", "/v1/usage")
        others = {path: (await gateway.client.get(path)).status_code for path in paths}

    assert (by_quota.status_code, code_of(by_quota)) == (429, "insufficient_quota")
    assert by_quota.headers["x-should-retry"] == "false"
    assert (by_rate.status_code, code_of(by_rate)) == (429, "rate_limit_exceeded")
    assert others == dict.fromkeys(paths, 200)


# Per address.


async def test_guessing_keys_is_limited_per_address_and_spares_other_addresses(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(
        simulator, tmp_path, RATE_LIMIT_PER_IP="5/minute", TRUSTED_PROXIES="127.0.0.1"
    ) as gateway:
        guesser = gateway.client_with("sk-guess")
        origin = {"x-forwarded-for": "203.0.113.9"}
        guesses = [(await guesser.get("/v1/models", headers=origin)).status_code for _ in range(7)]
        paths = [(await guesser.get("/admin", headers=origin)).status_code for _ in range(2)]
        await guesser.aclose()
        neighbour = await ask(gateway, **{"x-forwarded-for": "203.0.113.10"})

    assert guesses == [401] * 5 + [429] * 2
    assert paths == [429, 429]
    assert neighbour.status_code == 200


async def test_forwarded_addresses_are_not_believed_by_default(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(simulator, tmp_path, RATE_LIMIT_PER_IP="3/minute") as gateway:
        statuses = [
            (await ask(gateway, **{"x-forwarded-for": f"203.0.113.{number}"})).status_code
            for number in range(5)
        ]
        logged = await gateway.logged(event="request", route=CHAT, status=429)

    assert statuses == [200, 200, 200, 429, 429]
    assert {line["client"] for line in logged} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.1", "203.0.113.1"),
        ("1.1.1.1, 203.0.113.1", "203.0.113.1"),
        ("1.1.1.1, 203.0.113.1, 10.1.2.3", "203.0.113.1"),
        ("203.0.113.1:4711", "203.0.113.1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("garbage, 10.9.9.9", "10.9.9.9"),
        ("1.1.1.1, garbage", "127.0.0.1"),
        ("1.1.1.1,", "127.0.0.1"),
        (", ".join(["6.6.6.6"] * 500 + ["203.0.113.7"]), "203.0.113.7"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_client_is_the_rightmost_untrusted_hop(
    proxied_gateway: GatewayProcess, forwarded: str, client: str
) -> None:
    answer = await proxied_gateway.client.get("/v1/models", headers={"x-forwarded-for": forwarded})

    lines = await proxied_gateway.logged(request_id=answer.headers["x-request-id"])
    assert [line["client"] for line in lines] == [client]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxied_gateway(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(
        folder=tmp_path_factory.mktemp("proxied"),
        until_ready=False,
        VLLM_URL="http://127.0.0.1:9",
        TRUSTED_PROXIES="127.0.0.1,10.0.0.0/8",
    ) as running:
        yield running


async def test_an_ipv6_client_is_counted_by_its_64(simulator: Simulator, tmp_path: Path) -> None:
    async with fronting(
        simulator, tmp_path, RATE_LIMIT_PER_IP="3/minute", TRUSTED_PROXIES="127.0.0.1"
    ) as gateway:
        same = [
            (await ask(gateway, **{"x-forwarded-for": f"2001:db8:0:1::{n:x}"})).status_code
            for n in range(1, 6)
        ]
        other = await ask(gateway, **{"x-forwarded-for": "2001:db8:0:2::1"})

    assert same == [200, 200, 200, 429, 429]
    assert other.status_code == 200


# What one limit refuses costs nothing at another.


async def test_a_refusal_by_the_key_gives_the_address_its_request_back(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(
        simulator, tmp_path, RATE_LIMIT_PER_IP="5/hour", RATE_LIMIT_PER_KEY="2/hour"
    ) as gateway:
        statuses = [(await ask(gateway)).status_code for _ in range(10)]
        looks = [(await gateway.client.get("/v1/models")).status_code for _ in range(4)]

    assert statuses == [200, 200] + [429] * 8
    # Two of five were used; eight refusals used none.
    assert looks == [200, 200, 200, 429]


async def test_a_refusal_by_concurrency_uses_no_request_of_the_window(
    slow_simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(
        slow_simulator, tmp_path, MAX_CONCURRENT_PER_KEY="1", RATE_LIMIT_PER_KEY="3/hour"
    ) as gateway:
        body = chat(stream=True, max_tokens=500)
        async with gateway.client.stream("POST", CHAT, json=body) as stream:
            refused = [await ask(gateway) for _ in range(5)]
            assert stream.status_code == 200
        await _until_free(gateway)
        later = [(await ask(gateway)).status_code for _ in range(3)]

    assert {answer.status_code for answer in refused} == {429}
    assert code_of(refused[0]) == "concurrency_limit_exceeded"
    assert int(refused[0].headers["retry-after"]) >= 1
    assert later == [200, 200, 429]


async def test_a_refusal_by_quota_uses_no_request_of_any_window(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(
        simulator,
        tmp_path,
        DAILY_TOKEN_QUOTA="1",
        RATE_LIMIT_PER_KEY="2/hour",
        RATE_LIMIT_PER_IP="3/hour",
    ) as gateway:
        refused = [code_of(await ask(gateway)) for _ in range(6)]

    assert refused == ["insufficient_quota"] * 6


@pytest.mark.parametrize(("limit", "most"), [("RATE_LIMIT_PER_KEY", 2), ("RATE_LIMIT_PER_IP", 3)])
async def test_a_refusal_that_took_an_upstreams_count_uses_a_request_of_the_window(
    simulator: Simulator, tmp_path: Path, limit: str, most: int
) -> None:
    limits = {"DAILY_TOKEN_QUOTA": "5", limit: f"{most}/hour"}
    async with fronting(simulator, tmp_path, **limits) as gateway:
        refused = [code_of(await ask(gateway)) for _ in range(6)]

    counts = [seen for seen in simulator.requests if seen.path == "/tokenize"]
    assert refused == ["insufficient_quota"] * most + ["rate_limit_exceeded"] * (6 - most)
    assert len(counts) == most


async def test_keys_do_not_share_their_windows(simulator: Simulator, tmp_path: Path) -> None:
    async with fronting(simulator, tmp_path, RATE_LIMIT_PER_KEY="1/hour") as gateway:
        made = await KeyCommands(gateway.settings).create("other", "--rpm", "2")
        first = [(await ask(gateway)).status_code for _ in range(2)]
        async with gateway.client_with(made.secret) as client:
            async with asyncio.timeout(2):
                while (await client.get("/v1/models")).status_code != 200:
                    await asyncio.sleep(0.05)
            second = [(await client.post(CHAT, json=chat())).status_code for _ in range(3)]

    assert first == [200, 429]
    assert second == [200, 200, 429]


# The gateway as a whole.


async def test_a_full_gateway_queues_a_few_and_refuses_the_rest_at_once(
    slow_simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(
        slow_simulator, tmp_path, MAX_IN_FLIGHT="1", MAX_QUEUED="2", QUEUE_TIMEOUT_SECONDS="20"
    ) as gateway:
        finished: list[int] = []

        async def call(number: int) -> None:
            await gateway.client.post(CHAT, json=chat(max_tokens=25))
            finished.append(number)

        waiting = []
        for number in range(3):
            waiting.append(asyncio.create_task(call(number)))
            await asyncio.sleep(0.05)
        began = time.monotonic()
        refused = await ask(gateway)
        took_seconds = time.monotonic() - began
        depth = await gateway.metric("gateway_queue_depth")
        await asyncio.gather(*waiting)

    assert (refused.status_code, code_of(refused)) == (503, "server_is_overloaded")
    assert refused.json()["error"]["type"] == "service_unavailable_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-should-retry"] == "true"
    assert took_seconds < 0.3
    assert depth == 2
    assert finished == [0, 1, 2]


async def test_a_wait_that_lasts_too_long_ends_in_a_503(
    slow_simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(
        slow_simulator, tmp_path, MAX_IN_FLIGHT="1", QUEUE_TIMEOUT_SECONDS="0.3"
    ) as gateway:
        body = chat(stream=True, max_tokens=200)
        async with gateway.client.stream("POST", CHAT, json=body):
            refused = await ask(gateway)

    assert (refused.status_code, code_of(refused)) == (503, "server_is_overloaded")


async def test_clients_that_leave_free_their_places(
    slow_simulator: Simulator, tmp_path: Path
) -> None:
    async with fronting(
        slow_simulator, tmp_path, MAX_IN_FLIGHT="1", MAX_QUEUED="1", QUEUE_TIMEOUT_SECONDS="20"
    ) as gateway:
        runner = asyncio.create_task(gateway.client.post(CHAT, json=chat(max_tokens=2000)))
        await asyncio.sleep(0.1)
        queued = asyncio.create_task(ask(gateway))
        await asyncio.sleep(0.1)
        for leaver in (queued, runner):
            leaver.cancel()
        await asyncio.gather(queued, runner, return_exceptions=True)
        await _until_free(gateway)
        answer = await ask(gateway)

    assert answer.status_code == 200


async def _until_free(gateway: GatewayProcess) -> None:
    async with asyncio.timeout(3):
        while await gateway.metric("gateway_calls_in_flight"):
            await asyncio.sleep(0.02)
