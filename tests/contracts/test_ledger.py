"""What every Ledger promises, whatever it is made of."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from gateway.errors import QuotaExceeded, QuotaReserved
from gateway.exchange import NO_USAGE, Principal, TokenUsage
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.ledger import Ledger, TokenDemand
from gateway.quota.memory import MemoryLedger
from tests.fakes.clock import FakeClock
from tests.harness.redis import RedisProcess
from tests.harness.shared import shared_ledger

UNLIMITED = Principal("free", "Free")


def with_quota(quota: int) -> Principal:
    return Principal("team", "Team", daily_token_quota=quota)


def demand(
    input_tokens: int = 10, output_tokens: int | None = 10, choices: int = 1, model: str = "m"
) -> TokenDemand:
    return TokenDemand(model, input_tokens, output_tokens, choices)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(folder=tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def ledger(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger(calendar=QuotaCalendar(zone=ZoneInfo("UTC"), clock=clock))
        return
    server: RedisProcess = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    async with shared_ledger(server.url, clock) as shared:
        yield shared


async def spend(ledger: Ledger, principal: Principal, tokens: int) -> None:
    async with ledger.reserve(principal, demand(tokens, 0)) as reservation:
        reservation.settle(TokenUsage(input_tokens=tokens))


async def test_a_reservation_holds_prompt_and_output_of_every_choice(ledger: Ledger) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand(10, 20, choices=3)) as reservation:
        assert ledger.standing(team).reserved == 70
        assert ledger.remaining(team) == 30
        assert reservation.output_limit is None


async def test_settling_charges_what_was_used_and_gives_the_rest_back(ledger: Ledger) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand(10, 50)) as reservation:
        reservation.settle(TokenUsage(12, 8))
    standing = ledger.standing(team)
    assert (standing.used, standing.reserved, standing.remaining) == (20, 0, 80)


async def test_only_the_first_settlement_counts(ledger: Ledger) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand()) as reservation:
        reservation.settle(TokenUsage(1, 2))
        reservation.settle(TokenUsage(50, 50))
        reservation.progress(TokenUsage(60, 60))
    assert ledger.standing(team).used == 3


async def test_leaving_without_settlement_charges_nothing_and_counts_no_request(
    ledger: Ledger,
) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand()):
        pass
    report = await ledger.report(team, days=1)
    assert ledger.remaining(team) == 100
    assert report.today.total.requests == 0


async def test_an_exception_after_progress_leaves_the_progress_charged(ledger: Ledger) -> None:
    team = with_quota(100)
    with pytest.raises(ConnectionError):
        async with ledger.reserve(team, demand(10, 50)) as reservation:
            reservation.progress(TokenUsage(10, 7))
            raise ConnectionError
    report = await ledger.report(team, days=1)
    assert (report.today.total.total_tokens, report.today.total.requests) == (17, 1)
    assert report.remaining == 83


async def test_cancellation_gives_the_hold_back(ledger: Ledger) -> None:
    team = with_quota(100)
    entered = asyncio.Event()

    async def request() -> None:
        async with ledger.reserve(team, demand(10, 50)):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert ledger.remaining(team) == 100


async def test_progress_never_goes_back(ledger: Ledger) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand(10, 50)) as reservation:
        reservation.progress(TokenUsage(10, 20))
        reservation.progress(TokenUsage(10, 5))
        assert ledger.standing(team).used == 30


async def test_progress_moves_tokens_from_held_to_used(ledger: Ledger) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand(10, 50)) as reservation:
        reservation.progress(TokenUsage(10, 20))
        standing = ledger.standing(team)
    assert (standing.used, standing.reserved, standing.remaining) == (30, 30, 40)


async def test_settlement_corrects_an_estimate_downwards(ledger: Ledger) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand(40, 50)) as reservation:
        reservation.progress(TokenUsage(40, 0, is_estimated=True))
        reservation.settle(TokenUsage(12, 3))
    assert ledger.standing(team).used == 15


async def test_negative_usage_is_charged_as_none(ledger: Ledger) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand()) as reservation:
        reservation.settle(TokenUsage(-5, -5))
    assert ledger.standing(team).used == 0


async def test_usage_above_the_hold_is_charged_in_full_as_debt(ledger: Ledger) -> None:
    team = with_quota(50)
    async with ledger.reserve(team, demand(10, 10)) as reservation:
        reservation.settle(TokenUsage(10, 90))
    standing = ledger.standing(team)
    assert (standing.used, standing.remaining) == (100, 0)


async def test_output_that_does_not_fit_is_limited_to_what_remains(ledger: Ledger) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand(10, 1000, choices=4)) as reservation:
        assert reservation.output_limit == 22
        assert ledger.remaining(team) == 0


async def test_unbounded_output_is_limited_to_what_remains(ledger: Ledger) -> None:
    async with ledger.reserve(with_quota(100), demand(10, None, choices=2)) as reservation:
        assert reservation.output_limit == 45


async def test_a_prompt_that_fits_without_one_token_of_output_is_refused(ledger: Ledger) -> None:
    with pytest.raises(QuotaExceeded, match="at least 102"):
        async with ledger.reserve(with_quota(101), demand(100, 50, choices=2)):
            pass


async def test_input_alone_may_use_the_last_token(ledger: Ledger) -> None:
    team = with_quota(100)
    await spend(ledger, team, 100)
    assert ledger.remaining(team) == 0


@pytest.mark.parametrize("asked", [demand(0, 0), demand(0, None), demand(1, 1)])
async def test_a_key_with_a_quota_of_zero_is_refused(ledger: Ledger, asked: TokenDemand) -> None:
    with pytest.raises(QuotaExceeded):
        async with ledger.reserve(with_quota(0), asked):
            pass


@pytest.mark.parametrize("quota", [0, 10, 9])
async def test_what_is_free_is_admitted_where_nothing_remains(ledger: Ledger, quota: int) -> None:
    team = with_quota(quota)
    await spend(ledger, with_quota(10), 10)
    async with ledger.reserve(team, TokenDemand.nothing("m")) as reservation:
        assert ledger.standing(team).reserved == 0
        assert reservation.output_limit is None
        reservation.settle(TokenUsage(0, 0))
    assert ledger.standing(team).used == 10


async def test_a_key_without_quota_holds_nothing_and_is_metered(ledger: Ledger) -> None:
    async with ledger.reserve(UNLIMITED, demand(10, None)) as reservation:
        assert reservation.output_limit is None
        assert ledger.standing(UNLIMITED).reserved == 0
        reservation.settle(TokenUsage(10, 5))
    standing = ledger.standing(UNLIMITED)
    assert (standing.limit, standing.used, standing.remaining) == (None, 15, None)


async def test_tokens_held_by_running_requests_make_a_refusal_worth_retrying(
    ledger: Ledger,
) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand(10, 85)):
        with pytest.raises(QuotaReserved) as refused:
            async with ledger.reserve(team, demand(20, 5)):
                pass
    assert refused.value.retry_after_seconds is not None
    assert 1 <= refused.value.retry_after_seconds <= 5


async def test_a_used_up_quota_says_how_much_and_until_when(
    ledger: Ledger, clock: FakeClock
) -> None:
    team = with_quota(100)
    await spend(ledger, team, 95)
    with pytest.raises(QuotaExceeded) as refused:
        async with ledger.reserve(team, demand(20, 5)):
            pass
    for fact in ("95 of 100", "0 are reserved", "at least 21", "2026-03-15T00:00:00Z", "Team"):
        assert fact in refused.value.message
    assert refused.value.retry_after_seconds == 12 * 3600


async def test_a_refused_request_holds_nothing(ledger: Ledger) -> None:
    team = with_quota(100)
    with pytest.raises(QuotaExceeded):
        async with ledger.reserve(team, demand(200, 5)):
            pass
    assert ledger.remaining(team) == 100


async def test_of_a_thousand_at_once_only_those_that_fit_are_admitted(ledger: Ledger) -> None:
    team = with_quota(100)
    held = []

    async def request() -> bool:
        try:
            async with ledger.reserve(team, demand(3, 7)) as reservation:
                held.append(ledger.standing(team))
                await asyncio.sleep(0)
                reservation.settle(TokenUsage(3, 7))
                return True
        except (QuotaReserved, QuotaExceeded):
            return False

    admitted = await asyncio.gather(*(request() for _ in range(1000)))
    assert sum(admitted) == 10
    assert ledger.standing(team).used == 100
    assert all(standing.used + standing.reserved <= 100 for standing in held)


async def test_a_new_day_brings_the_quota_back(ledger: Ledger, clock: FakeClock) -> None:
    team = with_quota(100)
    await spend(ledger, team, 100)
    clock.advance(12 * 3600)
    assert ledger.remaining(team) == 100


async def test_a_request_across_midnight_is_charged_to_the_day_it_began(
    ledger: Ledger, clock: FakeClock
) -> None:
    team = with_quota(100)
    async with ledger.reserve(team, demand(10, 80)) as reservation:
        clock.advance(13 * 3600)
        assert ledger.remaining(team) == 100
        reservation.settle(TokenUsage(10, 60))
    report = await ledger.report(team, days=2)
    assert [day.total.total_tokens for day in report.history] == [0, 70]


async def test_a_clock_stepping_back_over_midnight_gives_no_second_helping(
    ledger: Ledger, clock: FakeClock
) -> None:
    team = with_quota(100)
    clock.advance(12 * 3600 + 60)
    await spend(ledger, team, 100)
    clock.set_now(clock.now() - timedelta(hours=2))
    assert ledger.remaining(team) == 0


async def test_a_clock_back_from_the_far_future_finds_its_day_again(
    ledger: Ledger, clock: FakeClock
) -> None:
    team = with_quota(100)
    today = clock.now()
    await spend(ledger, team, 60)
    clock.set_now(today + timedelta(days=20_000))
    assert ledger.remaining(team) == 100
    clock.set_now(today)
    assert ledger.remaining(team) == 40


async def test_the_report_tells_models_apart_and_fills_empty_days(ledger: Ledger) -> None:
    team = with_quota(1000)
    for model, usage in (("a", TokenUsage(1, 2)), ("b", TokenUsage(3, 4)), ("a", NO_USAGE)):
        async with ledger.reserve(team, demand(model=model)) as reservation:
            reservation.settle(usage)
    ledger.count_refusal(team)
    report = await ledger.report(team, days=3)
    assert report.today.models["a"].requests == 2
    assert report.today.models["b"].total_tokens == 7
    assert set(report.today.models) == {"a", "b"}
    assert report.today.refusals == 1
    assert [day.day.isoformat() for day in report.history] == [
        "2026-03-14",
        "2026-03-13",
        "2026-03-12",
    ]


async def test_the_report_renders_as_json_with_plain_names(ledger: Ledger) -> None:
    team = with_quota(100)
    await spend(ledger, team, 30)
    body = (await ledger.report(team, days=1)).to_dict()
    assert body["key_id"] == "team"
    assert body["date"] == "2026-03-14"
    assert body["time_zone"] == "UTC"
    assert body["resets_at"] == "2026-03-15T00:00:00Z"
    assert (body["quota_tokens"], body["total_tokens"], body["remaining_tokens"]) == (100, 30, 70)
