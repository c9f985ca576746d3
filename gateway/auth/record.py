"""KeyRecord: what is known of one API key, all but its secret."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from gateway.auth.keyring import KeyDefaults
from gateway.exchange import Principal, RateLimit

_MINUTE_SECONDS = 60.0


class Limit(Enum):
    """A limit that is not a number of the key's own."""

    DEFAULT = "default"
    UNLIMITED = "unlimited"


class KeyStatus(Enum):
    """Whether a key opens the door."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key may do. `allowed_models` None allows all, `expires_at` None never ends."""

    daily_token_quota: int | Limit = Limit.DEFAULT
    requests_per_minute: int | Limit = Limit.DEFAULT
    max_concurrent: int | Limit = Limit.DEFAULT
    allowed_models: frozenset[str] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key of the store; its public id outlives every secret.

    `old_secret_ends_at` is when the last secret that was rotated out ends or ended.
    """

    key_id: str
    name: str
    created_at: datetime
    terms: KeyTerms
    revoked_at: datetime | None = None
    old_secret_ends_at: datetime | None = None

    def status(self, now: datetime) -> KeyStatus:
        if self.revoked_at is not None and self.revoked_at <= now:
            return KeyStatus.REVOKED
        if self.terms.expires_at is not None and self.terms.expires_at <= now:
            return KeyStatus.EXPIRED
        return KeyStatus.ACTIVE

    def principal(self, defaults: KeyDefaults) -> Principal:
        """The caller with the limits that hold: the key's own, else the gateway's."""
        terms = self.terms
        return Principal(
            key_id=self.key_id,
            name=self.name,
            daily_token_quota=_effective(terms.daily_token_quota, defaults.daily_token_quota),
            rate_limits=_rate_limits(terms.requests_per_minute, defaults.rate_limits),
            max_concurrent=_effective(terms.max_concurrent, defaults.max_concurrent),
            allowed_models=terms.allowed_models,
        )

    def to_dict(self, now: datetime) -> dict[str, object]:
        """As `--json` prints it; a limit is a number, "default" or "unlimited"."""
        terms, old_secret_ends_at = self.terms, self.old_secret_ends_at
        is_old_in_use = (
            old_secret_ends_at is not None
            and old_secret_ends_at > now
            and self.status(now) is KeyStatus.ACTIVE
        )
        return {
            "key_id": self.key_id,
            "name": self.name,
            "status": self.status(now).value,
            "created_at": _iso(self.created_at),
            "expires_at": _iso(terms.expires_at),
            "revoked_at": _iso(self.revoked_at),
            "daily_token_quota": _word(terms.daily_token_quota),
            "requests_per_minute": _word(terms.requests_per_minute),
            "max_concurrent": _word(terms.max_concurrent),
            "allowed_models": None
            if terms.allowed_models is None
            else sorted(terms.allowed_models),
            "old_secret_works_until": _iso(old_secret_ends_at) if is_old_in_use else None,
        }


def _effective(own: int | Limit, default: int | None) -> int | None:
    if own is Limit.DEFAULT:
        return default
    return None if own is Limit.UNLIMITED else own


def _rate_limits(own: int | Limit, default: tuple[RateLimit, ...]) -> tuple[RateLimit, ...]:
    if own is Limit.DEFAULT:
        return default
    return () if own is Limit.UNLIMITED else (RateLimit(own, _MINUTE_SECONDS),)


def _word(limit: int | Limit) -> int | str:
    if limit is Limit.DEFAULT or limit is Limit.UNLIMITED:
        return limit.value
    return limit


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else f"{instant:%Y-%m-%dT%H:%M:%SZ}"
