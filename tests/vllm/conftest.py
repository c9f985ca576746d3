"""One real generating and one real embedding vLLM for the session, one gateway per test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.harness.gateway import GatewayProcess, free_port
from tests.harness.vllm import VllmProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a real vLLM, and shares one event loop with it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm(logs: Path) -> AsyncIterator[VllmProcess]:
    # As scripts/launch_vllm.sh starts it: cached tokens are told apart.
    flags = ("--", "--enable-prompt-tokens-details")
    async with VllmProcess(port=free_port(), log=logs / "vllm.log", arguments=flags) as running:
        await warm_up(running)
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def embedder(logs: Path) -> AsyncIterator[VllmProcess]:
    log = logs / "embedder.log"
    async with VllmProcess(port=free_port(), log=log, arguments=("--embed",)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(vllm: VllmProcess, tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(folder=tmp_path, VLLM_URL=vllm.url) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def openai(gateway: GatewayProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as client:
        yield client


async def warm_up(vllm: VllmProcess) -> None:
    """The first request after a start takes seconds: it is not to be anybody's measurement."""
    async with AsyncOpenAI(base_url=f"{vllm.url}/v1", api_key="none") as client:
        await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "warm up"}], max_tokens=4
        )
