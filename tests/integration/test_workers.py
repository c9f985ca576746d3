"""WORKERS=2: one port, one page of metrics, one log, and nobody who stays down."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from tests.harness.callers import RawCall
from tests.harness.cluster import Cluster, cluster, codes, known, quiet
from tests.harness.commands import run_gateway
from tests.harness.gateway import GatewayProcess, chat, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEAM: dict[str, Any] = {"WORKERS": "2"}
LONG: dict[str, Any] = {"max_tokens": 4000, "ignore_eos": True, "stream": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """One gateway of two workers, for the tests that leave it as it was."""
    async with cluster(tmp_path_factory.mktemp("workers"), count=1, **TEAM) as running:
        yield running


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; nobody may be there to bury it."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def workers(gateway: GatewayProcess) -> list[psutil.Process]:
    return psutil.Process(gateway.pid).children()


async def each_worker_answers(shared: Cluster) -> None:
    """Connections are dealt out by chance: open some until both workers have had one."""
    gateway = shared.gateways[0]
    async with asyncio.timeout(30):
        while len({line["worker"] for line in gateway.log_lines() if "route" in line}) < 2:
            async with gateway.client_with(gateway.key) as client:
                assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
            await asyncio.sleep(0.03)


async def test_one_scrape_shows_the_whole_gateway(shared: Cluster) -> None:
    gateway = shared.gateways[0]
    await each_worker_answers(shared)
    name, route = "gateway_requests_total", "/v1/chat/completions"
    calls = await gateway.metric(name, route=route)
    by_worker = [await gateway.metric(name, route=route, worker=w) for w in ("1", "2")]
    assert min(by_worker) > 0
    assert sum(by_worker) == calls
    async with asyncio.timeout(10):
        while await chats(gateway) != calls:
            await asyncio.sleep(0.02)
    assert await gateway.metric("gateway_worker_up") == 2

    # The form with exemplars is whole too: a scraper reads it to its end.
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    page = (await gateway.client.get("/metrics", headers=accept)).text
    assert page.endswith("# EOF\n")
    assert page.count("# EOF") == 1
    heads = [line for line in page.splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))


async def chats(gateway: GatewayProcess) -> int:
    lines = await gateway.logged(event="request", route="/v1/chat/completions")
    return len(lines)


async def test_a_worker_that_is_killed_is_started_again_and_its_calls_are_booked(
    tmp_path: Path,
) -> None:
    lease: dict[str, Any] = {"REDIS_LEASE_SECONDS": "1"}
    async with cluster(tmp_path, count=1, **TEAM, **lease) as shared:
        gateway = shared.gateways[0]
        await each_worker_answers(shared)
        before = {process.pid for process in workers(gateway)}
        doomed = min(before)
        os.kill(doomed, signal.SIGKILL)
        async with asyncio.timeout(20):
            while len({p.pid for p in workers(gateway)} - before) != 1:
                await asyncio.sleep(0.02)
        (line,) = await gateway.logged(event="a worker ended and is started again")
        assert line["worker_pid"] == doomed
        assert line["code"] == -signal.SIGKILL
        # Connections that the kernel dealt to the dead one are answered by its successor.
        answers = []
        for _ in range(10):
            async with gateway.client_with(gateway.key) as client:
                answers.append(await client.post("/v1/chat/completions", json=chat()))
        assert {answer.status_code for answer in answers} == {200}
        async with asyncio.timeout(20):
            while await gateway.metric("gateway_worker_restarts_total") != 1:
                await asyncio.sleep(0.1)
        await shared.settled()

        # The second time it waits longer, and until then all connections are the other's.
        (successor,) = {process.pid for process in workers(gateway)} - before
        os.kill(successor, signal.SIGKILL)
        async with asyncio.timeout(20):
            while len(lines := await gateway.logged(event=line["event"])) < 2:
                await asyncio.sleep(0.01)
        assert [line["pause_seconds"] for line in lines] == [0.1, 0.2]
        for _ in range(5):
            async with gateway.client_with(gateway.key) as client:
                answer = await client.post("/v1/chat/completions", json=chat())
                assert answer.status_code == 200


async def test_two_workers_are_one_gateway_for_quotas_and_rates(shared: Cluster) -> None:
    body = chat("hi", ignore_eos=True)
    cost = (await shared.post(0, body)).json()["usage"]["total_tokens"]
    racer = await known(shared, shared.make_key("racer", daily_token_quota=10 * cost))
    raced = await asyncio.gather(*(shared.post(0, body, headers=racer) for _ in range(100)))
    counted = codes(list(raced))
    assert set(counted) == {200, 429}
    assert 1 <= counted[200] <= 10
    assert (await quiet(shared, racer))["total_tokens"] == counted[200] * cost

    hasty = await known(shared, shared.make_key("hasty", requests_per_minute=20))
    began_at = time.monotonic()
    rushed = await asyncio.gather(*(shared.post(0, body, headers=hasty) for _ in range(100)))
    # One more fits every three seconds.
    most = 20 + (time.monotonic() - began_at) / 3 + 1
    assert 20 <= codes(list(rushed))[200] <= most


async def test_killed_workers_give_their_reservations_back_and_keep_their_charges(
    tmp_path: Path,
) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.02)
    lease: dict[str, Any] = {"REDIS_LEASE_SECONDS": "1"}
    async with cluster(tmp_path, count=1, pace=pace, **TEAM, **lease) as shared:
        gateway = shared.gateways[0]
        async with RawCall(gateway, chat(**LONG)) as stream:
            await stream.read_times(b'"content":"', 30)
            async with asyncio.timeout(10):
                while (charged := (await gateway.usage())["total_tokens"]) < 30:
                    await asyncio.sleep(0.05)
            for process in workers(gateway):
                process.kill()
            generated = shared.generated_tokens
        report = await quiet(shared, {})
        # Nothing of what was charged is lost, and nothing is invented.
        assert charged <= report["total_tokens"] <= generated


async def test_sigterm_drains_all_workers_and_a_second_one_to_a_worker_changes_nothing(
    tmp_path: Path,
) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.01)
    async with cluster(tmp_path, count=1, pace=pace, **TEAM) as shared:
        gateway = shared.gateways[0]
        body = chat(**LONG | {"max_tokens": 100})
        async with RawCall(gateway, body) as one, RawCall(gateway, body) as two:
            await one.read_until(b'"content":"')
            await two.read_until(b'"content":"')
            # As a service manager does: the supervisor, and every process it has.
            gateway.signal(signal.SIGTERM)
            for process in workers(gateway):
                process.send_signal(signal.SIGTERM)
            await one.read_until(b"[DONE]")
            await two.read_until(b"[DONE]")
        assert await gateway.ended() == 0
        ended = [line for line in gateway.log_lines() if line["event"] == "worker ended"]
        assert [line["code"] for line in ended] == [0, 0]
        with shared.redis.client() as client:
            (day,) = client.smembers("gateway:days")
            assert client.hget(f"gateway:used:{day}", "test") == str(shared.generated_tokens)
            assert shared.holds() == {}
            assert client.hget(f"gateway:held:{day}", "test") == "0"
            # Nor is any of them still asked: Redis would refuse what comes late.
            assert client.keys("gateway:process:*") == []


async def test_a_second_sigterm_ends_all_at_once(tmp_path: Path) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.05)
    async with cluster(tmp_path, count=1, pace=pace, **TEAM) as shared:
        gateway = shared.gateways[0]
        async with RawCall(gateway, chat(**LONG)) as stream:
            await stream.read_until(b'"content":"')
            gateway.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            gateway.signal(signal.SIGTERM)
            heard = await stream.read_to_end()
            assert b"shut down" in heard
        assert await gateway.ended() == 0
        assert shared.holds() == {}


async def test_workers_end_in_order_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async with cluster(tmp_path, count=1, **TEAM) as shared:
        gateway = shared.gateways[0]
        orphans = workers(gateway)
        gateway.signal(signal.SIGKILL)
        await gateway.ended()
        async with asyncio.timeout(30):
            while any(is_alive(process) for process in orphans):
                await asyncio.sleep(0.05)
            while len(await gateway.logged(event="stopped")) < 2:
                await asyncio.sleep(0.05)


async def test_signals_reach_every_worker_and_every_line_says_whose_it_is(tmp_path: Path) -> None:
    log_file = tmp_path / "all.log"
    async with cluster(tmp_path, count=1, LOG_FILE=str(log_file), **TEAM) as shared:
        gateway = shared.gateways[0]
        gateway.signal(signal.SIGUSR1)
        async with asyncio.timeout(10):
            while await said(gateway, "log level changed") != {1, 2}:
                await asyncio.sleep(0.02)
        log_file.rename(tmp_path / "old.log")
        gateway.signal(signal.SIGHUP)
        async with asyncio.timeout(10):
            while await said(gateway, "log file reopened") != {1, 2}:
                await asyncio.sleep(0.02)
        assert log_file.exists()
        calls = (shared.post(0, chat()) for _ in range(200))
        await asyncio.gather(*calls)
    # Not a line was torn by another's, on stdout and in the file.
    for path in (gateway.log_path, log_file):
        assert all(
            line.startswith("{") and line.endswith("}")
            for line in path.read_text().split("\n")[:-1]
        )


async def said(gateway: GatewayProcess, event: str) -> set[int]:
    return {line["worker"] for line in gateway.log_lines() if line["event"] == event}


async def test_connections_are_dealt_out_to_both(shared: Cluster) -> None:
    gateway = shared.gateways[0]
    clients = [gateway.client_with(gateway.key) for _ in range(64)]
    named = {"x-request-id": "dealt-out"}
    url = "/v1/chat/completions"
    await asyncio.gather(*(client.post(url, json=chat(), headers=named) for client in clients))
    for client in clients:
        await client.aclose()
    async with asyncio.timeout(10):
        while len(lines := await gateway.logged(request_id="dealt-out")) < 64:
            await asyncio.sleep(0.02)
    counted = Counter(line["worker"] for line in lines)
    # By hash: fewer than 12 of 64 for one of two has a chance of one in three million.
    assert min(counted[1], counted[2]) >= 12


async def test_several_workers_without_redis_do_not_start(tmp_path: Path) -> None:
    settings = {"WORKERS": "2", "GATEWAY_API_KEYS": "a=sk-aaaaaaaaaaaaaaaaaaaaaa"}
    ended = await run_gateway("serve", settings=settings)
    assert ended.code == 78
    assert "WORKERS=2" in ended.err
    assert "set REDIS_URL, or WORKERS=1" in ended.err


async def test_a_team_does_not_share_a_port_with_another_gateway(shared: Cluster) -> None:
    taken = dict(shared.settings)
    ended = await run_gateway("serve", settings=taken)
    assert ended.code == 78
    assert f"GATEWAY_PORT={shared.gateways[0].port}" in ended.err


async def test_without_a_redis_to_reach_the_start_may_be_tried_again() -> None:
    settings = {
        "REDIS_URL": f"redis://:hidden@127.0.0.1:{free_port()}/0",
        "GATEWAY_PORT": str(free_port()),
        "GATEWAY_API_KEYS": "a=sk-aaaaaaaaaaaaaaaaaaaaaa",
        "LOG_FORMAT": "json",
    }
    ended = await run_gateway("serve", settings=settings, within_seconds=30)
    assert ended.code == 75
    assert "REDIS_URL=redis://127.0.0.1" in ended.out
    assert "hidden" not in ended.out + ended.err
