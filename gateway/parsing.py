"""Reading settings: text to values, with a sentence for what does not fit."""

import math
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from gateway.routing.definition import require_url
from gateway.routing.secret import Secret
from gateway.shared.config import OnFailure

Value = TypeVar("Value")
Network = IPv4Network | IPv6Network
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
LOG_FORMATS = ("auto", "json", "console")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_NO_SESSION = frozenset({"authorization", "x-api-key", "content-length", "host", "x-request-id"})
_HOST = re.compile(r"[^\s/:@?#*\[\]]+")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^\s/:@?#*\[\]]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")


ApiKeys = tuple[tuple[str | None, Secret], ...]


def off_or(read: Callable[[str], Value]) -> Callable[[str], Value | None]:
    """`off` for no limit; else what `read` takes."""

    def read_or_off(raw: str) -> Value | None:
        if raw.lower() == "off":
            return None
        try:
            return read(raw)
        except ValueError as fault:
            raise ValueError(f"{fault}, or off") from None

    return read_or_off


def switch(raw: str) -> bool:
    if raw.lower() not in ("on", "off"):
        raise ValueError("must be on or off")
    return raw.lower() == "on"


def optional(read: Callable[[str], Value]) -> Callable[[str], Value | None]:
    """Empty for none; else what `read` takes."""

    def read_or_none(raw: str) -> Value | None:
        return read(raw) if raw else None

    return read_or_none


def text(raw: str) -> str:
    return raw


def secret(raw: str) -> Secret:
    if not raw.isascii() or any(c.isspace() for c in raw):
        raise ValueError("a key is ASCII without spaces")
    return Secret(raw)


def api_keys(raw: str) -> ApiKeys:
    """`key` and `name=key`, comma-separated."""
    keys: list[tuple[str | None, Secret]] = []
    for item in (part.strip() for part in raw.split(",")):
        if not item:
            continue
        name, has_name, key = item.partition("=")
        if not has_name:
            name, key = "", item
        elif not key.strip("= ") or not name.strip():
            # `abc==` may be a name without a key, or a key in base64: never guess.
            raise ValueError("write each key as `key` or `name=key`, one ending in = with its name")
        keys.append((name.strip() or None, secret(key.strip())))
    return tuple(keys)


def whole(raw: str) -> int:
    try:
        number = int(raw)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if number < 0:
        raise ValueError("must not be negative")
    return number


def count(raw: str) -> int:
    number = whole(raw)
    if number == 0:
        raise ValueError("must be at least 1")
    return number


def tokens(raw: str) -> int:
    """A whole number of tokens, from 0."""
    return whole(raw.replace("_", ""))


def port(raw: str) -> int:
    number = whole(raw)
    if number > 65535:
        raise ValueError("a port is at most 65535")
    return number


def seconds_or_zero(raw: str) -> float:
    try:
        number = float(raw)
    except ValueError:
        raise ValueError("must be a number of seconds") from None
    if not math.isfinite(number) or number < 0:
        raise ValueError("must be a number of seconds, not negative")
    return number


def seconds(raw: str) -> float:
    number = seconds_or_zero(raw)
    if number == 0:
        raise ValueError("must be more than 0 seconds")
    return number


def number(raw: str) -> float:
    """A number from 0."""
    try:
        value = float(raw)
    except ValueError:
        raise ValueError("must be a number") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError("must be a number, not negative")
    return value


def ratio(raw: str) -> float:
    number = seconds_or_zero(raw)
    if not 0 < number <= 1:
        raise ValueError("must be above 0 and at most 1")
    return number


def path(raw: str) -> Path:
    return Path(raw).expanduser()


def urls(raw: str) -> tuple[str, ...]:
    """http(s) URLs of upstreams, without /v1 and without credentials, each once."""
    found = [require_url(part) for part in raw.split(",") if part.strip()]
    if not found or len(set(found)) != len(found):
        raise ValueError("must name each upstream once, and at least one")
    return tuple(found)


