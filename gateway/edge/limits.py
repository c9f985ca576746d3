"""The x-ratelimit-* headers of OpenAI: what a caller has left, and when it comes back."""

from datetime import datetime
from functools import lru_cache

from gateway.clock import Clock
from gateway.exchange import Exchange
from gateway.quota.ledger import Ledger
from gateway.ratelimit import Decision


def request_headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    """The per-key request window."""
    return [
        (b"x-ratelimit-limit-requests", b"%d" % decision.limit),
        (b"x-ratelimit-remaining-requests", b"%d" % decision.remaining),
        (b"x-ratelimit-reset-requests", go_duration(decision.reset_after_seconds)),
    ]


class LimitHeaders:
    """The request window an exchange was counted in, and the key's tokens of the day."""

    def __init__(self, *, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._reset_text = lru_cache(maxsize=4)(self._until)

    def __call__(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        if exchange.principal is None:
            return exchange.limit_headers
        standing = self._ledger.standing(exchange.principal)
        if standing.limit is None or standing.remaining is None:
            return exchange.limit_headers
        second = int(self._clock.monotonic())
        return [
            *exchange.limit_headers,
            (b"x-ratelimit-limit-tokens", b"%d" % standing.limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % standing.remaining),
            (b"x-ratelimit-reset-tokens", self._reset_text(standing.resets_at, second)),
        ]

    def _until(self, resets_at: datetime, _second: int) -> bytes:
        """Worked out once a second, which the second argument stands for."""
        return go_duration((resets_at - self._clock.now()).total_seconds())


def go_duration(seconds: float) -> bytes:
    """OpenAI writes resets as Go durations: 12ms, 1s, 6m0s, 9h10m0s."""
    if seconds < 1:
        return b"%dms" % round(max(seconds, 0) * 1000)
    return _whole_duration(round(seconds))


@lru_cache(maxsize=1024)
def _whole_duration(seconds: int) -> bytes:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, rest)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
