"""KeyStore: the API keys in the database, in short transactions that never overlap a request."""

import json
import secrets
import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.auth.keyring import KeyDefaults, KeyEntry, digest_of
from gateway.auth.record import KeyRecord, KeyStatus, KeyTerms, Limit
from gateway.clock import Clock
from gateway.database import prepare, reader, writer

_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 10
_SECRET_BYTES = 32
_STORED_UNLIMITED = -1

_COLUMNS = """
    key_id, name, created_at, expires_at, revoked_at,
    daily_token_quota, requests_per_minute, max_concurrent, allowed_models
"""
_INSERT = f"INSERT INTO api_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
# Joined once for all keys: asked key by key, many keys would take minutes at every start.
_ROTATED_OUT = """
    (SELECT key_id AS old_key_id, max(revoked_at) AS old_secret_ends_at
     FROM api_key_secrets GROUP BY key_id)
"""
_SELECT = f"""
    SELECT {_COLUMNS}, old_secret_ends_at
    FROM api_keys LEFT JOIN {_ROTATED_OUT} ON old_key_id = key_id
"""  # noqa: S608
_BY_REFERENCE = f"""
    {_SELECT} WHERE key_id = :reference OR name = :reference
    ORDER BY key_id = :reference DESC, revoked_at IS NULL DESC, revoked_at DESC LIMIT 1
"""


class KeyNotFound(LookupError):
    """No key has this id or name."""


class KeyRefused(Exception):
    """What was asked cannot be done to this key; the message says why."""


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """All keys at one instant. `store_id` names the file, `version` changes with every key."""

    store_id: str
    version: str
    entries: tuple[KeyEntry, ...]


class KeyStore:
    """Creates, lists, revokes and rotates keys. Secrets are returned once and stored hashed.

    Every method blocks for a moment and raises DatabaseUnusable if the file cannot be used.
    """

    def __init__(self, *, path: Path, clock: Clock) -> None:
        self._path = path.absolute()
        self._clock = clock

    def prepare(self) -> None:
        """Create the file and its tables where they are missing."""
        prepare(self._path)

    def create(self, name: str, terms: KeyTerms) -> tuple[KeyRecord, str]:
        """The new key and its secret. Raises KeyRefused if an active key has this name."""
        record = KeyRecord(key_id=new_key_id(), name=name, created_at=self._now(), terms=terms)
        with writer(self._path) as connection:
            try:
                connection.execute(_INSERT, _stored(record))
            except sqlite3.IntegrityError as error:
                raise KeyRefused(f"an active key is already named '{name}'") from error
            return record, _issue(connection, record, record.created_at)

    def records(self) -> tuple[KeyRecord, ...]:
        """Every key, revoked ones too, the oldest first."""
        with reader(self._path) as connection:
            rows = connection.execute(f"{_SELECT} ORDER BY created_at, key_id")
            return tuple(_record(row) for row in rows)

    def get(self, reference: str) -> KeyRecord:
        """By id or by name, of several with one name the active. Raises KeyNotFound."""
        with reader(self._path) as connection:
            return _found(connection, reference)

    def revoke(self, reference: str) -> KeyRecord:
        """From now on the key opens nothing. Raises KeyNotFound, or KeyRefused the second time."""
        with writer(self._path) as connection:
            record = _found(connection, reference)
            if record.revoked_at is not None:
                raise KeyRefused(f"key '{record.name}' ({record.key_id}) is revoked already")
            now = self._now()
            connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE key_id = ?",
                (now.isoformat(), record.key_id),
            )
            return replace(record, revoked_at=now)

    def rotate(self, reference: str, *, grace_seconds: float = 0.0) -> tuple[KeyRecord, str]:
        """A new secret for the same key, id and usage; older secrets end after the grace.

        Raises KeyNotFound, or KeyRefused for a key that is revoked or expired.
        """
        now = self._now()
        with writer(self._path) as connection:
            record = _found(connection, reference)
            if record.status(now) is not KeyStatus.ACTIVE:
                status = record.status(now).value
                raise KeyRefused(f"key '{record.name}' ({record.key_id}) is {status}: create one")
            ends_at = now + timedelta(seconds=grace_seconds)
            connection.execute(
                "UPDATE api_key_secrets SET revoked_at = min(coalesce(revoked_at, ?), ?) "
                "WHERE key_id = ?",
                (ends_at.isoformat(), ends_at.isoformat(), record.key_id),
            )
            return _found(connection, record.key_id), _issue(connection, record, now)

    def version(self) -> tuple[str, str]:
        """The store's id and a word that changes with every change of a key; cheap."""
        with reader(self._path) as connection:
            return _version(connection)

    def snapshot(self, defaults: KeyDefaults) -> KeySnapshot:
        """Every secret's entry, as a KeyRing takes it."""
        with reader(self._path) as connection:
            store_id, version = _version(connection)
            records = {row[0]: _record(row) for row in connection.execute(_SELECT)}
            issued = connection.execute("SELECT digest, key_id, revoked_at FROM api_key_secrets")
            entries = tuple(
                entry_of(digest, records[key_id], _instant(ends_at), defaults)
                for digest, key_id, ends_at in issued
            )
        return KeySnapshot(store_id=store_id, version=version, entries=entries)

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)