def upstreams(raw: str) -> tuple[tuple[str, str], ...]:
    """`name=url`, comma-separated."""
    found = []
    for name, url in _pairs(raw, shape="name=url"):
        try:
            found.append((name, require_url(url)))
        except ValueError as fault:
            raise ValueError(f"'{name}' {fault}") from None
    return tuple(found)


def aliases(raw: str) -> dict[str, str]:
    """`alias=model`, comma-separated."""
    return dict(_pairs(raw, shape="alias=model"))


def _pairs(raw: str, *, shape: str) -> list[tuple[str, str]]:
    pairs = []
    for item in (part.strip() for part in raw.split(",")):
        name, sign, value = (part.strip() for part in item.partition("="))
        if item and not (name and sign and value):
            raise ValueError(f"write each as `{shape}`, separated by commas")
        if item:
            pairs.append((name, value))
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("must have each name once")
    return pairs


def header_name(raw: str) -> bytes:
    """The name of a request header, in lower case."""
    if not _HEADER.fullmatch(raw):
        raise ValueError("must be the name of a header, like X-Session-Id")
    if raw.lower() in _NO_SESSION:
        raise ValueError("is the same for all calls of a key or different for each; take another")
    return raw.lower().encode("ascii")


def time_zone(raw: str) -> ZoneInfo:
    try:
        return ZoneInfo(raw)
    except (KeyError, ValueError, OSError):
        raise ValueError("is no IANA time zone; write e.g. UTC or Europe/Berlin") from None


def networks_or_all(raw: str) -> tuple[Network, ...]:
    """As `networks`; `all` for every address there is."""
    return networks("0.0.0.0/0,::/0" if raw.lower() == "all" else raw)


def networks(raw: str) -> tuple[Network, ...]:
    found = []
    for part in words(raw):
        try:
            found.append(ip_network(part, strict=False))
        except ValueError:
            raise ValueError(f"'{part}' is no address or network like 10.0.0.0/8") from None
    return tuple(found)


def words(raw: str) -> frozenset[str]:
    """A comma-separated list; `none` for an empty one where that is not the default."""
    if raw.lower() == "none":
        return frozenset()
    return frozenset(part.strip() for part in raw.split(",") if part.strip())


def origins(raw: str) -> frozenset[str]:
    """Origins as browsers send them (RFC 6454), or `*`."""
    found = words(raw)
    for origin in found - {"*"}:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"'{origin}' is no origin: write scheme://host[:port] or *")
    return found


def hosts(raw: str) -> frozenset[str]:
    """Host names in lower case, without scheme, port or path, or `*`."""
    found = words(raw.lower())
    for host in found - {"*"}:
        if not _HOST.fullmatch(host):
            raise ValueError(f"'{host}' is no bare host name: write e.g. images.example or *")
    return found


def redis_url(raw: str) -> str:
    """A URL, with a password in it perhaps: faults do not repeat it."""
    try:
        parts = urlsplit(raw)
        is_whole = bool(parts.path if parts.scheme == "unix" else parts.hostname) and (
            parts.port is None or parts.port > 0
        )
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in _REDIS_SCHEMES:
        raise ValueError(
            "must be like redis://host:6379/0, rediss:// for TLS, or unix:///path/of/the/socket"
        )
    return raw


def lease(raw: str) -> float:
    number = seconds(raw)
    if number < 1:
        raise ValueError("must be at least 1 second")
    return number


def on_failure(raw: str) -> OnFailure:
    if raw.lower() not in ("open", "closed"):
        raise ValueError("must be open or closed")
    return OnFailure(raw.lower())


def log_level(raw: str) -> str:
    if raw.upper() not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return raw.upper()


def log_format(raw: str) -> str:
    if raw.lower() not in LOG_FORMATS:
        raise ValueError(f"must be one of {', '.join(LOG_FORMATS)}")
    return raw.lower()
