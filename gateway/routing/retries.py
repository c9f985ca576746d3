"""Asking again: another replica at once, the same ones after a pause, and never a storm of it."""

import asyncio
import random as _random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.clock import Clock
from gateway.errors import GatewayError, Overloaded, UpstreamUnavailable
from gateway.routing.demand import RoutingDemand
from gateway.routing.lease import Lease
from gateway.routing.pool import UpstreamPool
from gateway.routing.upstream import Upstream

SAVED_MAX: Final = 100.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """At most `attempts` more tries of one call. Those beyond its first move to another replica
    are paid from what all calls have earned; see RetryBudget."""

    attempts: int = 3
    budget_ratio: float = 0.2
    budget_per_second: float = 10.0


class RetryBudget:
    """What may be spent on retries: what fails for everybody must not be asked many times over by
    everybody (Google's SRE book on cascading failures; Finagle's RetryBudget).

    Each call earns `budget_ratio` of a retry and each second `budget_per_second`; so many are
    saved as a hundred, and there at the start.
    """

    def __init__(self, config: RetryConfig, *, clock: Clock) -> None:
        self._ratio = config.budget_ratio
        self._per_second = config.budget_per_second
        self._monotonic = clock.monotonic
        self._saved = SAVED_MAX
        self._seen_at = clock.monotonic()

    def earn(self) -> None:
        """One call more."""
        self._saved += self._ratio

    def take(self) -> bool:
        """Whether one more retry can be had; it is spent if so."""
        now = self._monotonic()
        self._saved += (now - self._seen_at) * self._per_second
        self._seen_at = now
        # The bound is looked at here, where it counts, and not at every call.
        self._saved = min(self._saved, SAVED_MAX)
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


class Retries:
    """What all calls share of retrying."""

    def __init__(
        self,
        pool: UpstreamPool,
        *,
        config: RetryConfig,
        clock: Clock,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self.pool = pool
        self.config = config
        self.budget = RetryBudget(config, clock=clock)
        self.random = random

    def begin(self, demand: RoutingDemand) -> "Attempts":
        self.budget.earn()
        return Attempts(self, demand)


class Attempts:
    """The tries of one call: whom to lease next, and whether there is a next.

    An upstream that failed is not asked again before all others were. When all were, those that
    took no work, because nothing answered there or they said 503, are asked again after a pause;
    a failure of another sort may be the request's own doing. A model with one replica only is
    never asked again: what ails that one lasts longer than such a pause.
    """

    __slots__ = ("_count", "_demand", "_failed", "_first_failure", "_pauses", "_shared")

    def __init__(self, shared: Retries, demand: RoutingDemand) -> None:
        self._shared = shared
        self._demand = demand
        self._failed: tuple[Upstream, ...] = ()
        self._first_failure: GatewayError | None = None
        self._count = 0
        self._pauses = 0

    def lease(self) -> Lease:
        """Raises as the pool does; after a failure that failure, which tells the caller more."""
        try:
            return self._shared.pool.lease(self._demand, besides=self._failed)
        except (UpstreamUnavailable, Overloaded) as nobody_left:
            raise self._first_failure or nobody_left from None

    async def go_on(self, upstream: Upstream, failure: GatewayError) -> None:
        """After a failure: returns when there is somebody to lease, raises the first failure if
        there is nobody or there were tries enough."""
        shared = self._shared
        self._first_failure = self._first_failure or failure
        self._failed = (*self._failed, upstream)
        self._count += 1
        if self._count > shared.config.attempts:
            raise self._first_failure
        if self._count > 1 and not shared.budget.take():
            raise self._first_failure
        if shared.pool.choose(self._demand, self._failed) is not None:
            return
        if not self._is_worth_a_pause(failure):
            raise self._first_failure
        await asyncio.sleep(self._pause_seconds())
        self._failed = ()

    def _is_worth_a_pause(self, failure: GatewayError) -> bool:
        wait_seconds = failure.retry_after_seconds or 0.0
        took_no_work = isinstance(failure, UpstreamUnavailable)
        has_replicas = len(self._shared.pool.replicas(self._demand).upstreams) > 1
        return took_no_work and has_replicas and wait_seconds <= _LONGEST_PAUSE_SECONDS

    def _pause_seconds(self) -> float:
        """Half to all of a bound that doubles, so that callers do not come back together."""
        bound = min(_FIRST_PAUSE_SECONDS * 2.0**self._pauses, _LONGEST_PAUSE_SECONDS)
        self._pauses += 1
        return bound / 2 + bound / 2 * self._shared.random()
