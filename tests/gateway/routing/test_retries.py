"""Asking again: whom, when, how often, and when no more."""

import asyncio
import contextlib

import pytest

from gateway.errors import (
    GatewayError,
    Overloaded,
    UpstreamErred,
    UpstreamFailed,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.routing.definition import UpstreamDefinition
from gateway.routing.retries import SAVED_MAX, Attempts, Retries, RetryBudget, RetryConfig
from gateway.routing.upstream import Upstream
from tests.fakes.clock import FakeClock
from tests.gateway.routing.fleet import PATIENT, chat_with, pool_of, upstream_of

GONE = UpstreamUnreachable("gone", retry_after_seconds=1.0)
BROKEN = UpstreamErred("500")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def replicas(count: int, clock: FakeClock) -> list[Upstream]:
    return [upstream_of(f"u{number}", clock=clock, breaker=PATIENT) for number in range(count)]


def retries(*upstreams: Upstream, clock: FakeClock, config: RetryConfig | None = None) -> Retries:
    # A random number of 0 makes each pause half of its bound.
    return Retries(
        pool_of(*upstreams), config=config or RetryConfig(), clock=clock, random=lambda: 0.0
    )


async def ask(attempts: Attempts, failure: GatewayError) -> str:
    """One try that fails; the name of who was asked."""
    with attempts.lease() as lease:
        pass
    await attempts.go_on(lease.upstream, failure)
    return lease.upstream.name


async def test_each_replica_is_asked_before_any_is_asked_again(clock: FakeClock) -> None:
    attempts = retries(*replicas(3, clock), clock=clock).begin(chat_with())
    asked = [await ask(attempts, GONE) for _ in range(3)]
    assert sorted(asked) == ["u0", "u1", "u2"]


async def test_a_call_is_tried_no_more_often_than_configured(clock: FakeClock) -> None:
    shared = retries(*replicas(9, clock), clock=clock, config=RetryConfig(attempts=2))
    attempts = shared.begin(chat_with())
    await ask(attempts, BROKEN)
    await ask(attempts, BROKEN)
    with pytest.raises(UpstreamErred):
        await ask(attempts, BROKEN)


async def test_without_further_attempts_the_first_failure_is_the_answer(clock: FakeClock) -> None:
    shared = retries(*replicas(2, clock), clock=clock, config=RetryConfig(attempts=0))
    with pytest.raises(UpstreamErred):
        await ask(shared.begin(chat_with()), BROKEN)


async def test_who_took_no_work_is_asked_again_after_growing_pauses(clock: FakeClock) -> None:
    config = RetryConfig(attempts=5)
    attempts = retries(*replicas(2, clock), clock=clock, config=config).begin(chat_with())
    loop = asyncio.get_running_loop()
    pauses = []
    for _ in range(4):
        began_at = loop.time()
        await ask(attempts, GONE)
        pauses.append(loop.time() - began_at)
    assert pauses[0] < 0.02 and pauses[2] < 0.02
    assert 0.024 < pauses[1] < pauses[3]
    assert pauses[3] > 0.049


async def test_the_first_failure_is_told_of_many(clock: FakeClock) -> None:
    attempts = retries(*replicas(2, clock), clock=clock).begin(chat_with())
    await ask(attempts, UpstreamFailed("the first"))
    with pytest.raises(UpstreamFailed, match="the first"):
        await ask(attempts, UpstreamFailed("the second"))


@pytest.mark.parametrize(
    "failure", [BROKEN, UpstreamUnavailable("later", retry_after_seconds=30.0)]
)
async def test_no_pause_mends_a_failure_that_may_be_the_requests_doing_or_lasts(
    clock: FakeClock, failure: GatewayError
) -> None:
    attempts = retries(*replicas(2, clock), clock=clock).begin(chat_with())
    await ask(attempts, failure)
    with pytest.raises(type(failure)):
        await ask(attempts, failure)


async def test_a_single_replica_is_asked_once(clock: FakeClock) -> None:
    attempts = retries(*replicas(1, clock), clock=clock).begin(chat_with())
    with pytest.raises(UpstreamUnreachable):
        await ask(attempts, GONE)


async def test_the_failure_is_told_rather_than_that_the_others_are_full(clock: FakeClock) -> None:
    full = upstream_of(
        "full",
        clock=clock,
        definition=UpstreamDefinition(name="full", url="http://full", max_in_flight=1),
    )
    shared = retries(*replicas(1, clock), full, clock=clock)
    held = shared.pool.lease(chat_with(), besides=[shared.pool.upstreams[0]])
    with pytest.raises(UpstreamErred):
        await ask(shared.begin(chat_with()), BROKEN)
    held.__exit__(None, None, None)


async def test_full_replicas_are_an_overload(clock: FakeClock) -> None:
    full = upstream_of(
        "full",
        clock=clock,
        definition=UpstreamDefinition(name="full", url="http://full", max_in_flight=1),
    )
    pool = pool_of(full)
    with pool.lease(chat_with()), pytest.raises(Overloaded) as refused:
        pool.lease(chat_with())
    assert refused.value.retry_after_seconds == 1.0
    assert full.in_flight == 0


# The budget


async def test_the_first_move_is_free_and_later_ones_are_not(clock: FakeClock) -> None:
    config = RetryConfig(budget_ratio=0.0, budget_per_second=0.0)
    shared = retries(*replicas(3, clock), clock=clock, config=config)
    for _ in range(1000):
        await ask(shared.begin(chat_with()), BROKEN)
    moved_twice = 0
    for _ in range(200):
        attempts = shared.begin(chat_with())
        await ask(attempts, BROKEN)
        with contextlib.suppress(UpstreamErred):
            await ask(attempts, BROKEN)
            moved_twice += 1
    assert moved_twice == SAVED_MAX


def spent(budget: RetryBudget) -> int:
    """How many retries could be had at this moment."""
    count = 0
    while budget.take():
        count += 1
    return count


def test_calls_earn_their_share_of_retries(clock: FakeClock) -> None:
    budget = RetryBudget(RetryConfig(budget_ratio=0.25, budget_per_second=0.0), clock=clock)
    assert spent(budget) == SAVED_MAX
    for _ in range(40):
        budget.earn()
    assert spent(budget) == 10


def test_some_retries_are_earned_where_there_is_little_traffic(clock: FakeClock) -> None:
    budget = RetryBudget(RetryConfig(budget_ratio=0.2, budget_per_second=2.0), clock=clock)
    spent(budget)
    clock.advance(3.0)
    assert spent(budget) == 6


def test_what_is_not_spent_is_not_saved_for_ever(clock: FakeClock) -> None:
    budget = RetryBudget(RetryConfig(), clock=clock)
    for _ in range(10_000):
        budget.earn()
    clock.advance(1_000_000.0)
    assert spent(budget) == SAVED_MAX
