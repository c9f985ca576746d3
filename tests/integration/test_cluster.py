"""Two gateways over one Redis are one: quotas, rates, places, keys and books."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from tests.harness.callers import RawCall
from tests.harness.cluster import Cluster, cluster, codes, known, quiet
from tests.harness.commands import run_gateway
from tests.harness.gateway import chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

RACERS = 100
LONG: dict[str, Any] = {"max_tokens": 4000, "ignore_eos": True, "stream": True}

OUTSIDE = {"evalsha", "mget", "info", "hello"}
# What scripts call is counted by Redis like what clients call.
INSIDE = {
    *("get", "set", "time", "pttl", "expire", "sadd", "hget", "hset", "hdel", "hincrby", "hscan"),
    *("zadd", "zrem", "zcard", "zrangebyscore"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Two gateways; each test brings keys of its own."""
    folder = tmp_path_factory.mktemp("cluster")
    pace = SimulatorConfig(ttft_seconds=0.05, inter_token_seconds=0.002)
    limits: dict[str, Any] = {
        "RATE_LIMIT_PER_IP": "100000/minute",
        "RATE_LIMIT_PER_KEY": "100000/minute",
        "MAX_CONCURRENT_PER_KEY": "1000",
        "REDIS_LEASE_SECONDS": "1",
    }
    async with cluster(folder, pace=pace, **limits) as running:
        yield running


async def test_of_a_hundred_racers_over_both_only_those_that_fit_pass(shared: Cluster) -> None:
    body = chat("hi", ignore_eos=True)
    cost = (await shared.post(0, body)).json()["usage"]["total_tokens"]
    headers = await known(shared, shared.make_key("racer", daily_token_quota=10 * cost))

    calls = (shared.post(number, body, headers=headers) for number in range(RACERS))
    counted = codes(list(await asyncio.gather(*calls)))

    assert set(counted) == {200, 429}
    # A prompt of one word is guessed no smaller than it is, so nothing is let in on credit.
    assert 1 <= counted[200] <= 10
    report = await quiet(shared, headers)
    assert report["total_tokens"] == counted[200] * cost
    assert report["refusals"] == counted[429]


async def test_what_is_left_of_a_quota_can_be_used_at_either(shared: Cluster) -> None:
    body = chat("hi", ignore_eos=True)
    cost = (await shared.post(0, body)).json()["usage"]["total_tokens"]
    headers = await known(shared, shared.make_key("saver", daily_token_quota=4 * cost))
    for number in range(4):
        answer = await shared.post(number, body, headers=headers)
        assert answer.status_code == 200, answer.text
    for number in range(2):
        refused = await shared.post(number, body, headers=headers)
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert refused.headers["x-ratelimit-remaining-tokens"] == "0"


async def test_a_rate_limit_holds_over_both(shared: Cluster) -> None:
    headers = await known(shared, shared.make_key("hasty", requests_per_minute=20))
    began_at = time.monotonic()
    calls = (shared.post(number, chat(), headers=headers) for number in range(RACERS))
    answers = list(await asyncio.gather(*calls))
    counted = codes(answers)

    # One more fits every three seconds.
    assert 20 <= counted[200] <= 20 + (time.monotonic() - began_at) / 3 + 1
    assert counted[200] + counted[429] == RACERS
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert refused.headers["x-ratelimit-limit-requests"] == "20"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


async def test_the_rate_headers_count_the_calls_of_both(shared: Cluster) -> None:
    headers = await known(shared, shared.make_key("steady", requests_per_minute=2))
    first = await shared.post(0, chat(), headers=headers)
    second = await shared.post(1, chat(), headers=headers)
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert second.headers["x-ratelimit-remaining-requests"] == "0"


