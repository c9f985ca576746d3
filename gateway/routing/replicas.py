"""Who can be asked for one operation on one model, worked out when that changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

from gateway.routing.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Tier:
    """Upstreams of equal standing. `rotation` holds each as often as its weight, spread evenly."""

    upstreams: tuple[Upstream, ...]
    rotation: tuple[Upstream, ...]


@dataclass(frozen=True, slots=True)
class Replicas:
    """Those that are well, and those that are not: a last resort rather than forbidden, since a
    prober can be wrong, and the breaker judges by real calls."""

    tiers: tuple[Tier, ...]

    @property
    def upstreams(self) -> list[Upstream]:
        return [upstream for tier in self.tiers for upstream in tier.upstreams]


def replicas_of(upstreams: Iterable[Upstream]) -> Replicas:
    everyone = tuple(upstreams)
    well = tuple(u for u in everyone if u.health.is_healthy)
    unwell = tuple(u for u in everyone if not u.health.is_healthy)
    return Replicas(tuple(_tier(each) for each in (well, unwell) if each))


def _tier(upstreams: Sequence[Upstream]) -> Tier:
    weights = [upstream.definition.weight for upstream in upstreams]
    parts = [weight // gcd(*weights) for weight in weights]
    # Each one's turns lie in the middle of equal stretches, so that nobody's turns come in a row.
    turns = [
        ((turn + 0.5) / part, place) for place, part in enumerate(parts) for turn in range(part)
    ]
    rotation = tuple(upstreams[place] for _, place in sorted(turns))
    return Tier(tuple(upstreams), rotation)
