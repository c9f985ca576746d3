"""What every key store promises, in a file or shared through Redis."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.auth.keyring import KeyDefaults, KeyEntry, digest_of
from gateway.auth.keystore import KeyNotFound, KeyRefused, KeySnapshot, KeyStore
from gateway.auth.record import KeyStatus, KeyTerms, Limit
from gateway.auth.redis_keystore import RedisKeyStore
from gateway.exchange import RateLimit
from gateway.shared.config import RedisConfig
from gateway.shared.tables import Tables
from tests.fakes.clock import FakeClock
from tests.harness.redis import RedisProcess

Store = KeyStore | RedisKeyStore
DEFAULTS = KeyDefaults(daily_token_quota=5, rate_limits=(RateLimit(6, 60.0),), max_concurrent=7)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(folder=tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["file", "redis"])
def store(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Store]:
    if request.param == "file":
        yield KeyStore(path=tmp_path / "gateway.db", clock=clock)
        return
    server: RedisProcess = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    tables = Tables(RedisConfig(server.url))
    yield RedisKeyStore(tables, clock=clock)
    tables.close()


def entry_of(store: Store, secret: str) -> KeyEntry:
    (found,) = (e for e in snapshot(store).entries if e.digest == digest_of(secret))
    return found


def snapshot(store: Store) -> KeySnapshot:
    store.prepare()
    return store.snapshot(DEFAULTS)


def test_a_key_has_the_terms_it_was_made_with_and_the_defaults_for_the_rest(
    store: Store, clock: FakeClock
) -> None:
    terms = KeyTerms(
        daily_token_quota=Limit.UNLIMITED,
        requests_per_minute=30,
        allowed_models=frozenset({"b", "a"}),
        expires_at=clock.now() + timedelta(days=1),
    )
    record, secret = store.create("Ann Ähnlich", terms)
    principal = entry_of(store, secret).principal
    assert (principal.key_id, principal.name) == (record.key_id, "Ann Ähnlich")
    assert principal.daily_token_quota is None
    assert principal.rate_limits == (RateLimit(30, 60.0),)
    assert principal.max_concurrent == 7
    assert principal.allowed_models == frozenset({"a", "b"})
    assert store.get("Ann Ähnlich") == record
    assert secret.startswith(f"sk-{record.key_id}-")


def test_an_active_name_is_taken_and_a_revoked_one_is_free(store: Store) -> None:
    first, _ = store.create("ann", KeyTerms())
    with pytest.raises(KeyRefused, match="already named 'ann'"):
        store.create("ann", KeyTerms())
    store.revoke("ann")
    second, _ = store.create("ann", KeyTerms())
    assert store.get("ann").key_id == second.key_id
    assert store.get(first.key_id).revoked_at is not None
    assert [record.key_id for record in store.records()] == sorted([first.key_id, second.key_id])


def test_a_revoked_key_opens_nothing_from_then_on(store: Store, clock: FakeClock) -> None:
    record, secret = store.create("ann", KeyTerms())
    assert entry_of(store, secret).is_valid(clock.now())
    store.revoke(record.key_id)
    assert not entry_of(store, secret).is_valid(clock.now())
    with pytest.raises(KeyRefused, match="revoked already"):
        store.revoke("ann")
    with pytest.raises(KeyRefused, match="is revoked: create one"):
        store.rotate("ann")


def test_a_rotated_secret_works_through_its_grace(store: Store, clock: FakeClock) -> None:
    record, old = store.create("ann", KeyTerms())
    rotated, new = store.rotate("ann", grace_seconds=60)
    assert rotated.key_id == record.key_id
    assert rotated.old_secret_ends_at == clock.now() + timedelta(seconds=60)
    assert entry_of(store, old).is_valid(clock.now())
    clock.advance(61)
    assert not entry_of(store, old).is_valid(clock.now())
    assert entry_of(store, new).is_valid(clock.now())
    # A grace that was given is not made longer by the next.
    store.rotate("ann", grace_seconds=600)
    assert not entry_of(store, old).is_valid(clock.now())
    assert store.get("ann").status(clock.now()) is KeyStatus.ACTIVE


def test_who_is_not_there_is_not_found(store: Store) -> None:
    store.prepare()
    for act in (store.get, store.revoke, store.rotate):
        with pytest.raises(KeyNotFound, match="bob"):
            act("bob")


def test_every_change_changes_the_version_and_nothing_the_id(store: Store) -> None:
    store.prepare()
    seen = [store.version()]
    store.create("ann", KeyTerms())
    seen.append(store.version())
    store.rotate("ann")
    seen.append(store.version())
    store.revoke("ann")
    seen.append(store.version())
    assert len({version for _, version in seen}) == 4
    assert len({store_id for store_id, _ in seen}) == 1
    assert store.version() == seen[-1]
    found = snapshot(store)
    assert (found.store_id, found.version) == seen[-1]


def test_commands_at_the_same_time_lose_nothing(store: Store) -> None:
    store.prepare()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: store.create(f"key {n}", KeyTerms()), range(16)))
    assert {record.key_id for record, _ in made} == {r.key_id for r in store.records()}
    assert len(snapshot(store).entries) == 16


def test_of_many_with_one_name_one_is_made(store: Store) -> None:
    def make(_: int) -> bool:
        try:
            store.create("same", KeyTerms())
        except KeyRefused:
            return False
        return True

    store.prepare()
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == 1