async def test_places_of_a_key_are_counted_over_both(shared: Cluster) -> None:
    headers = await known(shared, shared.make_key("crowd", max_concurrent=2))
    first, second = shared.gateways
    secret = headers["authorization"].removeprefix("Bearer ")
    async with RawCall(first, chat(**LONG), key=secret) as one:
        await one.read_until(b'"content":"')
        async with RawCall(second, chat(**LONG), key=secret) as two:
            await two.read_until(b'"content":"')
            for number in range(2):
                refused = await shared.post(number, chat(), headers=headers)
                assert refused.json()["error"]["code"] == "concurrency_limit_exceeded"
    async with asyncio.timeout(10):
        while (await shared.post(0, chat(), headers=headers)).status_code != 200:
            await asyncio.sleep(0.05)


async def test_a_call_asks_redis_once_and_tells_it_once(shared: Cluster) -> None:
    """With every limit on: address, key, places, quota. What is told waits for nobody."""
    await shared.post(0, chat())
    before = shared.redis.calls()
    began_at = time.monotonic()
    for _ in range(50):
        assert (await shared.post(0, chat(max_tokens=1))).status_code == 200
    seconds = time.monotonic() - began_at
    after = shared.redis.calls()

    # Besides, each gateway looks around once a second, renews its leases three times in one, and
    # tells of running streams ten times.
    besides = len(shared.gateways) * (1 + 3 + 10) * (seconds + 1)
    assert 100 <= after["evalsha"] - before["evalsha"] <= 100 + besides
    # From outside there is else only the looks at the keys' version, and the test's own question.
    assert {name for name in after if after[name] > before.get(name, 0)} <= INSIDE | OUTSIDE


async def test_a_key_made_or_revoked_is_heard_of_everywhere_within_two_seconds(
    shared: Cluster,
) -> None:
    made = await run_gateway(
        "keys", "create", "--name", "newcomer", "--json", settings=shared.settings
    )
    facts = json.loads(made.out)
    await heard(shared, facts["secret"], status=200)
    revoked = await run_gateway("keys", "revoke", "newcomer", settings=shared.settings)
    assert revoked.code == 0, revoked.err
    await heard(shared, facts["secret"], status=401)


async def heard(shared: Cluster, secret: str, *, status: int) -> None:
    async with asyncio.timeout(2):
        for gateway in shared.gateways:
            async with gateway.client_with(secret) as client:
                while (await client.get("/v1/usage")).status_code != status:
                    await asyncio.sleep(0.02)


async def test_both_and_the_command_tell_the_same_books(shared: Cluster) -> None:
    headers = await known(shared, shared.make_key("reader"))
    for number in range(4):
        await shared.post(number, chat(stream=number % 2 == 0), headers=headers)
    reports = []
    for gateway in shared.gateways:
        await quiet(shared, headers)
        reports.append((await gateway.client.get("/v1/usage?days=2", headers=headers)).json())
    assert reports[0] == reports[1]
    assert reports[0]["requests"] == 4

    told = await run_gateway(
        "usage", "--key", "reader", "--days", "2", "--json", settings=shared.settings
    )
    (of_key,) = json.loads(told.out)["keys"]
    assert of_key["days"][0]["total_tokens"] == reports[0]["total_tokens"]
    assert not shared.gateways[0].database.exists()


async def test_a_stream_longer_than_its_lease_keeps_what_it_holds(shared: Cluster) -> None:
    secret = shared.make_key("patient", daily_token_quota=1_000_000)
    headers = await known(shared, secret)
    body = chat(**LONG | {"max_tokens": 20_000})
    async with RawCall(shared.gateways[0], body, key=secret) as stream:
        await stream.read_until(b'"content":"')
        await asyncio.sleep(2.2)
        # Whoever's lease has ended would be found out by this call of the key.
        await shared.post(1, chat("x", max_tokens=1), headers=headers)
        answer = await shared.gateways[1].client.get("/v1/usage", headers=headers)
        assert answer.json()["reserved_tokens"] > 10_000
    await quiet(shared, headers)
