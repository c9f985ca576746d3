"""Session stickiness: the calls of one session go to one replica, while that can take them."""

from collections.abc import Callable
from hashlib import blake2b
from math import log
from typing import Final

from gateway.routing.demand import RoutingDemand
from gateway.routing.policy import Picker
from gateway.routing.replicas import Tier
from gateway.routing.upstream import Upstream

BUSIER_THAN_MEAN: Final = 1.25
"""A session leaves its replica while that has so many times the mean burden, and more than one
call: what is saved by a warm prefix cache is lost in a queue."""

_BITS: Final = 64
_MASK: Final = (1 << _BITS) - 1
# The finaliser of SplitMix64, public domain: it spreads every bit of its input over the output.
_MIX: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Sticky:
    """The Picker that sends a session where it always goes, and leaves the rest to another.

    Rendezvous hashing (Thaler and Ravishankar): when a replica comes or goes, only its own
    sessions move. The same in every gateway and after every restart.
    """

    def __init__(self, otherwise: Picker) -> None:
        self._otherwise = otherwise
        self._hashes: dict[str, int] = {}

    def pick(
        self,
        tier: Tier,
        demand: RoutingDemand,
        admits: Callable[[Upstream], bool],
        score: Callable[[Upstream, RoutingDemand], float],
    ) -> Upstream | None:
        if demand.session is None or len(tier.upstreams) == 1:
            return self._otherwise.pick(tier, demand, admits, score)
        burdens = {u: score(u, demand) for u in tier.upstreams if admits(u)}
        if not burdens:
            return None
        bound = max(1.0, BUSIER_THAN_MEAN * sum(burdens.values()) / len(burdens))
        # The least burdened is never above the mean, so somebody is left.
        session = _hash(demand.session)
        return max(
            (upstream for upstream, burden in burdens.items() if burden <= bound),
            key=lambda upstream: self._affinity(upstream, session),
        )

    def _affinity(self, upstream: Upstream, session: int) -> float:
        ours = self._hashes.get(upstream.name)
        if ours is None:
            ours = self._hashes[upstream.name] = _hash(upstream.name.encode())
        share = (_mixed(ours ^ session) + 1) / (_MASK + 2)
        return -upstream.definition.weight / log(share)


def _hash(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=_BITS // 8).digest())


def _mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * _MIX[0] & _MASK
    value = (value ^ (value >> 27)) * _MIX[1] & _MASK
    return value ^ (value >> 31)
