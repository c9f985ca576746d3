"""What the circuit breaker promises, rule by rule, and under any order of events."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.breaker import (
    BreakerConfig,
    BreakerState,
    CallNotPermitted,
    CircuitBreaker,
    Permit,
)
from tests.fakes.clock import FakeClock

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

UNJITTERED = BreakerConfig(jitter_ratio=0.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker(UNJITTERED, clock=clock)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.acquire().fail()


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.acquire().succeed()


def reopen_by_probe(breaker: CircuitBreaker, clock: FakeClock) -> float:
    """Let one probe fail; returns the open time that follows."""
    clock.advance(breaker.retry_after_seconds)
    fail(breaker)
    return breaker.retry_after_seconds


def test_new_breaker_permits(breaker: CircuitBreaker) -> None:
    assert breaker.state is CLOSED
    assert breaker.permits
    assert breaker.retry_after_seconds == 0.0


def test_failures_in_a_row_open_at_the_threshold(breaker: CircuitBreaker) -> None:
    fail(breaker, times=4)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN
    assert not breaker.permits


def test_a_success_between_failures_starts_the_row_again(breaker: CircuitBreaker) -> None:
    fail(breaker, times=4)
    succeed(breaker)
    fail(breaker, times=4)
    assert breaker.state is CLOSED


def test_a_release_between_failures_says_nothing(breaker: CircuitBreaker) -> None:
    fail(breaker, times=4)
    breaker.acquire().release()
    fail(breaker)
    assert breaker.state is OPEN


def test_half_of_twenty_recent_calls_failing_opens(breaker: CircuitBreaker) -> None:
    for _ in range(9):
        succeed(breaker)
        fail(breaker)
    succeed(breaker)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_too_few_calls_have_no_ratio(breaker: CircuitBreaker) -> None:
    for _ in range(4):
        succeed(breaker)
        fail(breaker, times=3)
    assert breaker.state is CLOSED


def test_a_ratio_below_the_bound_keeps_it_closed(breaker: CircuitBreaker) -> None:
    for _ in range(100):
        succeed(breaker, times=2)
        fail(breaker)
    assert breaker.state is CLOSED


def test_calls_older_than_the_window_do_not_count(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(9):
        succeed(breaker)
        fail(breaker)
    clock.advance(UNJITTERED.ratio_window_seconds)
    succeed(breaker)
    fail(breaker)
    assert breaker.state is CLOSED


def test_the_window_slides_and_keeps_what_is_recent(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(10):
        succeed(breaker, times=2)
        fail(breaker)
        clock.advance(0.5)
    for _ in range(5):
        succeed(breaker)
        fail(breaker, times=3)
        clock.advance(0.1)
        if breaker.state is OPEN:
            break
    assert breaker.state is OPEN


def test_open_breaker_permits_after_the_open_time_and_not_before(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    fail(breaker, times=5)
    clock.advance(4.999)
    assert not breaker.permits
    clock.advance(0.001)
    assert breaker.permits
    assert breaker.state is HALF_OPEN


def test_retry_after_is_the_rest_of_the_open_time(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    fail(breaker, times=5)
    assert breaker.retry_after_seconds == pytest.approx(5.0)
    clock.advance(2.0)
    assert breaker.retry_after_seconds == pytest.approx(3.0)
    clock.advance(3.1)
    assert breaker.retry_after_seconds == 0.0


def test_acquire_from_an_open_breaker_raises_with_the_time_to_wait(
    breaker: CircuitBreaker,
) -> None:
    fail(breaker, times=5)
    with pytest.raises(CallNotPermitted) as refused:
        breaker.acquire()
    assert refused.value.retry_after_seconds == pytest.approx(5.0)


def test_half_open_breaker_permits_one_probe(breaker: CircuitBreaker, clock: FakeClock) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    assert breaker.acquire().is_probe
    assert not breaker.permits
    assert breaker.retry_after_seconds == 1.0


@pytest.mark.parametrize("probes", [1, 3])
def test_a_stampede_at_a_half_open_breaker_sends_just_the_probes(
    clock: FakeClock, probes: int
) -> None:
    config = BreakerConfig(half_open_probes=probes)
    breaker = CircuitBreaker(config, clock=clock)
    fail(breaker, times=5)
    clock.advance(6.0)
    permits = [breaker.acquire() for _ in range(60) if breaker.permits]
    assert len(permits) == probes


def test_looking_takes_no_permit(breaker: CircuitBreaker, clock: FakeClock) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    assert all(breaker.permits for _ in range(60))


def test_a_successful_probe_closes(breaker: CircuitBreaker, clock: FakeClock) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    succeed(breaker)
    assert breaker.state is CLOSED
    fail(breaker, times=4)
    assert breaker.state is CLOSED


def test_all_of_several_probes_must_succeed(clock: FakeClock) -> None:
    breaker = CircuitBreaker(BreakerConfig(half_open_probes=3), clock=clock)
    fail(breaker, times=5)
    clock.advance(6.0)
    first, second, third = (breaker.acquire() for _ in range(3))
    first.succeed()
    second.succeed()
    assert breaker.state is HALF_OPEN
    assert not breaker.permits
    third.succeed()
    assert breaker.state is CLOSED


def test_one_failing_probe_reopens(clock: FakeClock) -> None:
    breaker = CircuitBreaker(BreakerConfig(half_open_probes=3), clock=clock)
    fail(breaker, times=5)
    clock.advance(6.0)
    first, second, third = (breaker.acquire() for _ in range(3))
    first.succeed()
    second.fail()
    assert breaker.state is OPEN
    third.succeed()
    assert breaker.state is OPEN


def test_a_released_probe_returns_its_permit_and_keeps_the_state(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    breaker.acquire().release()
    assert breaker.state is HALF_OPEN
    assert breaker.permits


def test_a_probe_that_lasts_long_makes_room_for_another(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    breaker.acquire()
    clock.advance(9.9)
    assert not breaker.permits
    clock.advance(0.1)
    assert breaker.acquire().is_probe
    assert not breaker.permits


@pytest.mark.parametrize(("verdict", "state"), [("succeed", CLOSED), ("fail", OPEN)])
def test_the_verdict_of_a_long_probe_still_counts(
    breaker: CircuitBreaker, clock: FakeClock, verdict: str, state: BreakerState
) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    long = breaker.acquire()
    clock.advance(10.0)
    breaker.acquire()
    getattr(long, verdict)()
    assert breaker.state is state


def test_the_end_of_a_long_probe_makes_no_more_room(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    long = breaker.acquire()
    clock.advance(10.0)
    breaker.acquire()
    long.release()
    assert not breaker.permits


def test_open_times_grow_up_to_the_maximum(breaker: CircuitBreaker, clock: FakeClock) -> None:
    fail(breaker, times=5)
    pauses = [breaker.retry_after_seconds]
    pauses += [reopen_by_probe(breaker, clock) for _ in range(5)]
    assert pauses == pytest.approx([5.0, 10.0, 20.0, 40.0, 60.0, 60.0])


def test_years_of_failing_probes_do_not_overflow(clock: FakeClock) -> None:
    breaker = CircuitBreaker(BreakerConfig(open_growth=1e300), clock=clock)
    fail(breaker, times=5)
    for _ in range(20):
        assert reopen_by_probe(breaker, clock) <= 60.0


@pytest.mark.parametrize(("random", "pause_seconds"), [(0.0, 4.5), (0.5, 5.0), (1.0, 5.5)])
def test_open_time_is_jittered_both_ways(
    clock: FakeClock, random: float, pause_seconds: float
) -> None:
    breaker = CircuitBreaker(BreakerConfig(), clock=clock, random=lambda: random)
    fail(breaker, times=5)
    assert breaker.retry_after_seconds == pytest.approx(pause_seconds)


@pytest.mark.parametrize("random", [0.0, 0.5, 1.0])
def test_jitter_never_exceeds_the_maximum(clock: FakeClock, random: float) -> None:
    breaker = CircuitBreaker(BreakerConfig(), clock=clock, random=lambda: random)
    fail(breaker, times=5)
    pauses = [reopen_by_probe(breaker, clock) for _ in range(10)]
    assert 48.0 < max(pauses) <= 60.000001


def test_a_relapse_soon_after_closing_keeps_growing(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    succeed(breaker)
    clock.advance(4.9)
    fail(breaker, times=5)
    assert breaker.retry_after_seconds == pytest.approx(10.0)


def test_growth_is_forgotten_once_it_stayed_closed_as_long_as_it_was_open(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    fail(breaker, times=5)
    clock.advance(5.0)
    succeed(breaker)
    clock.advance(5.1)
    fail(breaker, times=5)
    assert breaker.retry_after_seconds == pytest.approx(5.0)


def test_a_hint_half_opens_at_once_and_never_closes(breaker: CircuitBreaker) -> None:
    fail(breaker, times=5)
    breaker.hint_recovered()
    assert breaker.state is HALF_OPEN
    breaker.acquire()
    breaker.hint_recovered()
    assert breaker.state is HALF_OPEN
    assert not breaker.permits


def test_a_hint_to_a_closed_breaker_changes_nothing(breaker: CircuitBreaker) -> None:
    fail(breaker, times=4)
    breaker.hint_recovered()
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_only_the_first_verdict_counts(breaker: CircuitBreaker) -> None:
    permits = [breaker.acquire() for _ in range(5)]
    for permit in permits:
        permit.succeed()
        assert not permit.fail()
        permit.release()
    assert breaker.state is CLOSED


def test_a_failure_counts_once_however_often_it_is_reported(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    assert permit.fail()
    for _ in range(10):
        assert not permit.fail()
    assert breaker.state is CLOSED


@pytest.mark.parametrize("verdict", ["succeed", "fail", "release"])
def test_a_call_from_before_the_opening_does_not_disturb_the_probe(
    breaker: CircuitBreaker, clock: FakeClock, verdict: str
) -> None:
    straggler = breaker.acquire()
    fail(breaker, times=5)
    clock.advance(5.0)
    probe = breaker.acquire()
    getattr(straggler, verdict)()
    assert breaker.state is HALF_OPEN
    assert not breaker.permits
    probe.succeed()
    assert breaker.state is CLOSED


def test_stragglers_failing_after_the_opening_do_not_prolong_it(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    stragglers = [breaker.acquire() for _ in range(50)]
    fail(breaker, times=5)
    clock.advance(4.0)
    for straggler in stragglers:
        straggler.fail()
    assert breaker.retry_after_seconds == pytest.approx(1.0)


def test_stragglers_failing_after_the_recovery_do_not_open_it_again(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    stragglers = [breaker.acquire() for _ in range(50)]
    fail(breaker, times=5)
    clock.advance(5.0)
    succeed(breaker)
    for straggler in stragglers:
        straggler.fail()
    assert breaker.state is CLOSED


def test_a_probe_of_an_earlier_half_open_time_does_not_close_a_later_one(
    clock: FakeClock,
) -> None:
    breaker = CircuitBreaker(BreakerConfig(half_open_probes=2, jitter_ratio=0.0), clock=clock)
    fail(breaker, times=5)
    clock.advance(5.0)
    early = breaker.acquire()
    fail(breaker)
    clock.advance(10.0)
    succeed(breaker)
    early.succeed()
    assert breaker.state is HALF_OPEN
    assert breaker.permits


def test_a_failure_after_a_good_beginning_counts_while_closed(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(5):
        breaker.record_failure()
    assert breaker.state is OPEN
    breaker.record_failure()
    assert breaker.retry_after_seconds == pytest.approx(5.0)
    clock.advance(5.0)
    assert breaker.permits
    breaker.record_failure()
    assert breaker.state is HALF_OPEN


def test_every_transition_is_reported_once(clock: FakeClock) -> None:
    seen: list[tuple[BreakerState, BreakerState]] = []
    breaker = CircuitBreaker(
        UNJITTERED, clock=clock, on_transition=lambda before, after: seen.append((before, after))
    )
    fail(breaker, times=5)
    clock.advance(5.0)
    assert breaker.permits
    fail(breaker)
    breaker.hint_recovered()
    succeed(breaker)
    assert seen == [
        (CLOSED, OPEN),
        (OPEN, HALF_OPEN),
        (HALF_OPEN, OPEN),
        (OPEN, HALF_OPEN),
        (HALF_OPEN, CLOSED),
    ]


def test_a_configuration_that_could_never_work_is_refused_with_every_reason() -> None:
    with pytest.raises(ValueError, match=r"failure_threshold .*; half_open_probes ") as refused:
        BreakerConfig(failure_threshold=0, half_open_probes=0)
    assert str(refused.value).count("must") == 2


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Calls begin, end, time passes and hints arrive in any order."""

    PROBES = 3
    PROBE_SECONDS = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.era = 0
        self.breaker = CircuitBreaker(
            BreakerConfig(
                failure_threshold=3,
                half_open_probes=self.PROBES,
                probe_seconds=self.PROBE_SECONDS,
            ),
            clock=self.clock,
            random=lambda: 0.5,
            on_transition=self.note,
        )
        self.running: deque[tuple[int, float, Permit]] = deque()

    def note(self, before: BreakerState, after: BreakerState) -> None:
        assert (before, after) != (OPEN, CLOSED)
        assert before is not after
        self.era += 1

    @rule(calls=st.integers(1, 60))
    def stampede(self, calls: int) -> None:
        for _ in range(calls):
            if self.breaker.permits:
                permit = self.breaker.acquire()
                self.running.append((self.era, self.clock.monotonic(), permit))

    @rule(verdict=st.sampled_from(["succeed", "fail", "release"]), skip=st.integers(0, 100))
    def end_one(self, verdict: str, skip: int) -> None:
        if not self.running:
            return
        self.running.rotate(-(skip % len(self.running)))
        era, _, permit = self.running.popleft()
        before = (self.era, self.breaker.permits, self.breaker.state)
        getattr(permit, verdict)()
        if era != before[0]:
            assert (self.era, self.breaker.permits, self.breaker.state) == before

    @rule(seconds=st.floats(0.01, 100))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def hint(self) -> None:
        self.breaker.hint_recovered()

    @rule()
    def release_everything(self) -> None:
        while self.running:
            self.running.popleft()[2].release()
        assert self.breaker.permits or self.breaker.state is OPEN

    @invariant()
    def never_more_probes_at_a_time_than_allowed(self) -> None:
        if self.breaker.state is HALF_OPEN:
            since = self.clock.monotonic() - self.PROBE_SECONDS
            young = [era for era, began_at, _ in self.running if began_at > since]
            assert young.count(self.era) <= self.PROBES

    @invariant()
    def waiting_as_told_always_helps(self) -> None:
        assert self.breaker.permits == (self.breaker.retry_after_seconds == 0.0)


AnyOrderOfEvents.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
