"""Counts on disk: what a kill may cost, what a signal may not, and what a sick disk does."""

import asyncio
import resource
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from scripts.simulator.config import SimulatorConfig
from tests.harness.callers import UNLIMITED, RawCall, dechunked, fronted, settled, until
from tests.harness.gateway import GatewayProcess, chat

CHAT = "/v1/chat/completions"
PROGRESS_SECONDS = 0.3
LONG: dict[str, Any] = {"max_tokens": 4000, "ignore_eos": True, "stream": True}


def recorded(database: Path) -> int:
    """Tokens in the file, as another program sees them; 0 while it cannot be read."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT sum(input_tokens + output_tokens) FROM usage")
            return row.fetchone()[0] or 0
    except sqlite3.DatabaseError:
        return 0


async def test_an_orderly_end_loses_nothing(tmp_path: Path) -> None:
    """Not even where the journal would otherwise write once a minute."""
    pace = SimulatorConfig(inter_token_seconds=0.002)
    async with fronted(tmp_path, pace=pace, QUOTA_FLUSH_SECONDS="60") as pair:
        gateway = pair.gateway
        async with RawCall(gateway, chat(max_tokens=300, ignore_eos=True, stream=True)) as stream:
            await stream.read_until(b'"content":" ')
            for _ in range(20):
                await gateway.client.post(CHAT, json=chat())
            gateway.signal(signal.SIGTERM)
            await stream.read_until(b"[DONE]")
        assert await gateway.ended() == 0

        assert recorded(gateway.database) == pair.generated_tokens
        await gateway.start()
        assert (await gateway.usage())["total_tokens"] == pair.generated_tokens


async def test_a_stream_cut_by_the_drain_is_on_record_as_far_as_it_came(tmp_path: Path) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.02)
    settings: dict[str, Any] = {"DRAIN_SECONDS": "0.3", "QUOTA_FLUSH_SECONDS": "60"}
    async with fronted(tmp_path, pace=pace, **settings) as pair:
        async with RawCall(pair.gateway, chat(**LONG)) as stream:
            await stream.read_times(b'"content":" ', 5)
            pair.gateway.signal(signal.SIGTERM)
            heard = dechunked(await stream.read_to_end())
        assert await pair.gateway.ended() == 0

        assert b"[DONE]" not in heard
        assert heard.count(b'"content":" ') < recorded(pair.gateway.database)
        assert pair.generated_tokens - 3 <= recorded(pair.gateway.database) <= pair.generated_tokens


async def test_running_streams_are_on_record_while_they_run(tmp_path: Path) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.01)
    async with fronted(tmp_path, pace=pace) as pair:
        async with RawCall(pair.gateway, chat(**LONG)) as stream:
            await stream.read_until(b'"content":" ')
            for _ in range(4):
                generated = pair.generated_tokens
                await asyncio.sleep(PROGRESS_SECONDS)
                assert recorded(pair.gateway.database) >= generated
        await settled(pair.gateway)


async def test_a_locked_database_holds_up_nobody_and_loses_nothing(tmp_path: Path) -> None:
    async with fronted(tmp_path) as pair:
        gateway = pair.gateway
        await gateway.client.post(CHAT, json=chat())
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)
        before = recorded(gateway.database)
        latencies = []
        with closing(sqlite3.connect(gateway.database, isolation_level=None)) as intruder:
            intruder.execute("BEGIN EXCLUSIVE")
            locked_until = monotonic() + 3.0
            while monotonic() < locked_until:
                started = monotonic()
                await gateway.client.post(CHAT, json=chat())
                latencies.append(monotonic() - started)
                await asyncio.sleep(0.05)

            assert max(latencies) < 0.1
            assert recorded(gateway.database) == before
            assert await gateway.metric("gateway_ledger_flush_failures_total") >= 1
            assert await gateway.metric("gateway_ledger_flush_age_seconds") > 2
            intruder.execute("ROLLBACK")
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)

        (line, *_) = await gateway.logged(
            event="usage does not reach the disk; it is kept in memory"
        )
        assert line["level"] == "error"
        assert "locked" in line["error"]
        await gateway.logged(event="usage reaches the disk again")
        await _age_returns_to_zero(gateway)


async def test_usage_that_could_not_be_written_at_the_end_is_told_by_the_exit_code(
    tmp_path: Path,
) -> None:
    async with fronted(tmp_path) as pair:
        gateway = pair.gateway
        await gateway.client.post(CHAT, json=chat())
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)
        with closing(sqlite3.connect(gateway.database, isolation_level=None)) as intruder:
            intruder.execute("BEGIN EXCLUSIVE")
            await gateway.client.post(CHAT, json=chat())
            gateway.signal(signal.SIGTERM)
            code = await gateway.ended()
            intruder.execute("ROLLBACK")

        (line,) = await gateway.logged(event="did not end in good order")
        assert code == 1
        assert "1 rows of usage were not written" in line["fault"]
        assert "locked" in line["fault"]


async def test_a_deleted_database_is_written_anew_with_all_of_today(tmp_path: Path) -> None:
    async with fronted(tmp_path) as pair:
        gateway = pair.gateway
        await gateway.client.post(CHAT, json=chat())
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)
        _remove(gateway.database)
        await gateway.client.post(CHAT, json=chat())
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)

        gateway.signal(signal.SIGKILL)
        await gateway.ended()
        await gateway.start()
        assert (await gateway.usage())["total_tokens"] == pair.generated_tokens


async def test_a_corrupted_database_stops_nobody_and_is_replaced_by_the_operator(
    tmp_path: Path,
) -> None:
    async with fronted(tmp_path) as pair:
        gateway = pair.gateway
        await gateway.client.post(CHAT, json=chat())
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)
        for part in _files(gateway.database):
            part.write_bytes(b"no database at all" * 500)
        for _ in range(3):
            assert (await gateway.client.post(CHAT, json=chat())).status_code == 200
            await asyncio.sleep(0.15)
        lines = await gateway.logged(event="usage does not reach the disk; it is kept in memory")

        assert await gateway.metric("gateway_ledger_flush_failures_total") >= 1
        assert lines[0]["level"] == "error"
        assert gateway.database.read_bytes().startswith(b"no database at all")
        _remove(gateway.database)
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)


async def test_a_full_disk_holds_up_nobody_and_loses_nothing(tmp_path: Path) -> None:
    async with fronted(tmp_path, LOG_LEVEL="ERROR") as pair:
        gateway = pair.gateway
        await gateway.client.post(CHAT, json=chat())
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)
        journal = gateway.database.with_name(gateway.database.name + "-wal")
        with _no_file_beyond(gateway.pid, journal.stat().st_size):
            for _ in range(5):
                assert (await gateway.client.post(CHAT, json=chat())).status_code == 200
                await asyncio.sleep(0.1)
            assert await gateway.metric("gateway_ledger_flush_failures_total") >= 1
            assert recorded(gateway.database) < pair.generated_tokens
        await until(lambda: recorded(gateway.database) == pair.generated_tokens)


async def test_a_restart_keeps_todays_usage_and_the_days_before(tmp_path: Path) -> None:
    async with fronted(tmp_path) as pair:
        gateway = pair.gateway
        await gateway.client.post(CHAT, json=chat())
        today = await gateway.usage()
        gateway.signal(signal.SIGTERM)
        await gateway.ended()
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        with closing(sqlite3.connect(gateway.database)) as connection, connection:
            connection.execute(
                "INSERT INTO usage VALUES (?, ?, 'sim-model', 30, 4, 2, 1)",
                (yesterday.isoformat(), today["key_id"]),
            )
        await gateway.start()

        report = await gateway.usage(days=3)
        assert report["total_tokens"] == today["total_tokens"]
        assert [day["date"] for day in report["history"]] == [
            (yesterday + timedelta(days=ahead)).isoformat() for ahead in (1, 0, -1)
        ]
        assert [day["total_tokens"] for day in report["history"]] == [today["total_tokens"], 34, 0]
        assert report["history"][1]["refusals"] == 1


@pytest.mark.parametrize("trouble", ["corrupt", "unwritable"])
async def test_an_unusable_database_is_refused_at_the_start_and_left_alone(
    tmp_path: Path, trouble: str
) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(b"no database at all" * 100)
    if trouble == "unwritable":
        # Its folder is a file: not even root can write there.
        path = path / "gateway.db"
    gateway = GatewayProcess(folder=tmp_path, DATABASE_PATH=str(path), **UNLIMITED)
    with pytest.raises(RuntimeError):
        async with gateway:
            pass

    assert await gateway.ended() != 0
    assert f"DATABASE_PATH={path}" in gateway.log_path.read_text()
    assert (tmp_path / "gateway.db").read_bytes() == b"no database at all" * 100
    await gateway.client.aclose()


class _no_file_beyond:
    """While this lasts, the process cannot make any file longer: to it, the disk is full."""

    def __init__(self, pid: int, size_bytes: int) -> None:
        self._process = psutil.Process(pid)
        self._size_bytes = size_bytes

    def __enter__(self) -> None:
        _, self._hard = self._process.rlimit(resource.RLIMIT_FSIZE)
        self._process.rlimit(resource.RLIMIT_FSIZE, (self._size_bytes, self._hard))

    def __exit__(self, *_: object) -> None:
        self._process.rlimit(resource.RLIMIT_FSIZE, (self._hard, self._hard))


def _files(database: Path) -> list[Path]:
    names = (database.name, database.name + "-wal", database.name + "-shm")
    return [path for name in names if (path := database.with_name(name)).exists()]


def _remove(database: Path) -> None:
    for path in _files(database):
        path.unlink()


async def _age_returns_to_zero(gateway: GatewayProcess) -> None:
    async with asyncio.timeout(5):
        while await gateway.metric("gateway_ledger_flush_age_seconds"):
            await asyncio.sleep(0.05)
