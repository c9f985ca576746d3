"""One vLLM replica as the gateway sees it: what it serves, how busy and how well it is."""

import math
from collections.abc import Callable
from typing import Final, Protocol

from gateway.breaker import BreakerState, CircuitBreaker
from gateway.clock import Clock
from gateway.exchange import Health, Operation, ServedModel, UpstreamAnswer
from gateway.routing.definition import UpstreamDefinition, accepted

NEVER_PROBED: Final = Health(is_healthy=False, reason="not asked yet")
_COLDEST: Final = 0.1
"""The share of its weight with which a slow start begins."""


class UpstreamTransport(Protocol):
    """How bytes get there and back; see transport/client.py."""

    async def send(
        self,
        path: str,
        body: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        is_stream: bool,
        content_type: bytes,
        on_sent: Callable[[], None],
    ) -> UpstreamAnswer: ...


class Probe(Protocol):
    """One look at one upstream; never raises for what an upstream does. See transport/probe.py."""

    async def check(self) -> Health: ...


def _nobody_listens() -> None:
    return


class Upstream:
    """Live state of one replica. In-flight is counted by leases alone.

    `on_change` is told, by whoever owns the set, when it serves something else than before, or is
    well again or no longer.
    """

    def __init__(
        self,
        definition: UpstreamDefinition,
        *,
        transport: UpstreamTransport,
        probe: Probe,
        breaker: CircuitBreaker,
        clock: Clock,
        slow_start_seconds: float = 0.0,
    ) -> None:
        self.name = definition.name
        self.url = definition.url
        self.transport = transport
        self.probe = probe
        self.breaker = breaker
        self.in_flight = 0
        self.health = NEVER_PROBED
        self.on_change: Callable[[], None] = _nobody_listens
        self._monotonic = clock.monotonic
        self._slow_start_seconds = slow_start_seconds
        self._warm_at = 0.0
        self._is_warming = False
        self._has_been_well = False
        self._listed: dict[str, ServedModel] = {}
        self._speaks_messages: bool | None = None
        self.adopt(definition)

    def adopt(self, definition: UpstreamDefinition) -> None:
        """Be used as this definition of the same place says."""
        self.definition = definition
        self.in_flight_max = (
            math.inf if definition.max_in_flight is None else definition.max_in_flight
        )
        self._weight = float(definition.weight)
        self._work_out()

    @property
    def was_discovered(self) -> bool:
        """True once its models are known; they are kept while it is away."""
        return bool(self.models or self._listed)

    @property
    def is_full(self) -> bool:
        return self.in_flight >= self.in_flight_max

    @property
    def burden(self) -> float:
        """Calls in flight for its weight; one that is warming up counts as busier than it is."""
        if not self._is_warming:
            return self.in_flight / self._weight
        share = self._share()
        return (self.in_flight + 1.0 - share) / (self._weight * share)

    @property
    def unlisted_models(self) -> frozenset[str]:
        """Models it was said to serve and, now that it has been asked, does not list."""
        return self.definition.models - self._listed.keys() if self._listed else frozenset()

    def learn(self, health: Health) -> None:
        """Take the prober's word: models replace the known ones only when it is well."""
        was_healthy = self.health.is_healthy
        self.health = health
        if health.models:
            self._listed = {model.name: model for model in health.models}
        if health.is_healthy:
            self._speaks_messages = health.speaks_messages
        before = (self.models, self.operations)
        self._work_out()
        came = health.is_healthy and not was_healthy
        if came:
            self.breaker.hint_recovered()
        if came and self._has_been_well:
            self.warm_up()
        self._has_been_well = self._has_been_well or health.is_healthy
        if was_healthy != health.is_healthy or before != (self.models, self.operations):
            self.on_change()

    def warm_up(self) -> None:
        """It has just come back: give it its share step by step, its caches are cold."""
        self._is_warming = self._slow_start_seconds > 0
        self._warm_at = self._monotonic() + self._slow_start_seconds

    def _share(self) -> float:
        if self.breaker.state is BreakerState.HALF_OPEN:
            return 1.0  # What is to be tested must be asked.
        left_seconds = self._warm_at - self._monotonic()
        if left_seconds <= 0:
            self._is_warming = False
            return 1.0
        return max(_COLDEST, 1.0 - left_seconds / self._slow_start_seconds)

    def _work_out(self) -> None:
        """`models` and `operations`: what may be asked of it, as said and as found out."""
        said = self.definition.models
        if not said:
            self.models = self._listed
        elif not self._listed:
            self.models = {name: ServedModel(name) for name in sorted(said)}
        else:
            self.models = {name: m for name, m in self._listed.items() if name in said}
        self.operations: frozenset[Operation] = self.definition.operations(
            speaks_messages=self._speaks_messages
        )
        self.accepts = accepted(self.operations)
