"""KeyRing: from the SHA-256 digest of a token to the Principal it belongs to."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from gateway.clock import Clock
from gateway.errors import AuthenticationFailed
from gateway.exchange import Principal, RateLimit

# Slow on purpose: an id that was seen in a log must not be a cheap test for guessed keys.
_SCRYPT_COST = 2**14
_SCRYPT_SALT = b"vllm-gateway/key-id/1"
_NOT_IN_A_SLUG = re.compile(r"[^a-z0-9]+")
_LONGEST_NAME = 64


class KeyConflict(ValueError):
    """Two keys that cannot be told apart, or one without a usable name. Names no secret."""


@dataclass(frozen=True, slots=True)
class KeyDefaults:
    """What a key gets that sets no limits of its own; None and empty mean no limit."""

    daily_token_quota: int | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    max_concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One secret's digest and whom it stands for. Both times may lie ahead; None is never."""

    digest: bytes
    principal: Principal
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return False
        return self.expires_at is None or self.expires_at > now


class KeyRing:
    """Every known key; never edited, replaced as a whole.

    A token is hashed first and then looked up once, so that no answer tells by its time how
    close a guess was.
    """

    def __init__(self, entries: Iterable[KeyEntry] = (), *, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[bytes, KeyEntry] = {}
        for entry in entries:
            self._entries.setdefault(entry.digest, entry)

    def __len__(self) -> int:
        return len(self._entries)

    def principals(self) -> Iterator[Principal]:
        """Everybody who has a secret that is valid now, once each."""
        now = self._clock.now()
        seen: set[str] = set()
        for entry in self._entries.values():
            if entry.principal.key_id not in seen and entry.is_valid(now):
                seen.add(entry.principal.key_id)
                yield entry.principal

    def authenticate(self, token: bytes | str) -> Principal:
        """Raises AuthenticationFailed with the code `invalid_api_key`, `api_key_revoked` or
        `api_key_expired`; nothing else, whatever the token is made of.
        """
        entry = self._entries.get(digest_of(token))
        if entry is None:
            raise AuthenticationFailed("The API key is not known here.", code="invalid_api_key")
        if entry.revoked_at is not None and entry.revoked_at <= self._clock.now():
            raise AuthenticationFailed(
                f"This secret of API key '{entry.principal.name}' was revoked or replaced.",
                code="api_key_revoked",
            )
        if entry.expires_at is not None and entry.expires_at <= self._clock.now():
            raise AuthenticationFailed(
                f"API key '{entry.principal.name}' expired at "
                f"{entry.expires_at:%Y-%m-%dT%H:%M:%SZ}.",
                code="api_key_expired",
            )
        return entry.principal


def digest_of(token: bytes | str) -> bytes:
    """SHA-256, which is enough for secrets of 256 random bits."""
    octets = token if isinstance(token, bytes) else token.encode("utf-8", "surrogatepass")
    return hashlib.sha256(octets).digest()


def static_entries(
    keys: Iterable[tuple[str | None, str]], *, defaults: KeyDefaults
) -> tuple[KeyEntry, ...]:
    """The keys of `GATEWAY_API_KEYS`: (name or None, secret) pairs.

    The public id is the name as a slug; without a name, `key-` and ten hex digits derived
    from the secret by scrypt. Raises KeyConflict for two equal secrets or ids.
    """
    entries: dict[bytes, KeyEntry] = {}
    key_ids: set[str] = set()
    for name, secret in keys:
        key_id = _id_of_secret(secret) if name is None else _slug(name)
        digest = digest_of(secret)
        if digest in entries:
            first = entries[digest].principal.key_id
            raise KeyConflict(f"the keys '{first}' and '{key_id}' have the same secret")
        if key_id in key_ids:
            raise KeyConflict(f"two keys have the id '{key_id}': give them different names")
        key_ids.add(key_id)
        entries[digest] = KeyEntry(digest, _principal(key_id, name or key_id, defaults))
    return tuple(entries.values())


def _principal(key_id: str, name: str, defaults: KeyDefaults) -> Principal:
    return Principal(
        key_id=key_id,
        name=name,
        daily_token_quota=defaults.daily_token_quota,
        rate_limits=defaults.rate_limits,
        max_concurrent=defaults.max_concurrent,
    )


def _slug(name: str) -> str:
    slug = _NOT_IN_A_SLUG.sub("-", name.lower()).strip("-")
    if not slug or len(name) > _LONGEST_NAME:
        raise KeyConflict(
            f"the key name {name[:_LONGEST_NAME]!r} needs a letter or digit of ASCII and at "
            f"most {_LONGEST_NAME} characters"
        )
    return slug


def _id_of_secret(secret: str) -> str:
    octets = secret.encode("utf-8", "surrogatepass")
    derived = hashlib.scrypt(octets, salt=_SCRYPT_SALT, n=_SCRYPT_COST, r=8, p=1, dklen=5)
    return f"key-{derived.hex()}"
