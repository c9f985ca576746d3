"""How the upstreams stand together: what is needed, what of it is missing, and who is how."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.breaker import BreakerState
from gateway.routing.definition import Kind
from gateway.routing.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Standing:
    """`missing` names the models that no healthy upstream serves, and the upstreams that have
    never said which models they have: nobody knows whether another one has the same."""

    missing: tuple[str, ...]
    upstreams: tuple[dict[str, Any], ...]
    generation: int

    @property
    def is_whole(self) -> bool:
        return not self.missing

    @property
    def word(self) -> str:
        return "ok" if self.is_whole else "degraded"


def standing_of(upstreams: Iterable[Upstream], *, generation: int) -> Standing:
    everyone = tuple(upstreams)
    served = {name for u in everyone if _can_serve(u) for name in u.models}
    wanted = {name for u in everyone for name in u.models.keys() | u.definition.models}
    unknown = [f"all of {u.name}" for u in everyone if not u.was_discovered]
    missing = (*sorted(wanted - served), *unknown)
    return Standing(missing, tuple(map(_details, everyone)), generation)


def _can_serve(upstream: Upstream) -> bool:
    return upstream.health.is_healthy and upstream.breaker.state is not BreakerState.OPEN


def _details(upstream: Upstream) -> dict[str, Any]:
    definition = upstream.definition
    return {
        "name": upstream.name,
        "url": upstream.url,
        "kinds": [kind.value for kind in Kind if kind in definition.kinds] or ["auto"],
        "models": sorted(upstream.models),
        "healthy": upstream.health.is_healthy,
        "reason": _reason(upstream),
        "circuit": upstream.breaker.state.value,
        "in_flight": upstream.in_flight,
        "max_in_flight": definition.max_in_flight,
        "weight": definition.weight,
    }


def _reason(upstream: Upstream) -> str:
    if upstream.health.reason:
        return upstream.health.reason
    if upstream.unlisted_models:
        return f"does not list {', '.join(sorted(upstream.unlisted_models))}"
    return ""
