"""What every counter of rate windows promises, in this process or shared through Redis."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from gateway.clock import SystemClock
from gateway.exchange import RateLimit
from gateway.ratelimit import UNLIMITED, Decision, MemoryRateLimiter
from gateway.shared.config import RedisConfig
from gateway.shared.line import Line
from gateway.sharedlimits import HIT, SharedRateLimiter
from tests.fakes.clock import FakeClock
from tests.harness.redis import RedisProcess

Hit = Callable[..., Awaitable[Decision]]
TEN_A_MINUTE = (RateLimit(10, 60.0),)
SEVEN_A_MINUTE = (RateLimit(7, 60.0),)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(folder=tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def hit(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Hit]:
    if request.param == "memory":
        memory = MemoryRateLimiter(clock=clock)

        async def in_memory(key: str, limits: tuple[RateLimit, ...]) -> Decision:
            return memory.hit(key, limits)

        yield in_memory
        return
    server: RedisProcess = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    config = RedisConfig(server.url, timeout_seconds=5.0)
    async with Line(config, clock=SystemClock(), scripts=(HIT,)) as line:
        shared = SharedRateLimiter(line)

        async def in_redis(key: str, limits: tuple[RateLimit, ...]) -> Decision:
            return await shared.hit(key, limits, now=str(round(clock.monotonic() * 1e6)))

        yield in_redis


async def test_a_burst_is_exactly_as_long_as_the_limit(hit: Hit) -> None:
    for limits, amount in ((TEN_A_MINUTE, 10), (SEVEN_A_MINUTE, 7)):
        decisions = [await hit("key", limits) for _ in range(amount + 1)]
        assert [d.allowed for d in decisions] == [True] * amount + [False]
        assert [d.remaining for d in decisions] == [*reversed(range(amount)), 0]
        assert {d.limit for d in decisions} == {amount}


async def test_a_refusal_says_when_the_next_hit_fits_and_it_does(
    hit: Hit, clock: FakeClock
) -> None:
    for _ in range(7):
        await hit("key", SEVEN_A_MINUTE)
    refused = await hit("key", SEVEN_A_MINUTE)
    assert refused.retry_after_seconds == pytest.approx(60 / 7, abs=1e-3)
    assert refused.reset_after_seconds == pytest.approx(60, abs=1e-3)
    clock.advance(refused.retry_after_seconds - 0.01)
    assert not (await hit("key", SEVEN_A_MINUTE)).allowed
    clock.advance(0.011)
    assert (await hit("key", SEVEN_A_MINUTE)).allowed


async def test_an_idle_window_is_whole_again(hit: Hit, clock: FakeClock) -> None:
    for _ in range(10):
        await hit("key", TEN_A_MINUTE)
    clock.advance(60.001)
    decision = await hit("key", TEN_A_MINUTE)
    assert (decision.remaining, decision.allowed) == (9, True)
    assert decision.reset_after_seconds == pytest.approx(6, abs=1e-3)


async def test_keys_are_counted_apart(hit: Hit) -> None:
    for _ in range(10):
        await hit("one", TEN_A_MINUTE)
    assert not (await hit("one", TEN_A_MINUTE)).allowed
    assert (await hit("two", TEN_A_MINUTE)).remaining == 9


async def test_of_several_windows_a_refusal_takes_from_none(hit: Hit, clock: FakeClock) -> None:
    limits = (RateLimit(2, 1.0), RateLimit(10, 60.0))
    assert (await hit("key", limits)).limit == 2
    await hit("key", limits)
    for _ in range(20):
        assert (await hit("key", limits)).limit == 2
    clock.advance(1.001)
    decision = await hit("key", limits)
    assert decision.allowed
    # Three hits of the minute's ten were taken, not twenty-three.
    clock.advance(1.001)
    for _ in range(2):
        await hit("key", limits)
    clock.advance(1.001)
    rest = [await hit("key", (RateLimit(10, 60.0),)) for _ in range(6)]
    assert [d.allowed for d in rest] == [True] * 5 + [False]


async def test_no_limit_is_no_limit(hit: Hit) -> None:
    assert await hit("key", ()) == UNLIMITED


async def test_a_clock_that_steps_back_gives_nothing_away(hit: Hit, clock: FakeClock) -> None:
    for _ in range(10):
        await hit("key", TEN_A_MINUTE)
    assert not (await hit("key", TEN_A_MINUTE)).allowed
