"""Journal: the ledger's counts on disk, written behind its back and never in its way."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

import aiosqlite

from gateway.clock import Clock
from gateway.database import DatabaseUnusable, prepare
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.history import read_newest_rows
from gateway.quota.lock import sole_gateway
from gateway.quota.report import UsageRow, days_back

_LONGEST_PAUSE_SECONDS = 2.0
_LAST_PAUSE_SECONDS = 0.1
Found = TypeVar("Found")

# Absolute values: a commit whose fate is unknown may be repeated.
_WRITE = """
INSERT INTO usage (day, key_id, model, input_tokens, output_tokens, requests, refusals)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, key_id, model) DO UPDATE SET
    input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
    requests = excluded.requests, refusals = excluded.refusals
"""
# As many days of use as the retention has days are always kept, so that a clock gone wild
# erases no history.
_PRUNE = """
DELETE FROM usage WHERE day < ?
AND day NOT IN (SELECT DISTINCT day FROM usage ORDER BY day DESC LIMIT ?)
"""


@dataclass(frozen=True, slots=True)
class JournalConfig:
    """Where and how often. A kill loses at most `flush_seconds`, an orderly exit nothing. A write
    that takes longer than `slow_seconds` is told as a trouble, and waited for all the same."""

    path: Path
    flush_seconds: float = 0.1
    busy_seconds: float = 1.0
    slow_seconds: float = 3.0
    close_seconds: float = 10.0
    retention_days: int = 400


class UsageLost(Exception):
    """The journal was closed while the disk still refused these counts."""


class Book(Protocol):
    """What a journal writes down: rows of absolute counts."""

    def load(self, rows: Iterable[UsageRow]) -> None: ...
    def drain(self) -> list[UsageRow]: ...
    def held(self) -> list[UsageRow]: ...


class Journal:
    """Writes what changed in the book, every `flush_seconds`, in one transaction off the loop.

    Entering reads the newest days back into the book and raises DatabaseUnusable if the file
    cannot be used; it is never replaced. Later troubles stop nobody: the counts stay in
    memory, the write is repeated, `on_failure` is told once per trouble and `on_recovery`
    when it is over. A file deleted or replaced while running is written anew in full. Leaving
    tries for `close_seconds` and raises UsageLost if the disk refuses all that time.
    """

    def __init__(
        self,
        *,
        config: JournalConfig,
        book: Book,
        calendar: QuotaCalendar,
        clock: Clock,
        on_failure: Callable[[Exception], None] = lambda _: None,
        on_recovery: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._path = config.path.absolute()
        self._book = book
        self._calendar = calendar
        self._clock = clock
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._pending: dict[tuple[date, str, str], UsageRow] = {}
        self._connection: aiosqlite.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._turn = asyncio.Lock()
        self._closing = asyncio.Event()
        self._opened = AsyncExitStack()
        self._trouble: Exception | None = None
        self._clean_at = clock.monotonic()
        self._pruned_on: date | None = None
        self.flush_failures_total = 0
        self.is_open = False

    @property
    def last_error(self) -> str | None:
        """Why the last flush failed; None after one that did not."""
        return None if self._trouble is None else str(self._trouble)

    @property
    def seconds_since_flush(self) -> float:
        """For how long there have been counts that are not on disk; 0 when there are none."""
        return self._clock.monotonic() - self._clean_at if self._pending else 0.0

    async def __aenter__(self) -> "Journal":
        async with AsyncExitStack() as opened:
            opened.enter_context(sole_gateway(self._path))
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
            opened.callback(self._thread.shutdown, wait=False)
            today = self._calendar.today().date
            rows = await self._off_the_loop(lambda: _recorded(self._path, today))
            for day in sorted({row.day for row in rows}):
                self._calendar.resume(day)
            self._book.load(rows)
            opened.push_async_callback(self._disconnect)
            await self._connect()
            task = asyncio.create_task(self._run(), name="journal")
            opened.push_async_callback(self._finish, task)
            self._opened = opened.pop_all()
        self.is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.is_open = False
        await self._opened.aclose()

    async def flush(self) -> bool:
        """Write what changed, now. False if the disk refused; the counts are then kept."""
        async with self._turn:
            self._pending.update(((row.day, row.key_id, row.model), row) for row in self._drained())
            alarm = asyncio.get_running_loop().call_later(
                self._config.slow_seconds, self._note_slow
            )
            try:
                await self._write()
            except (sqlite3.Error, OSError, DatabaseUnusable) as error:
                await self._fail(error)
                return False
            finally:
                alarm.cancel()
            self._succeed()
            return True

    def _drained(self) -> list[UsageRow]:
        if not self._pending:
            self._clean_at = self._clock.monotonic()
        return self._book.drain()

    async def _run(self) -> None:
        pause_seconds = self._config.flush_seconds
        while not await self._closes_within(pause_seconds):
            began_at = self._clock.monotonic()
            if await self._tried():
                pause_seconds = self._pause_after(self._clock.monotonic() - began_at)
            else:
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    async def _tried(self) -> bool:
        """Flush; whatever happens is a failure to be told and tried again, not an end."""
        try:
            return await self.flush()
        except Exception as error:
            with suppress(Exception):  # Even the telling may fail; the counts must not.
                await self._fail(error)
            return False

    def _pause_after(self, flush_took_seconds: float) -> float:
        """What is counted just after a flush has looked waits for the rest of that flush, for
        the pause, and for the next flush: together no longer than `flush_seconds`."""
        flush_seconds = self._config.flush_seconds
        return max(flush_seconds - 2 * flush_took_seconds, flush_seconds / 4)

    async def _closes_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    async def _finish(self, task: asyncio.Task[None]) -> None:
        # The task is let finish, not cancelled: nobody is to guess the fate of a commit.
        self._closing.set()
        await task
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.close_seconds):
                await self._flush_at_last()
        if self._pending:
            cause = f"{len(self._pending)} rows of usage were not written: {self.last_error}"
            raise UsageLost(cause)

    async def _flush_at_last(self) -> None:
        while True:
            if await self._tried():
                return
            await asyncio.sleep(min(self._config.flush_seconds, _LAST_PAUSE_SECONDS))

    async def _write(self) -> None:
        today = self._calendar.today().date
        if not self._pending and self._pruned_on == today and self._trouble is None:
            return
        connection = await self._connected()
        await connection.execute("BEGIN IMMEDIATE")
        await connection.executemany(_WRITE, [_bound(row) for row in self._pending.values()])
        if self._pruned_on != today:
            days = self._config.retention_days
            oldest = days_back(today, days)[-1]
            await connection.execute(_PRUNE, (oldest.isoformat(), days))
        await connection.execute("COMMIT")
        self._pending.clear()
        self._pruned_on = today

    async def _connected(self) -> aiosqlite.Connection:
        if self._connection is not None:
            if await self._off_the_loop(lambda: _identity(self._path)) == self._file:
                return self._connection
            await self._disconnect()
        # Nobody knows what a file opened anew holds: give it all that is held here.
        self._pending = {(row.day, row.key_id, row.model): row for row in self._book.held()} | (
            self._pending
        )
        await self._off_the_loop(lambda: prepare(self._path))
        return await self._connect()

    async def _connect(self) -> aiosqlite.Connection:
        self._file = await self._off_the_loop(lambda: _identity(self._path))
        self._connection = await aiosqlite.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._config.busy_seconds,
            isolation_level=None,
        )
        await self._connection.execute("PRAGMA synchronous = FULL")
        return self._connection

    async def _off_the_loop(self, look: Callable[[], Found]) -> Found:
        """In the journal's own thread: nobody's load delays what is to reach the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, look)

    async def _disconnect(self) -> None:
        # An open connection has a thread that would keep the process from exiting.
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # It is given up in any case.
                await connection.close()

    async def _fail(self, error: Exception) -> None:
        self.flush_failures_total += 1
        is_news = str(error) != self.last_error
        self._trouble = error
        await self._disconnect()
        if is_news:
            self._on_failure(error)

    def _note_slow(self) -> None:
        """A disk that hangs reports no error; somebody should look at it."""
        seconds = self._config.slow_seconds
        self._trouble = TimeoutError(f"the disk has not answered for {seconds:g} s")
        self._on_failure(self._trouble)

    def _succeed(self) -> None:
        self._clean_at = self._clock.monotonic()
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            self._on_recovery(trouble)


def _recorded(path: Path, today: date) -> tuple[UsageRow, ...]:
    prepare(path, verify=True)
    return read_newest_rows(path, today=today)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _bound(row: UsageRow) -> tuple[str, str, str, int, int, int, int]:
    return (row.day.isoformat(), *row[1:])
