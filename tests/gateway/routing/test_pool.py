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
from gateway.exchange import Operation
from gateway.routing.definition import Kind, UpstreamDefinition
from gateway.routing.demand import RoutingDemand
from gateway.routing.upstream import Upstream
from tests.fakes.clock import FakeClock
from tests.gateway.routing.fleet import chat_with, pool_of, unwell, upstream_of, well


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
    assert pool.catalogue.resolve("y", visible=everything).name == "y"


def test_models_are_the_union_of_what_upstreams_serve_by_name(clock: FakeClock) -> None:
    pool = pool_of(
        upstream_of("a", clock=clock, models=["y", "x"]),
        upstream_of("b", clock=clock, models=["x", "a"]),
    )
    assert [model.name for model in pool.catalogue.models()] == ["a", "x", "y"]


def test_the_only_model_is_meant_where_none_is_named(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x"]))
    assert pool.catalogue.resolve("", visible=everything).name == "x"


def test_the_only_visible_model_is_meant_where_none_is_named(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y"]))
    assert pool.catalogue.resolve("", visible=only("y")).name == "y"


def test_the_default_model_is_meant_where_none_is_named(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y"]), default_model="y")
    assert pool.catalogue.resolve("", visible=everything).name == "y"


def test_one_of_several_models_must_be_named(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y", "hidden"]))
    with pytest.raises(InvalidRequest) as refused:
        pool.catalogue.resolve("", visible=only("x", "y"))
    assert refused.value.message == "Name a model: 'model' is missing. Served here: x, y."


def test_a_missing_name_lists_nothing_where_nothing_is_visible(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y"]))
    with pytest.raises(InvalidRequest) as refused:
        pool.catalogue.resolve("", visible=only())
    assert refused.value.message == "Name a model: 'model' is missing."


def test_an_unknown_model_suggests_near_names_that_the_caller_may_see(clock: FakeClock) -> None:
    models = ["qwen-7b", "qwen-7b-secret", "gemma"]
    pool = pool_of(upstream_of("a", clock=clock, models=models))
    with pytest.raises(ModelNotFound) as refused:
        pool.catalogue.resolve("qwen-7", visible=only("qwen-7b", "gemma"))
    assert refused.value.message.endswith("Did you mean qwen-7b?")
    assert refused.value.param == "model"


def test_an_endless_model_name_is_not_repeated_whole(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock))
    with pytest.raises(ModelNotFound) as refused:
        pool.catalogue.resolve("z" * 10_000, visible=everything)
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("name", ["x", ""])
def test_an_unknown_model_may_be_that_of_an_upstream_never_reached(
    clock: FakeClock, name: str
) -> None:
    pool = pool_of(
        upstream_of("a", clock=clock, models=["y", "z"]), upstream_of("b", clock=clock, models=[])
    )
    with pytest.raises(UpstreamUnavailable) as refused:
        pool.catalogue.resolve(name, visible=everything)
    assert refused.value.retry_after_seconds == 2.0


def test_a_model_stays_known_while_its_upstream_is_away(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock)
    upstream.learn(unwell())
    assert pool_of(upstream).catalogue.resolve("m", visible=everything).name == "m"


def test_a_model_no_longer_listed_is_no_longer_known(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock, models=["old"])
    upstream.learn(well("new"))
    with pytest.raises(ModelNotFound):
        pool_of(upstream).catalogue.resolve("old", visible=everything)


# Kinds and aliases


def of_kind(name: str, kind: Kind, clock: FakeClock, *models: str) -> Upstream:
    definition = UpstreamDefinition(name=name, url=f"http://{name}", kinds=frozenset({kind}))
    return upstream_of(name, clock=clock, models=models, definition=definition)


def test_each_kind_of_call_goes_to_its_kind_of_upstream(clock: FakeClock) -> None:
    pool = pool_of(
        of_kind("gen", Kind.GENERATE, clock, "m"), of_kind("emb", Kind.EMBED, clock, "m")
    )
    for operation, name in ((Operation.CHAT, "gen"), (Operation.EMBEDDINGS, "emb")):
        pool.catalogue.resolve("m", operation=operation, visible=everything)
        for _ in range(3):
            with pool.lease(RoutingDemand("m", operation)) as lease:
                assert lease.upstream.name == name


def test_a_call_of_the_wrong_kind_is_told_what_the_model_does(clock: FakeClock) -> None:
    pool = pool_of(of_kind("emb", Kind.EMBED, clock, "bge"))
    with pytest.raises(InvalidRequest, match="'bge' does embeddings only") as refused:
        pool.catalogue.resolve("bge", operation=Operation.CHAT, visible=everything)
    assert (refused.value.param, refused.value.code) == ("model", "unsupported_operation")


def test_the_only_model_of_a_kind_is_meant_where_none_is_named(clock: FakeClock) -> None:
    pool = pool_of(
        of_kind("gen", Kind.GENERATE, clock, "llama"), of_kind("emb", Kind.EMBED, clock, "bge")
    )
    resolve = pool.catalogue.resolve
    assert resolve("", operation=Operation.EMBEDDINGS, visible=everything).name == "bge"
    assert resolve("", operation=Operation.CHAT, visible=everything).name == "llama"


def test_anthropic_calls_go_to_whoever_generates(clock: FakeClock) -> None:
    translated = of_kind("gen", Kind.GENERATE, clock, "m")
    pool = pool_of(translated)
    with pool.lease(RoutingDemand("m", Operation.MESSAGES)) as lease:
        assert Operation.MESSAGES not in lease.upstream.operations


def test_an_alias_stands_for_a_model_and_a_models_own_name_for_itself(clock: FakeClock) -> None:
    aliases = {"gpt-4o": "x", "y": "x", "claude-*": "x", "claude-3-*": "y", "gone": "z"}
    pool = pool_of(upstream_of("a", clock=clock, models=["x", "y"]), aliases=aliases)
    meant = {
        name: pool.catalogue.resolve(name, visible=everything).name
        for name in ("gpt-4o", "y", "claude-sonnet-4", "claude-3-opus")
    }
    assert meant == {"gpt-4o": "x", "y": "y", "claude-sonnet-4": "x", "claude-3-opus": "y"}
    for unknown in ("gone", "claude-" + "x" * 300):
        with pytest.raises(ModelNotFound):
            pool.catalogue.resolve(unknown, visible=everything)


def test_models_that_were_said_are_known_before_the_upstream_is(clock: FakeClock) -> None:
    said = UpstreamDefinition(name="a", url="http://a", models=frozenset({"x", "y"}))
    upstream = upstream_of("a", clock=clock, models=[], definition=said)
    pool = pool_of(upstream)
    assert pool.catalogue.resolve("y", visible=everything).context_tokens is None

    upstream.learn(well("x", "z"))
    assert [model.name for model in pool.catalogue.models()] == ["x"]
    assert upstream.unlisted_models == {"y"}


def test_what_an_upstream_comes_to_serve_is_known_at_once(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock, models=["old"])
    pool = pool_of(upstream)
    assert pool.lease(chat_with("old")).upstream is upstream
    upstream.learn(well("old", "lora"))
    assert pool.catalogue.resolve("lora", visible=everything).name == "lora"
    assert pool.lease(chat_with("lora")).upstream is upstream


# lease


def test_a_lease_counts_as_in_flight_until_it_is_left(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock)
    pool = pool_of(upstream)
    with pool.lease(chat_with()), pool.lease(chat_with()):
        assert upstream.in_flight == 2
    assert upstream.in_flight == 0


def test_only_upstreams_that_serve_the_model_are_asked(clock: FakeClock) -> None:
    pool = pool_of(
        upstream_of("a", clock=clock, models=["x"]), upstream_of("b", clock=clock, models=["y"])
    )
    for _ in range(4):
        with pool.lease(chat_with("y")) as lease:
            assert lease.upstream.name == "b"


def test_an_upstream_already_tried_is_not_asked_again(clock: FakeClock) -> None:
    first, second = upstream_of("a", clock=clock), upstream_of("b", clock=clock)
    pool = pool_of(first, second)
    with pool.lease(chat_with(), besides={first}) as lease:
        assert lease.upstream is second
    with pytest.raises(UpstreamUnavailable):
        pool.lease(chat_with(), besides={first, second})


def bounded(name: str, most: int, clock: FakeClock) -> Upstream:
    definition = UpstreamDefinition(name=name, url=f"http://{name}", max_in_flight=most)
    return upstream_of(name, clock=clock, definition=definition)


CHATS = chat_with()[:2]


def test_there_is_room_until_every_replica_has_what_it_may_take(clock: FakeClock) -> None:
    pool = pool_of(bounded("a", 1, clock), bounded("b", 1, clock))
    assert pool.is_bounded
    assert pool.has_room(CHATS, promised=1)
    with pool.lease(chat_with()):
        assert pool.has_room(CHATS, promised=0)
        assert not pool.has_room(CHATS, promised=1)
        with pool.lease(chat_with()):
            assert not pool.has_room(CHATS, promised=0)
    assert pool.has_room(CHATS, promised=0)


def test_without_a_bound_there_is_always_room(clock: FakeClock) -> None:
    pool = pool_of(upstream_of("a", clock=clock))
    assert not pool.is_bounded
    assert pool_of(bounded("a", 1, clock), upstream_of("b", clock=clock)).has_room(
        CHATS, promised=1000
    )


def test_a_slot_whose_circuit_is_open_is_no_room(clock: FakeClock) -> None:
    failing, busy = bounded("a", 5, clock), bounded("b", 1, clock)
    pool = pool_of(failing, busy)
    failed(failing)
    with pool.lease(chat_with()):
        assert not pool.has_room(CHATS, promised=0)


def test_waiting_for_who_is_well_is_better_than_asking_who_is_not(clock: FakeClock) -> None:
    busy, ill = bounded("a", 1, clock), bounded("b", 5, clock)
    ill.learn(unwell())
    pool = pool_of(busy, ill)
    with pool.lease(chat_with()):
        assert not pool.has_room(CHATS, promised=0)


def test_where_nobody_can_be_asked_waiting_is_of_no_use(clock: FakeClock) -> None:
    failing = bounded("a", 5, clock)
    pool = pool_of(failing)
    failed(failing)
    assert pool.has_room(CHATS, promised=0)
    assert pool.has_room(("nothing", Operation.CHAT), promised=0)


def failed(upstream: Upstream) -> None:
    with pool_of(upstream).lease(chat_with()) as lease:
        lease.fail()


def test_an_open_breaker_is_passed_by(clock: FakeClock) -> None:
    broken, sound = upstream_of("a", clock=clock), upstream_of("b", clock=clock)
    failed(broken)
    for _ in range(4):
        with pool_of(broken, sound).lease(chat_with()) as lease:
            assert lease.upstream is sound


def test_with_every_breaker_open_the_first_to_close_says_when_to_come_back(
    clock: FakeClock,
) -> None:
    early, late = upstream_of("a", clock=clock), upstream_of("b", clock=clock)
    failed(early)
    clock.advance(2.0)
    failed(late)
    with pytest.raises(UpstreamUnavailable) as refused:
        pool_of(late, early).lease(chat_with())
    assert refused.value.code == "circuit_open"
    assert refused.value.retry_after_seconds == pytest.approx(3.0)
    assert (early.in_flight, late.in_flight) == (0, 0)


def test_a_refused_lease_takes_no_probe(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock)
    failed(upstream)
    clock.advance(5.0)
    pool = pool_of(upstream)
    with pool.lease(chat_with()), pytest.raises(UpstreamUnavailable):
        pool.lease(chat_with())
    assert upstream.in_flight == 0
    with pool.lease(chat_with()) as probe:
        probe.succeed()
    assert upstream.breaker.state is BreakerState.CLOSED


# Verdicts

REJECTION = UpstreamRejected("no", status=400, kind=ErrorKind.INVALID_REQUEST)


def leave_by(upstream: Upstream, error: BaseException) -> None:
    with pytest.raises(type(error)), pool_of(upstream).lease(chat_with()):
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
    with pool_of(upstream).lease(chat_with()) as lease:
        lease.begin_answer()
        assert upstream.breaker.state is BreakerState.CLOSED


def test_a_probe_that_began_well_and_died_counts_as_a_failure_all_the_same(
    clock: FakeClock,
) -> None:
    upstream = upstream_of("a", clock=clock)
    failed(upstream)
    clock.advance(5.0)
    with pytest.raises(UpstreamTruncated), pool_of(upstream).lease(chat_with()) as lease:
        lease.begin_answer()
        raise UpstreamTruncated("cut")
    assert upstream.breaker.state is BreakerState.OPEN


def test_an_ordinary_answer_that_began_is_no_verdict_yet(clock: FakeClock) -> None:
    two_failures_open = BreakerConfig(failure_threshold=2)
    upstream = upstream_of("a", clock=clock, breaker=two_failures_open)
    failed(upstream)
    with pytest.raises(UpstreamTruncated), pool_of(upstream).lease(chat_with()) as lease:
        lease.begin_answer()
        raise UpstreamTruncated("cut")
    assert upstream.breaker.state is BreakerState.OPEN


def test_one_call_is_one_failure_however_often_it_is_told(clock: FakeClock) -> None:
    upstream = upstream_of("a", clock=clock, breaker=BreakerConfig(failure_threshold=2))
    with pytest.raises(UpstreamFailed), pool_of(upstream).lease(chat_with()) as lease:
        lease.upstream.learn(unwell())
        raise UpstreamFailed("500")
    assert upstream.breaker.state is BreakerState.CLOSED
