"""Upstreams without a network: they serve what a test says, and are as well as it says."""

import asyncio
from collections.abc import Sequence

from gateway.breaker import BreakerConfig, CircuitBreaker
from gateway.clock import Clock
from gateway.exchange import Health, ServedModel, UpstreamAnswer
from gateway.routing.policy import LeastInFlight
from gateway.routing.pool import UpstreamPool
from gateway.routing.upstream import Upstream

ONE_FAILURE_OPENS = BreakerConfig(failure_threshold=1, open_seconds=5.0, jitter_ratio=0.0)


class NeverSends:
    """An UpstreamTransport nobody may use."""

    async def send(
        self, path: str, body: bytes, headers: list[tuple[bytes, bytes]], *, is_stream: bool
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
) -> Upstream:
    """An upstream that has been discovered, and is well, if it serves any models."""
    upstream = Upstream(
        name=name,
        url=f"http://{name}",
        transport=NeverSends(),
        probe=probe or ScriptedProbe(),
        breaker=CircuitBreaker(breaker, clock=clock),
    )
    if models:
        upstream.learn(well(*models))
    return upstream


def pool_of(*upstreams: Upstream, default_model: str | None = None) -> UpstreamPool:
    return UpstreamPool(upstreams, policy=LeastInFlight(), default_model=default_model)
