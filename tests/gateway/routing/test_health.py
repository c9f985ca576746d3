"""The prober: what it learns, whom it tells, and that it goes on looking."""

import asyncio

import pytest

from gateway.breaker import BreakerState
from gateway.exchange import Health
from gateway.routing.health import HealthProber, ProberConfig
from gateway.routing.upstream import Upstream
from tests.fakes.clock import FakeClock
from tests.gateway.routing.fleet import ScriptedProbe, chat_with, pool_of, unwell, upstream_of, well

AT_ONCE = ProberConfig(healthy_interval_seconds=0.0, unhealthy_interval_seconds=0.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Looking:
    """An upstream looked at until its probe has no more to say, and what was told of it."""

    def __init__(self, clock: FakeClock, *script: Health | Exception) -> None:
        self.probe = ScriptedProbe(*script)
        self.upstream = upstream_of("a", clock=clock, models=[], probe=self.probe)
        self.told: list[tuple[bool, str]] = []
        self._looks = len(script)

    def hear(self, upstream: Upstream) -> None:
        self.told.append((upstream.health.is_healthy, upstream.health.reason))

    async def run(self) -> None:
        async with HealthProber([self.upstream], config=AT_ONCE, on_change=self.hear):
            async with asyncio.timeout(1):
                while self.probe.looks < self._looks:
                    await asyncio.sleep(0)
                await asyncio.sleep(0)


async def test_an_upstream_is_unhealthy_and_unknown_until_first_asked(clock: FakeClock) -> None:
    upstream = Looking(clock).upstream
    assert not upstream.health.is_healthy
    assert not upstream.was_discovered


async def test_a_healthy_answer_brings_its_models(clock: FakeClock) -> None:
    looking = Looking(clock, well("x"))
    await looking.run()
    assert looking.upstream.health.is_healthy
    assert list(looking.upstream.models) == ["x"]
    assert looking.told == [(True, "")]


async def test_every_change_is_told_once_and_sameness_never(clock: FakeClock) -> None:
    looking = Looking(
        clock, well("x"), well("x"), unwell("why"), unwell("why"), unwell("other"), well("x")
    )
    await looking.run()
    assert looking.told == [(True, ""), (False, "why"), (False, "other"), (True, "")]


async def test_models_are_kept_while_the_upstream_is_away(clock: FakeClock) -> None:
    looking = Looking(clock, well("x"), unwell())
    await looking.run()
    assert not looking.upstream.health.is_healthy
    assert list(looking.upstream.models) == ["x"]


async def test_coming_back_lets_an_open_breaker_probe_at_once(clock: FakeClock) -> None:
    looking = Looking(clock, unwell(), well("m"))
    looking.upstream.learn(well("m"))
    with pool_of(looking.upstream).lease(chat_with()) as lease:
        lease.fail()
    assert not looking.upstream.breaker.permits
    await looking.run()
    assert looking.upstream.breaker.state is BreakerState.HALF_OPEN


async def test_staying_well_opens_no_breaker_early(clock: FakeClock) -> None:
    looking = Looking(clock, well("m"), well("m"))
    looking.upstream.learn(well("m"))
    with pool_of(looking.upstream).lease(chat_with()) as lease:
        lease.fail()
    await looking.run()
    assert looking.upstream.breaker.state is BreakerState.OPEN


async def test_a_probe_that_raises_is_ill_health_and_not_the_end_of_probing(
    clock: FakeClock,
) -> None:
    looking = Looking(clock, well("x"), RecursionError("nested too deep"), well("x"))
    await looking.run()
    assert [is_healthy for is_healthy, _ in looking.told] == [True, False, True]
    assert "nested too deep" in looking.told[1][1]


async def test_each_upstream_is_looked_at_on_its_own(clock: FakeClock) -> None:
    hung = upstream_of("hung", clock=clock, models=[], probe=ScriptedProbe())
    quick = upstream_of("quick", clock=clock, models=[], probe=ScriptedProbe(well("x")))
    async with HealthProber([hung, quick], config=AT_ONCE, on_change=lambda _: None):
        await asyncio.sleep(0.01)
        assert quick.health.is_healthy


async def test_leaving_ends_every_task(clock: FakeClock) -> None:
    before = len(asyncio.all_tasks())
    upstream = upstream_of("a", clock=clock, probe=ScriptedProbe())
    async with HealthProber([upstream], config=AT_ONCE, on_change=lambda _: None):
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before + 1
    assert len(asyncio.all_tasks()) == before


async def test_an_unhealthy_upstream_is_looked_at_more_often(clock: FakeClock) -> None:
    config = ProberConfig(healthy_interval_seconds=60.0, unhealthy_interval_seconds=0.0)
    probe = ScriptedProbe(unwell(), unwell(), well("x"), well("x"))
    upstream = upstream_of("a", clock=clock, models=[], probe=probe)
    async with HealthProber([upstream], config=config, on_change=lambda _: None):
        await asyncio.sleep(0.02)
    assert probe.looks == 3
