"""Pages of other origins: let in only where CORS_ALLOW_ORIGINS says so."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess, chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
ORIGIN = {"origin": "https://app.example"}
STRANGER = {"origin": "https://evil.example"}
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("cors")
    origins = "https://app.example, https://other.example"
    async with (
        Simulator(SimulatorConfig()) as simulator,
        GatewayProcess(
            folder=folder, VLLM_URL=simulator.url, CORS_ALLOW_ORIGINS=origins
        ) as running,
    ):
        yield running


async def test_a_preflight_needs_no_key_and_allows_the_credential(gateway: GatewayProcess) -> None:
    async with gateway.client_with(None) as browser:
        answer = await browser.options(CHAT, headers=ORIGIN | PREFLIGHT)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert "POST" in answer.headers["access-control-allow-methods"]


async def test_a_preflight_of_a_stranger_allows_nothing(gateway: GatewayProcess) -> None:
    async with gateway.client_with(None) as browser:
        answer = await browser.options(CHAT, headers=STRANGER | PREFLIGHT)

    assert "access-control-allow-origin" not in answer.headers


async def test_an_answer_may_be_read_by_the_allowed_page(gateway: GatewayProcess) -> None:
    answer = await gateway.client.post(CHAT, json=chat(), headers=ORIGIN)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_stream_may_be_read_by_the_allowed_page(gateway: GatewayProcess) -> None:
    answer = await gateway.client.post(CHAT, json=chat(stream=True), headers=ORIGIN)

    assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("path", [CHAT, "/nowhere", "/v1/models/none"])
async def test_an_error_may_be_read_by_the_allowed_page(gateway: GatewayProcess, path: str) -> None:
    async with gateway.client_with(None) as browser:
        answer = await browser.get(path, headers=ORIGIN)

    assert answer.status_code in (401, 404, 405)
    assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]


async def test_an_answer_is_not_readable_by_a_stranger(gateway: GatewayProcess) -> None:
    answer = await gateway.client.get("/v1/models", headers=STRANGER)

    assert "access-control-allow-origin" not in answer.headers
