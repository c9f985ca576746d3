"""Limits that several gateways share: asked about once per call, after those of this process.

The limits of this process come first (edge/throttle.py). They see fewer requests than all gateways
do, so what they refuse the shared ones would refuse too; they keep strangers and floods from Redis,
and they hold while it is silent.
"""

from collections.abc import Callable, Sequence

from gateway.edge.asgi import ASGIApp, Receive, Scope, Send, exchange_of
from gateway.edge.throttle import too_many, too_many_at_once
from gateway.errors import AuthenticationFailed, GatewayError, Refusal, SharedStateUnavailable
from gateway.exchange import Allowance, Exchange, Principal, RateLimit
from gateway.ratelimit import client_network
from gateway.shared.config import OnFailure, RedisSilent
from gateway.sharedlimits import SharedRateLimiter, decision_of

Window = tuple[str, RateLimit]
Tell = Callable[[tuple[Window, ...]], None]
UNAVAILABLE = (
    "The rate limit of this address cannot be checked now: the store that all gateways share does "
    "not answer. Try again in a moment."
)


class AddressAsked:
    """Asks about the address of each request, for paths where nothing else is asked.

    With `only_strangers` only about those who have no valid key: everybody else's address is
    asked about with the call.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: SharedRateLimiter,
        limits: tuple[RateLimit, ...],
        on_failure: OnFailure,
        only_strangers: bool = False,
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._limits = limits
        self._on_failure = on_failure
        self._only_strangers = only_strangers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._limits:
            await self._app(scope, receive, send)
            return
        if not self._only_strangers:
            await self._ask(exchange_of(scope))
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except AuthenticationFailed:
            # Whoever guesses at all gateways in turn learns no more than at one.
            await self._ask(exchange_of(scope))
            raise

    async def _ask(self, exchange: Exchange) -> None:
        try:
            decision = await self._limiter.hit(address_of(exchange), self._limits)
        except RedisSilent:
            if self._on_failure is OnFailure.CLOSED:
                raise SharedStateUnavailable(UNAVAILABLE, retry_after_seconds=1.0) from None
            return
        if not decision.allowed:
            raise too_many(decision, self._limits, limit="ip_rate", who="from this address")


class LimitsCarried:
    """Gives each call the limits that are asked about when its tokens are reserved.

    A call that ends before that counts all the same, and what another limit refuses later is
    given back; both are told behind the call's back.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        address_limits: tuple[RateLimit, ...],
        count_later: Tell,
        give_back: Tell,
    ) -> None:
        self._app = app
        self._address_limits = address_limits
        self._count_later = count_later
        self._give_back = give_back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        carried = CarriedLimits(exchange, exchange.caller, self._address_limits)
        exchange.shared_limits = carried
        try:
            await self._app(scope, receive, send)
        except Refusal:
            if carried.is_counted and not exchange.was_counted:
                self._give_back(carried.windows)
            carried.is_settled = True
            raise
        finally:
            if not carried.is_settled:
                self._count_later(carried.windows)


class CarriedLimits:
    """SharedLimits of one call: the windows of its address and of its key, and how many may run."""

    __slots__ = ("_addresses", "_exchange", "_principal", "is_counted", "is_settled", "windows")

    def __init__(
        self, exchange: Exchange, principal: Principal, address_limits: tuple[RateLimit, ...]
    ) -> None:
        self._exchange = exchange
        self._principal = principal
        self._addresses = address_limits
        self.is_counted = self.is_settled = False
        address, key = address_of(exchange) if address_limits else "", "key:" + principal.key_id
        self.windows: tuple[Window, ...] = (
            *((address, limit) for limit in address_limits),
            *((key, limit) for limit in principal.rate_limits),
        )

    @property
    def asks(self) -> bool:
        return bool(self.windows) or self.most is not None

    @property
    def most(self) -> int | None:
        return self._principal.max_concurrent

    def counted(self, debts: Sequence[tuple[int, int]]) -> None:
        self.is_counted = self.is_settled = True
        limits = self._principal.rate_limits
        if limits:
            decision = decision_of(limits, debts[len(self._addresses) :])
            self._exchange.request_window = Allowance(*decision[1:4])

    def skipped(self) -> None:
        self.is_settled = True

    def window_refusal(self, debts: Sequence[tuple[int, int]]) -> GatewayError:
        self.is_settled = True
        of_address = decision_of(self._addresses, debts[: len(self._addresses)])
        if not of_address.allowed:
            return too_many(of_address, self._addresses, limit="ip_rate", who="from this address")
        limits = self._principal.rate_limits
        of_key = decision_of(limits, debts[len(self._addresses) :])
        self._exchange.request_window = Allowance(*of_key[1:4])
        return too_many(of_key, limits, limit="key_rate", who="with this key")

    def concurrency_refusal(self) -> GatewayError:
        self.is_settled = True
        return too_many_at_once(self._principal)


def address_of(exchange: Exchange) -> str:
    """The name under which a client's address is counted, as edge/throttle.py has it."""
    return "ip:" + client_network(exchange.client_address)
