"""Limits on requests: per address before any key is looked at, per key after it."""

from gateway.edge.asgi import ASGIApp, Receive, Scope, Send, exchange_of
from gateway.errors import ConcurrencyExceeded, RateLimitExceeded, Refusal
from gateway.exchange import Allowance, Principal, RateLimit
from gateway.quota.ledger import Ledger
from gateway.ratelimit import ConcurrencyLimiter, Decision, RateLimiter, client_network


class ThrottleAddress:
    """Counts each address, so that guessing keys is limited too.

    What another limit refuses is given back: a caller is never punished twice. Except where
    that refusal took an upstream's work, which the limit is there to bound.
    """

    def __init__(
        self, app: ASGIApp, *, limiter: RateLimiter, limits: tuple[RateLimit, ...]
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._limits:
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        address = "ip:" + client_network(exchange.client_address)
        decision = self._limiter.hit(address, self._limits)
        if not decision.allowed:
            raise too_many(decision, self._limits, limit="ip_rate", who="from this address")
        try:
            await self._app(scope, receive, send)
        except Refusal:
            if not exchange.was_counted:
                self._limiter.refund(address, self._limits)
            raise


class ThrottleKey:
    """Counts each key: requests at the same time, then requests in a window.

    What another limit refuses is given back as by ThrottleAddress.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: RateLimiter,
        running: ConcurrencyLimiter,
        ledger: Ledger,
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._running = running
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        principal = exchange.caller
        was_let_in = False
        try:
            if not self._running.acquire(principal.key_id, principal.max_concurrent):
                raise too_many_at_once(principal)
            try:
                decision = self._limiter.hit("key:" + principal.key_id, principal.rate_limits)
                if principal.rate_limits:
                    exchange.request_window = Allowance(*decision[1:4])
                if not decision.allowed:
                    raise too_many(
                        decision, principal.rate_limits, limit="key_rate", who="with this key"
                    )
                was_let_in = True
                await self._app(scope, receive, send)
            finally:
                self._running.release(principal.key_id)
        except Refusal:
            if was_let_in and not exchange.was_counted:
                self._limiter.refund("key:" + principal.key_id, principal.rate_limits)
            self._ledger.count_refusal(principal)
            raise


def too_many(
    decision: Decision, limits: tuple[RateLimit, ...], *, limit: str, who: str
) -> RateLimitExceeded:
    allowed = " and ".join(f"{each.amount} in {each.window_seconds:g} s" for each in limits)
    return RateLimitExceeded(
        f"Too many requests {who}: the limit is {allowed}. "
        f"Come back in {decision.retry_after_seconds:.1f} s.",
        limit=limit,
        retry_after_seconds=decision.retry_after_seconds,
    )


def too_many_at_once(principal: Principal) -> ConcurrencyExceeded:
    return ConcurrencyExceeded(
        f"This key has {principal.max_concurrent} requests running, as many as it may have at "
        "the same time. Wait for one to end.",
        retry_after_seconds=1.0,
    )
