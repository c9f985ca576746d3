"""Questions that Redis gets late, after those of a later connection: they hold nothing any more."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import SharedStateUnavailable
from gateway.exchange import Principal, TokenUsage
from gateway.quota.ledger import TokenDemand
from gateway.quota.redis_ledger import RESERVE
from tests.fakes.clock import FakeClock
from tests.harness.detour import Detour
from tests.harness.redis import RedisProcess
from tests.harness.shared import SharedLedger, shared_ledger

TEAM = Principal("team", "Team", daily_token_quota=1000)
DAY = "2026-03-14"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(folder=tmp_path) as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def spend(ledger: SharedLedger, tokens: int) -> None:
    async with ledger.reserve(TEAM, TokenDemand("m", tokens, 0)) as reservation:
        reservation.settle(TokenUsage(tokens))


async def delivered(ledger: SharedLedger) -> None:
    async with asyncio.timeout(20):
        while not await ledger.courier.delivered():
            await asyncio.sleep(0.02)


def stored(server: RedisProcess) -> tuple[int, dict[str, str], int]:
    """Tokens held, what holds them, and how many run."""
    with server.client() as client:
        tokens = int(str(client.hget(f"gateway:held:{DAY}", "team") or 0))
        holds = {str(k): str(v) for k, v in dict(client.hgetall("gateway:holds:team")).items()}
        return tokens, holds, int(str(client.zcard("gateway:running:team")))


NOTHING: tuple[int, dict[str, str], int] = (0, {}, 0)


async def test_a_reservation_whose_caller_left_and_that_comes_late_holds_nothing(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with Detour(redis.port) as way, shared_ledger(way.url, clock) as ledger:
        way.hold_back(RESERVE.digest)
        call = asyncio.create_task(spend(ledger, 400))
        await way.until_held()
        call.cancel()
        await asyncio.wait([call])
        way.cut()
        await delivered(ledger)

        await way.deliver()
        assert stored(redis) == NOTHING
        # Those that are asked in their turn hold what they ask for.
        async with ledger.reserve(TEAM, TokenDemand("m", 900, 0)):
            assert stored(redis)[0] == 900


async def test_a_reservation_that_nobody_waited_for_and_that_comes_late_holds_nothing(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with (
        Detour(redis.port) as way,
        shared_ledger(way.url, clock, timeout_seconds=0.3) as ledger,
    ):
        way.hold_back(RESERVE.digest)
        with pytest.raises(SharedStateUnavailable):
            await spend(ledger, 400)
        way.cut()
        await delivered(ledger)

        await way.deliver()
        assert stored(redis) == NOTHING


async def test_a_reservation_that_comes_after_the_end_of_its_gateway_holds_nothing(
    redis: RedisProcess, clock: FakeClock
) -> None:
    async with Detour(redis.port) as way:
        async with shared_ledger(way.url, clock) as ledger:
            way.hold_back(RESERVE.digest)
            call = asyncio.create_task(spend(ledger, 400))
            await way.until_held()
            call.cancel()
            await asyncio.wait([call])
            way.cut()
        await way.deliver()
        assert stored(redis) == NOTHING


async def test_what_is_put_back_twice_brings_no_reservation_back(
    redis: RedisProcess, clock: FakeClock
) -> None:
    """Redis has forgotten, is told what the gateway knows, and is told again when that is over."""
    async with Detour(redis.port) as way, shared_ledger(way.url, clock) as ledger:
        async with ledger.reserve(TEAM, TokenDemand("m", 10, 390)) as reservation:
            reservation.progress(TokenUsage(10, 90))
            await delivered(ledger)
            way.hold_back(b'"keeps":[["team"')  # The last part of it.
            with redis.client() as client:
                client.flushall()
            ledger.courier.greet_soon()
            await way.until_held()
            way.cut()
            await delivered(ledger)
            assert stored(redis)[0] == 300
            reservation.settle(TokenUsage(10, 100))
        await delivered(ledger)
        assert stored(redis) == NOTHING

        await way.deliver()
        assert stored(redis) == NOTHING
        await spend(ledger, 5)
        assert (await ledger.report(TEAM, days=1)).today.total.total_tokens == 115
