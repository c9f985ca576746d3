"""UsageHistory: the days a ledger no longer has in memory, read from the journal's file."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from gateway.database import DatabaseUnusable, reader
from gateway.quota.report import UsageRow

WAITING_MAX = 64
_COLUMNS = "day, key_id, model, input_tokens, output_tokens, requests, refusals"
_NEWEST = """
    day IN (SELECT DISTINCT day FROM usage ORDER BY day DESC LIMIT 3)
    OR day IN (SELECT DISTINCT day FROM usage WHERE day <= ? ORDER BY day DESC LIMIT 3)
"""


class HistoryUnavailable(Exception):
    """The history cannot be read now; today's counts do not depend on it."""


class UsageHistory(Protocol):
    """Rows of one key from the day `since` on, in any order."""

    async def rows(self, key_id: str, *, since: date) -> tuple[UsageRow, ...]:
        """Raises HistoryUnavailable."""
        ...


class NoHistory:
    """The history of a ledger that keeps no journal."""

    async def rows(self, key_id: str, *, since: date) -> tuple[UsageRow, ...]:
        return ()


NO_HISTORY = NoHistory()


class SqliteHistory:
    """Reads the journal's file off the event loop, through connections of its own.

    In one thread of its own: however many ask, nobody else waits for them. Beyond `WAITING_MAX`
    who asks is told HistoryUnavailable.
    """

    def __init__(self, *, path: Path) -> None:
        self._path = path
        self._waiting = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")

    async def rows(self, key_id: str, *, since: date) -> tuple[UsageRow, ...]:
        if self._waiting >= WAITING_MAX:
            raise HistoryUnavailable(f"{self._waiting} readers wait already")
        read = partial(read_rows, self._path, since=since, key_id=key_id)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, read)
        except DatabaseUnusable as error:
            raise HistoryUnavailable(str(error)) from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Nobody reads any more; who still waits is cancelled."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def read_rows(path: Path, *, since: date, key_id: str | None = None) -> tuple[UsageRow, ...]:
    """Rows from the day `since` on, of one key or of all. Raises DatabaseUnusable."""
    where, values = "day >= ?", [since.isoformat()]
    if key_id is not None:
        where, values = "day >= ? AND key_id = ?", [since.isoformat(), key_id]
    with reader(path) as connection:
        return _rows(connection, where, tuple(values))


def read_newest_rows(path: Path, *, today: date) -> tuple[UsageRow, ...]:
    """What a ledger needs at its start: the newest days on record. Raises DatabaseUnusable.

    Both the newest at all and the newest up to tomorrow: whether the clock is wrong now or
    was wrong when it wrote days that are still to come, today's counts are among them.
    """
    tomorrow = (today + timedelta(days=1)).isoformat()
    with reader(path) as connection:
        return _rows(connection, _NEWEST, (tomorrow,))


def _rows(
    connection: sqlite3.Connection, where: str, values: tuple[str, ...]
) -> tuple[UsageRow, ...]:
    # Only the constants above are put into the statement; what comes from outside is bound.
    statement = f"SELECT {_COLUMNS} FROM usage WHERE {where}"  # noqa: S608
    return tuple(
        UsageRow(date.fromisoformat(day), *counts)
        for day, *counts in connection.execute(statement, values)
    )
