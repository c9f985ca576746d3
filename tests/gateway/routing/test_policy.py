"""Who is picked among those that may be asked."""

from collections import Counter
from itertools import cycle

import pytest

from gateway.breaker import BreakerState
from gateway.routing.definition import UpstreamDefinition
from gateway.routing.policy import Available, LeastBurden, Policy, TwoChoices
from gateway.routing.replicas import replicas_of
from gateway.routing.upstream import Upstream
from tests.fakes.clock import FakeClock
from tests.gateway.routing.fleet import chat_with, pool_of, unwell, upstream_of, well

DEMAND = chat_with()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fleet(clock: FakeClock) -> list[Upstream]:
    return [upstream_of(name, clock=clock) for name in "abc"]


def policy() -> Policy:
    picker = TwoChoices(random=cycle([0.0, 0.4, 0.8]).__next__)
    return Policy(filtered=Available(), scored=LeastBurden(), picked=picker)


def picks(fleet: list[Upstream], count: int) -> Counter[str]:
    chooser, (tier,) = policy(), replicas_of(fleet).tiers
    found = (chooser.pick(tier, DEMAND, ()) for _ in range(count))
    return Counter(upstream.name for upstream in found if upstream is not None)


def weighing(name: str, weight: int, *, clock: FakeClock) -> Upstream:
    definition = UpstreamDefinition(name=name, url=f"http://{name}", weight=weight)
    return upstream_of(name, clock=clock, definition=definition)


def test_the_less_busy_of_two_is_picked(fleet: list[Upstream]) -> None:
    fleet[0].in_flight = 1
    assert picks(fleet[:2], 10) == {"b": 10}


def test_the_busiest_of_many_is_never_picked(fleet: list[Upstream]) -> None:
    fleet[0].in_flight, fleet[1].in_flight, fleet[2].in_flight = 3, 1, 2
    assert set(picks(fleet, 100)) == {"b", "c"}


def test_equals_take_turns(fleet: list[Upstream]) -> None:
    assert picks(fleet, 30) == {"a": 10, "b": 10, "c": 10}


def test_equals_take_turns_by_their_weight(clock: FakeClock) -> None:
    pair = [weighing("light", 20, clock=clock), weighing("heavy", 60, clock=clock)]
    assert picks(pair, 40) == {"light": 10, "heavy": 30}


def test_turns_are_spread_and_not_in_a_row(clock: FakeClock) -> None:
    pair = [weighing("a", 2, clock=clock), weighing("b", 4, clock=clock)]
    (tier,) = replicas_of(pair).tiers
    assert [upstream.name for upstream in tier.rotation] == ["b", "a", "b"]


def test_twice_the_weight_takes_twice_the_calls(clock: FakeClock) -> None:
    pair = [weighing("a", 1, clock=clock), weighing("b", 2, clock=clock)]
    pool = pool_of(*pair)
    for _ in range(30):
        pool.lease(DEMAND)
    assert [upstream.in_flight for upstream in pair] == [10, 20]


def test_calls_spread_evenly_while_they_last(clock: FakeClock) -> None:
    fleet = [upstream_of(str(number), clock=clock) for number in range(64)]
    pool = pool_of(*fleet)
    leases = [pool.lease(DEMAND) for _ in range(640)]
    assert {upstream.in_flight for upstream in fleet} <= set(range(8, 13))
    for lease in leases:
        lease.__exit__(None, None, None)


def test_two_of_many_are_looked_at_and_no_more(clock: FakeClock) -> None:
    looked: list[str] = []

    class Noted(Available):
        def admits(self, upstream: Upstream) -> bool:
            looked.append(upstream.name)
            return super().admits(upstream)

    chooser = Policy(filtered=Noted(), scored=LeastBurden(), picked=TwoChoices())
    pool = pool_of(*(upstream_of(str(number), clock=clock) for number in range(64)), policy=chooser)
    for _ in range(100):
        with pool.lease(DEMAND):
            pass
    assert len(looked) == 200


def test_where_two_cannot_take_it_any_other_that_can_does(clock: FakeClock) -> None:
    fleet = [upstream_of(str(number), clock=clock) for number in range(10)]
    pool = pool_of(*fleet)
    for upstream in fleet[1:]:
        upstream.breaker.acquire().fail()
    for _ in range(20):
        with pool.lease(DEMAND) as lease:
            assert lease.upstream is fleet[0]


def test_an_unhealthy_upstream_is_the_last_resort_however_idle(fleet: list[Upstream]) -> None:
    pool = pool_of(*fleet)
    fleet[0].learn(unwell())
    fleet[1].in_flight = fleet[2].in_flight = 100
    for _ in range(10):
        with pool.lease(DEMAND) as lease:
            assert lease.upstream is not fleet[0]


def test_unhealthy_upstreams_are_asked_where_there_is_no_other(fleet: list[Upstream]) -> None:
    pool = pool_of(*fleet[:2])
    for upstream in fleet[:2]:
        upstream.learn(unwell())
    fleet[0].in_flight = 1
    with pool.lease(DEMAND) as lease:
        assert lease.upstream is fleet[1]


# Slow start


def warming(clock: FakeClock) -> tuple[Upstream, Upstream]:
    """One that has long been there, and one that came back this moment."""
    old, new = (upstream_of(name, clock=clock, slow_start_seconds=10.0) for name in ("old", "new"))
    clock.advance(10.0)
    new.learn(unwell())
    new.learn(well("m"))
    return old, new


def share_of_the_second(pair: tuple[Upstream, Upstream]) -> float:
    pool = pool_of(*pair)
    leases = [pool.lease(DEMAND) for _ in range(100)]
    share = pair[1].in_flight / 100
    for lease in leases:
        lease.__exit__(None, None, None)
    return share


def test_who_came_back_gets_more_and_more_until_it_has_its_share(clock: FakeClock) -> None:
    pair = warming(clock)
    shares = []
    for _ in range(4):
        shares.append(share_of_the_second(pair))
        clock.advance(10 / 3)
    assert shares[0] < 0.1
    assert shares == sorted(shares)
    assert shares[-1] == 0.5


def test_who_is_new_to_the_gateway_gets_its_share_at_once(clock: FakeClock) -> None:
    pair = (
        upstream_of("old", clock=clock, slow_start_seconds=10.0),
        upstream_of("new", clock=clock, models=[], slow_start_seconds=10.0),
    )
    clock.advance(100.0)
    pair[1].learn(well("m"))
    assert share_of_the_second(pair) == 0.5


def test_a_half_open_upstream_is_asked_though_it_is_cold(clock: FakeClock) -> None:
    old, new = warming(clock)
    new.breaker.acquire().fail()
    clock.advance(5.0)
    assert new.breaker.state is BreakerState.HALF_OPEN
    pool = pool_of(old, new)
    asked = set()
    for _ in range(2):
        with pool.lease(DEMAND) as lease:
            asked.add(lease.upstream.name)
    assert "new" in asked
