"""Three times what the upstream can do: who is answered, who is refused, and how evenly.

How fast refusals are, and that goodput stays at its peak, is measured by tests/benchmarks/overload.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.openloop import CHAT, Call, Caller, OpenLoop, fair_shares, jain

# Four calls at a time of 0.2 s each: 20 a second.
SEATS, TOKENS, TOKEN_SECONDS, CAPACITY = 4, 10, 0.02, 20.0
PACE = SimulatorConfig(max_num_seqs=SEATS, inter_token_seconds=TOKEN_SECONDS)
KEYS = {name: f"sk-{name}-0123456789abcdef" for name in ("greedy", "middling", "quiet", "shy")}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of a load, and what reached the upstream of it."""

    calls: list[Call]
    reached: int
    most_running: int
    most_waiting: int

    def of(self, *names: str) -> list[Call]:
        return [call for call in self.calls if call.caller in names]


@asynccontextmanager
async def full_gateway(folder: Path) -> AsyncIterator[tuple[GatewayProcess, Simulator]]:
    settings = {
        "GATEWAY_API_KEYS": ",".join(f"{name}={key}" for name, key in KEYS.items()),
        "MAX_IN_FLIGHT": str(SEATS),
        "MAX_QUEUED": "8",
        "QUEUE_TIMEOUT_SECONDS": "60",
        "LOG_LEVEL": "INFO",
        **UNLIMITED,
    }
    async with (
        Simulator(PACE) as simulator,
        GatewayProcess(folder=folder, VLLM_URL=simulator.url, **settings) as gateway,
    ):
        yield gateway, simulator


async def loaded(folder: Path, rates: dict[str, float], *, seconds: float) -> Loaded:
    async with full_gateway(folder) as (gateway, simulator):
        most = [0, 0]

        async def watch() -> None:
            while True:
                state = simulator.state
                most[:] = max(most[0], state.running), max(most[1], state.waiting)
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        callers = [Caller(name, KEYS[name], rate) for name, rate in rates.items()]
        body = chat(max_tokens=TOKENS, ignore_eos=True)
        async with OpenLoop(gateway.port, random=Random(11)) as load:
            calls = await load.offer(callers, body, seconds=seconds)
        watching.cancel()
        reached = sum(request.path == CHAT for request in simulator.requests)
        assert await gateway.metric("gateway_calls_in_flight") == 0
        assert await gateway.metric("gateway_queue_depth") == 0
    return Loaded(calls, reached, *most)


def statuses(calls: Sequence[Call]) -> Counter[int]:
    return Counter(call.status for call in calls)


@pytest.fixture(scope="module")
def overload(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Three times the capacity: one key far beyond its share, one beyond it, two far below."""
    rates = {"greedy": 42.0, "middling": 14.0, "quiet": 2.0, "shy": 2.0}
    return asyncio.run(loaded(tmp_path_factory.mktemp("overload"), rates, seconds=6.0))


def test_every_call_is_answered_or_refused_and_none_is_lost(overload: Loaded) -> None:
    assert statuses(overload.calls).keys() == {200, 503}
    assert statuses(overload.calls)[503] > 100


def test_a_refused_call_never_reaches_the_upstream(overload: Loaded) -> None:
    assert overload.reached == statuses(overload.calls)[200]


def test_the_upstream_has_no_more_than_it_runs_well(overload: Loaded) -> None:
    assert (overload.most_running, overload.most_waiting) == (SEATS, 0)


def test_a_key_below_its_share_is_always_answered(overload: Loaded) -> None:
    assert statuses(overload.of("quiet", "shy")).keys() == {200}


def test_keys_beyond_their_share_get_equal_parts_of_what_is_left(overload: Loaded) -> None:
    answered = {n: statuses(overload.of(n))[200] for n in ("greedy", "middling")}
    assert jain(list(answered.values())) > 0.95, answered


def test_all_get_what_is_fair(overload: Loaded) -> None:
    wanted = {name: float(len(overload.of(name))) for name in KEYS}
    answered = {name: float(statuses(overload.of(name))[200]) for name in KEYS}
    fair = fair_shares(wanted, sum(answered.values()))
    assert jain([answered[name] / fair[name] for name in KEYS]) > 0.95, (answered, fair)


def test_a_refusal_says_why_and_when_to_come_back(overload: Loaded) -> None:
    refused = [call for call in overload.calls if call.status == 503]
    words = ("The gateway is full", "This call gave way to keys with fewer calls")
    assert all(call.message.startswith(words) for call in refused)
    assert all(int(call.retry_after or 0) >= 1 for call in refused)
