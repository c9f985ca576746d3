"""KeyWatcher: a running gateway follows its key store, and keeps its keys when it cannot."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.auth.keyring import KeyDefaults, static_entries
from gateway.auth.keystore import KeyStore
from gateway.auth.record import KeyTerms
from gateway.auth.watcher import KeyWatcher
from gateway.database import DatabaseUnusable
from gateway.errors import AuthenticationFailed
from tests.fakes.clock import FakeClock


@dataclass
class Bench:
    """A store and a watcher that looks when told to."""

    path: Path
    clock: FakeClock = field(default_factory=FakeClock)
    reports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = KeyStore(path=self.path, clock=self.clock)
        self.watcher = self.new_watcher(poll_seconds=3600)

    def new_watcher(self, *, poll_seconds: float) -> KeyWatcher:
        return KeyWatcher(
            store=self.store,
            clock=self.clock,
            defaults=KeyDefaults(),
            static=static_entries([("static", "static-secret")], defaults=KeyDefaults()),
            poll_seconds=poll_seconds,
            on_failure=lambda error: self.reports.append(f"failure: {error}"),
            on_recovery=lambda error: self.reports.append("recovery"),
        )

    def opens(self, secret: str) -> bool:
        try:
            self.watcher.ring.authenticate(secret)
        except AuthenticationFailed:
            return False
        return True


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "gateway.db")


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


async def test_the_static_keys_and_those_of_the_store_are_in_the_ring(bench: Bench) -> None:
    _, secret = bench.store.create("alice", KeyTerms())
    async with bench.watcher:
        assert bench.opens("static-secret")
        assert bench.opens(secret)


async def test_creation_rotation_and_revocation_are_followed(bench: Bench) -> None:
    async with bench.watcher as watcher:
        _, old = bench.store.create("alice", KeyTerms())
        await watcher.refresh()
        assert bench.opens(old)

        _, new = bench.store.rotate("alice")
        await watcher.refresh()
        assert (bench.opens(old), bench.opens(new)) == (False, True)

        bench.store.revoke("alice")
        await watcher.refresh()
        assert not bench.opens(new)
        assert bench.opens("static-secret")


async def test_the_background_task_looks_by_itself(bench: Bench) -> None:
    bench.watcher = bench.new_watcher(poll_seconds=0.01)
    async with bench.watcher as watcher, asyncio.timeout(10):
        before = watcher.ring
        _, secret = bench.store.create("alice", KeyTerms())
        while watcher.ring is before:
            await asyncio.to_thread(bench.store.version)
        assert bench.opens(secret)


async def test_a_ring_stays_the_same_object_while_no_key_changes(bench: Bench) -> None:
    async with bench.watcher as watcher:
        before = watcher.ring
        with closing(sqlite3.connect(bench.path)) as other, other:
            other.execute("INSERT INTO usage VALUES ('2026-03-14', 'k', 'm', 1, 1, 1, 0)")
        await watcher.refresh()
        assert watcher.ring is before


async def test_a_vanished_store_keeps_the_keys_and_is_reported_once(bench: Bench) -> None:
    _, secret = bench.store.create("alice", KeyTerms())
    async with bench.watcher as watcher:
        remove(bench.path)
        await watcher.refresh()
        await watcher.refresh()
        assert bench.opens(secret)
        assert watcher.failures_total == 2
        assert len(bench.reports) == 1
        assert "no such file" in (watcher.last_error or "")


async def test_a_damaged_store_keeps_the_keys(bench: Bench) -> None:
    _, secret = bench.store.create("alice", KeyTerms())
    async with bench.watcher as watcher:
        remove(bench.path)
        bench.path.write_bytes(b"no database at all" * 100)
        await watcher.refresh()
        assert bench.opens(secret)
        assert "not a sound SQLite" in bench.reports[0]


async def test_another_store_in_its_place_revokes_nobody_and_is_reported(bench: Bench) -> None:
    _, secret = bench.store.create("alice", KeyTerms())
    async with bench.watcher as watcher:
        remove(bench.path)
        bench.store.create("mallory", KeyTerms())
        await watcher.refresh()
        assert bench.opens(secret)
        assert "restart the gateway to use this one" in bench.reports[0]


async def test_the_store_put_back_is_followed_again(bench: Bench) -> None:
    _, secret = bench.store.create("alice", KeyTerms())
    async with bench.watcher as watcher:
        aside = bench.path.rename(bench.path.with_name("aside"))
        await watcher.refresh()
        aside.rename(bench.path)
        bench.store.revoke("alice")
        await watcher.refresh()
        assert not bench.opens(secret)
        assert bench.reports[-1] == "recovery"


async def test_a_store_that_cannot_be_used_is_refused_at_the_start(bench: Bench) -> None:
    bench.path.write_bytes(b"no database at all" * 100)
    with pytest.raises(DatabaseUnusable):
        await bench.watcher.__aenter__()
