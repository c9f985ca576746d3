"""UsageReport: what a key used, today and on the days before, as its holder is told."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

# Refusals are booked under this model: they happen before any model is asked.
NO_MODEL = ""


class UsageRow(NamedTuple):
    """The absolute counts of one key and model on one day, as the journal keeps them."""

    day: date
    key_id: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Counts of one model, or of all of them."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, object]:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.total_tokens,
            "requests": self.requests,
        }


@dataclass(frozen=True, slots=True)
class DayUsage:
    """One day of one key."""

    day: date
    total: ModelUsage
    refusals: int
    models: Mapping[str, ModelUsage]

    @classmethod
    def of(cls, day: date, rows: Iterable[UsageRow]) -> "DayUsage":
        """Add up the rows of one key and day; each model appears at most once among them."""
        counted = tuple(rows)
        return cls(
            day=day,
            total=ModelUsage(
                input_tokens=sum(row.input_tokens for row in counted),
                output_tokens=sum(row.output_tokens for row in counted),
                requests=sum(row.requests for row in counted),
            ),
            refusals=sum(row.refusals for row in counted),
            models={
                row.model: ModelUsage(row.input_tokens, row.output_tokens, row.requests)
                for row in sorted(counted)
                if row.requests
            },
        )

    def to_dict(self) -> dict[str, object]:
        return {
            "date": self.day.isoformat(),
            **self.total.to_dict(),
            "refusals": self.refusals,
            "models": {model: usage.to_dict() for model, usage in self.models.items()},
        }


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A key's day and its history, newest day first, days without use included.

    `quota` and `remaining` are None for a key without a quota. `is_complete` is False when
    the journal could not be read: days before those in memory then show as zeros.
    """

    key_id: str
    name: str
    time_zone: str
    resets_at: datetime
    quota: int | None
    reserved: int
    remaining: int | None
    today: DayUsage
    history: tuple[DayUsage, ...]
    is_complete: bool

    def to_dict(self) -> dict[str, object]:
        """The body of `GET /v1/usage`: today's counts on top, all days under `history`."""
        return {
            "key_id": self.key_id,
            "name": self.name,
            "time_zone": self.time_zone,
            "resets_at": f"{self.resets_at:%Y-%m-%dT%H:%M:%SZ}",
            "quota_tokens": self.quota,
            "reserved_tokens": self.reserved,
            "remaining_tokens": self.remaining,
            **self.today.to_dict(),
            "history": [day.to_dict() for day in self.history],
            "history_is_complete": self.is_complete,
        }


def by_day(rows: Iterable[UsageRow], dates: Iterable[date]) -> tuple[DayUsage, ...]:
    """One DayUsage for each date, in the order of `dates`, from the rows of one key."""
    rows_of: dict[date, list[UsageRow]] = {day: [] for day in dates}
    for row in rows:
        if row.day in rows_of:
            rows_of[row.day].append(row)
    return tuple(DayUsage.of(day, of_day) for day, of_day in rows_of.items())


def days_back(newest: date, days: int) -> tuple[date, ...]:
    """`days` dates, the newest first."""
    return tuple(newest - timedelta(days=back) for back in range(days))
