"""RedisKeyStore: the API keys that several gateways share."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.auth.keyring import KeyDefaults, digest_of
from gateway.auth.keystore import (
    KeyNotFound,
    KeyRefused,
    KeySnapshot,
    entry_of,
    limit_of,
    new_key_id,
    new_secret,
    stored_limit,
)
from gateway.auth.record import KeyRecord, KeyStatus, KeyTerms
from gateway.clock import Clock
from gateway.shared.tables import Table, Tables

_ID: Final = "gateway:keys:id"
_VERSION: Final = "gateway:keys:version"
_RECORDS: Final = "gateway:keys:records"
_SECRETS: Final = "gateway:keys:secrets"
_TABLES: Final = (_RECORDS, _SECRETS)
_TRIES = 20


class RedisKeyStore:
    """A KeyStore in two hashes: records by id, secrets by digest, both as JSON.

    Two commands at once do not overwrite each other: each says which version it has read. A
    running gateway that finds the store gone, not replaced, puts back what it knows: Redis was
    restarted without a memory, and nobody meant to lock everybody out. Every method blocks for a
    moment and raises RedisUnusable.
    """

    def __init__(self, tables: Tables, *, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock
        self._known: tuple[bytes, list[Table]] = (b"", [{}, {}])
        self._id = ""

    def prepare(self) -> None:
        """Give the store a name where it has none."""
        self._tables.set_if_absent(_ID, secrets.token_hex(16))

    def create(self, name: str, terms: KeyTerms) -> tuple[KeyRecord, str]:
        """The new key and its secret. Raises KeyRefused if an active key has this name."""
        record = KeyRecord(key_id=new_key_id(), name=name, created_at=self._now(), terms=terms)
        for _ in range(_TRIES):
            version, records, _ = self._read()
            if any(r.name == name and r.revoked_at is None for r in records.values()):
                raise KeyRefused(f"an active key is already named '{name}'")
            changes, secret = self._issued(record, record.created_at)
            changes[_RECORDS] = {record.key_id: _dumped(record)}
            if self._commit(version, changes):
                return record, secret
        raise self._contended()

    def records(self) -> tuple[KeyRecord, ...]:
        """Every key, revoked ones too, the oldest first."""
        _, records, _ = self._read()
        return tuple(sorted(records.values(), key=lambda r: (r.created_at, r.key_id)))

    def get(self, reference: str) -> KeyRecord:
        """By id or by name, of several with one name the active. Raises KeyNotFound."""
        _, records, _ = self._read()
        return _found(records, reference)

    def revoke(self, reference: str) -> KeyRecord:
        """From now on the key opens nothing. Raises KeyNotFound, or KeyRefused the second time."""
        for _ in range(_TRIES):
            version, records, _ = self._read()
            record = _found(records, reference)
            if record.revoked_at is not None:
                raise KeyRefused(f"key '{record.name}' ({record.key_id}) is revoked already")
            revoked = replace(record, revoked_at=self._now())
            if self._commit(version, {_RECORDS: {record.key_id: _dumped(revoked)}}):
                return revoked
        raise self._contended()

    def rotate(self, reference: str, *, grace_seconds: float = 0.0) -> tuple[KeyRecord, str]:
        """A new secret for the same key, id and usage; older secrets end after the grace.

        Raises KeyNotFound, or KeyRefused for a key that is revoked or expired.
        """
        for _ in range(_TRIES):
            now = self._now()
            version, records, issued = self._read()
            record = _found(records, reference)
            if record.status(now) is not KeyStatus.ACTIVE:
                status = record.status(now).value
                raise KeyRefused(f"key '{record.name}' ({record.key_id}) is {status}: create one")
            ends_at = now + timedelta(seconds=grace_seconds)
            changes, secret = self._issued(record, now)
            for digest, facts in issued.items():
                if facts["key_id"] == record.key_id:
                    ended = _instant(facts["revoked_at"])
                    ends = ends_at if ended is None else min(ended, ends_at)
                    changes[_SECRETS][digest] = json.dumps({**facts, "revoked_at": _text(ends)})
            if self._commit(version, changes):
                return self.get(record.key_id), secret
        raise self._contended()

    def version(self) -> tuple[str, str]:
        """The store's id and a word that changes with every change of a key; cheap."""
        store_id, version = self._tables.texts(_ID, _VERSION)
        is_gone = store_id is None or (version is None and _word(store_id) != self._id)
        if self._id and is_gone:
            self._put_back()
            store_id, version = self._tables.texts(_ID, _VERSION)
        return _word(store_id), _word(version)

    def snapshot(self, defaults: KeyDefaults) -> KeySnapshot:
        """Every secret's entry, as a KeyRing takes it."""
        (store_id,) = self._tables.texts(_ID)
        version, tables = self._known = self._tables.snapshot(_VERSION, _TABLES)
        self._id = _word(store_id)
        records, issued = _records(*tables), _issued(tables[1])
        entries = tuple(
            entry_of(
                bytes.fromhex(digest),
                records[facts["key_id"]],
                _instant(facts["revoked_at"]),
                defaults,
            )
            for digest, facts in issued.items()
        )
        return KeySnapshot(store_id=self._id, version=version.decode(), entries=entries)

    def _put_back(self) -> None:
        version, tables = self._known
        changes = {
            name: {field.decode(): value.decode() for field, value in table.items()}
            for name, table in zip(_TABLES, tables, strict=True)
        }
        self._tables.commit(_VERSION, changes, expected=b"", new=version.decode() or _new_version())
        self._tables.set(_ID, self._id)

    def _read(self) -> tuple[bytes, dict[str, KeyRecord], dict[str, dict[str, Any]]]:
        version, tables = self._tables.snapshot(_VERSION, _TABLES)
        return version, _records(*tables), _issued(tables[1])

    def _commit(self, version: bytes, changes: Mapping[str, Mapping[str, str]]) -> bool:
        self.prepare()
        return self._tables.commit(_VERSION, changes, expected=version, new=_new_version())

    def _issued(self, record: KeyRecord, now: datetime) -> tuple[dict[str, dict[str, str]], str]:
        secret = new_secret(record.key_id)
        facts = {"key_id": record.key_id, "created_at": _text(now), "revoked_at": None}
        return {_SECRETS: {digest_of(secret).hex(): json.dumps(facts)}}, secret

    def _contended(self) -> KeyRefused:
        return KeyRefused("other commands change keys all the time: try again")

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)


