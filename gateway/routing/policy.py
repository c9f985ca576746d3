"""Choosing among replicas: filter, score, pick. Another scorer is another file."""

from collections.abc import Sequence
from typing import Protocol

from gateway.routing.upstream import Upstream


class SelectionPolicy(Protocol):
    """Picks one of the upstreams that serve a model and whose breaker permits a call."""

    def pick(self, candidates: Sequence[Upstream]) -> Upstream: ...


class LeastInFlight:
    """Healthy before unhealthy, then the fewest calls in flight, then the one used longest ago.

    An unhealthy replica is a last resort rather than forbidden: a prober can be wrong, and the
    breaker judges by real calls.
    """

    def __init__(self) -> None:
        self._turn = 0

    def pick(self, candidates: Sequence[Upstream]) -> Upstream:
        if len(candidates) == 1:
            return candidates[0]
        self._turn += 1
        start = self._turn % len(candidates)
        rotated = [*candidates[start:], *candidates[:start]]
        return min(rotated, key=_burden)


def _burden(upstream: Upstream) -> tuple[bool, int]:
    return (not upstream.health.is_healthy, upstream.in_flight)
