"""What a caller has left of its limits, told with every answer."""

from datetime import datetime

from gateway.clock import Clock
from gateway.exchange import Allowance, Exchange
from gateway.quota.ledger import Ledger
from gateway.wire.dialect import Dialect


class LimitHeaders:
    """The request window an exchange was counted in, and the key's tokens of the day."""

    def __init__(self, *, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def __call__(self, exchange: Exchange, dialect: Dialect) -> list[tuple[bytes, bytes]]:
        now = self._clock.now()
        return dialect.limit_headers(exchange.request_window, self._tokens(exchange, now), now=now)

    def _tokens(self, exchange: Exchange, now: datetime) -> Allowance | None:
        if exchange.principal is None:
            return None
        limit, _, _, remaining, resets_at = self._ledger.standing(exchange.principal)
        if limit is None or remaining is None:
            return None
        return Allowance(limit, remaining, (resets_at - now).total_seconds())
