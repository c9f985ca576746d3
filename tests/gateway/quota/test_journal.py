"""Journal: what reaches the disk, and what trouble with the disk does not do to anybody."""

import asyncio
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest

from gateway.database import DatabaseUnusable
from gateway.exchange import TokenUsage
from gateway.quota.history import WAITING_MAX, HistoryUnavailable, SqliteHistory
from gateway.quota.journal import Journal, JournalConfig, UsageLost
from gateway.quota.ledger import TokenDemand
from gateway.quota.report import UsageRow
from tests.gateway.quota.conftest import TEAM, Bench


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def execute(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


async def test_a_flush_puts_what_changed_on_disk(bench: Bench) -> None:
    async with bench.journal as journal:
        await bench.spend(30)
        assert await journal.flush()
        assert bench.on_disk() == 30


async def test_leaving_writes_all_that_is_left(bench: Bench) -> None:
    async with bench.journal:
        await bench.spend(30)
        await bench.spend(12, model="other")
    assert bench.on_disk() == 42


async def test_a_journal_says_whether_it_is_open(bench: Bench) -> None:
    assert not bench.journal.is_open
    async with bench.journal:
        assert bench.journal.is_open
    assert not bench.journal.is_open


async def test_the_background_task_flushes_by_itself(bench: Bench) -> None:
    async with bench.new_journal(flush_seconds=0.01), asyncio.timeout(10):
        await bench.spend(30)
        while await asyncio.to_thread(bench.on_disk) < 30:
            pass


async def test_progress_of_a_running_stream_is_on_disk(bench: Bench) -> None:
    async with (
        bench.journal as journal,
        bench.ledger.reserve(TEAM, TokenDemand("m", 10, 100)) as reservation,
    ):
        reservation.progress(TokenUsage(10, 7))
        await journal.flush()
        assert bench.on_disk() == 17


async def test_the_next_start_counts_on(bench: Bench) -> None:
    async with bench.journal:
        await bench.spend(400)
    again = bench.start()
    async with again.journal:
        assert again.ledger.remaining(TEAM) == 600
        await again.spend(1)
    assert bench.on_disk() == 401


async def test_a_clock_set_back_over_midnight_between_starts_gives_no_second_helping(
    bench: Bench,
) -> None:
    bench.clock.advance(12 * 3600)
    async with bench.journal:
        await bench.spend(400)
    bench.clock.set_now(bench.clock.now() - timedelta(minutes=10))
    again = bench.start()
    async with again.journal:
        assert again.ledger.remaining(TEAM) == 600


async def test_days_written_under_a_wrong_clock_do_not_hold_the_gateway(bench: Bench) -> None:
    today = bench.clock.now()
    async with bench.journal:
        await bench.spend(100)
    for days in (20_000, 20_001, 20_002, 20_003):
        bench.clock.set_now(today + timedelta(days=days))
        wrong = bench.start()
        async with wrong.journal:
            await wrong.spend(900)
    bench.clock.set_now(today)
    again = bench.start()
    async with again.journal:
        assert again.ledger.remaining(TEAM) == 900


async def test_the_right_day_is_in_memory_when_a_wrong_clock_is_corrected(bench: Bench) -> None:
    today = bench.clock.now()
    async with bench.journal:
        await bench.spend(100)
    bench.clock.set_now(today - timedelta(days=20_000))
    again = bench.start()
    async with again.journal:
        bench.clock.set_now(today)
        await again.spend(50)
    assert bench.on_disk() == 150


async def test_a_day_no_longer_in_memory_is_reported_from_disk(bench: Bench) -> None:
    async with bench.journal as journal:
        await bench.spend(70)
        await journal.flush()
        bench.clock.advance(20 * 86_400)
        report = await bench.ledger.report(TEAM, days=21)
    assert report.is_complete
    assert report.history[-1].day == date(2026, 3, 14)
    assert report.history[-1].total.total_tokens == 70


async def test_days_older_than_the_retention_are_pruned(bench: Bench) -> None:
    async with bench.journal as journal:
        for _ in range(9):
            await bench.spend(1)
            await journal.flush()
            bench.clock.advance(86_400)
        await bench.spend(1)
    assert execute(bench.path, "SELECT min(day), max(day) FROM usage") == [
        ("2026-03-19", "2026-03-23")
    ]


async def test_a_clock_gone_wild_prunes_no_history(bench: Bench) -> None:
    async with bench.journal as journal:
        await bench.spend(1)
        await journal.flush()
        bench.clock.advance(20_000 * 86_400)
        await bench.spend(1)
    assert bench.on_disk() == 2


async def test_the_file_and_its_lock_are_for_the_owner_alone(bench: Bench) -> None:
    async with bench.journal:
        await bench.spend(1)
        await bench.journal.flush()
        modes = {found.name: found.stat().st_mode & 0o777 for found in bench.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "gateway.db-wal" in modes


async def test_the_file_is_kept_in_write_ahead_mode(bench: Bench) -> None:
    async with bench.journal:
        assert execute(bench.path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_locked_file_stops_nobody_and_is_reported_once(bench: Bench) -> None:
    async with bench.journal as journal:
        with locked(bench.path):
            await bench.spend(30)
            assert not await journal.flush()
            await bench.spend(12)
            bench.clock.advance(3)
            assert journal.flush_failures_total == 1
            assert journal.seconds_since_flush == 3
            assert "locked" in (journal.last_error or "")
        assert await journal.flush()
        assert journal.seconds_since_flush == 0
        assert journal.last_error is None
        assert [report.partition(":")[0] for report in bench.reports] == ["failure", "recovery"]
        assert bench.on_disk() == 42


async def test_nothing_to_write_is_no_delay(bench: Bench) -> None:
    async with bench.journal as journal:
        bench.clock.advance(100)
        assert journal.seconds_since_flush == 0


@pytest.mark.parametrize("is_recreated", [False, True])
async def test_a_file_deleted_while_running_is_written_anew_in_full(
    bench: Bench, is_recreated: bool
) -> None:
    async with bench.journal as journal:
        await bench.spend(30)
        await journal.flush()
        remove(bench.path)
        if is_recreated:
            bench.path.touch()
        await bench.spend(12, model="other")
        assert await journal.flush()
        assert bench.on_disk() == 42


async def test_a_file_overwritten_in_place_costs_no_count_once_it_is_removed(bench: Bench) -> None:
    async with bench.journal as journal:
        await bench.spend(30)
        await journal.flush()
        bench.path.write_bytes(b"this is not a database" * 500)
        await bench.spend(12)
        assert bench.ledger.standing(TEAM).used == 42
        await journal.flush()
        remove(bench.path)
        await bench.spend(1)
        assert await journal.flush()
        assert bench.on_disk() == 43


async def test_a_directory_that_vanished_is_made_again(bench: Bench) -> None:
    async with bench.journal as journal:
        await bench.spend(30)
        remove(bench.path)
        bench.path.with_name("gateway.db.lock").unlink()
        bench.path.parent.rmdir()
        assert await journal.flush()
        assert bench.on_disk() == 30


async def test_counts_that_could_not_be_written_at_the_end_are_reported(bench: Bench) -> None:
    journal = bench.new_journal(flush_seconds=3600, close_seconds=0.2)
    await journal.__aenter__()
    with locked(bench.path):
        await bench.spend(30)
        with pytest.raises(UsageLost, match=r"1 rows of usage were not written.*locked"):
            await journal.__aexit__(None, None, None)


async def test_a_lock_let_go_while_leaving_costs_nothing(bench: Bench) -> None:
    async def hold() -> None:
        with locked(bench.path):
            is_held.set()
            await asyncio.sleep(0.3)

    is_held = asyncio.Event()
    async with bench.new_journal(flush_seconds=3600):
        await bench.spend(30)
        holder = asyncio.create_task(hold())
        await is_held.wait()
    await holder
    assert bench.on_disk() == 30


async def test_the_background_task_outlives_what_nobody_expects(bench: Bench) -> None:
    faults = iter([RuntimeError("first"), RuntimeError("second")])
    told: list[str] = []

    class BrokenBook:
        def load(self, rows: Iterable[UsageRow]) -> None:
            bench.ledger.load(rows)

        def held(self) -> list[UsageRow]:
            return bench.ledger.held()

        def drain(self) -> list[UsageRow]:
            for fault in faults:
                raise fault
            return bench.ledger.drain()

    def tell(error: Exception) -> None:
        told.append(str(error))
        raise RuntimeError("nobody listens")

    journal = Journal(
        config=JournalConfig(path=bench.path, flush_seconds=0.01),
        book=BrokenBook(),
        calendar=bench.calendar,
        clock=bench.clock,
        on_failure=tell,
    )
    async with journal, asyncio.timeout(10):
        await bench.spend(30)
        while await asyncio.to_thread(bench.on_disk) < 30:
            pass
    assert told == ["first", "second"]


async def test_history_beyond_the_bound_of_readers_is_not_waited_for(bench: Bench) -> None:
    async with bench.journal:
        history = SqliteHistory(path=bench.path)
        today = bench.calendar.today().date
        reads = [history.rows("team", since=today) for _ in range(WAITING_MAX + 1)]
        answers = await asyncio.gather(*reads, return_exceptions=True)
        history.close()
    assert [isinstance(answer, HistoryUnavailable) for answer in answers] == (
        [False] * WAITING_MAX + [True]
    )


async def test_todays_report_asks_no_disk(bench: Bench) -> None:
    async with bench.journal:
        await bench.spend(30)
    again = bench.start()
    async with again.journal:
        remove(bench.path)
        report = await again.ledger.report(TEAM, days=1)
    assert (report.today.total.total_tokens, report.is_complete) == (30, True)


async def test_a_second_gateway_on_the_same_file_is_refused(bench: Bench) -> None:
    async with bench.journal:
        with pytest.raises(DatabaseUnusable, match=r"DATABASE_PATH=.*another gateway uses it"):
            await bench.start().journal.__aenter__()
    async with bench.start().journal:
        pass


async def test_a_file_that_is_no_database_is_refused_and_left_alone(bench: Bench) -> None:
    bench.path.parent.mkdir()
    bench.path.write_bytes(b"precious notes" * 100)
    with pytest.raises(DatabaseUnusable, match=r"DATABASE_PATH=.*not a sound SQLite.*aside"):
        await bench.journal.__aenter__()
    assert bench.path.read_bytes() == b"precious notes" * 100


async def test_a_corrupt_database_is_refused(bench: Bench) -> None:
    async with bench.journal:
        for number in range(200):
            await bench.spend(1, model=f"model-{number}")
    octets = bytearray(bench.path.read_bytes())
    octets[4096:] = bytes(byte ^ 0x55 for byte in octets[4096:])
    bench.path.write_bytes(octets)
    with pytest.raises(DatabaseUnusable, match="not a sound SQLite"):
        await bench.start().journal.__aenter__()


async def test_a_database_of_a_newer_gateway_is_refused(bench: Bench) -> None:
    async with bench.journal:
        pass
    execute(bench.path, "PRAGMA user_version = 99")
    with pytest.raises(DatabaseUnusable, match=r"newer gateway.*schema 99"):
        await bench.start().journal.__aenter__()


async def test_a_database_of_another_program_is_refused(bench: Bench) -> None:
    bench.path.parent.mkdir()
    execute(bench.path, "CREATE TABLE theirs (id INTEGER)")
    with pytest.raises(DatabaseUnusable, match="another program"):
        await bench.journal.__aenter__()


async def test_a_directory_that_cannot_be_made_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a directory should be")
    with pytest.raises(DatabaseUnusable, match="cannot be written"):
        await bench.journal.__aenter__()
