"""The prober: asks each upstream how it is, so that recovery needs nobody."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gateway.exchange import Health
from gateway.routing.upstream import Upstream


@dataclass(frozen=True, slots=True)
class ProberConfig:
    """How often to look, in seconds: quickly while something is wrong."""

    healthy_interval_seconds: float = 5.0
    unhealthy_interval_seconds: float = 1.0


class HealthProber:
    """Owns one background task per upstream, from `begin` or entering to `end` or leaving.

    `on_change` hears of an upstream whose health or reason differs from before.
    """

    def __init__(
        self,
        upstreams: Iterable[Upstream] = (),
        *,
        config: ProberConfig,
        on_change: Callable[[Upstream], None],
    ) -> None:
        self._upstreams = tuple(upstreams)
        self._config = config
        self._on_change = on_change
        self._tasks: dict[Upstream, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        for upstream in self._upstreams:
            self.begin(upstream)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, upstream: Upstream) -> None:
        """Look at one more from now on."""
        self._tasks[upstream] = asyncio.create_task(self._watch(upstream))

    def end(self, upstream: Upstream) -> None:
        """Look at it no more."""
        self._tasks.pop(upstream).cancel()

    async def _watch(self, upstream: Upstream) -> None:
        while True:
            await self.look(upstream)
            healthy = upstream.health.is_healthy
            config = self._config
            await asyncio.sleep(
                config.healthy_interval_seconds if healthy else config.unhealthy_interval_seconds
            )

    async def look(self, upstream: Upstream) -> None:
        """One probe, taken to heart."""
        before = upstream.health
        try:
            health = await upstream.probe.check()
        except Exception as fault:  # A fault of ours must not end the looking.
            health = Health(is_healthy=False, reason=f"the probe itself failed: {fault!r}")
        upstream.learn(health)
        if (before.is_healthy, before.reason) != (health.is_healthy, health.reason):
            self._on_change(upstream)
