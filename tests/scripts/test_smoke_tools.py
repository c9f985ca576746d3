"""`make smoke-tools` proves the chain where it holds, and says which link is broken where not."""

import asyncio
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.simulator.faults import Fault, FaultKind
from tests.harness.callers import Fronted
from tests.harness.gateway import free_port
from tests.integration.anthropic_paths import BOTH, NATIVE, on


class Ended(NamedTuple):
    """How the command ended, and what it said on both streams."""

    status: int
    said: str


async def smoke(url: str, **environment: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "scripts.smoke_tools",
        env={"PATH": os.environ["PATH"], "URL": url, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    return Ended(process.returncode or 0, said.decode())


async def smoke_at(pair: Fronted, **environment: str) -> Ended:
    return await smoke(pair.gateway.url, **{"API_KEY": pair.gateway.key, **environment})


@pytest.mark.parametrize("way", BOTH)
async def test_the_chain_is_proven_on_either_way(tmp_path: Path, way: str) -> None:
    async with on(way, tmp_path) as pair:
        ended = await smoke_at(pair)

    assert ended.status == 0
    assert ended.said.count("stop_reason tool_use") == 2
    assert "sim-model" in ended.said.splitlines()[-1]
    assert pair.gateway.key not in ended.said


async def test_each_broken_link_is_named_with_what_to_look_at(tmp_path: Path) -> None:
    async with on(NATIVE, tmp_path) as pair:
        key = await smoke_at(pair, API_KEY="sk-wrong")
        model = await smoke_at(pair, MODEL="nobody")
        pair.simulator.arm(Fault(FaultKind.STREAM_ERROR, events=2))
        stream = await smoke_at(pair)
        pair.simulator.disarm()

    assert (key.status, model.status, stream.status) == (1, 1, 1)
    assert "401" in key.said
    assert "Set API_KEY" in key.said
    assert "'nobody' is not served" in model.said
    assert "FAILED" in stream.said


async def test_a_gateway_that_is_not_there_is_said_so() -> None:
    ended = await smoke(f"http://127.0.0.1:{free_port()}", API_KEY="sk-any")

    assert ended.status == 2
    assert "does not answer" in ended.said