def _records(records: Table, issued: Table) -> dict[str, KeyRecord]:
    rotated_out: dict[str, datetime] = {}
    for facts in _issued(issued).values():
        ended = _instant(facts["revoked_at"])
        if ended is not None:
            key_id = facts["key_id"]
            rotated_out[key_id] = max(rotated_out.get(key_id, ended), ended)
    found = {}
    for name, stored in records.items():
        key_id = name.decode()
        found[key_id] = _loaded(key_id, json.loads(stored), rotated_out.get(key_id))
    return found


def _issued(table: Table) -> dict[str, dict[str, Any]]:
    return {digest.decode(): json.loads(stored) for digest, stored in table.items()}


def _found(records: Mapping[str, KeyRecord], reference: str) -> KeyRecord:
    if reference in records:
        return records[reference]
    named = [record for record in records.values() if record.name == reference]
    if not named:
        raise KeyNotFound(f"no key has the id or name '{reference}'")
    # The active one, else the one that was revoked last.
    return max(named, key=lambda r: (r.revoked_at is None, r.revoked_at or r.created_at))


def _dumped(record: KeyRecord) -> str:
    terms, models = record.terms, record.terms.allowed_models
    return json.dumps(
        {
            "name": record.name,
            "created_at": _text(record.created_at),
            "expires_at": None if terms.expires_at is None else _text(terms.expires_at),
            "revoked_at": None if record.revoked_at is None else _text(record.revoked_at),
            "daily_token_quota": stored_limit(terms.daily_token_quota),
            "requests_per_minute": stored_limit(terms.requests_per_minute),
            "max_concurrent": stored_limit(terms.max_concurrent),
            "allowed_models": None if models is None else sorted(models),
        }
    )


def _loaded(key_id: str, facts: Mapping[str, Any], rotated_out: datetime | None) -> KeyRecord:
    models = facts["allowed_models"]
    return KeyRecord(
        key_id=key_id,
        name=facts["name"],
        created_at=datetime.fromisoformat(facts["created_at"]),
        terms=KeyTerms(
            daily_token_quota=limit_of(facts["daily_token_quota"]),
            requests_per_minute=limit_of(facts["requests_per_minute"]),
            max_concurrent=limit_of(facts["max_concurrent"]),
            allowed_models=None if models is None else frozenset(models),
            expires_at=_instant(facts["expires_at"]),
        ),
        revoked_at=_instant(facts["revoked_at"]),
        old_secret_ends_at=rotated_out,
    )


def _new_version() -> str:
    return secrets.token_hex(8)


def _instant(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)


def _text(instant: datetime) -> str:
    return instant.isoformat()


def _word(found: bytes | None) -> str:
    return "" if found is None else found.decode()
