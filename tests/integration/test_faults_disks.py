"""Disks that are full, fail, hang or lie: nobody who calls notices, and nothing counted is lost."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from gateway.database import prepare
from tests.harness.callers import Fronted, fronted, settled, until
from tests.harness.disks import failing_disk, small_disk
from tests.harness.gateway import GatewayProcess, chat

CHAT = "/v1/chat/completions"
KEPT_IN_MEMORY = "usage does not reach the disk; it is kept in memory"
WRITTEN_AGAIN = "usage reaches the disk again"
PAGE_BYTES = 4096


def recorded(database: Path) -> int:
    """Tokens in the file, as another program sees them; -1 while it cannot be read."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT sum(input_tokens + output_tokens) FROM usage")
            return row.fetchone()[0] or 0
    except sqlite3.DatabaseError:
        return -1


async def all_is_recorded(pair: Fronted) -> None:
    await until(lambda: recorded(pair.gateway.database) == pair.generated_tokens, within_seconds=15)


async def nobody_notices(pair: Fronted, *, calls: int = 10) -> None:
    """Calls are answered in time, streamed or not, while usage cannot be written."""
    for number in range(calls):
        began = monotonic()
        answer = await pair.gateway.client.post(CHAT, json=chat(stream=number % 2 == 1))
        assert answer.status_code == 200
        assert monotonic() - began < 1.0
        await asyncio.sleep(0.05)
    assert (await settled(pair.gateway))["total_tokens"] == pair.generated_tokens


@asynccontextmanager
async def filled(disk: Path) -> AsyncIterator[None]:
    """No room at all meanwhile, whatever others give back."""
    filler = disk / "filler"

    async def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            while True:
                with suppress(OSError):
                    while file.write(bytes(PAGE_BYTES)):
                        pass
                await asyncio.sleep(0.005)

    filling = asyncio.create_task(fill())
    try:
        yield
    finally:
        filling.cancel()
        await asyncio.wait([filling])
        filler.unlink()


async def test_a_full_disk_stops_nobody_and_all_is_written_when_there_is_room(
    tmp_path: Path,
) -> None:
    """Books and log on the same disk, as they mostly are."""
    with small_disk(tmp_path / "disk", kilobytes=1024) as disk:
        places: dict[str, Any] = {
            "DATABASE_PATH": str(disk / "gateway.db"),
            "LOG_FILE": str(disk / "gateway.log"),
        }
        async with fronted(tmp_path, **places) as pair:
            gateway = pair.gateway
            await gateway.client.post(CHAT, json=chat())
            await all_is_recorded(pair)
            async with filled(disk):
                await nobody_notices(pair)
                (line, *_) = await gateway.logged(event=KEPT_IN_MEMORY)
                assert (line["level"], "full" in line["error"]) == ("error", True)
                assert await gateway.metric("gateway_ledger_flush_failures_total") >= 1
                assert await gateway.metric("gateway_ledger_flush_age_seconds") > 0
                async with asyncio.timeout(5):
                    while not await gateway.metric("gateway_log_lines_dropped_total"):
                        await gateway.client.post(CHAT, json=chat())

            await all_is_recorded(pair)
            await gateway.logged(event=WRITTEN_AGAIN)
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_disk_that_is_full_at_the_start_is_told_in_one_line(
    tmp_path: Path, is_new: bool
) -> None:
    with small_disk(tmp_path / "disk", kilobytes=256) as disk:
        path = disk / "gateway.db"
        if not is_new:
            prepare(path)
        gateway = GatewayProcess(folder=tmp_path, DATABASE_PATH=str(path))
        async with filled(disk):
            with pytest.raises(RuntimeError, match="the gateway ended"):
                await gateway.start()
        await gateway.client.aclose()

    assert await gateway.ended() == 78
    (line,) = await gateway.logged(event="cannot start")
    assert line["fault"].startswith(f"DATABASE_PATH={path}: ")
    assert "disk is full" in line["fault"]
    assert "Traceback" not in gateway.log_path.read_text()


