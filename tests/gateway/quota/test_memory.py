"""MemoryLedger: its books balance, and it says exactly what changed."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.exchange import NO_USAGE, Principal, TokenUsage
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.history import HistoryUnavailable
from gateway.quota.ledger import Reservation, TokenDemand
from gateway.quota.memory import MemoryLedger
from gateway.quota.report import UsageRow
from tests.fakes.clock import FakeClock

DAY = date(2026, 3, 14)
TEAM = Principal("team", "Team", daily_token_quota=500)
DEMAND = TokenDemand("m", 10, 10)

tokens = st.integers(min_value=0, max_value=120)
usages = st.builds(TokenUsage, input_tokens=tokens, output_tokens=tokens)
demands = st.builds(
    TokenDemand,
    model=st.sampled_from(["a", "b"]),
    input_tokens=tokens,
    output_tokens=tokens | st.none(),
    choices=st.integers(1, 3),
)
steps = st.lists(
    st.tuples(demands, st.lists(usages, max_size=3), usages | st.none(), st.integers(0, 90_000)),
    max_size=12,
)


def new_ledger(clock: FakeClock) -> MemoryLedger:
    return MemoryLedger(calendar=QuotaCalendar(zone=ZoneInfo("UTC"), clock=clock))


@pytest.fixture
def ledger() -> MemoryLedger:
    return new_ledger(FakeClock())


async def admitted(
    ledger: MemoryLedger, held: AsyncExitStack, demand: TokenDemand
) -> Reservation | None:
    before = ledger.standing(TEAM)
    try:
        reservation = await held.enter_async_context(ledger.reserve(TEAM, demand))
    except Refusal:
        assert ledger.standing(TEAM) == before
        return None
    standing = ledger.standing(TEAM)
    assert standing.used + standing.reserved <= (standing.limit or 0)
    assert reservation.output_limit is None or reservation.output_limit >= 1
    return reservation


def run(reservation: Reservation, progress: list[TokenUsage], final: TokenUsage | None) -> None:
    for usage in progress:
        reservation.progress(usage)
    if final is not None:
        reservation.settle(final)


@given(steps=steps)
def test_after_the_last_request_nothing_is_held_and_the_rows_add_up(
    steps: list[tuple[TokenDemand, list[TokenUsage], TokenUsage | None, int]],
) -> None:
    async def story() -> None:
        clock = FakeClock()
        ledger = new_ledger(clock)
        async with AsyncExitStack() as held:
            for demand, progress, final, pause_seconds in steps:
                reservation = await admitted(ledger, held, demand)
                if reservation is not None:
                    run(reservation, progress, final)
                assert ledger.standing(TEAM).reserved >= 0
                clock.advance(pause_seconds)
        standing = ledger.standing(TEAM)
        today = [row for row in ledger.held() if row.day == clock.now().date()]
        assert standing.reserved == 0
        assert standing.used == sum(row.input_tokens + row.output_tokens for row in today)

    asyncio.run(story())


async def test_drain_tells_each_changed_row_once_with_absolute_counts(
    ledger: MemoryLedger,
) -> None:
    for _ in range(2):
        async with ledger.reserve(TEAM, DEMAND) as reservation:
            reservation.settle(TokenUsage(3, 4))
    ledger.count_refusal(TEAM)
    assert sorted(ledger.drain()) == [
        UsageRow(DAY, "team", "", refusals=1),
        UsageRow(DAY, "team", "m", 6, 8, 2),
    ]
    assert ledger.drain() == []


async def test_progress_of_a_running_stream_is_drained(ledger: MemoryLedger) -> None:
    async with ledger.reserve(TEAM, DEMAND) as reservation:
        reservation.progress(TokenUsage(3, 1))
        assert ledger.drain() == [UsageRow(DAY, "team", "m", 3, 1, 1)]


@dataclass
class Meter:
    """A count that a test moves."""

    usage: TokenUsage = NO_USAGE


async def test_a_followed_meter_is_charged_at_every_drain_until_the_end(
    ledger: MemoryLedger,
) -> None:
    meter = Meter()
    async with ledger.reserve(TEAM, DEMAND) as reservation:
        reservation.follow(meter)
        assert ledger.drain() == []
        meter.usage = TokenUsage(3, 1)
        assert ledger.drain() == [UsageRow(DAY, "team", "m", 3, 1, 1)]
        assert ledger.drain() == []
        meter.usage = TokenUsage(3, 2)
        reservation.settle(meter.usage)
        reservation.follow(meter)
    meter.usage = TokenUsage(9, 9)
    assert ledger.drain() == [UsageRow(DAY, "team", "m", 3, 2, 1)]


async def test_a_reservation_that_was_never_used_leaves_no_row(ledger: MemoryLedger) -> None:
    async with ledger.reserve(TEAM, DEMAND):
        pass
    assert ledger.held() == []


def test_loaded_rows_count_against_the_quota_and_are_not_written_again(
    ledger: MemoryLedger,
) -> None:
    ledger.load([UsageRow(DAY, "team", "a", 100, 20, 3), UsageRow(DAY, "team", "b", 5, 5, 1)])
    assert ledger.remaining(TEAM) == 370
    assert ledger.drain() == []


def test_only_a_week_of_days_stays_in_memory() -> None:
    clock = FakeClock()
    ledger = new_ledger(clock)
    for _ in range(30):
        ledger.count_refusal(TEAM)
        clock.advance(86_400)
    assert len(ledger.held()) <= 7


async def test_a_report_without_its_journal_says_that_it_is_incomplete() -> None:
    class Unreadable:
        async def rows(self, key_id: str, *, since: date) -> tuple[UsageRow, ...]:
            raise HistoryUnavailable("locked")

    calendar = QuotaCalendar(zone=ZoneInfo("UTC"), clock=FakeClock())
    ledger = MemoryLedger(calendar=calendar, history=Unreadable())
    async with ledger.reserve(TEAM, DEMAND) as reservation:
        reservation.settle(TokenUsage(3, 4))
    report = await ledger.report(TEAM, days=2)
    assert not report.is_complete
    assert report.today.total.total_tokens == 7


async def test_memory_is_right_where_the_journal_is_behind() -> None:
    class Behind:
        async def rows(self, key_id: str, *, since: date) -> tuple[UsageRow, ...]:
            return (UsageRow(DAY, key_id, "m", 1, 1, 1), UsageRow(date(2026, 3, 1), key_id, "m", 9))

    calendar = QuotaCalendar(zone=ZoneInfo("UTC"), clock=FakeClock())
    ledger = MemoryLedger(calendar=calendar, history=Behind())
    async with ledger.reserve(TEAM, DEMAND) as reservation:
        reservation.settle(TokenUsage(30, 40))
    report = await ledger.report(TEAM, days=20)
    assert report.today.total.total_tokens == 70
    assert report.history[13].total.total_tokens == 9
