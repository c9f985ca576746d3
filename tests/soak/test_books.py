"""The soak's bookkeeper finds what is wrong, so that its silence means something."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.clock import SystemClock
from gateway.exchange import Principal, TokenUsage
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.journal import Journal, JournalConfig
from gateway.quota.ledger import TokenDemand
from gateway.quota.memory import MemoryLedger
from tests.soak.books import Books
from tests.soak.told import Told


def line(used: tuple[int, int] = (5, 10), **fields: Any) -> dict[str, Any]:
    names = ("input_tokens", "output_tokens")
    known = {"event": "request", "request_id": "r", "key_id": "k", "outcome": "ok"}
    return {**known, **dict(zip(names, used, strict=True)), **fields}


def told(**fields: Any) -> Told:
    known = {"request_id": "r", "key_id": "k", "kind": "stream", "prompt": "p", "most_tokens": 10}
    return Told(**{**known, "status": 200, **fields})


async def books_of(folder: Path, charged: tuple[int, int], *lines: dict[str, Any]) -> Books:
    """A database in which the key was charged this, and a log with these lines."""
    clock = SystemClock()
    calendar = QuotaCalendar(zone=ZoneInfo("UTC"), clock=clock)
    ledger = MemoryLedger(calendar=calendar)
    journal = Journal(
        config=JournalConfig(path=folder / "books.db"),
        book=ledger,
        calendar=calendar,
        clock=clock,
        on_failure=print,
        on_recovery=print,
    )
    async with journal, ledger.reserve(Principal("k", "K"), TokenDemand("m", 1, 1)) as reservation:
        reservation.settle(TokenUsage(*charged))
    log = folder / "gateway.log"
    log.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return Books(log, folder / "books.db", datetime.now(UTC).date())


@pytest.mark.parametrize(
    ("call", "said", "wrong"),
    [
        (told(usage=(5, 10)), line(), None),
        (told(usage=(5, 9)), line(), "a whole answer charged otherwise"),
        (told(seen_tokens=10), line(), None),
        (told(seen_tokens=11), line(), "less charged than arrived"),
        (told(most_tokens=9), line(), "more charged than was asked for"),
        (told(status=0), line((5, 0), usage_estimated=True), None),
        (told(status=0), line((0, 0), usage_estimated=True), "an estimate that is none"),
        (told(seen_tokens=3), line((5, 2), usage_estimated=True), "less charged than arrived"),
        (told(status=502), line((0, 0), outcome="error"), None),
        (told(status=502), line(outcome="error"), "a failed call was charged"),
        (told(status=503), line(outcome="rejected"), "a free or refused call was charged"),
        (told(request_id="other"), line(), "a call without a line"),
    ],
)
async def test_each_call_is_held_to_its_rule(
    tmp_path: Path, call: Told, said: dict[str, Any], wrong: str | None
) -> None:
    used = said["input_tokens"], said["output_tokens"]
    books = await books_of(tmp_path, used, said)
    books.balance([call])
    assert [*books.wrong] == ([] if wrong is None else [wrong])


async def test_the_database_is_held_to_the_log(tmp_path: Path) -> None:
    books = await books_of(tmp_path, (5, 11), line())
    books.balance([])
    assert [*books.wrong] == ["the database disagrees with the log"]


async def test_an_internal_error_is_found(tmp_path: Path) -> None:
    error = {"event": "internal error", "level": "error"}
    books = await books_of(tmp_path, (5, 10), line(), error)
    books.balance([])
    assert [*books.wrong] == ["an error in the log"]


async def test_more_than_was_generated_is_found(tmp_path: Path) -> None:
    books = await books_of(tmp_path, (5, 10), line())
    books.balance([])
    assert books.invented(generated=15, kills=0) == []
    assert books.invented(generated=14, kills=0) == ["15 tokens charged, and only 14 generated"]
