"""Short loads of the load test's own worker, in this process, against a simulator."""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import Any

from scripts.loadtest.plan import Endpoint, Plan, Slo
from scripts.loadtest.tally import Frame, Tally
from scripts.loadtest.worker import Worker
from scripts.simulator import Simulator

PLAN = Plan(
    host="127.0.0.1",
    port=0,
    is_tls=False,
    authority="127.0.0.1",
    prefix="",
    api_key="",
    model="sim-model",
    endpoint=Endpoint.CHAT,
    is_stream=True,
    concurrency=2,
    rate=0.0,
    arrivals="constant",
    max_outstanding=100,
    prompt_tokens="fixed:8",
    output_tokens="fixed:6",
    prompt_file="",
    ignores_eos=True,
    extra_body="",
    think_seconds="fixed:0",
    failure_pause_seconds=0.02,
    duration_seconds=0.4,
    warm_up_seconds=0.0,
    ramp_seconds=0.0,
    drain_seconds=5.0,
    timeout_seconds=5.0,
    connect_timeout_seconds=1.0,
    seed=1,
    slo=Slo(),
)


class Kept:
    """Reports that stay here."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def write(self, data: bytes) -> None:
        self.frames.append(Frame.from_json(data))

    @property
    def tally(self) -> Tally:
        """All reports added up."""
        tally = Tally()
        for frame in self.frames:
            tally.merge(frame.tally)
        return tally


async def load(simulator: Simulator | int, **changes: Any) -> Tally:
    """What a worker counts that does this plan, with these changes, to the end."""
    port = simulator if isinstance(simulator, int) else simulator.port
    plan = replace(PLAN, port=port, start_at=monotonic(), **changes)
    kept = Kept()
    async with asyncio.timeout(20):
        await Worker(plan, kept).run()
    return kept.tally
