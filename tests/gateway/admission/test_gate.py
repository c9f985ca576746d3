"""What the admission gate promises: its bounds, its order, and that no place is ever lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.admission import AdmissionConfig, AdmissionGate, Line
from gateway.errors import Overloaded
from gateway.exchange import Operation
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.asyncio

PATIENT_SECONDS = 60.0
KEY = "k"
LINE: Line = ("m", Operation.CHAT)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def gate_of(
    clock: FakeClock,
    *,
    max_in_flight: int | None = 1,
    max_queued: int = 8,
    queue_timeout_seconds: float = PATIENT_SECONDS,
) -> AdmissionGate:
    config = AdmissionConfig(max_in_flight, max_queued, queue_timeout_seconds)
    return AdmissionGate(config, clock=clock)


class Caller:
    """A task that enters the gate, stays until told to leave, and remembers how it went."""

    def __init__(self, gate: AdmissionGate, key: str = KEY, line: Line = LINE) -> None:
        self._gate = gate
        self._may_leave = asyncio.Event()
        self.is_inside = False
        self.waited_seconds: float | None = None
        self.task = asyncio.create_task(self._run(key, line))

    async def _run(self, key: str, line: Line) -> None:
        async with self._gate.admit(key, line) as waited_seconds:
            self.waited_seconds = waited_seconds
            self.is_inside = True
            await self._may_leave.wait()

    async def leave(self) -> None:
        self._may_leave.set()
        await self.task


async def settle() -> None:
    """Let every task run until it waits for something that has not happened."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def queue_behind_one(gate: AdmissionGate, size: int) -> AsyncIterator[list[Caller]]:
    """The first caller is inside, the others wait; whoever is left is cancelled at the end."""
    callers = [Caller(gate) for _ in range(1 + size)]
    await settle()
    try:
        yield callers
    finally:
        for caller in callers:
            caller.task.cancel()
        await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)


async def test_below_the_bound_nobody_waits_or_suspends(clock: FakeClock) -> None:
    gate = gate_of(clock)
    entering = gate.admit(KEY, LINE).__aenter__()
    with pytest.raises(StopIteration) as returned:
        entering.send(None)
    assert returned.value.value == 0.0
    assert (gate.in_flight, gate.queued) == (1, 0)


async def test_leaving_gives_the_place_back(clock: FakeClock) -> None:
    gate = gate_of(clock)
    async with gate.admit(KEY, LINE):
        assert gate.in_flight == 1
    assert gate.in_flight == 0


async def test_an_error_inside_gives_the_place_back(clock: FakeClock) -> None:
    gate = gate_of(clock)
    with pytest.raises(RuntimeError):
        async with gate.admit(KEY, LINE):
            raise RuntimeError
    assert gate.in_flight == 0


async def test_without_a_bound_everybody_is_admitted_and_counted(clock: FakeClock) -> None:
    gate = gate_of(clock, max_in_flight=None, max_queued=0)
    for _ in range(1000):
        await gate.admit(KEY, LINE).__aenter__()
    assert (gate.in_flight, gate.queued) == (1000, 0)


async def test_above_the_bound_requests_wait(clock: FakeClock) -> None:
    gate = gate_of(clock)
    async with queue_behind_one(gate, size=2) as callers:
        assert (gate.in_flight, gate.queued) == (1, 2)
        assert [caller.is_inside for caller in callers] == [True, False, False]


async def test_the_queue_is_first_come_first_served(clock: FakeClock) -> None:
    gate = gate_of(clock)
    async with queue_behind_one(gate, size=2) as (first, second, third):
        await first.leave()
        await settle()
        assert (second.is_inside, third.is_inside) == (True, False)
        await second.leave()
        await settle()
        assert third.is_inside


async def test_nobody_overtakes_the_queue(clock: FakeClock) -> None:
    gate = gate_of(clock)
    async with queue_behind_one(gate, size=1) as (first, second):
        await first.leave()
        latecomer = gate.take(KEY, LINE)
        assert latecomer is not None
        await settle()
        assert second.is_inside
        assert not latecomer.verdict.done()


