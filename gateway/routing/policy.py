"""Choosing among replicas: filter, score, pick. Another scorer or picker is another file."""

import random as _random
from collections.abc import Callable, Collection
from typing import Protocol

from gateway.routing.demand import RoutingDemand
from gateway.routing.replicas import Tier
from gateway.routing.upstream import Upstream


class SelectionPolicy(Protocol):
    """Picks one of the upstreams that serve a model, none of `besides`; None if nobody can be
    asked now."""

    def pick(
        self, tier: Tier, demand: RoutingDemand, besides: Collection[Upstream]
    ) -> Upstream | None: ...


class Filter(Protocol):
    """Whether an upstream can be asked at this moment."""

    def admits(self, upstream: Upstream) -> bool: ...


class Scorer(Protocol):
    """How dear it would be to ask this upstream: the lowest is asked."""

    def score(self, upstream: Upstream, demand: RoutingDemand) -> float: ...


class Picker(Protocol):
    """Finds an upstream that all filters admit and that scores low."""

    def pick(
        self,
        tier: Tier,
        demand: RoutingDemand,
        admits: Callable[[Upstream], bool],
        score: Callable[[Upstream, RoutingDemand], float],
    ) -> Upstream | None: ...


class Available:
    """The Filter of those whose breaker permits a call and that are not full."""

    def admits(self, upstream: Upstream) -> bool:
        return upstream.in_flight < upstream.in_flight_max and upstream.breaker.permits


class LeastBurden:
    """The Scorer of those with the fewest calls in flight for their weight and warmth."""

    def score(self, upstream: Upstream, demand: RoutingDemand) -> float:
        return upstream.burden


class TwoChoices:
    """The Picker that compares two, whose turn it is and another one by chance, however many
    there are; the better one is asked, of equals the one whose turn it is.

    Nearly as even as comparing all, and several gateways do not fall upon the same idle one
    (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
    """

    def __init__(self, *, random: Callable[[], float] = _random.random) -> None:
        self._random = random
        self._turn = int(random() * 1_000_000)

    def pick(
        self,
        tier: Tier,
        demand: RoutingDemand,
        admits: Callable[[Upstream], bool],
        score: Callable[[Upstream, RoutingDemand], float],
    ) -> Upstream | None:
        rotation = tier.rotation
        if len(rotation) == 1:
            return rotation[0] if admits(rotation[0]) else None
        self._turn = turn = self._turn + 1
        first = rotation[turn % len(rotation)]
        second = self._another(tier, first)
        if not admits(first):
            return second if admits(second) else self._any(tier, demand, admits, score)
        if admits(second) and score(second, demand) < score(first, demand):
            return second
        return first

    def _another(self, tier: Tier, first: Upstream) -> Upstream:
        rotation = tier.rotation
        place = int(self._random() * len(rotation))
        while rotation[place] is first:
            place = (place + 1) % len(rotation)
        return rotation[place]

    def _any(
        self,
        tier: Tier,
        demand: RoutingDemand,
        admits: Callable[[Upstream], bool],
        score: Callable[[Upstream, RoutingDemand], float],
    ) -> Upstream | None:
        """Two were not enough: the best of all."""
        left = [upstream for upstream in tier.upstreams if admits(upstream)]
        return min(left, key=lambda upstream: score(upstream, demand), default=None)


class Policy:
    """The SelectionPolicy of a filter, a scorer and a picker."""

    def __init__(self, *, filtered: Filter, scored: Scorer, picked: Picker) -> None:
        self._admits = filtered.admits
        self._score = scored.score
        self._pick = picked.pick

    def pick(
        self, tier: Tier, demand: RoutingDemand, besides: Collection[Upstream]
    ) -> Upstream | None:
        admits = self._admitting(besides) if besides else self._admits
        return self._pick(tier, demand, admits, self._score)

    def _admitting(self, besides: Collection[Upstream]) -> Callable[[Upstream], bool]:
        return lambda upstream: upstream not in besides and self._admits(upstream)


def least_in_flight() -> Policy:
    """The policy of a gateway that nobody has told otherwise."""
    return Policy(filtered=Available(), scored=LeastBurden(), picked=TwoChoices())
