"""The bytes that Anthropic's clients see: headers, envelopes, events, and who is answered so."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from tests.harness.anthropic import COUNT, PATH, events, kinds, message
from tests.harness.callers import Fronted, RawCall, dechunked
from tests.harness.gateway import GatewayProcess, chat
from tests.integration.anthropic_paths import BOTH, NATIVE, on

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAM = message("sing", stream=True, max_tokens=20)
VERSION = {"anthropic-version": "2023-06-01"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BOTH)
async def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fronted]:
    patient = {"CIRCUIT_FAILURE_THRESHOLD": "1000", "CIRCUIT_FAILURE_RATIO": "1"}
    pace = SimulatorConfig(prompt_tokens_details=True)
    folder = tmp_path_factory.mktemp("wire")
    async with on(request.param, folder, pace=pace, **patient) as running:
        yield running


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """The error of an answer in Anthropic's envelope, which it must have, with the id it has."""
    document = answer.json()
    assert document["type"] == "error"
    assert document["request_id"] == answer.headers["request-id"]
    error: dict[str, Any] = document["error"]
    return error


async def test_every_answer_has_both_names_of_its_id(pair: Fronted) -> None:
    mine = {"x-request-id": "mine-1"}

    plain = await pair.gateway.client.post(PATH, json=message(), headers=mine)
    stream = await pair.gateway.client.post(PATH, json=STREAM, headers=mine)

    for answer in (plain, stream):
        assert answer.headers["request-id"] == "mine-1"
        assert answer.headers["x-request-id"] == "mine-1"


async def test_an_openai_answer_has_neither_of_anthropics_headers(pair: Fronted) -> None:
    answer = await pair.gateway.client.post("/v1/chat/completions", json=chat())

    assert "request-id" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("anthropic-")]


async def test_what_is_left_of_the_quota_is_told_in_anthropics_words(tmp_path: Path) -> None:
    async with on(NATIVE, tmp_path, DAILY_TOKEN_QUOTA="1000", RATE_LIMIT_PER_KEY="60/minute") as p:
        answer = await p.gateway.client.post(PATH, json=message())

        headers, used = answer.headers, (await p.gateway.usage())["total_tokens"]
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
        assert headers["anthropic-ratelimit-tokens-limit"] == "1000"
        assert headers["anthropic-ratelimit-tokens-remaining"] == str(1000 - used)
        assert headers["anthropic-ratelimit-tokens-reset"] == tomorrow
        assert headers["anthropic-ratelimit-requests-limit"] == "60"
        assert headers["anthropic-ratelimit-requests-remaining"] == "59"
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
        assert timedelta() < reset - datetime.now(UTC) < timedelta(seconds=3)
        assert "x-ratelimit-limit-tokens" not in headers


async def test_the_events_come_in_anthropics_order(pair: Fronted) -> None:
    answer = await pair.gateway.client.post(PATH, json=STREAM)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert kinds(answer.content) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert b"[DONE]" not in answer.content
    assert b"chatcmpl-" not in answer.content


async def test_a_prompt_from_the_cache_is_told_apart_and_charged(pair: Fronted) -> None:
    body = message("again and again " * 30, stream=True)
    await pair.gateway.client.post(PATH, json=body)
    before = (await pair.gateway.usage())["input_tokens"]

    told = events((await pair.gateway.client.post(PATH, json=body)).content)

    usage = told[-2]["usage"]
    cached = usage["cache_read_input_tokens"]
    assert cached > 0
    seen = usage["input_tokens"] + usage.get("cache_creation_input_tokens", 0) + cached
    assert (await pair.gateway.usage())["input_tokens"] - before == seen


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.CLOSE_MID_STREAM, events=6),
        Fault(FaultKind.RESET_MID_STREAM, events=6),
        Fault(FaultKind.STREAM_ERROR, events=6),
    ],
    ids=lambda fault: fault.kind.value,
)
async def test_a_stream_that_dies_ends_with_one_error_event_and_a_cut(
    pair: Fronted, fault: Fault
) -> None:
    pair.simulator.arm(fault)
    async with RawCall(pair.gateway, STREAM, path=PATH, request_id=fault.kind.value) as call:
        raw = await call.read_to_end()
    pair.simulator.disarm()

    *told, error = events(dechunked(raw))
    assert [event["type"] for event in told if event["type"] == "content_block_delta"]
    assert error["type"] == "error"
    assert error["error"]["type"] == "api_error"
    assert error["request_id"] == fault.kind.value
    assert b"pydantic" not in raw
    assert b"message_stop" not in raw
    # The chunked body has no end: who missed the event sees that something is missing.
    assert not raw.endswith(b"0\r\n\r\n")


