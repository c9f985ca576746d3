"""The quota's day: its bounds in every zone, and a clock that misbehaves."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.quota.calendar import QuotaCalendar
from tests.fakes.clock import FakeClock

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def calendar_at(now: str, zone: str = "UTC") -> tuple[QuotaCalendar, FakeClock]:
    clock = FakeClock(now=utc(now))
    return QuotaCalendar(zone=ZoneInfo(zone), clock=clock), clock


@pytest.mark.parametrize(
    ("zone", "now", "day", "resets_at"),
    [
        ("UTC", "2026-07-01T23:59:59", "2026-07-01", "2026-07-02T00:00:00"),
        ("Europe/Berlin", "2026-03-29T12:00:00", "2026-03-29", "2026-03-29T22:00:00"),
        ("Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25", "2026-10-25T23:00:00"),
        # Midnight of 2018-11-04 did not exist: 23:59:59 was followed by 01:00:00.
        ("America/Sao_Paulo", "2018-11-03T20:00:00", "2018-11-03", "2018-11-04T03:00:00"),
        # 00:00 to 01:00 came twice on 2025-11-02.
        ("America/Havana", "2025-11-01T20:00:00", "2025-11-01", "2025-11-02T04:00:00"),
        # 2011-12-30 did not exist at all.
        ("Pacific/Apia", "2011-12-30T01:00:00", "2011-12-29", "2011-12-30T10:00:00"),
        ("Pacific/Apia", "2011-12-30T10:00:00", "2011-12-31", "2011-12-31T10:00:00"),
    ],
)
def test_the_day_ends_at_the_next_local_midnight(
    zone: str, now: str, day: str, resets_at: str
) -> None:
    calendar, _ = calendar_at(now, zone)
    assert calendar.today().date == date.fromisoformat(day)
    assert calendar.today().resets_at == utc(resets_at)


@given(
    zone=st.sampled_from(ZONES),
    now=st.datetimes(datetime(2005, 1, 1), datetime(2040, 1, 1)),
)
def test_now_always_lies_before_a_reset_that_opens_a_later_day(zone: str, now: datetime) -> None:
    clock = FakeClock(now=now.replace(tzinfo=UTC))
    day = QuotaCalendar(zone=ZoneInfo(zone), clock=clock).today()
    assert day.starts_at <= clock.now() < day.resets_at
    assert day.resets_at.astimezone(ZoneInfo(zone)).date() > day.date
    last = day.resets_at - timedelta(microseconds=1)
    assert last.astimezone(ZoneInfo(zone)).date() == day.date


def test_the_same_day_is_the_same_object() -> None:
    calendar, clock = calendar_at("2026-07-01T10:00:00")
    today = calendar.today()
    clock.advance(3600)
    assert calendar.today() is today


def test_the_reset_turns_the_day() -> None:
    calendar, clock = calendar_at("2026-07-01T23:59:59")
    clock.advance(1)
    assert calendar.today().date == date(2026, 7, 2)
    assert calendar.seconds_until_reset() == 86_400


def test_a_step_back_over_midnight_keeps_the_day() -> None:
    calendar, clock = calendar_at("2026-07-02T00:00:05")
    clock.set_now(utc("2026-07-01T23:59:00"))
    assert calendar.today().date == date(2026, 7, 2)
    assert calendar.seconds_until_reset() == 86_400 + 60


def test_a_clock_that_had_run_wild_is_followed_back() -> None:
    calendar, clock = calendar_at("2099-01-01T00:00:00")
    clock.set_now(utc("2026-07-01T10:00:00"))
    assert calendar.today().date == date(2026, 7, 1)


def test_a_recorded_tomorrow_is_resumed() -> None:
    calendar, _ = calendar_at("2026-07-01T23:50:00")
    calendar.resume(date(2026, 7, 2))
    assert calendar.today().date == date(2026, 7, 2)


@pytest.mark.parametrize("recorded", [date(2026, 6, 30), date(2026, 7, 3), date(2099, 1, 1)])
def test_history_and_a_far_future_are_not_resumed(recorded: date) -> None:
    calendar, _ = calendar_at("2026-07-01T10:00:00")
    calendar.resume(recorded)
    assert calendar.today().date == date(2026, 7, 1)
