"""Ledger: the port through which tokens are reserved before a request and settled after it."""

from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import NamedTuple, Protocol

from gateway.errors import QuotaExceeded, QuotaReserved, Refusal
from gateway.exchange import Allowance, Principal, SharedLimits, TokenUsage
from gateway.quota.report import UsageReport

_RUNNING_REQUEST_SECONDS = 2.0


class TokenDemand(NamedTuple):
    """What a request may cost: its prompt once, and `output_tokens` for each of its choices.

    `output_tokens` is None where the request sets no bound: it is then bounded by all that
    is left of the quota, and holds that until it ends. A request that generates and reads
    nothing has no choices: it is free, and admitted even where nothing remains.
    """

    model: str
    input_tokens: int
    output_tokens: int | None
    choices: int = 1

    @classmethod
    def nothing(cls, model: str) -> "TokenDemand":
        """What a call that no quota concerns asks for."""
        return cls(model, input_tokens=0, output_tokens=0, choices=0)

    @property
    def is_free(self) -> bool:
        return self.choices == 0

    @property
    def least_tokens(self) -> int:
        """What must fit for the request to make sense: the prompt and one token per choice."""
        if self.output_tokens == 0:
            return max(self.input_tokens, 1)
        return self.input_tokens + self.choices

    def within(self, remaining: int) -> tuple[int, int | None]:
        """The tokens to hold, and the output limit that keeps to them if the demand does not.

        `remaining` is at least `least_tokens`.
        """
        if self.output_tokens is not None:
            asked = self.input_tokens + self.output_tokens * self.choices
            if asked <= remaining:
                return asked, None
        return remaining, (remaining - self.input_tokens) // self.choices


class Standing(NamedTuple):
    """Where a key stands now; `limit` and `remaining` are None where it has no quota.

    Debt shows as `used` above `limit`; `remaining` is never negative.
    """

    limit: int | None
    used: int
    reserved: int
    remaining: int | None
    resets_at: datetime


class Metered(Protocol):
    """Something that knows what it has used so far."""

    @property
    def usage(self) -> TokenUsage: ...


class Reservation(Protocol):
    """Tokens held for one running request.

    `progress` charges what has been used so far: monotone, at once, and visible to the
    journal. `follow` makes every flush of the journal ask and do that, so that a stream need
    not report each of its events. `settle` charges the final count, once, also where that is
    below the progress.
    Leaving the block without `settle` keeps the progress charged, if there was any, and
    otherwise charges nothing and counts no request. What is still held is then given back.
    """

    @property
    def output_limit(self) -> int | None:
        """Output tokens per choice that fit the quota; None: leave the request as it is."""
        ...

    def progress(self, usage: TokenUsage) -> None: ...
    def follow(self, meter: Metered) -> None: ...
    def settle(self, usage: TokenUsage) -> None: ...


class Ledger(Protocol):
    """Tokens used and reserved per key and day. What is used is booked on the day of admission.

    Usage above what was held is charged in full: the overshoot is that of running requests.
    """

    def reserve(
        self, principal: Principal, demand: TokenDemand, shared: SharedLimits | None = None
    ) -> AbstractAsyncContextManager[Reservation]:
        """Hold what the demand may cost, at most what remains; a free one holds nothing.

        `shared` are further limits that are asked about with it, where that takes a question.

        Entering raises QuotaExceeded or, if only running requests are in the way,
        QuotaReserved. A key without a quota holds nothing and is metered all the same.
        """
        ...

    def remaining(self, principal: Principal) -> int | None:
        """Tokens neither used nor reserved today; None without a quota."""
        ...

    def allowance(self, principal: Principal) -> Allowance | None:
        """The quota, what remains of it, and when all of it is back; None without a quota."""
        ...

    def standing(self, principal: Principal) -> Standing: ...

    def count_refusal(self, principal: Principal) -> None:
        """A limit refused a request of this key."""
        ...

    async def report(self, principal: Principal, *, days: int) -> UsageReport:
        """Today, and `days` days back counting today."""
        ...


def refusal(
    principal: Principal, standing: Standing, demand: TokenDemand, *, seconds_until_reset: float
) -> Refusal:
    """Why the demand does not fit, in the same words from every ledger."""
    limit, remaining = standing.limit or 0, standing.remaining or 0
    facts = (
        f"{standing.used} of {limit} tokens are used and {standing.reserved} are reserved by "
        f"running requests, so {remaining} remain. {_need(demand)} "
        f"The quota resets at {standing.resets_at:%Y-%m-%dT%H:%M:%SZ}."
    )
    if demand.least_tokens <= limit - standing.used:
        return QuotaReserved(
            f"Running requests hold what is left of the daily token quota of key "
            f"'{principal.name}': {facts} Try again when one of them has ended.",
            retry_after_seconds=_RUNNING_REQUEST_SECONDS,
        )
    return QuotaExceeded(
        f"The daily token quota of key '{principal.name}' does not cover this request: {facts}",
        retry_after_seconds=seconds_until_reset,
    )


def _need(demand: TokenDemand) -> str:
    if demand.output_tokens == 0:
        return f"This request needs {demand.least_tokens} for its input."
    return (
        f"This request needs at least {demand.least_tokens}: {demand.input_tokens} for its "
        f"prompt and one output token for each of {demand.choices} choice(s)."
    )
