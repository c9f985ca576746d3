"""The two routers written in Rust: no keys, no limits, no books; the bytes as they come.

Both take as many threads as they have cores, so that on one core they have one. A policy that does
not look at the prompt is the cheapest; with one upstream all choose the same.
"""

from functools import partial
from typing import Final

from tests.benchmarks.peers.homes import PythonHome
from tests.benchmarks.peers.peer import Launch, Peer, Slot

VLLM_HOME: Final = PythonHome(package="vllm-router", requirement="vllm-router")
SGLANG_HOME: Final = PythonHome(package="sglang-router", requirement="sglang-router")


def _launch(slot: Slot, *, home: PythonHome, module: str, quiet: str) -> Launch:
    return Launch(
        command=(
            *(home.program("python"), "-m", module),
            *("--host", "127.0.0.1", "--port", str(slot.port)),
            *("--worker-urls", slot.upstream_url, "--policy", "round_robin"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(slot.side_port)),
            *("--max-concurrent-requests", "32768", "--log-level", quiet),
        ),
        ready_path="/health",
    )


VLLM_ROUTER: Final = Peer(
    name="vllm-router",
    does="no keys, no limits",
    home=VLLM_HOME,
    launch=partial(_launch, home=VLLM_HOME, module="vllm_router.launch_router", quiet="warning"),
)
SGLANG_ROUTER: Final = Peer(
    name="sglang-router",
    does="no keys, no limits",
    home=SGLANG_HOME,
    launch=partial(_launch, home=SGLANG_HOME, module="sglang_router.launch_router", quiet="warn"),
)
