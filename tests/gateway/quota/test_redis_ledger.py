"""RedisLedger: several gateways on a real Redis, and one that stands still, dies or forgets."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.errors import (
    ConcurrencyExceeded,
    GatewayError,
    QuotaExceeded,
    QuotaReserved,
    SharedStateUnavailable,
)
from gateway.exchange import Principal, TokenUsage
from gateway.quota.journal import UsageLost
from gateway.quota.ledger import TokenDemand
from gateway.shared.config import OnFailure, RedisConfig, RedisUnusable
from gateway.shared.line import Line
from tests.fakes.clock import FakeClock
from tests.harness.redis import RedisProcess
from tests.harness.shared import SharedLedger, shared_ledger

TEAM = Principal("team", "Team", daily_token_quota=1000)
FREE = Principal("free", "Free")
DAY = "2026-03-14"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(folder=tmp_path) as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def spend(ledger: SharedLedger, tokens: int, principal: Principal = TEAM) -> None:
    async with ledger.reserve(principal, TokenDemand("m", tokens, 0)) as reservation:
        reservation.settle(TokenUsage(tokens))


def used(server: RedisProcess, key: str = "team") -> int:
    with server.client() as client:
        return int(str(client.hget(f"gateway:used:{DAY}", key) or 0))


def held(server: RedisProcess, key: str = "team") -> int:
    with server.client() as client:
        return int(str(client.hget(f"gateway:held:{DAY}", key) or 0))


async def until_used(server: RedisProcess, tokens: int, key: str = "team") -> None:
    async with asyncio.timeout(20):
        while used(server, key) != tokens:
            await asyncio.sleep(0.02)


async def test_of_many_at_two_gateways_only_those_that_fit_are_admitted(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock) as one, shared_ledger(redis.url, clock) as two:

        async def request(ledger: SharedLedger) -> bool:
            try:
                async with ledger.reserve(TEAM, TokenDemand("m", 30, 70)) as reservation:
                    await asyncio.sleep(0)
                    reservation.settle(TokenUsage(30, 70))
                    return True
            except (QuotaReserved, QuotaExceeded):
                return False

        admitted = await asyncio.gather(*(request(n) for n in (one, two) for _ in range(250)))
        assert sum(admitted) == 10
        await until_used(redis, 1000)
        assert held(redis) == 0


async def test_what_one_gateway_settles_the_other_sees_in_its_next_question(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock) as one, shared_ledger(redis.url, clock) as two:
        await spend(one, 900)
        await until_used(redis, 900)
        with pytest.raises(QuotaExceeded, match="900 of 1000"):
            await spend(two, 200)
        assert two.standing(TEAM).used == 900


async def test_a_look_around_shows_keys_that_only_others_used(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock) as one, shared_ledger(redis.url, clock) as two:
        await spend(one, 400)
        async with one.reserve(TEAM, TokenDemand("m", 10, 90)):
            await until_used(redis, 400)
            async with asyncio.timeout(10):
                while two.standing(TEAM)[1:4] != (400, 100, 500):
                    await asyncio.sleep(0.05)


async def test_the_progress_of_a_stream_is_with_redis_while_it_runs(
    redis: RedisProcess, clock: FakeClock
) -> None:
    class Running:
        usage = TokenUsage(10, 25)

    async with shared_ledger(redis.url, clock, flush_seconds=0.02) as ledger:
        async with ledger.reserve(TEAM, TokenDemand("m", 10, 90)) as reservation:
            reservation.follow(Running())
            await until_used(redis, 35)
            assert held(redis) == 65
            reservation.settle(TokenUsage(10, 30))
        await until_used(redis, 40)
        assert held(redis) == 0


async def test_a_gateway_that_is_gone_loses_its_reservations_with_their_lease(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock, lease_seconds=1.0) as other:
        # As kill -9 leaves it: it is never closed, and says no more.
        gone = AsyncExitStack()
        dead = await gone.enter_async_context(shared_ledger(redis.url, clock, lease_seconds=1.0))
        call = await gone.enter_async_context(dead.reserve(TEAM, TokenDemand("m", 10, 900)))
        call.progress(TokenUsage(10, 40))
        await until_used(redis, 50)
        await dead.line.__aexit__(None, None, None)
        with pytest.raises(QuotaReserved):
            await spend(other, 500)
        async with asyncio.timeout(10):
            while not await fits(other, 500):
                await asyncio.sleep(0.05)
        # What it had charged stays charged.
        await until_used(redis, 550)


async def fits(ledger: SharedLedger, tokens: int) -> bool:
    try:
        await spend(ledger, tokens)
    except QuotaReserved:
        return False
    return True


class Places:
    """SharedLimits of nothing but places."""

    asks = True
    windows = ()

    def __init__(self, most: int) -> None:
        self.most = most

    def counted(self, debts: Sequence[tuple[int, int]]) -> None:
        assert debts == []

    def skipped(self) -> None:
        raise AssertionError("nobody was silent")

    def window_refusal(self, debts: Sequence[tuple[int, int]]) -> GatewayError:
        raise AssertionError("there are no windows")

    def concurrency_refusal(self) -> GatewayError:
        return ConcurrencyExceeded("no place")


async def test_who_has_ended_a_call_has_its_place_for_the_next(
    redis: RedisProcess, clock: FakeClock
) -> None:
    """However many do so at the same time, each within its own limit."""
    async with shared_ledger(redis.url, clock) as ledger:

        async def caller() -> None:
            for _ in range(20):
                async with ledger.reserve(FREE, TokenDemand("m", 1, 1), Places(64)) as call:
                    await asyncio.sleep(0)
                    call.settle(TokenUsage(1, 1))

        await asyncio.gather(*(caller() for _ in range(64)))
        await until_used(redis, 64 * 20 * 2, "free")
        async with AsyncExitStack() as held_places:
            for _ in range(3):
                demand = TokenDemand("m", 1, 1)
                await held_places.enter_async_context(ledger.reserve(FREE, demand, Places(3)))
            with pytest.raises(ConcurrencyExceeded):
                async with ledger.reserve(FREE, TokenDemand("m", 1, 1), Places(3)):
                    pass


async def test_a_lease_is_renewed_for_as_long_as_the_call_runs(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with (
        shared_ledger(redis.url, clock, lease_seconds=1.0) as one,
        shared_ledger(redis.url, clock) as two,
        one.reserve(TEAM, TokenDemand("m", 10, 900)),
    ):
        await asyncio.sleep(1.5)
        with pytest.raises(QuotaReserved):
            await spend(two, 500)


async def test_an_orderly_end_loses_nothing(redis: RedisProcess, clock: FakeClock) -> None:
    async with shared_ledger(redis.url, clock) as ledger:
        for _ in range(50):
            await spend(ledger, 2)
        ledger.count_refusal(TEAM)
    assert used(redis) == 100
    async with shared_ledger(redis.url, clock) as again:
        report = await again.report(TEAM, days=1)
        assert (report.today.total.requests, report.today.refusals) == (50, 1)
        assert again.standing(TEAM).used == 100


async def test_a_time_out_whose_outcome_is_unknown_is_counted_once(
    redis: RedisProcess, clock: FakeClock
) -> None:
    """Redis stands still while it is told; every batch is sent again, and counts once."""
    async with shared_ledger(redis.url, clock, timeout_seconds=0.15) as ledger:
        await spend(ledger, 1)
        await until_used(redis, 1)
        redis.stop()
        for _ in range(5):
            ledger.charge(DAY, "team", "m", (10, 0, 1, 0))
            await asyncio.sleep(0.1)
        assert ledger.standing(TEAM).used == 51
        redis.go_on()
        await until_used(redis, 51)
        assert await ledger.courier.delivered()
        report = await ledger.report(TEAM, days=1)
        assert (report.today.total.input_tokens, report.today.total.requests) == (51, 6)


async def test_a_reservation_that_was_granted_too_late_is_given_back(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock, timeout_seconds=0.15, lease_seconds=60) as ledger:
        redis.stop()
        with pytest.raises(SharedStateUnavailable):
            await spend(ledger, 400)
        redis.go_on()
        async with asyncio.timeout(20):
            while held(redis) or not await ledger.courier.delivered():
                await asyncio.sleep(0.02)
        assert used(redis) == 0


async def test_a_caller_who_leaves_while_redis_thinks_holds_nothing(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock) as ledger:
        redis.stop()
        call = asyncio.create_task(spend(ledger, 400))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])
        redis.go_on()
        async with asyncio.timeout(10):
            while not await ledger.courier.delivered():
                await asyncio.sleep(0.02)
        assert held(redis) == 0
        assert used(redis) == 0


async def test_a_dead_redis_refuses_quotas_at_once_and_meters_the_others(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock, timeout_seconds=0.2, close_seconds=20) as ledger:
        await spend(ledger, 100)
        await until_used(redis, 100)
        redis.kill()
        await until_down(ledger)
        began_at = time.perf_counter()
        for _ in range(1000):
            with pytest.raises(SharedStateUnavailable) as refused:
                await spend(ledger, 1)
        # A microsecond each, and whatever raising and catching costs on a busy machine.
        assert time.perf_counter() - began_at < 0.5
        assert refused.value.status == 503
        assert refused.value.retry_after_seconds == 1.0
        await spend(ledger, 70, FREE)
        report = await ledger.report(TEAM, days=1)
        assert not report.is_complete
        assert report.today.total.total_tokens == 100

        redis.start()
        await until_used(redis, 70, "free")


async def test_an_open_quota_is_kept_by_what_the_gateway_knows(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(
        redis.url, clock, on_quota_failure=OnFailure.OPEN, close_seconds=20
    ) as ledger:
        await spend(ledger, 600)
        await until_used(redis, 600)
        redis.kill()
        await until_down(ledger)
        await spend(ledger, 300)
        with pytest.raises(QuotaExceeded, match="900 of 1000"):
            await spend(ledger, 300)
        redis.start()
        await until_used(redis, 900)


async def until_down(ledger: SharedLedger) -> None:
    async with asyncio.timeout(10):
        while ledger.line.is_up:
            await asyncio.sleep(0.01)


async def test_an_emptied_redis_is_told_what_the_gateways_know_before_anybody_is_let_in(
    redis: RedisProcess, clock: FakeClock
) -> None:
    reports: list[str] = []
    async with (
        shared_ledger(redis.url, clock, on_failure=lambda e: reports.append(str(e))) as one,
        shared_ledger(redis.url, clock) as two,
        two.reserve(TEAM, TokenDemand("m", 10, 90)),
    ):
        await spend(one, 500)
        await until_used(redis, 500)
        await spend(two, 300)
        await until_used(redis, 800)
        redis.kill()
        redis.start()
        assert used(redis) == 0

        async with asyncio.timeout(15):
            while True:
                # At no time is there a quota to be had that is not left.
                try:
                    await spend(one, 50)
                    break
                except SharedStateUnavailable:
                    await asyncio.sleep(0.02)
        with pytest.raises((QuotaExceeded, QuotaReserved)):
            await spend(two, 60)
        await until_used(redis, 850)
        assert held(redis) == 100
        report = await two.report(TEAM, days=1)
        assert report.today.total.input_tokens == 850
        assert report.today.total.requests == 3
    assert any("forgotten" in report for report in reports)


async def test_what_happens_while_redis_is_away_is_counted_once_when_it_is_back(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock, close_seconds=20) as ledger:
        async with ledger.reserve(TEAM, TokenDemand("m", 10, 500)) as reservation:
            redis.kill()
            await until_down(ledger)
            reservation.progress(TokenUsage(10, 100))
            redis.start()
            reservation.settle(TokenUsage(10, 150))
        await until_used(redis, 160)
        assert held(redis) == 0


async def test_usage_that_redis_never_takes_is_an_error_at_the_end(
    redis: RedisProcess, clock: FakeClock
) -> None:
    with pytest.raises(UsageLost):
        async with shared_ledger(redis.url, clock, close_seconds=0.3) as ledger:
            redis.kill()
            await until_down(ledger)
            await spend(ledger, 70, FREE)


async def test_a_redis_that_is_not_there_is_named_without_its_password(
    redis: RedisProcess, clock: FakeClock
) -> None:
    redis.kill()
    config = RedisConfig(f"redis://user:hidden@127.0.0.1:{redis.port}/3")
    with pytest.raises(RedisUnusable) as refused:
        async with Line(config, clock=SystemClock(), start_seconds=0.3):
            pass
    assert f"REDIS_URL=redis://127.0.0.1:{redis.port}/3" in str(refused.value)
    assert "hidden" not in str(refused.value) + repr(config)


async def test_scripts_that_redis_was_told_to_forget_are_sent_again(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with shared_ledger(redis.url, clock) as ledger:
        with redis.client() as client:
            client.script_flush()
        await spend(ledger, 30)
        await until_used(redis, 30)
