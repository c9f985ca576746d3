"""The set of upstreams: who serves what, and a lease on one that can be asked."""

import math
from collections.abc import Collection, Iterable

from gateway.errors import Overloaded, UpstreamUnavailable
from gateway.exchange import Operation
from gateway.routing.aliases import Aliases
from gateway.routing.catalogue import Catalogue
from gateway.routing.demand import RoutingDemand
from gateway.routing.lease import Lease
from gateway.routing.policy import SelectionPolicy
from gateway.routing.replicas import Replicas, replicas_of
from gateway.routing.upstream import Upstream

FULL_RETRY_SECONDS = 1.0


class UpstreamPool:
    """Membership, and who may be asked now.

    What follows from membership, health and models is worked out when one of them has changed:
    a call only looks it up. `is_bounded` says whether any upstream has a max_in_flight.
    """

    def __init__(
        self,
        upstreams: Iterable[Upstream] = (),
        *,
        policy: SelectionPolicy,
        default_model: str | None,
        aliases: Aliases | None = None,
    ) -> None:
        self._policy = policy
        self._default_model = default_model
        self.upstreams: tuple[Upstream, ...] = ()
        self.replace(upstreams, aliases=Aliases({}) if aliases is None else aliases)

    def replace(self, upstreams: Iterable[Upstream], *, aliases: Aliases) -> None:
        """Another generation, whole: who is not in it gets no more calls."""
        self.upstreams = tuple(upstreams)
        self._aliases = aliases
        for upstream in self.upstreams:
            upstream.on_change = self.forget_choices
        self.is_bounded = any(not math.isinf(u.in_flight_max) for u in self.upstreams)
        self.forget_choices()

    def forget_choices(self) -> None:
        """Something that choices were made by has changed."""
        self._replicas: dict[tuple[str, Operation], Replicas] = {}
        self._catalogue: Catalogue | None = None

    @property
    def aliases(self) -> Aliases:
        return self._aliases

    @property
    def catalogue(self) -> Catalogue:
        """What is served here now, by whichever name."""
        if self._catalogue is None:
            self._catalogue = Catalogue(
                self.upstreams, aliases=self._aliases, default_model=self._default_model
            )
        return self._catalogue

    def replicas(self, demand: RoutingDemand) -> Replicas:
        """Who serves this, well or not."""
        return self._serving(demand[:2])

    def has_room(self, line: tuple[str, Operation], *, promised: int) -> bool:
        """Whether one call more would find a replica with a free slot, `promised` of which are
        spoken for: no, where all that could be asked are at their max_in_flight.

        Those that are not well do not count while one that is well can be asked: waiting for that
        one is better. Where none can be asked, waiting is of no use: the lease will say why.
        """
        for tier in self._serving(line).tiers:
            asked = [upstream for upstream in tier.upstreams if upstream.breaker.permits]
            if asked:
                return sum(max(0, u.in_flight_max - u.in_flight) for u in asked) > promised
        return True

    def choose(self, demand: RoutingDemand, besides: Collection[Upstream] = ()) -> Upstream | None:
        """Who would be asked now; None: nobody can be."""
        for tier in self._serving(demand[:2]).tiers:
            upstream = self._policy.pick(tier, demand, besides)
            if upstream is not None:
                return upstream
        return None

    def lease(self, demand: RoutingDemand, *, besides: Collection[Upstream] = ()) -> Lease:
        """A slot at an upstream that serves what is wanted and is not in `besides`.

        Raises UpstreamUnavailable when there is none, or when every breaker is open; then with
        the time until the first of them lets a probe pass. Raises Overloaded when all that could
        be asked are full: that is a call that goes on to another replica, since a call waits at
        the gate for the first (see has_room).
        """
        upstream = self.choose(demand, besides)
        if upstream is None:
            raise self._nobody(demand, besides)
        return Lease(upstream, upstream.breaker.acquire())

    def _serving(self, line: tuple[str, Operation]) -> Replicas:
        replicas = self._replicas.get(line)
        if replicas is None:
            model, operation = line
            replicas = replicas_of(
                u for u in self.upstreams if model in u.models and operation in u.accepts
            )
            self._replicas[line] = replicas
        return replicas

    def _nobody(
        self, demand: RoutingDemand, besides: Collection[Upstream]
    ) -> UpstreamUnavailable | Overloaded:
        serving = [u for u in self.replicas(demand).upstreams if u not in besides]
        if not serving:
            return UpstreamUnavailable(
                "No other upstream serves this model.", retry_after_seconds=1.0
            )
        if any(u.breaker.permits and u.is_full for u in serving):
            return Overloaded(
                "Every replica of this model has as many calls as it may take (max_in_flight).",
                retry_after_seconds=FULL_RETRY_SECONDS,
            )
        wait_seconds = min(u.breaker.retry_after_seconds for u in serving)
        return UpstreamUnavailable(
            "The model server is failing and is left alone for now (circuit breaker open).",
            code="circuit_open",
            retry_after_seconds=wait_seconds,
        )
