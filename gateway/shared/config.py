"""How to reach the shared Redis, and what to do while it cannot be reached."""

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from gateway.database import DatabaseUnusable


class OnFailure(Enum):
    """What a limit does that cannot be asked about: let calls in, or refuse them."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """`url` may hold a password, and is never shown.

    `timeout_seconds` bounds what one question may add to a call. A reservation not renewed for
    `lease_seconds` is that of a gateway that is gone.
    """

    url: str = field(repr=False)
    timeout_seconds: float = 0.5
    lease_seconds: float = 15.0
    on_quota_failure: OnFailure = OnFailure.CLOSED
    on_rate_failure: OnFailure = OnFailure.OPEN

    @property
    def place(self) -> str:
        """Where it is, without who we are there."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"


class RedisUnusable(DatabaseUnusable):
    """`REDIS_URL` cannot be used; the message says why and what helps, and hides the password."""

    def __init__(self, place: str, *, cause: str, cure: str = "") -> None:
        cure = cure or "Start Redis there, or correct the address"
        Exception.__init__(self, f"REDIS_URL={place}: {cause}. {cure}.")


class RedisSilent(Exception):
    """Redis gives no usable answer now; the message says why."""


class RedisLate(RedisSilent):
    """It was asked, and nobody knows whether it did what it was asked for."""
