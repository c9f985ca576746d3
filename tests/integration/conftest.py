"""Fixtures of the integration tests: a simulator, and a gateway process in front of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig(port=0)) as running:
        yield running


@pytest.fixture
async def gateway(simulator: Simulator, tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(folder=tmp_path, VLLM_URL=simulator.url) as running:
        yield running
