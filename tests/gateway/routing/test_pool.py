"""Which models exist, who may be asked, and what a lease concludes from how it was left."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.breaker import BreakerConfig, BreakerState
from gateway.errors import (
    AnswerTooLarge,
    ClientDisconnected,
    ErrorKind,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from gateway.routing.upstream import Upstream
from tests.fakes.clock import FakeClock
from tests.gateway.routing.fleet import pool_of, unwell, upstream_of, well


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def everything(name: str) -> bool:
    return True


def only(*names: str) -> Callable[[str], bool]:
    return frozenset(names).__contains__


# resolve


def test_a_served_model_is_found_by_its_name(clock: FakeClock) -> None:
    pool = pool_of(
        upstream_of("a", clock=clock, models=["x"]), upstream_of("b", clock=clock, models=["y"])
    )
    assert pool.resolve("y", visible=everything).name == "y"


def test_models_are_the_union_of_what_upstreams_serve_by_name(clock: FakeClock) -> None:
    pool = pool_of(
        upstream_of("a", clock=clock, models=["y", "x"]),
        upstream_of("b", clock=clock, models=["x", "a"]),
    )
    assert [model.name for model in pool.models()] == ["a", "x", "y"]


def test_the_only_model_is_meant_where_none_is_named(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x"]))
    assert pool.resolve("", visible=everything).name == "x"


def test_the_only_visible_model_is_meant_where_none_is_named(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y"]))
    assert pool.resolve("", visible=only("y")).name == "y"


def test_the_default_model_is_meant_where_none_is_named(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y"]), default_model="y")
    assert pool.resolve("", visible=everything).name == "y"


def test_one_of_several_models_must_be_named(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y", "hidden"]))
    with pytest.raises(InvalidRequest) as refused:
        pool.resolve("", visible=only("x", "y"))
    assert refused.value.message == "Name a model: 'model' is missing. Served here: x, y."


def test_a_missing_name_lists_nothing_where_nothing_is_visible(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y"]))
    with pytest.raises(InvalidRequest) as refused:
        pool.resolve("", visible=only())
    assert refused.value.message == "Name a model: 'model' is missing."


def test_an_unknown_model_suggests_near_names_that_the_caller_may_see(clock: FakeClock) -> None:
    models = ["qwen-7b", "qwen-7b-secret", "gemma"]
    pool = pool_of(upstream_of("a", clock=clock, models=models))
    with pytest.raises(ModelNotFound) as refused:
        pool.resolve("qwen-7", visible=only("qwen-7b", "gemma"))
    assert refused.value.message.endswith("Did you mean qwen-7b?")
    assert refused.value.param == "model"


def test_an_endless_model_name_is_not_repeated_whole(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock))
    with pytest.raises(ModelNotFound) as refused:
        pool.resolve("z" * 10_000, visible=everything)
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("name", ["x", ""])
def test_an_unknown_model_may_be_that_of_an_upstream_never_reached(
    clock: FakeClock, name: str
) -> None:
    pool = pool_of(
        upstream_of("a", clock=clock, models=["y", "z"]), upstream_of("b", clock=clock, models=[])
    )
    with pytest.raises(UpstreamUnavailable) as refused:
        pool.resolve(name, visible=everything)
    assert refused.value.retry_after_seconds == 2.0


def test_a_model_stays_known_while_its_upstream_is_away(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock)
    upstream.learn(unwell())
    assert pool_of(upstream).resolve("m", visible=everything).name == "m"


def test_a_model_no_longer_listed_is_no_longer_known(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock, models=["old"])
    upstream.learn(well("new"))
    with pytest.raises(ModelNotFound):
        pool_of(upstream).resolve("old", visible=everything)


# lease


def test_a_lease_counts_as_in_flight_until_it_is_left(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock)
    pool = pool_of(upstream)
    with pool.lease("m", besides=()), pool.lease("m", besides=()):
        assert upstream.in_flight == 2
    assert upstream.in_flight == 0


def test_only_upstreams_that_serve_the_model_are_asked(clock: FakeClock) -> None:
    pool = pool_of(
        upstream_of("a", clock=clock, models=["x"]), upstream_of("b", clock=clock, models=["y"])
    )
    for _ in range(4):
        with pool.lease("y", besides=()) as lease:
            assert lease.upstream.name == "b"


def test_an_upstream_already_tried_is_not_asked_again(clock: FakeClock) -> None:
    first, second = upstream_of("a", clock=clock), upstream_of("b", clock=clock)
    pool = pool_of(first, second)
    with pool.lease("m", besides={first}) as lease:
        assert lease.upstream is second
    with pytest.raises(UpstreamUnavailable):
        pool.lease("m", besides={first, second})


def failed(upstream: Upstream) -> None:
    with pool_of(upstream).lease("m", besides=()) as lease:
        lease.fail()


def test_an_open_breaker_is_passed_by(clock: FakeClock) -> None:
    broken, sound = upstream_of("a", clock=clock), upstream_of("b", clock=clock)
    failed(broken)
    for _ in range(4):
        with pool_of(broken, sound).lease("m", besides=()) as lease:
            assert lease.upstream is sound


def test_with_every_breaker_open_the_first_to_close_says_when_to_come_back(
    clock: FakeClock,
) -> None:
    early, late = upstream_of("a", clock=clock), upstream_of("b", clock=clock)
    failed(early)
    clock.advance(2.0)
    failed(late)
    with pytest.raises(UpstreamUnavailable) as refused:
        pool_of(late, early).lease("m", besides=())
    assert refused.value.code == "circuit_open"
    assert refused.value.retry_after_seconds == pytest.approx(3.0)
    assert (early.in_flight, late.in_flight) == (0, 0)


def test_a_refused_lease_takes_no_probe(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock)
    failed(upstream)
    clock.advance(5.0)
    pool = pool_of(upstream)
    with pool.lease("m", besides=()), pytest.raises(UpstreamUnavailable):
        pool.lease("m", besides=())
    assert upstream.in_flight == 0
    with pool.lease("m", besides=()) as probe:
        probe.succeed()
    assert upstream.breaker.state is BreakerState.CLOSED


# Verdicts

REJECTION = UpstreamRejected("no", status=400, kind=ErrorKind.INVALID_REQUEST)


def leave_by(upstream: Upstream, error: BaseException) -> None:
    with pytest.raises(type(error)), pool_of(upstream).lease("m", besides=()):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        UpstreamFailed("500"),
        UpstreamTruncated("cut"),
        UpstreamTimeout("silent"),
        UpstreamUnavailable("503"),
    ],
)
def test_an_upstreams_failure_counts_against_it(clock: FakeClock, error: GatewayError) -> None:
    upstream = upstream_of("a", clock=clock)
    leave_by(upstream, error)
    assert upstream.breaker.state is BreakerState.OPEN


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        ClientDisconnected("left"),
        REJECTION,
        ValueError("ours"),
        UpstreamMisconfigured("401"),
        AnswerTooLarge("too large"),
    ],
)
def test_what_is_not_the_upstreams_fault_does_not_count_against_it(
    clock: FakeClock, error: BaseException
) -> None:
    upstream = upstream_of("a", clock=clock)
    leave_by(upstream, error)
    assert upstream.breaker.state is BreakerState.CLOSED


# A server whose engine is dead still refuses what is wrong with a request.
@pytest.mark.parametrize("error", [asyncio.CancelledError(), ClientDisconnected("left"), REJECTION])
def test_a_cancelled_or_rejected_probe_proves_nothing_and_makes_room_for_the_next(
    clock: FakeClock, error: BaseException
) -> None:
    upstream = upstream_of("a", clock=clock)
    failed(upstream)
    clock.advance(5.0)
    leave_by(upstream, error)
    assert upstream.breaker.state is BreakerState.HALF_OPEN
    assert upstream.breaker.permits


def test_a_probe_has_made_its_point_when_its_answer_begins(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock)
    failed(upstream)
    clock.advance(5.0)
    with pool_of(upstream).lease("m", besides=()) as lease:
        lease.begin_answer()
        assert upstream.breaker.state is BreakerState.CLOSED


def test_a_probe_that_began_well_and_died_counts_as_a_failure_all_the_same(
    clock: FakeClock,
) -> None:
    upstream = upstream_of("a", clock=clock)
    failed(upstream)
    clock.advance(5.0)
    with pytest.raises(UpstreamTruncated), pool_of(upstream).lease("m", besides=()) as lease:
        lease.begin_answer()
        raise UpstreamTruncated("cut")
    assert upstream.breaker.state is BreakerState.OPEN


def test_an_ordinary_answer_that_began_is_no_verdict_yet(clock: FakeClock) -> None:
    two_failures_open = BreakerConfig(failure_threshold=2)
    upstream = upstream_of("a", clock=clock, breaker=two_failures_open)
    failed(upstream)
    with pytest.raises(UpstreamTruncated), pool_of(upstream).lease("m", besides=()) as lease:
        lease.begin_answer()
        raise UpstreamTruncated("cut")
    assert upstream.breaker.state is BreakerState.OPEN


def test_one_call_is_one_failure_however_often_it_is_told(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock, breaker=BreakerConfig(failure_threshold=2))
    with pytest.raises(UpstreamFailed), pool_of(upstream).lease("m", besides=()) as lease:
        lease.upstream.learn(unwell())
        raise UpstreamFailed("500")
    assert upstream.breaker.state is BreakerState.CLOSED