async def test_the_caller_is_told_how_long_it_waited(clock: FakeClock) -> None:
    gate = gate_of(clock)
    async with queue_behind_one(gate, size=1) as (first, second):
        clock.advance(2.5)
        await first.leave()
        await settle()
        assert first.waited_seconds == 0.0
        assert second.waited_seconds == pytest.approx(2.5)


async def test_a_full_queue_refuses_at_once_and_says_why(clock: FakeClock) -> None:
    gate = gate_of(clock, max_queued=2)
    async with queue_behind_one(gate, size=2):
        with pytest.raises(Overloaded) as refused:
            gate.take(KEY, LINE)
        assert refused.value.message == (
            "The gateway is full: 1 requests are running (MAX_IN_FLIGHT=1) and 2 are waiting"
            " (MAX_QUEUED=2). Try again in 1 s."
        )
        assert refused.value.retry_after_seconds == 1.0
        assert (gate.in_flight, gate.queued) == (1, 2)


async def test_without_a_queue_the_bound_refuses_at_once(clock: FakeClock) -> None:
    gate = gate_of(clock, max_queued=0)
    async with gate.admit(KEY, LINE):
        with pytest.raises(Overloaded):
            await gate.admit(KEY, LINE).__aenter__()
    assert gate.in_flight == 0


async def test_patience_ends_with_the_setting_named(clock: FakeClock) -> None:
    gate = gate_of(clock, queue_timeout_seconds=0.01)
    async with gate.admit(KEY, LINE):
        with pytest.raises(Overloaded, match=r"within QUEUE_TIMEOUT_SECONDS=0\.01: 1 requests"):
            await gate.admit(KEY, LINE).__aenter__()
        assert (gate.in_flight, gate.queued) == (1, 0)
    assert gate.in_flight == 0


