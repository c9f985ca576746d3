"""KeyStore: what is kept of a key, and what happens to it."""

import re
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.auth.keyring import KeyDefaults, KeyRing
from gateway.auth.keystore import KeyNotFound, KeyRefused, KeyStore
from gateway.auth.record import KeyStatus, KeyTerms, Limit
from gateway.database import DatabaseUnusable, writer
from gateway.errors import AuthenticationFailed
from gateway.exchange import RateLimit
from tests.fakes.clock import FakeClock

DEFAULTS = KeyDefaults(1000, (RateLimit(60, 60.0),), 4)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> KeyStore:
    return KeyStore(path=tmp_path / "gateway.db", clock=clock)


def opens(store: KeyStore, clock: FakeClock, secret: str) -> bool:
    try:
        KeyRing(store.snapshot(DEFAULTS).entries, clock=clock).authenticate(secret)
    except AuthenticationFailed:
        return False
    return True


def test_a_new_key_opens_the_door(store: KeyStore, clock: FakeClock) -> None:
    record, secret = store.create("alice", KeyTerms())
    assert re.fullmatch(rf"sk-{record.key_id}-[A-Za-z0-9_-]{{43}}", secret)
    assert re.fullmatch(r"[a-z2-7]{10}", record.key_id)
    assert opens(store, clock, secret)


def test_the_file_does_not_contain_the_secret(store: KeyStore, tmp_path: Path) -> None:
    _, secret = store.create("alice", KeyTerms())
    octets = b"".join(found.read_bytes() for found in tmp_path.iterdir())
    assert secret[-43:].encode() not in octets


def test_a_key_of_default_terms_gets_the_gateways_limits(store: KeyStore) -> None:
    store.create("alice", KeyTerms())
    principal = store.snapshot(DEFAULTS).entries[0].principal
    assert principal.daily_token_quota == 1000
    assert principal.rate_limits == (RateLimit(60, 60.0),)
    assert principal.max_concurrent == 4
    assert principal.allowed_models is None


def test_unlimited_is_not_the_default(store: KeyStore) -> None:
    store.create("alice", KeyTerms(Limit.UNLIMITED, Limit.UNLIMITED, Limit.UNLIMITED))
    principal = store.snapshot(DEFAULTS).entries[0].principal
    assert principal.daily_token_quota is None
    assert principal.rate_limits == ()
    assert principal.max_concurrent is None


def test_terms_survive_the_file(store: KeyStore, clock: FakeClock) -> None:
    expires_at = clock.now() + timedelta(days=30)
    terms = KeyTerms(0, 5, Limit.UNLIMITED, frozenset({"a", "b,c"}), expires_at)
    record, _ = store.create("alice", terms)
    assert store.get("alice") == record
    assert store.get(record.key_id).terms == terms


def test_two_active_keys_cannot_share_a_name(store: KeyStore) -> None:
    store.create("alice", KeyTerms())
    with pytest.raises(KeyRefused, match="already named 'alice'"):
        store.create("alice", KeyTerms())


def test_the_name_of_a_revoked_key_is_free_again(store: KeyStore) -> None:
    old, _ = store.create("alice", KeyTerms())
    store.revoke("alice")
    new, _ = store.create("alice", KeyTerms())
    assert store.get("alice") == new
    assert store.get(old.key_id).revoked_at is not None


def test_a_revoked_key_opens_nothing_and_stays_listed(store: KeyStore, clock: FakeClock) -> None:
    _, secret = store.create("alice", KeyTerms())
    revoked = store.revoke("alice")
    assert not opens(store, clock, secret)
    assert store.records() == (revoked,)
    assert revoked.status(clock.now()) is KeyStatus.REVOKED


def test_a_key_is_revoked_once(store: KeyStore) -> None:
    store.create("alice", KeyTerms())
    store.revoke("alice")
    with pytest.raises(KeyRefused, match="revoked already"):
        store.revoke("alice")


def test_rotation_keeps_the_key_and_replaces_the_secret(store: KeyStore, clock: FakeClock) -> None:
    record, old = store.create("alice", KeyTerms())
    rotated, new = store.rotate("alice")
    assert rotated == replace(record, old_secret_ends_at=clock.now())
    assert opens(store, clock, new)
    assert not opens(store, clock, old)


def test_the_old_secret_works_for_the_grace(store: KeyStore, clock: FakeClock) -> None:
    _, old = store.create("alice", KeyTerms())
    store.rotate("alice", grace_seconds=60)
    assert opens(store, clock, old)
    clock.advance(60)
    assert not opens(store, clock, old)


def test_a_second_rotation_does_not_prolong_the_first_grace(
    store: KeyStore, clock: FakeClock
) -> None:
    _, first = store.create("alice", KeyTerms())
    store.rotate("alice", grace_seconds=60)
    store.rotate("alice", grace_seconds=3600)
    clock.advance(60)
    assert not opens(store, clock, first)


def test_revoking_ends_a_grace_too(store: KeyStore, clock: FakeClock) -> None:
    _, old = store.create("alice", KeyTerms())
    store.rotate("alice", grace_seconds=3600)
    store.revoke("alice")
    assert not opens(store, clock, old)


def test_a_revoked_key_cannot_be_rotated_back_to_life(store: KeyStore) -> None:
    store.create("alice", KeyTerms())
    store.revoke("alice")
    with pytest.raises(KeyRefused, match="is revoked"):
        store.rotate("alice")


@pytest.mark.parametrize("hostile", ["nobody", "' OR 1=1 --", "%", ""])
def test_an_unknown_reference_is_not_found(store: KeyStore, hostile: str) -> None:
    store.create("alice", KeyTerms())
    with pytest.raises(KeyNotFound):
        store.get(hostile)


def test_the_version_changes_with_every_change_of_a_key_and_only_then(store: KeyStore) -> None:
    store.prepare()
    versions = [store.version()]
    for change in (
        lambda: store.create("alice", KeyTerms()),
        lambda: store.rotate("alice"),
        lambda: store.revoke("alice"),
    ):
        change()
        versions.append(store.version())
    assert len(set(versions)) == 4
    assert store.version() == versions[-1]
    assert len({store_id for store_id, _ in versions}) == 1


def test_a_change_by_hand_changes_the_version_too(store: KeyStore, tmp_path: Path) -> None:
    store.create("alice", KeyTerms())
    before = store.version()
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as connection, connection:
        connection.execute("UPDATE api_keys SET revoked_at = created_at")
    assert store.version() != before


def test_reading_a_missing_file_says_so_and_creates_none(store: KeyStore, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="there is no such file"):
        store.records()
    assert list(tmp_path.iterdir()) == []


def test_twenty_thousand_keys_are_read_in_a_moment(store: KeyStore, tmp_path: Path) -> None:
    count = 20_000
    store.prepare()
    with writer(tmp_path / "gateway.db") as connection:
        connection.executemany(
            "INSERT INTO api_keys (key_id, name, created_at) VALUES (?, ?, '2026-11-29T00:00:00Z')",
            [(f"id{number}", f"name{number}") for number in range(count)],
        )
        connection.executemany(
            "INSERT INTO api_key_secrets (digest, key_id, created_at) VALUES (?, ?, '2026-11-29')",
            [(number.to_bytes(32), f"id{number}") for number in range(count)],
        )

    began = time.process_time()
    snapshot, records = store.snapshot(DEFAULTS), store.records()

    # Half a second of work; were each key asked for its old secrets one by one, a minute of it.
    assert len(snapshot.entries) == len(records) == count
    assert time.process_time() - began < 10
