"""Sessions: one replica for each, as long as it can take them, and even loads all the same."""

from collections import Counter

import pytest

from gateway.routing.definition import UpstreamDefinition
from gateway.routing.policy import Available, LeastBurden, Policy, TwoChoices
from gateway.routing.pool import UpstreamPool
from gateway.routing.sticky import Sticky
from tests.fakes.clock import FakeClock
from tests.gateway.routing.fleet import chat_with, pool_of, upstream_of

SESSIONS = [f"session-{number}".encode() for number in range(600)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def sticky_pool(names: str, clock: FakeClock, **weights: int) -> UpstreamPool:
    upstreams = [
        upstream_of(
            name,
            clock=clock,
            definition=UpstreamDefinition(
                name=name, url=f"http://{name}", weight=weights.get(name, 1)
            ),
        )
        for name in names
    ]
    policy = Policy(filtered=Available(), scored=LeastBurden(), picked=Sticky(TwoChoices()))
    return pool_of(*upstreams, policy=policy)


def homes(pool: UpstreamPool) -> dict[bytes, str]:
    found = {}
    for session in SESSIONS:
        with pool.lease(chat_with(session=session)) as lease:
            found[session] = lease.upstream.name
    return found


def test_a_session_has_one_home_in_every_gateway(clock: FakeClock) -> None:
    assert homes(sticky_pool("abc", clock)) == homes(sticky_pool("cab", clock))


def test_sessions_spread_over_all(clock: FakeClock) -> None:
    counts = Counter(homes(sticky_pool("abcd", clock)).values())
    assert all(110 < counts[name] < 190 for name in "abcd")


def test_sessions_spread_by_weight(clock: FakeClock) -> None:
    counts = Counter(homes(sticky_pool("ab", clock, a=3)).values())
    assert 400 < counts["a"] < 500


def test_when_one_goes_only_its_own_sessions_move(clock: FakeClock) -> None:
    before, after = homes(sticky_pool("abcd", clock)), homes(sticky_pool("abc", clock))
    moved = {session for session in SESSIONS if before[session] != after[session]}
    assert moved == {session for session in SESSIONS if before[session] == "d"}


def test_a_session_leaves_an_overloaded_home_and_comes_back(clock: FakeClock) -> None:
    pool, wish = sticky_pool("abc", clock), chat_with(session=b"s")
    home = pool.lease(wish).upstream
    home.in_flight = 50
    with pool.lease(wish) as lease:
        assert lease.upstream is not home
    home.in_flight = 0
    with pool.lease(wish) as lease:
        assert lease.upstream is home


def test_a_session_leaves_a_home_that_fails(clock: FakeClock) -> None:
    pool, wish = sticky_pool("abc", clock), chat_with(session=b"s")
    with pool.lease(wish) as first:
        home = first.upstream
        first.fail()
    with pool.lease(wish) as lease:
        assert lease.upstream is not home
    with pool.lease(wish, besides=[lease.upstream]) as other:
        assert other.upstream not in (home, lease.upstream)


def test_what_names_no_session_is_spread_as_ever(clock: FakeClock) -> None:
    pool = sticky_pool("abc", clock)
    leases = [pool.lease(chat_with()) for _ in range(30)]
    assert {upstream.in_flight for upstream in pool.upstreams} <= {9, 10, 11}
    assert len(leases) == 30
