"""`gateway usage`: tokens per key, day and model, read where the gateways keep them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.table import Table
from rich.text import Text

from gateway.auth.keystore import KeyNotFound
from gateway.clock import Clock
from gateway.commands.books import Books
from gateway.commands.exits import explained
from gateway.commands.tables import new_table, print_table
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.report import DayUsage, UsageRow, days_back

_LONGEST_DAYS = 3660


@dataclass(frozen=True, slots=True)
class UsageSource:
    """Where the books are and in which zone their days were counted."""

    books: Books
    zone: ZoneInfo


def usage_command(*, source: Callable[[], UsageSource], clock: Clock) -> Callable[..., None]:
    """The command. `source` is asked when it runs; the books are only ever read."""

    def usage(
        key: Annotated[str | None, typer.Option(help="Id or name of one key.")] = None,
        days: Annotated[int, typer.Option(min=1, max=_LONGEST_DAYS, help="Days back.")] = 1,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Show what keys used, today or over some days. The gateway may run or not."""
        found = source()
        today = QuotaCalendar(zone=found.zone, clock=clock).today().date
        since = days_back(today, days)[-1]
        with explained():
            names = _names(found.books)
            rows = found.books.rows(today, days=days)
            if key is not None:
                key_id = _key_id(key, names, rows)
                rows = tuple(row for row in rows if row.key_id == key_id)
        if as_json:
            typer.echo(json.dumps(_as_json(rows, names, since, found.zone), indent=2))
            return
        print_table(_table(rows, names))

    return usage


def _names(books: Books) -> dict[str, str]:
    return {record.key_id: record.name for record in books.keys.records()}


def _key_id(reference: str, names: dict[str, str], rows: Iterable[UsageRow]) -> str:
    """A key of the environment is known here by the rows it has, one of the store by name too."""
    if reference in names or any(row.key_id == reference for row in rows):
        return reference
    for key_id, name in reversed(names.items()):
        if name == reference:
            return key_id
    raise KeyNotFound(f"no key has the id or name '{reference}', and no usage has that id")


def _as_json(
    rows: Iterable[UsageRow], names: dict[str, str], since: date, zone: ZoneInfo
) -> dict[str, object]:
    keys = [
        {
            "key_id": key_id,
            "name": names.get(key_id, key_id),
            "days": [day.to_dict() for day in reversed(_days(of_key))],
        }
        for key_id, of_key in groupby(
            sorted(rows, key=lambda row: (row.key_id, row)), key=lambda row: row.key_id
        )
    ]
    return {"time_zone": str(zone), "since": since.isoformat(), "keys": keys}


def _days(rows: Iterable[UsageRow]) -> list[DayUsage]:
    return [DayUsage.of(day, of_day) for day, of_day in groupby(rows, key=lambda row: row.day)]


def _table(rows: tuple[UsageRow, ...], names: dict[str, str]) -> Table:
    table = new_table(show_footer=True)
    for title in ("day", "key", "model"):
        is_whole = title != "model"
        footer = "total" if title == "day" else ""
        table.add_column(title, footer=footer, overflow="fold", no_wrap=is_whole)
    for title, total in (
        ("requests", sum(row.requests for row in rows)),
        ("input", sum(row.input_tokens for row in rows)),
        ("output", sum(row.output_tokens for row in rows)),
        ("tokens", sum(row.input_tokens + row.output_tokens for row in rows)),
        ("refused", sum(row.refusals for row in rows)),
    ):
        table.add_column(title, footer=f"{total:,}", justify="right")
    for row in sorted(rows, key=lambda row: (-row.day.toordinal(), row.key_id, row.model)):
        counts = (
            row.requests,
            row.input_tokens,
            row.output_tokens,
            row.input_tokens + row.output_tokens,
            row.refusals,
        )
        labels = (row.day.isoformat(), names.get(row.key_id, row.key_id), row.model or "-")
        table.add_row(*(Text(label) for label in labels), *(f"{count:,}" for count in counts))
    return table
