"""What a caller has left of its limits, told with every answer."""

from gateway.clock import Clock
from gateway.exchange import Exchange
from gateway.quota.ledger import Ledger
from gateway.wire.dialect import Dialect


class LimitHeaders:
    """The request window an exchange was counted in, and the key's tokens of the day."""

    def __init__(self, *, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def __call__(self, exchange: Exchange, dialect: Dialect) -> list[tuple[bytes, bytes]]:
        # Before the ledger looks at the clock: the day must not seem to end after its midnight.
        now = self._clock.timestamp()
        principal = exchange.principal
        tokens = None if principal is None else self._ledger.allowance(principal)
        return dialect.limit_headers(exchange.request_window, tokens, now=now)