async def test_a_disk_that_turned_read_only_stops_nobody_and_another_gets_all_of_it(
    tmp_path: Path,
) -> None:
    with failing_disk(tmp_path / "disk") as disk:
        path = disk.folder / "gateway.db"
        async with fronted(tmp_path, DATABASE_PATH=str(path)) as pair:
            gateway = pair.gateway
            await gateway.client.post(CHAT, json=chat())
            await all_is_recorded(pair)
            on_disk = recorded(path)
            disk.fail()
            await nobody_notices(pair)
            (line, *_) = await gateway.logged(event=KEPT_IN_MEMORY)
            assert line["level"] == "error"
            assert await gateway.metric("gateway_ledger_flush_failures_total") >= 1

            with disk.replaced():
                await all_is_recorded(pair)
                await gateway.logged(event=WRITTEN_AGAIN)
                gateway.signal(signal.SIGTERM)
                assert await gateway.ended() == 0
        assert recorded(path) == on_disk


async def test_a_disk_that_hangs_holds_up_nobody_but_the_end(tmp_path: Path) -> None:
    with failing_disk(tmp_path / "disk") as disk:
        async with fronted(tmp_path, DATABASE_PATH=str(disk.folder / "gateway.db")) as pair:
            gateway = pair.gateway
            await gateway.client.post(CHAT, json=chat())
            await all_is_recorded(pair)
            with disk.hanging():
                await nobody_notices(pair, calls=30)
                assert await gateway.metric("gateway_ledger_flush_age_seconds") > 1
                (line,) = await gateway.logged(event=KEPT_IN_MEMORY)
                assert "the disk has not answered for 3 s" in line["error"]
                gateway.signal(signal.SIGTERM)
                with pytest.raises(TimeoutError):
                    await gateway.ended(within_seconds=0.5)
            assert await gateway.ended() == 0
            await all_is_recorded(pair)
            await gateway.logged(event=WRITTEN_AGAIN)


async def test_pages_overwritten_while_it_runs_stop_nobody_and_are_told_at_the_next_start(
    tmp_path: Path,
) -> None:
    """What is in memory is right, what is read from such pages is said to be missing."""
    async with fronted(tmp_path) as pair:
        gateway = pair.gateway
        write_history(gateway.database, days=300)
        await gateway.client.post(CHAT, json=chat())
        await all_is_recorded(pair)
        move_log_into(gateway.database)
        spoil_pages(gateway.database)
        await nobody_notices(pair)
        (line, *_) = await gateway.logged(level="error", path=str(gateway.database))
        assert "malformed" in line["error"]
        report = await gateway.usage(days=300)
        assert report["total_tokens"] == pair.generated_tokens
        assert report["history_is_complete"] is False

        gateway.signal(signal.SIGKILL)
        await gateway.ended()
        with pytest.raises(RuntimeError, match="not a sound SQLite database"):
            await gateway.start()


def write_history(database: Path, *, days: int) -> None:
    """Rows of other keys, without tokens, in many pages."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO usage VALUES (date('now', ?), ?, 'm', 0, 0, 1, 0)",
            [(f"-{day + 10} days", f"k{key}") for day in range(days) for key in range(10)],
        )


async def test_pages_overwritten_before_the_start_refuse_it_and_stay_as_they_are(
    tmp_path: Path,
) -> None:
    gateway = GatewayProcess(folder=tmp_path)
    prepare(gateway.database)
    write_history(gateway.database, days=100)
    move_log_into(gateway.database)
    spoil_pages(gateway.database)
    spoilt = gateway.database.read_bytes()
    with pytest.raises(RuntimeError, match="the gateway ended"):
        await gateway.start()
    await gateway.client.aclose()

    assert await gateway.ended() == 78
    (line,) = await gateway.logged(event="cannot start")
    assert "not a sound SQLite database" in line["fault"]
    assert "restore a backup" in line["fault"]
    assert gateway.database.read_bytes() == spoilt


def move_log_into(database: Path) -> None:
    """A checkpoint: all pages are where they belong."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def spoil_pages(database: Path) -> None:
    """All pages but the first, which says that this is a database."""
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(b"\xa5" * (size - PAGE_BYTES))
