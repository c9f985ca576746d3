"""Upstreams without a network: they serve what a test says, and are as well as it says."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from gateway.breaker import BreakerConfig, CircuitBreaker
from gateway.clock import Clock
from gateway.exchange import Health, Operation, ServedModel, UpstreamAnswer
from gateway.routing.aliases import Aliases
from gateway.routing.definition import UpstreamDefinition
from gateway.routing.demand import RoutingDemand
from gateway.routing.policy import SelectionPolicy, least_in_flight
from gateway.routing.pool import UpstreamPool
from gateway.routing.upstream import Upstream

PATIENT = BreakerConfig(failure_threshold=1000, ratio_minimum_calls=1_000_000)
ONE_FAILURE_OPENS = BreakerConfig(failure_threshold=1, open_seconds=5.0, jitter_ratio=0.0)


class NeverSends:
    """An UpstreamTransport nobody may use."""

    async def send(
        self,
        path: str,
        body: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        is_stream: bool,
        content_type: bytes,
        on_sent: Callable[[], None],
    ) -> UpstreamAnswer:
        raise AssertionError("routing does not send")


class ScriptedProbe:
    """Says one health after the other, then waits for ever. An exception in the list is raised."""

    def __init__(self, *script: Health | Exception) -> None:
        self._script = list(script)
        self.looks = 0

    async def check(self) -> Health:
        if not self._script:
            await asyncio.Event().wait()
        self.looks += 1
        says = self._script.pop(0)
        if isinstance(says, Exception):
            raise says
        return says


def well(*models: str, context_tokens: int | None = 4096) -> Health:
    return Health(
        is_healthy=True, models=tuple(ServedModel(name, context_tokens) for name in models)
    )


def unwell(reason: str = "its engine is not running") -> Health:
    return Health(is_healthy=False, reason=reason)


def upstream_of(
    name: str,
    *,
    clock: Clock,
    models: Sequence[str] = ("m",),
    breaker: BreakerConfig = ONE_FAILURE_OPENS,
    probe: ScriptedProbe | None = None,
    definition: UpstreamDefinition | None = None,
    slow_start_seconds: float = 0.0,
) -> Upstream:
    """An upstream that has been discovered, and is well, if it serves any models."""
    upstream = Upstream(
        definition or UpstreamDefinition(name=name, url=f"http://{name}"),
        transport=NeverSends(),
        probe=probe or ScriptedProbe(),
        breaker=CircuitBreaker(breaker, clock=clock),
        clock=clock,
        slow_start_seconds=slow_start_seconds,
    )
    if models:
        upstream.learn(well(*models))
    return upstream


def pool_of(
    *upstreams: Upstream,
    default_model: str | None = None,
    aliases: Mapping[str, str] | None = None,
    policy: SelectionPolicy | None = None,
) -> UpstreamPool:
    return UpstreamPool(
        upstreams,
        policy=policy or least_in_flight(),
        default_model=default_model,
        aliases=Aliases(aliases or {}),
    )


def chat_with(model: str = "m", session: bytes | None = None) -> RoutingDemand:
    return RoutingDemand(model, Operation.CHAT, session)
