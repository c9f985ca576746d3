"""What a caller has left, in the headers of OpenAI."""

from functools import lru_cache
from typing import Final

from gateway.exchange import Allowance

_REQUESTS: Final = (
    b"x-ratelimit-limit-requests",
    b"x-ratelimit-remaining-requests",
    b"x-ratelimit-reset-requests",
)
_TOKENS: Final = (
    b"x-ratelimit-limit-tokens",
    b"x-ratelimit-remaining-tokens",
    b"x-ratelimit-reset-tokens",
)


def limit_headers(
    requests: Allowance | None, tokens: Allowance | None
) -> list[tuple[bytes, bytes]]:
    """`x-ratelimit-*`, three for each limit."""
    headers: list[tuple[bytes, bytes]] = []
    if requests is not None:
        headers += _three(_REQUESTS, requests)
    if tokens is not None:
        headers += _three(_TOKENS, tokens)
    return headers


def go_duration(seconds: float) -> bytes:
    """OpenAI writes resets as Go durations: 12ms, 1s, 6m0s, 9h10m0s."""
    if seconds < 1:
        return b"%dms" % (seconds * 1000 + 0.5 if seconds > 0 else 0)
    return _whole_duration(int(seconds + 0.5))


def _three(
    names: tuple[bytes, bytes, bytes], left: Allowance
) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes], tuple[bytes, bytes]]:
    limit, remaining, reset_after_seconds = left
    return (
        (names[0], _digits(limit)),
        (names[1], b"%d" % remaining),
        (names[2], go_duration(reset_after_seconds)),
    )


@lru_cache(maxsize=1024)
def _digits(limit: int) -> bytes:
    return b"%d" % limit


@lru_cache(maxsize=1024)
def _whole_duration(seconds: int) -> bytes:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, rest)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
