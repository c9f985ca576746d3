"""The words in which a key's terms are given on the command line."""

import re
from datetime import UTC, datetime, timedelta

import typer

from gateway.auth.record import Limit

_LONGEST_NAME = 64
_MOST_DIGITS = 15
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def name_of(word: str) -> str:
    """A name for people: printable, not blank, at most 64 characters."""
    if not word.strip() or not word.isprintable() or len(word) > _LONGEST_NAME:
        raise typer.BadParameter(f"a name has 1 to {_LONGEST_NAME} printable characters")
    return word.strip()


def limit_of(word: str) -> int | Limit:
    """A number from 0, `off`, or `default` (whatever the gateway is configured with).

    `off` is the settings' word for no limit, `unlimited` that of what `--json` prints.
    """
    if word in ("off", Limit.UNLIMITED.value):
        return Limit.UNLIMITED
    if word == Limit.DEFAULT.value:
        return Limit.DEFAULT
    digits = word.replace("_", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS):
        raise typer.BadParameter(f"'{word}' is no whole number, 'off' or 'default'")
    return int(digits)


def positive_limit_of(word: str) -> int | Limit:
    """As `limit_of`, but from 1: a key that may send nothing is better revoked."""
    limit = limit_of(word)
    if limit == 0:
        raise typer.BadParameter("0 would refuse every request: allow at least 1, or revoke a key")
    return limit


def models_of(word: str | None) -> frozenset[str] | None:
    """Names separated by commas; None, the option left out, allows every model."""
    if word is None:
        return None
    models = frozenset(model.strip() for model in word.split(",") if model.strip())
    if not models:
        raise typer.BadParameter("name at least one model, or leave the option out to allow all")
    return models


def seconds_of(word: str) -> float:
    """`90s`, `15m`, `1h`, `30d`, `2w`, or `0`."""
    if word == "0":
        return 0.0
    found = _DURATION.fullmatch(word)
    if found is None:
        raise typer.BadParameter(f"'{word}' is no duration like 90s, 15m, 1h, 30d or 2w")
    return float(int(found[1]) * _SECONDS[found[2]])


def expiry_of(word: str, *, now: datetime) -> datetime | None:
    """`never`, a duration from now, a last day (UTC, included), or an ISO time with offset."""
    if word == "never":
        return None
    try:
        if _DURATION.fullmatch(word):
            expires_at = now + timedelta(seconds=seconds_of(word))
        elif _DATE.fullmatch(word):
            expires_at = datetime.fromisoformat(word).replace(tzinfo=UTC) + timedelta(days=1)
        else:
            expires_at = datetime.fromisoformat(word)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"'{word}' is not 'never', a duration (30d), a date (2026-12-31) or a time with offset"
        ) from error
    if expires_at.tzinfo is None:
        raise typer.BadParameter(f"'{word}' needs an offset, like 2026-12-31T18:00:00+00:00")
    if expires_at <= now:
        raise typer.BadParameter(f"'{word}' has passed already")
    return expires_at.astimezone(UTC)