async def test_a_full_gateway_says_529_to_these_and_503_to_those(tmp_path: Path) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.05, output_tokens=1000)
    hold = message(max_tokens=500, stream=True)
    async with (
        on(NATIVE, tmp_path, pace=pace, MAX_IN_FLIGHT="1", MAX_QUEUED="0") as p,
        RawCall(p.gateway, hold, path=PATH) as call,
    ):
        await call.read_until(b"content_block_delta")
        ours = await p.gateway.client.post(PATH, json=message())
        theirs = await p.gateway.client.post("/v1/chat/completions", json=chat())

    assert (ours.status_code, error_of(ours)["type"]) == (529, "overloaded_error")
    assert ours.headers["x-should-retry"] == "true"
    assert int(ours.headers["retry-after"]) >= 1
    assert theirs.status_code == 503


async def test_a_used_up_quota_says_that_trying_again_is_futile(tmp_path: Path) -> None:
    async with on(NATIVE, tmp_path, DAILY_TOKEN_QUOTA="1") as p:
        for path in (PATH, "/v1/messages?beta=true"):
            answer = await p.gateway.client.post(path, json=message())

            error = error_of(answer)
            assert (answer.status_code, error["type"]) == (429, "rate_limit_error")
            assert error["details"]["error_code"] == "insufficient_quota"
            assert answer.headers["x-should-retry"] == "false"
            assert answer.headers["anthropic-ratelimit-tokens-remaining"] == "1"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", PATH, 405, "invalid_request_error"),
        ("DELETE", COUNT, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("GET", "/v1/messages/batches/b1/results", 404, "not_found_error"),
    ],
)
async def test_what_is_not_here_is_said_in_the_dialect_of_the_path(
    pair: Fronted, method: str, path: str, status: int, kind: str
) -> None:
    answer = await pair.gateway.client.request(method, path)

    assert (answer.status_code, error_of(answer)["type"]) == (status, kind)


async def test_a_stranger_is_refused_in_the_dialect_of_the_request(pair: Fronted) -> None:
    async with pair.gateway.client_with(None) as stranger:
        message_answer = await stranger.post(PATH, json=message())
        models = await stranger.get("/v1/models", headers=VERSION)
        plain = await stranger.get("/v1/models")

    for answer in (message_answer, models):
        assert (answer.status_code, error_of(answer)["type"]) == (401, "authentication_error")
    assert plain.json()["error"]["code"] == "missing_api_key"


async def test_a_key_may_come_as_anthropics_clients_send_it(pair: Fronted) -> None:
    async with pair.gateway.client_with(None) as client:
        keyed = {**VERSION, "x-api-key": pair.gateway.key, "anthropic-beta": "a-2025-01-01,b"}
        answer = await client.post("/v1/messages?beta=true", json=message(), headers=keyed)

    assert answer.status_code == 200


async def test_models_are_shown_in_the_shape_of_who_asks(pair: Fronted) -> None:
    theirs = (await pair.gateway.client.get("/v1/models", headers=VERSION)).json()
    plain = (await pair.gateway.client.get("/v1/models")).json()
    missing = await pair.gateway.client.get("/v1/models/none", headers=VERSION)

    assert {model["type"] for model in theirs["data"]} == {"model"}
    assert (theirs["has_more"], theirs["first_id"]) == (False, theirs["data"][0]["id"])
    assert plain["object"] == "list"
    assert (missing.status_code, error_of(missing)["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("path", ["/", "/api/hello"])
async def test_who_looks_whether_anybody_is_there_is_told_so(pair: Fronted, path: str) -> None:
    async with pair.gateway.client_with(None) as stranger:
        answer = await stranger.head(path)

    assert (answer.status_code, answer.content) == (200, b"")


async def test_malformed_json_is_a_bad_request_in_the_dialect(pair: Fronted) -> None:
    answer = await pair.gateway.client.post(
        PATH, content=b"{", headers={"content-type": "application/json"}
    )

    assert (answer.status_code, error_of(answer)["type"]) == (400, "invalid_request_error")


async def test_the_log_and_the_metrics_name_the_route(pair: Fronted) -> None:
    gateway: GatewayProcess = pair.gateway
    labels = {"route": "/v1/messages", "model": "sim-model", "outcome": "ok"}
    before = await gateway.metric("gateway_requests_total", **labels)

    await gateway.client.post(PATH, json=message(), headers={"x-request-id": "named"})

    (line,) = await gateway.logged(request_id="named")
    assert (line["route"], line["input_tokens"] > 0, line["output_tokens"]) == (PATH, True, 8)
    assert await gateway.metric("gateway_requests_total", **labels) == before + 1
