"""Several upstreams of one model: who fails is stepped over, unless the client has heard it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED, RawCall, dechunked, events, fronted, settled
from tests.harness.gateway import GatewayProcess, chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
PATIENT: dict[str, Any] = {"CIRCUIT_FAILURE_THRESHOLD": "100000", "CIRCUIT_FAILURE_RATIO": "1"}
CALLERS = 20


@dataclass(frozen=True, slots=True)
class Pool:
    """A gateway in front of two upstreams."""

    gateway: GatewayProcess
    first: Simulator
    second: Simulator

    def asked(self) -> int:
        """How many chats reached either of them."""
        received = [*self.first.requests, *self.second.requests]
        return sum(request.path == CHAT for request in received)

    async def statuses(self, *, is_stream: bool) -> set[int]:
        """What a crowd of callers is told."""
        body = chat("all of us", stream=is_stream)
        answers = await asyncio.gather(
            *(self.gateway.client.post(CHAT, json=body) for _ in range(CALLERS))
        )
        whole = [b"[DONE]" in answer.content for answer in answers if is_stream]
        assert all(whole)
        return {answer.status_code for answer in answers}


@asynccontextmanager
async def pool(
    folder: Path, *, pace: SimulatorConfig | None = None, **settings: str
) -> AsyncIterator[Pool]:
    pace = pace or SimulatorConfig()
    async with Simulator(pace) as first, Simulator(pace) as second:
        urls = f"{first.url},{second.url}"
        merged = UNLIMITED | PATIENT | settings
        async with GatewayProcess(folder=folder, VLLM_URL=urls, **merged) as gateway:
            while await gateway.metric("gateway_upstream_healthy") < 2:
                await asyncio.sleep(0.02)
            yield Pool(gateway, first, second)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steady(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    """A pool that outlives what befalls it."""
    async with pool(tmp_path_factory.mktemp("failover")) as running:
        yield running


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.ERROR_500),
        Fault(FaultKind.ERROR_503),
        Fault(FaultKind.RESET),
        Fault(FaultKind.GARBAGE),
        Fault(FaultKind.CLOSE_MID_STREAM, events=0),
        Fault(FaultKind.RESET_MID_STREAM, events=0),
        Fault(FaultKind.STREAM_ERROR, events=0),
    ],
    ids=lambda fault: fault.kind.value,
)
async def test_nobody_sees_a_failure_before_the_first_byte(
    steady: Pool, fault: Fault, is_stream: bool
) -> None:
    # Some successes first: an upstream that did nothing but fail would be left alone.
    await steady.statuses(is_stream=False)
    before = await settled(steady.gateway)
    generated_before = steady.second.state
    failovers_before = await steady.gateway.metric("gateway_failovers_total")
    steady.first.arm(fault)
    statuses = await steady.statuses(is_stream=is_stream)
    steady.first.disarm()

    assert statuses == {200}
    assert await steady.gateway.metric("gateway_failovers_total") > failovers_before
    report, generated = await settled(steady.gateway), steady.second.state
    assert report["requests"] - before["requests"] == CALLERS
    assert report["input_tokens"] - before["input_tokens"] == (
        generated.prompt_tokens_total - generated_before.prompt_tokens_total
    )
    assert report["output_tokens"] - before["output_tokens"] == (
        generated.generation_tokens_total - generated_before.generation_tokens_total
    )


@pytest.mark.parametrize("is_stream", [False, True])
async def test_nobody_sees_an_upstream_that_is_gone(tmp_path: Path, is_stream: bool) -> None:
    async with pool(tmp_path) as running:
        await running.statuses(is_stream=False)
        running.first.vanish()

        assert await running.statuses(is_stream=is_stream) == {200}


@pytest.mark.parametrize("is_stream", [False, True])
async def test_nobody_sees_an_upstream_die_that_had_begun_nothing_yet(
    tmp_path: Path, is_stream: bool
) -> None:
    async with pool(tmp_path, pace=SimulatorConfig(ttft_seconds=0.4)) as running:
        crowd = asyncio.create_task(running.statuses(is_stream=is_stream))
        while running.first.state.running < CALLERS // 2:
            await asyncio.sleep(0.01)
        running.first.vanish()

        assert await crowd == {200}


@pytest.mark.parametrize(
    "kind", [FaultKind.RESET_MID_STREAM, FaultKind.CLOSE_MID_STREAM, FaultKind.STREAM_ERROR]
)
async def test_what_the_client_has_begun_to_hear_is_never_asked_again(
    steady: Pool, kind: FaultKind
) -> None:
    asked_before = steady.asked()
    steady.first.arm(Fault(kind, events=4))
    steady.second.arm(Fault(kind, events=4))
    async with RawCall(steady.gateway, chat(stream=True, max_tokens=20)) as call:
        heard = events(dechunked(await call.read_to_end()))
    steady.first.disarm()
    steady.second.disarm()

    roles = [e for e in heard if e.get("choices") and "role" in e["choices"][0]["delta"]]
    assert len(roles) == 1
    assert list(heard[-1]) == ["error"]
    assert steady.asked() == asked_before + 1


async def test_a_hanging_upstream_is_not_asked_again_elsewhere(tmp_path: Path) -> None:
    async with pool(tmp_path, FIRST_BYTE_TIMEOUT_SECONDS="0.3") as running:
        running.first.arm(Fault(FaultKind.HANG))
        running.second.arm(Fault(FaultKind.HANG))
        answer = await running.gateway.client.post(CHAT, json=chat())

        assert answer.status_code == 504
        assert answer.headers["x-should-retry"] == "false"
        assert running.asked() == 1


async def test_with_everybody_gone_the_caller_is_told_so_with_a_time_to_come_back(
    tmp_path: Path,
) -> None:
    async with pool(tmp_path) as running:
        running.first.vanish()
        running.second.vanish()
        answer = await running.gateway.client.post(CHAT, json=chat())

        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "upstream_unavailable"
        assert int(answer.headers["retry-after"]) >= 1
        assert (await settled(running.gateway))["total_tokens"] == 0


async def test_with_everybody_failing_the_caller_sees_one_failure(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        running.first.arm(Fault(FaultKind.ERROR_500))
        running.second.arm(Fault(FaultKind.ERROR_500))
        answer = await running.gateway.client.post(CHAT, json=chat())

        assert answer.status_code == 502
        assert running.asked() == 2


@pytest.mark.parametrize("is_stream", [False, True])
async def test_who_is_all_busy_for_a_moment_is_asked_again_after_it(
    steady: Pool, is_stream: bool
) -> None:
    """Both say 503 once: neither took any work, so a pause mends it."""
    asked_before = steady.asked()
    steady.first.arm(Fault(FaultKind.ERROR_503, count=1))
    steady.second.arm(Fault(FaultKind.ERROR_503, count=1))
    answer = await steady.gateway.client.post(CHAT, json=chat(stream=is_stream))

    assert answer.status_code == 200
    assert steady.asked() == asked_before + 3


async def test_nobody_is_asked_more_often_than_configured(tmp_path: Path) -> None:
    async with pool(tmp_path, RETRY_ATTEMPTS="2") as running:
        running.first.arm(Fault(FaultKind.ERROR_503))
        running.second.arm(Fault(FaultKind.ERROR_503))
        answer = await running.gateway.client.post(CHAT, json=chat())

        assert answer.status_code == 503
        assert running.asked() == 3


async def test_the_count_near_the_quota_is_taken_from_whoever_is_there(tmp_path: Path) -> None:
    async with pool(tmp_path, DAILY_TOKEN_QUOTA="100") as running:
        running.first.vanish()
        for _ in range(2):
            answer = await running.gateway.client.post(CHAT, json=chat("a b c d", max_tokens=3))
            assert answer.status_code == 200


async def test_near_the_quota_a_dead_upstream_is_no_used_up_quota(tmp_path: Path) -> None:
    async with fronted(tmp_path, DAILY_TOKEN_QUOTA="100", **PATIENT) as pair:
        pair.simulator.vanish()
        answer = await pair.gateway.client.post(CHAT, json=chat("a b c d " * 10))

        assert answer.json()["error"]["code"] == "upstream_unavailable"
        assert answer.status_code == 503


async def test_connections_the_upstream_closed_while_idle_are_replaced_unseen(
    tmp_path: Path,
) -> None:
    """Calls fall just before, on and just after the moment the upstream hangs up."""
    pace = SimulatorConfig(keep_alive_seconds=0.1)
    async with fronted(tmp_path, pace=pace) as pair:
        for number in range(50):
            answer = await pair.gateway.client.post(CHAT, json=chat(stream=number % 2 == 0))
            assert answer.status_code == 200
            await asyncio.sleep(0.08 + 0.001 * number)

        assert pair.paths() == [CHAT] * 50
        assert (await settled(pair.gateway))["total_tokens"] == pair.generated_tokens


async def test_a_kept_connection_that_ends_before_any_byte_is_replaced_once_unseen(
    tmp_path: Path,
) -> None:
    async with fronted(tmp_path, **PATIENT) as pair:
        await pair.gateway.client.post(CHAT, json=chat())
        pair.simulator.arm(Fault(FaultKind.RESET, count=1))
        answer = await pair.gateway.client.post(CHAT, json=chat())
        assert answer.status_code == 200
        assert len(pair.paths()) == 3
        assert (await settled(pair.gateway))["total_tokens"] == pair.generated_tokens

        pair.simulator.arm(Fault(FaultKind.RESET))
        answer = await pair.gateway.client.post(CHAT, json=chat())
        assert answer.status_code == 502
        assert len(pair.paths()) == 5
