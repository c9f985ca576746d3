"""Every peer there is."""

from collections.abc import Mapping
from typing import Final

from tests.benchmarks.peers.litellm import LITELLM
from tests.benchmarks.peers.peer import Peer
from tests.benchmarks.peers.portkey import PORTKEY
from tests.benchmarks.peers.routers import SGLANG_ROUTER, VLLM_ROUTER

PEERS: Final[Mapping[str, Peer]] = {
    peer.name: peer for peer in (VLLM_ROUTER, SGLANG_ROUTER, PORTKEY, LITELLM)
}
