"""RedisReservation: tokens held for one call, in Redis or, while that is silent, here."""

from types import TracebackType
from typing import TYPE_CHECKING

from gateway.exchange import Principal, SharedLimits, TokenUsage
from gateway.quota.ledger import Metered, Reservation, TokenDemand

if TYPE_CHECKING:
    from gateway.quota.redis_ledger import RedisLedger


class RedisReservation:
    """From entering the block to leaving it. Only entering waits for an answer."""

    __slots__ = (
        "_day",
        "_demand",
        "_held",
        "_hold",
        "_input_tokens",
        "_is_open",
        "_is_request",
        "_is_shared",
        "_ledger",
        "_name",
        "_output_tokens",
        "_principal",
        "_shared",
        "output_limit",
    )

    def __init__(
        self,
        ledger: "RedisLedger",
        name: str,
        principal: Principal,
        demand: TokenDemand,
        shared: SharedLimits | None,
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._principal = principal
        self._demand = demand
        self._shared = shared
        self._day = ""
        self._hold = self._held = 0
        self._input_tokens = self._output_tokens = 0
        self._is_open = self._is_request = self._is_shared = False
        self.output_limit: int | None = None

    async def __aenter__(self) -> Reservation:
        admitted = await self._ledger.admit(self._name, self._principal, self._demand, self._shared)
        self._day, self._hold, self.output_limit, self._is_shared = admitted
        self._held = self._hold
        self._is_open = True
        if self._is_shared:
            self._keep(self._held)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def progress(self, usage: TokenUsage) -> None:
        if not self._is_open:
            return
        if usage.total_tokens == self._input_tokens + self._output_tokens and self._is_request:
            return
        self._charge(
            max(usage.input_tokens, self._input_tokens),
            max(usage.output_tokens, self._output_tokens),
        )
        # What is charged is no longer held: used + reserved stays what was admitted.
        self._keep(max(self._hold - self._input_tokens - self._output_tokens, 0))

    def follow(self, meter: Metered) -> None:
        if self._is_open:
            self._ledger.follow(self, meter)

    def settle(self, usage: TokenUsage) -> None:
        if not self._is_open:
            return
        self._charge(max(usage.input_tokens, 0), max(usage.output_tokens, 0))
        self._close()

    def _charge(self, input_tokens: int, output_tokens: int) -> None:
        counts = (
            input_tokens - self._input_tokens,
            output_tokens - self._output_tokens,
            0 if self._is_request else 1,
            0,
        )
        self._is_request = True
        self._input_tokens = input_tokens
        self._output_tokens = output_tokens
        if any(counts):
            self._ledger.charge(self._day, self._principal.key_id, self._demand.model, counts)

    def _keep(self, tokens: int) -> None:
        key_id, told = self._principal.key_id, self._held
        self._held = tokens
        if self._is_shared:
            self._ledger.hold(self._name, key_id, self._day, told=told, tokens=tokens)
        else:
            self._ledger.view(self._day, key_id).held_here += tokens - told

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._ledger.forget(self)
        key_id, told, self._held = self._principal.key_id, self._held, 0
        if self._is_shared:
            self._ledger.release(self._name, key_id, self._day, told=told)
        else:
            self._ledger.view(self._day, key_id).held_here -= told
