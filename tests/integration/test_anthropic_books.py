"""What holds for OpenAI's calls holds for Anthropic's: charges, quotas, departures, failover."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.anthropic import COUNT, PATH, WEATHER, events, message
from tests.harness.callers import UNLIMITED, Departure, Fronted, RawCall, settled, until
from tests.harness.gateway import GatewayProcess
from tests.harness.otlp import HttpCollector, facts
from tests.integration.anthropic_paths import BOTH, NATIVE, TRANSLATED, UPSTREAM_PATHS, on

pytestmark = pytest.mark.asyncio(loop_scope="module")

INTER_TOKEN_SECONDS = 0.02
SHAPES: dict[str, dict[str, Any]] = {
    "text": message("sing"),
    "blocks": message([{"type": "text", "text": "sing"}], system="In a low voice."),
    "tool call": message(max_tokens=64, tools=[WEATHER], tool_choice={"type": "any"}),
    "stop": message("sing", stop_sequences=[" sea", " tree", " hill"], max_tokens=40),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BOTH)
async def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fronted]:
    pace = SimulatorConfig(prompt_tokens_details=True, inter_token_seconds=0.0005)
    folder = tmp_path_factory.mktemp("books")
    async with on(request.param, folder, pace=pace) as running:
        yield running


async def charged(gateway: GatewayProcess) -> int:
    total: int = (await settled(gateway))["total_tokens"]
    return total


def shown(usage: dict[str, Any]) -> int:
    """All tokens of a usage as the client adds it up."""
    return sum(usage.get(name) or 0 for name in usage if name.endswith("_tokens"))


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
async def test_the_client_sees_what_is_charged_and_what_the_upstream_counted(
    pair: Fronted, shape: str, is_stream: bool
) -> None:
    charged_before, generated_before = await charged(pair.gateway), pair.generated_tokens
    answer = await pair.gateway.client.post(PATH, json=SHAPES[shape] | {"stream": is_stream})

    usage = events(answer.content)[-2]["usage"] if is_stream else answer.json()["usage"]
    spent = pair.generated_tokens - generated_before
    assert await charged(pair.gateway) - charged_before == spent == shown(usage) > 0


async def test_counting_is_free_even_when_nothing_remains(tmp_path: Path) -> None:
    body = {name: value for name, value in message().items() if name != "max_tokens"}
    async with on(TRANSLATED, tmp_path, DAILY_TOKEN_QUOTA="1") as pair:
        answer = await pair.gateway.client.post(COUNT, json=body)

        assert answer.json()["input_tokens"] > 0
        assert pair.paths() == ["/tokenize"]
        assert (await pair.gateway.usage())["total_tokens"] == 0


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("way", BOTH)
async def test_an_answer_ends_where_the_quota_does(
    tmp_path: Path, way: str, is_stream: bool
) -> None:
    body = message("sing", max_tokens=500, stream=is_stream)
    pace = SimulatorConfig(output_tokens=400)
    async with on(way, tmp_path, pace=pace, DAILY_TOKEN_QUOTA="40") as pair:
        answer = await pair.gateway.client.post(PATH, json=body)

        told = events(answer.content)[-2]["delta"] if is_stream else answer.json()
        assert told["stop_reason"] == "max_tokens"
        assert (await settled(pair.gateway))["remaining_tokens"] == 0
        assert await charged(pair.gateway) == pair.generated_tokens == 40


@pytest.mark.parametrize("departure", Departure)
@pytest.mark.parametrize("way", BOTH)
async def test_who_leaves_stops_the_upstream_and_pays_what_was_generated_until_then(
    tmp_path: Path, way: str, departure: Departure
) -> None:
    pace = SimulatorConfig(
        inter_token_seconds=INTER_TOKEN_SECONDS, output_tokens=4000, prompt_tokens_details=True
    )
    async with on(way, tmp_path, pace=pace, DAILY_TOKEN_QUOTA="1000000") as pair:
        body = message("tell me", max_tokens=4000, stream=True)
        async with RawCall(pair.gateway, body, path=PATH) as call:
            await call.read_times(b"event: content_block_delta", 6)
            call.leave(departure)
            await until(lambda: not pair.simulator.state.running, within_seconds=1.0)

        generated = pair.generated_tokens
        assert pair.simulator.state.aborted_total == 1
        assert generated - 3 <= await charged(pair.gateway) <= generated


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("way", BOTH)
async def test_nobody_sees_a_failure_before_the_first_byte(
    tmp_path: Path, way: str, is_stream: bool
) -> None:
    config = SimulatorConfig(no_messages=way == TRANSLATED)
    async with Simulator(config) as first, Simulator(config) as second:
        patient = {"CIRCUIT_FAILURE_THRESHOLD": "100000", "CIRCUIT_FAILURE_RATIO": "1"}
        urls = f"{first.url},{second.url}"
        async with BothWell(tmp_path, urls, **patient) as gateway:
            for kind in (FaultKind.ERROR_500, FaultKind.RESET, FaultKind.STREAM_ERROR):
                first.arm(Fault(kind, events=0))
                answers = await asyncio.gather(
                    *(gateway.client.post(PATH, json=message(stream=is_stream)) for _ in range(10))
                )
                first.disarm()

                assert {answer.status_code for answer in answers} == {200}
                ends = b'"type":"message_stop"' if is_stream else b'"stop_reason":"max_tokens"'
                assert all(ends in answer.content for answer in answers)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_one_fleet_may_hold_those_who_speak_anthropic_and_those_who_do_not(
    tmp_path: Path, is_stream: bool
) -> None:
    config = SimulatorConfig()
    async with (
        Simulator(config) as native,
        Simulator(replace(config, no_messages=True)) as plain,
        BothWell(tmp_path, f"{native.url},{plain.url}") as gateway,
    ):
        body = message("sing", stream=is_stream)
        answers = [await gateway.client.post(PATH, json=body) for _ in range(12)]

        texts = {_text(answer, is_stream=is_stream) for answer in answers}
        assert len(texts) == 1
        assert UPSTREAM_PATHS[NATIVE] in {request.path for request in native.requests}
        assert UPSTREAM_PATHS[TRANSLATED] in {request.path for request in plain.requests}


@pytest.mark.parametrize("way", BOTH)
async def test_an_upstream_that_keeps_failing_is_left_alone(tmp_path: Path, way: str) -> None:
    async with on(way, tmp_path, CIRCUIT_FAILURE_THRESHOLD="3") as pair:
        pair.simulator.arm(Fault(FaultKind.ERROR_500))
        answers = [await pair.gateway.client.post(PATH, json=message()) for _ in range(12)]

        last = answers[-1]
        assert (last.status_code, last.json()["error"]["type"]) == (529, "overloaded_error")
        assert last.json()["error"]["details"]["error_code"] == "circuit_open"


async def test_a_tool_written_wrongly_is_an_error_that_costs_its_prompt(tmp_path: Path) -> None:
    async with on(NATIVE, tmp_path) as pair:
        fault = Fault(FaultKind.MALFORMED_CALL, count=1)
        pair.simulator.arm(fault)
        answer = await pair.gateway.client.post(PATH, json=message("sing"))

        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (502, "api_error")
        assert "pydantic" not in answer.text
        assert await charged(pair.gateway) > 0
        assert await pair.gateway.metric("gateway_upstream_errors_total") == 0


@pytest.mark.parametrize("way", BOTH)
async def test_a_message_leaves_the_spans_and_the_metrics_of_a_chat(
    tmp_path: Path, way: str
) -> None:
    with HttpCollector() as collector:
        settings: dict[str, Any] = collector.settings
        async with on(way, tmp_path, **settings) as pair:
            named = {"x-request-id": "spans"}
            await pair.gateway.client.post(PATH, json=message(stream=True), headers=named)
            trace = await collector.trace_of("spans")
            tokens = await pair.gateway.metric(
                "gateway_tokens_total", model="sim-model", type="output"
            )
            first = await pair.gateway.metric("gateway_time_to_first_token_seconds_count")
            judged = await pair.gateway.metric("gateway_slo_requests_total")
            input_tokens = (await pair.gateway.usage())["input_tokens"]

    seen = facts(trace.client)
    assert trace.server.name == f"POST {PATH}"
    assert trace.client.name == "chat sim-model"
    assert seen["gen_ai.operation.name"] == "chat"
    assert seen["gen_ai.request.max_tokens"] == 8
    assert seen["gen_ai.usage.input_tokens"] == input_tokens
    assert seen["gen_ai.usage.output_tokens"] == tokens == 8
    assert (first, judged) == (1, 1)


def _text(answer: httpx2.Response, *, is_stream: bool) -> str:
    if not is_stream:
        text: str = answer.json()["content"][0]["text"]
        return text
    deltas = [event["delta"] for event in events(answer.content) if "delta" in event]
    return "".join(delta.get("text", "") for delta in deltas)


class BothWell(GatewayProcess):
    """A gateway that has found both of its upstreams."""

    def __init__(self, folder: Path, urls: str, **settings: str) -> None:
        merged: dict[str, Any] = UNLIMITED | settings
        super().__init__(folder=folder, VLLM_URL=urls, **merged)

    async def start(self) -> None:
        await super().start()
        while await self.metric("gateway_upstream_healthy") < 2:
            await asyncio.sleep(0.02)
