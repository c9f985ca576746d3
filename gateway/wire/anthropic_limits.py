"""What a caller has left, in the headers of Anthropic."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import NamedTuple


class Counted(Enum):
    """What a limit counts; `value` is the part of the header's name."""

    REQUESTS = b"requests"
    TOKENS = b"tokens"
    INPUT_TOKENS = b"input-tokens"
    OUTPUT_TOKENS = b"output-tokens"


class Standing(NamedTuple):
    """One limit and what is left of it; all of it is there again at `resets_at` (aware)."""

    counted: Counted
    limit: int
    remaining: int
    resets_at: datetime


def limit_headers(standings: Iterable[Standing]) -> list[tuple[bytes, bytes]]:
    """`anthropic-ratelimit-*`, three for each limit."""
    headers = []
    for counted, limit, remaining, resets_at in standings:
        prefix = b"anthropic-ratelimit-" + counted.value
        headers += [
            (prefix + b"-limit", b"%d" % limit),
            (prefix + b"-remaining", b"%d" % max(0, remaining)),
            (prefix + b"-reset", rfc3339(resets_at)),
        ]
    return headers


def rfc3339(moment: datetime) -> bytes:
    """A moment in UTC to the second, rounded up: who comes back then must not be early."""
    whole = moment.astimezone(UTC)
    if whole.microsecond:
        whole = whole.replace(microsecond=0) + timedelta(seconds=1)
    return whole.strftime("%Y-%m-%dT%H:%M:%SZ").encode("ascii")