async def test_whoever_lost_patience_is_not_granted_a_place(clock: FakeClock) -> None:
    gate = gate_of(clock, queue_timeout_seconds=0.01)
    async with gate.admit(KEY, LINE):
        impatient = asyncio.gather(
            *(gate.admit(KEY, LINE).__aenter__() for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(error, Overloaded) for error in await impatient)
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_a_cancelled_waiter_leaves_the_queue(clock: FakeClock) -> None:
    gate = gate_of(clock)
    async with queue_behind_one(gate, size=2) as (first, second, third):
        second.task.cancel()
        await settle()
        assert gate.queued == 1
        await first.leave()
        await settle()
        assert third.is_inside


async def test_a_place_skips_whoever_was_cancelled_in_the_same_tick(clock: FakeClock) -> None:
    gate = gate_of(clock)
    async with queue_behind_one(gate, size=2) as (_first, second, third):
        second.task.cancel()
        gate.give_back(KEY, LINE)
        await settle()
        assert third.is_inside
        assert (gate.in_flight, gate.queued) == (1, 0)


async def test_a_waiter_cancelled_in_the_tick_of_its_grant_passes_the_place_on(
    clock: FakeClock,
) -> None:
    gate = gate_of(clock)
    await gate.admit(KEY, LINE).__aenter__()
    second, third = Caller(gate), Caller(gate)
    await settle()
    gate.give_back(KEY, LINE)
    second.task.cancel()
    await settle()
    assert (second.is_inside, third.is_inside) == (False, True)
    await third.leave()
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_a_place_nobody_is_left_to_use_becomes_free(clock: FakeClock) -> None:
    gate = gate_of(clock)
    await gate.admit(KEY, LINE).__aenter__()
    waiters = [Caller(gate) for _ in range(3)]
    await settle()
    for waiter in waiters:
        waiter.task.cancel()
    gate.give_back(KEY, LINE)
    await settle()
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_retry_after_follows_the_rate_at_which_places_become_free(clock: FakeClock) -> None:
    gate = gate_of(clock, max_queued=3)
    await gate.admit(KEY, LINE).__aenter__()
    for _ in range(10):
        assert gate.take(KEY, LINE) is not None
        clock.advance(0.5)
        gate.give_back(KEY, LINE)
    for _ in range(3):
        gate.take(KEY, LINE)
    clock.advance(0.5)
    with pytest.raises(Overloaded) as refused:
        gate.take(KEY, LINE)
    assert refused.value.retry_after_seconds == pytest.approx(4 * 0.5)


@pytest.mark.parametrize(("pace_seconds", "retry_after_seconds"), [(0.001, 1.0), (90.0, 10.0)])
async def test_retry_after_stays_between_one_and_ten_seconds(
    clock: FakeClock, pace_seconds: float, retry_after_seconds: float
) -> None:
    gate = gate_of(clock, max_queued=0)
    for _ in range(10):
        async with gate.admit(KEY, LINE):
            clock.advance(pace_seconds)
    async with gate.admit(KEY, LINE):
        with pytest.raises(Overloaded) as refused:
            gate.take(KEY, LINE)
    assert refused.value.retry_after_seconds == retry_after_seconds


async def test_an_upstream_that_stopped_answering_lengthens_the_estimate(
    clock: FakeClock,
) -> None:
    gate = gate_of(clock, max_queued=0)
    for _ in range(10):
        async with gate.admit(KEY, LINE):
            clock.advance(0.1)
    async with gate.admit(KEY, LINE):
        clock.advance(59.1)
        with pytest.raises(Overloaded) as refused:
            gate.take(KEY, LINE)
    assert refused.value.retry_after_seconds == pytest.approx(60 / 10)


async def test_whose_turn_would_come_too_late_is_refused_at_once(clock: FakeClock) -> None:
    gate = gate_of(clock, max_queued=8, queue_timeout_seconds=5.0)
    await gate.admit(KEY, LINE).__aenter__()
    for _ in range(10):
        gate.take(KEY, LINE)
        clock.advance(2.0)
        gate.give_back(KEY, LINE)
    gate.take(KEY, LINE)
    gate.take(KEY, LINE)
    with pytest.raises(Overloaded, match="longer than QUEUE_TIMEOUT_SECONDS=5: 1 requests"):
        gate.take(KEY, LINE)
    assert gate.queued == 2


async def test_another_key_is_not_refused_for_the_length_of_somebody_elses_queue(
    clock: FakeClock,
) -> None:
    gate = gate_of(clock, max_queued=8, queue_timeout_seconds=5.0)
    await gate.admit(KEY, LINE).__aenter__()
    for _ in range(10):
        gate.take(KEY, LINE)
        clock.advance(2.0)
        gate.give_back(KEY, LINE)
    gate.take(KEY, LINE)
    gate.take(KEY, LINE)
    assert gate.take("quiet", LINE) is not None


async def test_a_leisurely_past_says_nothing_about_how_long_a_queue_takes(
    clock: FakeClock,
) -> None:
    gate = gate_of(clock, max_queued=8, queue_timeout_seconds=5.0)
    for _ in range(20):
        await gate.admit(KEY, LINE).__aenter__()
        gate.take(KEY, LINE)
        clock.advance(60.0)
        gate.give_back(KEY, LINE)
        gate.give_back(KEY, LINE)
    await gate.admit(KEY, LINE).__aenter__()
    for _ in range(8):
        assert gate.take(KEY, LINE) is not None


@pytest.mark.parametrize(
    ("max_in_flight", "max_queued", "queue_timeout_seconds"),
    [(0, 1, 1.0), (1, -1, 1.0), (1, 1, -1.0)],
)
async def test_a_configuration_that_could_never_work_is_refused(
    max_in_flight: int, max_queued: int, queue_timeout_seconds: float
) -> None:
    with pytest.raises(ValueError, match="must"):
        AdmissionConfig(max_in_flight, max_queued, queue_timeout_seconds)
