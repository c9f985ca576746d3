"""QuotaCalendar: which day tokens are booked on, and when that day ends."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from gateway.clock import Clock

# A clock that steps back by less keeps the day it had; by more, it was wrong before.
_STEP_BACK = timedelta(days=1)
_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class QuotaDay:
    """A date in the quota's time zone and its bounds in UTC: 23, 24 or 25 hours apart."""

    date: date
    starts_at: datetime
    resets_at: datetime


class QuotaCalendar:
    """The current day in `zone`, which does not go back when the clock steps over midnight.

    A clock corrected by up to 24 hours keeps the day it had reached: nobody gets a second
    helping. One corrected by more had run wild, and its day is given up; else a machine that
    once believed in 2099 would never again give anybody a new day.
    """

    def __init__(self, *, zone: ZoneInfo, clock: Clock) -> None:
        self._zone = zone
        self._clock = clock
        self._turn(_day_at(clock.now(), zone))

    @property
    def time_zone(self) -> str:
        return str(self._zone)

    def today(self) -> QuotaDay:
        """The day to book on. The same object until the day turns."""
        if not self._valid_from <= self._clock.timestamp() < self._resets_at:
            self._turn(_day_at(self._clock.now(), self._zone))
        return self._day

    def seconds_until_reset(self) -> float:
        """Longer than a day while a clock that stepped back catches up."""
        self.today()
        return self._resets_at - self._clock.timestamp()

    def resume(self, newest: date) -> None:
        """Start no earlier than a day that is already on record.

        Only the day after today can be that: an older one is history, and one further ahead
        was written under a wrong clock.
        """
        now = self._clock.now()
        day = _bounds(newest, self._zone, now)
        if self.today().date < newest and now >= day.starts_at - _STEP_BACK:
            self._turn(day)

    def _turn(self, day: QuotaDay) -> None:
        self._day = day
        self._valid_from = (day.starts_at - _STEP_BACK).timestamp()
        self._resets_at = day.resets_at.timestamp()


def _day_at(instant: datetime, zone: ZoneInfo) -> QuotaDay:
    return _bounds(instant.astimezone(zone).date(), zone, instant)


def _bounds(day: date, zone: ZoneInfo, instant: datetime) -> QuotaDay:
    resets_at = _midnight(day + _ONE_DAY, zone, fold=0)
    if resets_at <= instant:
        # Midnight came, the clocks went back over it, and it comes again.
        resets_at = _midnight(day + _ONE_DAY, zone, fold=1)
    return QuotaDay(date=day, starts_at=_midnight(day, zone, fold=0), resets_at=resets_at)


def _midnight(day: date, zone: ZoneInfo, *, fold: int) -> datetime:
    # Where clocks jump over midnight (PEP 495: fold=0 counts with the offset from before the
    # jump) this is the instant of the jump: the first one of the day.
    return datetime.combine(day, time(0, fold=fold), tzinfo=zone).astimezone(UTC)