def new_key_id() -> str:
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


def new_secret(key_id: str) -> str:
    """The id inside the secret is public: it tells a leaked key's owner without a look-up."""
    return f"sk-{key_id}-{secrets.token_urlsafe(_SECRET_BYTES)}"


def _issue(connection: sqlite3.Connection, record: KeyRecord, now: datetime) -> str:
    secret = new_secret(record.key_id)
    connection.execute(
        "INSERT INTO api_key_secrets (digest, key_id, created_at) VALUES (?, ?, ?)",
        (digest_of(secret), record.key_id, now.isoformat()),
    )
    return secret


def _found(connection: sqlite3.Connection, reference: str) -> KeyRecord:
    row = connection.execute(_BY_REFERENCE, {"reference": reference}).fetchone()
    if row is None:
        raise KeyNotFound(f"no key has the id or name '{reference}'")
    return _record(row)


def _version(connection: sqlite3.Connection) -> tuple[str, str]:
    found = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    return found["store_id"], found["keys_version"]


def entry_of(
    digest: bytes, record: KeyRecord, ends_at: datetime | None, defaults: KeyDefaults
) -> KeyEntry:
    """What a KeyRing takes for one secret of a key."""
    ends = [instant for instant in (ends_at, record.revoked_at) if instant is not None]
    return KeyEntry(
        digest=digest,
        principal=record.principal(defaults),
        expires_at=record.terms.expires_at,
        revoked_at=min(ends, default=None),
    )


def _stored(record: KeyRecord) -> tuple[str | int | None, ...]:
    terms, models = record.terms, record.terms.allowed_models
    return (
        record.key_id,
        record.name,
        record.created_at.isoformat(),
        None if terms.expires_at is None else terms.expires_at.isoformat(),
        None,
        stored_limit(terms.daily_token_quota),
        stored_limit(terms.requests_per_minute),
        stored_limit(terms.max_concurrent),
        None if models is None else json.dumps(sorted(models)),
    )


def _record(row: tuple[Any, ...]) -> KeyRecord:
    key_id, name, created_at, expires_at, revoked_at, *limits, models, old_secret_ends_at = row
    quota, per_minute, concurrent = limits
    terms = KeyTerms(
        daily_token_quota=limit_of(quota),
        requests_per_minute=limit_of(per_minute),
        max_concurrent=limit_of(concurrent),
        allowed_models=None if models is None else frozenset(json.loads(models)),
        expires_at=_instant(expires_at),
    )
    return KeyRecord(
        key_id=key_id,
        name=name,
        created_at=datetime.fromisoformat(created_at),
        terms=terms,
        revoked_at=_instant(revoked_at),
        old_secret_ends_at=_instant(old_secret_ends_at),
    )


def _instant(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)


def limit_of(stored: int | None) -> int | Limit:
    """A limit as both stores keep it: None for the gateway's default, -1 for none at all."""
    if stored is None:
        return Limit.DEFAULT
    return Limit.UNLIMITED if stored == _STORED_UNLIMITED else stored


def stored_limit(limit: int | Limit) -> int | None:
    if limit is Limit.DEFAULT:
        return None
    return _STORED_UNLIMITED if limit is Limit.UNLIMITED else limit
