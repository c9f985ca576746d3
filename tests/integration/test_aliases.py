"""Aliases: a client's own name for a model, from the request to the answer and the books."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED
from tests.harness.commands import KeyCommands
from tests.harness.gateway import GatewayProcess, chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
ALIASES = "gpt-4o=sim-model,claude-*=sim-model,claude-3-*=other,sim-embedding=other,lost=gone"


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway with aliases, and the simulator of two models behind it."""

    gateway: GatewayProcess
    simulator: Simulator

    async def chat(self, model: str, **fields: Any) -> dict[str, Any]:
        answer = await self.gateway.client.post(CHAT, json=chat(model=model, **fields))
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def asked_for(self) -> str:
        """The model in the last request that reached the upstream."""
        model: str = [r for r in self.simulator.requests if r.path == CHAT][-1].json()["model"]
        return model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("aliases")
    async with Simulator(SimulatorConfig(models=("sim-model", "other"))) as simulator:
        settings = UNLIMITED | {"MODEL_ALIASES": ALIASES}
        async with GatewayProcess(folder=folder, VLLM_URL=simulator.url, **settings) as gateway:
            yield Running(gateway, simulator)


async def test_an_answer_carries_the_name_that_was_asked_for(running: Running) -> None:
    answer = await running.chat("gpt-4o")

    assert answer["model"] == "gpt-4o"
    assert running.asked_for() == "sim-model"


async def test_every_event_of_a_stream_carries_it_too(running: Running) -> None:
    body = chat(model="gpt-4o", stream=True, stream_options={"include_usage": True})
    text = (await running.gateway.client.post(CHAT, json=body)).text

    assert text.count('"model":"gpt-4o"') == text.count("data: {")
    assert "sim-model" not in text


async def test_the_longest_pattern_that_fits_is_taken(running: Running) -> None:
    await running.chat("claude-sonnet-4-5-20250929")
    assert running.asked_for() == "sim-model"

    answer = await running.chat("claude-3-opus")
    assert running.asked_for() == "other"
    assert answer["model"] == "claude-3-opus"


async def test_a_models_own_name_is_no_alias(running: Running) -> None:
    body = {"model": "sim-embedding", "input": "text"}
    answer = await running.gateway.client.post("/v1/embeddings", json=body)

    assert answer.status_code == 200
    assert answer.json()["model"] == "sim-embedding"


async def test_metrics_and_logs_name_the_served_model(running: Running) -> None:
    before = await running.gateway.metric("gateway_requests_total", model="sim-model")
    await running.chat("gpt-4o")
    after = await running.gateway.metric("gateway_requests_total", model="sim-model")

    assert after == before + 1
    text = (await running.gateway.client.get("/metrics")).text
    assert "gpt-4o" not in text


async def test_exact_aliases_are_listed_beside_the_models(running: Running) -> None:
    listed = (await running.gateway.client.get("/v1/models")).json()["data"]
    one = (await running.gateway.client.get("/v1/models/gpt-4o")).json()

    names = [model["id"] for model in listed]
    assert names == ["gpt-4o", "other", "sim-embedding", "sim-model"]
    assert one["id"] == "gpt-4o"
    assert one["max_model_len"] == 32768


async def test_whatever_a_call_may_name_can_be_looked_up(running: Running) -> None:
    client = running.gateway.client
    by_pattern = await client.get("/v1/models/claude-sonnet-4-5-20250929")
    near_miss = await client.get("/v1/models/gpt-4p")

    assert by_pattern.json()["id"] == "claude-sonnet-4-5-20250929"
    assert by_pattern.json()["max_model_len"] == 32768
    assert near_miss.status_code == 404
    assert "Did you mean gpt-4o" in near_miss.json()["error"]["message"]


async def test_an_alias_whose_model_is_gone_is_unknown(running: Running) -> None:
    answer = await running.gateway.client.post(CHAT, json=chat(model="lost"))

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_a_near_miss_is_told_the_alias(running: Running) -> None:
    answer = await running.gateway.client.post(CHAT, json=chat(model="gpt-4p"))

    assert answer.status_code == 404
    assert "Did you mean gpt-4o" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("allowed", "listed"),
    [("gpt-4o", ["gpt-4o"]), ("sim-model", ["gpt-4o", "sim-model"])],
)
async def test_a_key_may_use_a_model_by_its_name_or_by_the_alias_it_was_given(
    running: Running, allowed: str, listed: list[str]
) -> None:
    keys = KeyCommands(running.gateway.settings)
    made = await keys.create(f"only-{allowed}", "--models", allowed)
    async with running.gateway.client_with(made.secret) as client:
        statuses = {}
        while (await client.get("/v1/models")).status_code == 401:
            pass
        for model in ("gpt-4o", "sim-model", "other", "claude-3-opus", "unheard-of"):
            statuses[model] = (await client.post(CHAT, json=chat(model=model))).status_code
        models = (await client.get("/v1/models")).json()["data"]
        claude = await client.get("/v1/models/claude-sonnet-4-5")

    assert claude.status_code == (200 if allowed == "sim-model" else 404)
    assert statuses["gpt-4o"] == 200
    assert statuses["sim-model"] == (200 if allowed == "sim-model" else 403)
    assert (statuses["other"], statuses["claude-3-opus"]) == (403, 403)
    assert statuses["unheard-of"] == 403
    assert [model["id"] for model in models] == listed
