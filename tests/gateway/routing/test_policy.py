"""Who is picked among those that may be asked."""

from collections import Counter

import pytest

from gateway.routing.policy import LeastInFlight
from gateway.routing.upstream import Upstream
from tests.fakes.clock import FakeClock
from tests.gateway.routing.fleet import pool_of, unwell, upstream_of


@pytest.fixture
def fleet() -> list[Upstream]:
    clock = FakeClock()
    return [upstream_of(name, clock=clock) for name in "abc"]


def test_the_least_busy_is_picked(fleet: list[Upstream]) -> None:
    fleet[0].in_flight, fleet[1].in_flight, fleet[2].in_flight = 3, 1, 2
    policy = LeastInFlight()
    assert [policy.pick(fleet).name for _ in range(5)] == ["b"] * 5


def test_equals_take_turns(fleet: list[Upstream]) -> None:
    policy = LeastInFlight()
    picked = Counter(policy.pick(fleet).name for _ in range(30))
    assert picked == {"a": 10, "b": 10, "c": 10}


def test_calls_spread_evenly_while_they_last(fleet: list[Upstream]) -> None:
    pool = pool_of(*fleet)
    leases = [pool.lease("m", besides=()) for _ in range(9)]
    assert [upstream.in_flight for upstream in fleet] == [3, 3, 3]
    for lease in leases:
        lease.__exit__(None, None, None)


def test_an_unhealthy_upstream_is_the_last_resort_however_idle(fleet: list[Upstream]) -> None:
    fleet[0].learn(unwell())
    fleet[1].in_flight = fleet[2].in_flight = 100
    policy = LeastInFlight()
    assert "a" not in {policy.pick(fleet).name for _ in range(10)}


def test_unhealthy_upstreams_are_asked_where_there_is_no_other(fleet: list[Upstream]) -> None:
    for upstream in fleet:
        upstream.learn(unwell())
    fleet[0].in_flight = fleet[2].in_flight = 1
    assert LeastInFlight().pick(fleet).name == "b"
