"""The daily token quota under a race for its last tokens, and what a caller is told of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.exchange import Operation
from gateway.wire.openai import OpenAIConfig, OpenAIDialect
from scripts.simulator.config import SimulatorConfig
from tests.harness.anthropic import message
from tests.harness.callers import Fronted, RawCall, fronted, settled
from tests.harness.gateway import chat

CHAT = "/v1/chat/completions"
RACERS = 100
# Two bytes a token, where the gateway's guess is four: the estimates are too low by half.
DENSE = "a b c d e f g h " * 4

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(),
    "/v1/completions": {"model": "sim-model", "prompt": "hello there", "max_tokens": 4},
    "/v1/responses": {"model": "sim-model", "input": "hello there", "max_output_tokens": 4},
    "/v1/embeddings": {"model": "sim-embedding", "input": "hello there"},
    "/v1/rerank": {"model": "sim-embedding", "query": "sea", "documents": ["a ship", "a tree"]},
    "/v1/score": {"model": "sim-embedding", "text_1": "sea", "text_2": "a ship"},
    "/v1/messages": message(),
    "/v1/messages/count_tokens": {"model": "sim-model", "messages": message()["messages"]},
    "/tokenize": {"model": "sim-model", "prompt": "hello there"},
    "/detokenize": {"model": "sim-model", "tokens": [353]},
}
FREE = {"/tokenize", "/detokenize", "/v1/messages/count_tokens"}
STREAMABLE = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
# Files in forms, not JSON: test_audio asks of them what is asked of the others here.
UPLOADS = {"/v1/audio/transcriptions", "/v1/audio/translations"}
METERED = sorted({operation.value for operation in Operation} - FREE - UPLOADS)


def estimate(body: dict[str, Any]) -> int:
    """The gateway's guess at a chat's prompt."""
    dialect = OpenAIDialect(OpenAIConfig())
    return dialect.parse(Operation.CHAT, json.dumps(body).encode()).prompt.estimate


def code_of(answer: httpx2.Response) -> object:
    """The word for programs of an error, in whichever dialect."""
    error = answer.json()["error"]
    return error.get("details", {}).get("error_code") or error["code"]


def tokens_of(answer: httpx2.Response) -> int:
    """All tokens of an answer's usage, in whichever dialect."""
    usage = answer.json()["usage"]
    total: int = usage.get("total_tokens") or usage["input_tokens"] + usage["output_tokens"]
    return total


async def prompt_tokens(pair: Fronted, body: dict[str, Any]) -> int:
    """What the simulator's tokenizer makes of a chat's prompt; asked of it directly."""
    async with httpx2.AsyncClient(base_url=pair.simulator.url, trust_env=False) as direct:
        answer = await direct.post("/tokenize", json={"messages": body["messages"]})
    count: int = answer.json()["count"]
    pair.simulator.requests.clear()
    return count


@asynccontextmanager
async def quota_of(
    folder: Path, tokens: int, *, pace: SimulatorConfig | None = None
) -> AsyncIterator[Fronted]:
    async with fronted(folder, pace=pace, DAILY_TOKEN_QUOTA=str(tokens)) as pair:
        yield pair


async def race(pair: Fronted, body: dict[str, Any]) -> dict[str, Any] | None:
    """One racer: tries again while others hold the tokens; None once there are none left."""
    async with asyncio.timeout(25):
        while True:
            answer = await pair.gateway.client.post(CHAT, json=body)
            if answer.status_code == 200:
                return body
            error = answer.json()["error"]
            assert answer.status_code == 429, answer.text
            if error["code"] == "insufficient_quota":
                return None
            assert error["type"] == "tokens"
            await asyncio.sleep(0.05)


async def test_a_hundred_racers_never_overdraw_by_more_than_the_estimates_erred(
    tmp_path: Path,
) -> None:
    quota = 6_000
    pace = SimulatorConfig(output_tokens=40, ttft_seconds=0.01, inter_token_seconds=0.001)
    kinds: list[dict[str, Any]] = [
        chat(DENSE, max_tokens=60),
        chat(DENSE, max_tokens=60, stream=True),
        chat(DENSE, max_tokens=30, stream=True, n=2),
        chat(DENSE, max_tokens=None),
    ]
    async with quota_of(tmp_path, quota, pace=pace) as pair:
        exact = await prompt_tokens(pair, kinds[0])
        answered = await asyncio.gather(
            *(race(pair, kinds[racer % len(kinds)]) for racer in range(RACERS))
        )
        report = await settled(pair.gateway)

        served = [body for body in answered if body is not None]
        error = sum(max(0, exact - estimate(body)) for body in served)
        assert len(served) < RACERS
        assert report["total_tokens"] <= quota + error
        # Nor is anything left lying: what remains could not have held another prompt.
        assert report["total_tokens"] >= quota - exact
        assert report["total_tokens"] == pair.generated_tokens
        assert report["requests"] == len(served)


async def test_bounded_racers_with_exact_prompts_never_exceed_the_quota_at_all(
    tmp_path: Path,
) -> None:
    quota = 1_000
    body = {"model": "sim-model", "prompt": [353] * 20, "max_tokens": 30}
    pace = SimulatorConfig(output_tokens=30, inter_token_seconds=0.001)
    async with quota_of(tmp_path, quota, pace=pace) as pair:
        answers = await asyncio.gather(
            *(pair.gateway.client.post("/v1/completions", json=body) for _ in range(RACERS))
        )
        report = await settled(pair.gateway)

        assert sum(answer.status_code == 200 for answer in answers) == quota // 50
        assert report["total_tokens"] == quota
        assert report["refusals"] == RACERS - quota // 50


async def test_far_from_the_limit_the_prompt_is_not_counted(tmp_path: Path) -> None:
    async with quota_of(tmp_path, 100_000) as pair:
        await pair.gateway.client.post(CHAT, json=chat(DENSE))

        assert pair.paths() == [CHAT]


async def test_near_the_limit_the_prompt_is_counted_and_the_quota_met_to_the_token(
    tmp_path: Path,
) -> None:
    async with fronted(tmp_path) as pair:
        exact = await prompt_tokens(pair, chat(DENSE))
    assert estimate(chat(DENSE)) < exact

    async with quota_of(tmp_path, exact + 3) as pair:
        answer = await pair.gateway.client.post(CHAT, json=chat(DENSE, max_tokens=50))

        assert pair.paths() == ["/tokenize", CHAT]
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert (await pair.gateway.usage())["total_tokens"] == exact + 3


async def test_a_prompt_that_only_the_guess_finds_too_long_is_admitted(tmp_path: Path) -> None:
    body = chat(" word" * 200)
    async with fronted(tmp_path) as pair:
        exact = await prompt_tokens(pair, body)
    assert estimate(body) > exact + 1

    async with quota_of(tmp_path, exact + 1) as pair:
        answer = await pair.gateway.client.post(CHAT, json=body)

        assert answer.status_code == 200
        assert (await pair.gateway.usage())["remaining_tokens"] == 0


@pytest.mark.parametrize(
    ("field", "is_stream"),
    [("max_tokens", True), ("max_completion_tokens", False), (None, True), (None, False)],
)
async def test_an_output_beyond_what_remains_is_bounded_to_it(
    tmp_path: Path, field: str | None, is_stream: bool
) -> None:
    body = {**chat("hi"), "max_tokens": None, "stream": is_stream}
    if field is not None:
        body[field] = 500
    async with fronted(tmp_path) as pair:
        exact = await prompt_tokens(pair, body)

    pace = SimulatorConfig(output_tokens=400)
    async with quota_of(tmp_path, exact + 7, pace=pace) as pair:
        answer = await pair.gateway.client.post(CHAT, json=body)

        (sent,) = pair.bodies()
        assert sent[field or "max_tokens"] == 7
        assert '"finish_reason":"length"' in answer.text
        assert (await settled(pair.gateway))["remaining_tokens"] == 0


async def test_what_remains_is_shared_by_all_choices(tmp_path: Path) -> None:
    body = chat("hi", n=3, max_tokens=100)
    async with fronted(tmp_path) as pair:
        exact = await prompt_tokens(pair, body)

    pace = SimulatorConfig(output_tokens=100)
    async with quota_of(tmp_path, exact + 20, pace=pace) as pair:
        answer = await pair.gateway.client.post(CHAT, json=body)

        assert answer.json()["usage"]["completion_tokens"] == 18
        assert (await pair.gateway.usage())["remaining_tokens"] == 2


SHORT = SimulatorConfig(output_tokens=1_000, max_model_len=2_048)
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}]


async def test_a_batch_longer_than_one_context_keeps_to_the_quota(tmp_path: Path) -> None:
    body = {"model": "sim-model", "prompt": [[353] * 150] * 14, "max_tokens": 1_000}
    async with quota_of(tmp_path, 3_000, pace=SHORT) as pair:
        answer = await pair.gateway.client.post("/v1/completions", json=body)

        assert answer.json()["usage"]["completion_tokens"] == 14 * 64
        assert (await pair.gateway.usage())["total_tokens"] == 2_996


async def test_many_choices_about_an_image_keep_to_the_quota(tmp_path: Path) -> None:
    body = chat("", n=128, max_tokens=1_000, messages=[{"role": "user", "content": IMAGE}])
    async with quota_of(tmp_path, 20_000, pace=SHORT) as pair:
        answer = await pair.gateway.client.post(CHAT, json=body)

        assert answer.status_code == 200
        assert 0 < (await pair.gateway.usage())["total_tokens"] <= 20_000


async def test_a_used_up_quota_says_limit_used_and_reset_and_that_retrying_is_futile(
    tmp_path: Path,
) -> None:
    body = {"model": "sim-model", "prompt": [353] * 20, "max_tokens": 30}
    async with quota_of(tmp_path, 50) as pair:
        await pair.gateway.client.post("/v1/completions", json=body)
        answer = await pair.gateway.client.post("/v1/completions", json=body)

        now = datetime.now(UTC)
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        error = answer.json()["error"]
        assert answer.status_code == 429
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
        assert "50 of 50 tokens are used" in error["message"]
        assert f"{midnight:%Y-%m-%dT%H:%M:%SZ}" in error["message"]
        assert answer.headers["x-should-retry"] == "false"
        to_midnight = (midnight - now).total_seconds()
        assert abs(int(answer.headers["retry-after"]) - to_midnight) < 5
        assert answer.headers["x-ratelimit-remaining-tokens"] == "0"
        assert (await pair.gateway.usage())["refusals"] == 1


async def test_tokens_held_by_a_running_request_are_worth_another_try_soon(tmp_path: Path) -> None:
    pace = SimulatorConfig(output_tokens=400, inter_token_seconds=0.02)
    async with quota_of(tmp_path, 500, pace=pace) as pair:
        async with RawCall(pair.gateway, chat("hi", max_tokens=None, stream=True)) as running:
            await running.read_until(b"data: ")
            answer = await pair.gateway.client.post(CHAT, json=chat())

            error = answer.json()["error"]
            assert answer.status_code == 429
            assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
            assert answer.headers["x-should-retry"] == "true"
            assert 1 <= int(answer.headers["retry-after"]) <= 5
        await settled(pair.gateway)
        assert (await pair.gateway.client.post(CHAT, json=chat())).status_code == 200


async def test_a_finished_stream_holds_nothing_once_its_terminator_is_read(tmp_path: Path) -> None:
    async with quota_of(tmp_path, 400) as pair:
        for _ in range(8):
            stream = await pair.gateway.client.post(
                CHAT, json=chat("hi", stream=True, max_tokens=None)
            )
            report = await pair.gateway.usage()

            assert stream.text.endswith("data: [DONE]\n\n")
            assert report["total_tokens"] == pair.generated_tokens
            assert report["reserved_tokens"] == 0


async def test_no_route_answers_unmetered_when_nothing_remains(tmp_path: Path) -> None:
    streams = [{**BODIES[path], "stream": True} for path in STREAMABLE]
    asked = [*((path, BODIES[path]) for path in METERED), *zip(STREAMABLE, streams, strict=True)]
    async with quota_of(tmp_path, 1) as pair:
        for path, body in asked:
            answer = await pair.gateway.client.post(path, json=body)

            assert answer.status_code == 429, path
            assert code_of(answer) == "insufficient_quota", path
        assert set(pair.paths()) <= {"/tokenize"}
        assert pair.generated_tokens == 0


async def test_every_route_is_known_to_these_tests() -> None:
    assert set(BODIES) | UPLOADS == {operation.value for operation in Operation}


async def test_every_metered_route_charges_what_the_upstream_counted(tmp_path: Path) -> None:
    async with fronted(tmp_path) as pair:
        for path in METERED:
            before = pair.generated_tokens
            answer = await pair.gateway.client.post(path, json=BODIES[path])

            spent = pair.generated_tokens - before
            assert tokens_of(answer) == spent > 0, path
            assert (await pair.gateway.usage())["total_tokens"] == pair.generated_tokens, path


async def test_counting_tokens_is_free_even_when_nothing_remains(tmp_path: Path) -> None:
    body = {"model": "sim-model", "prompt": [353] * 20, "max_tokens": 30}
    async with quota_of(tmp_path, 50) as pair:
        await pair.gateway.client.post("/v1/completions", json=body)
        assert (await pair.gateway.usage())["remaining_tokens"] == 0
        for path in FREE:
            assert (await pair.gateway.client.post(path, json=BODIES[path])).status_code == 200

        assert (await pair.gateway.usage())["total_tokens"] == 50


async def test_a_refused_request_is_charged_nothing_and_never_forwarded(tmp_path: Path) -> None:
    async with quota_of(tmp_path, 10_000) as pair:
        await pair.gateway.client.post(CHAT, json=chat(priority=1))
        await pair.gateway.client.post(CHAT, json=chat() | {"model": "nobody"})
        await pair.gateway.client.post(CHAT, content=b"{")

        report = await pair.gateway.usage()
        assert (report["total_tokens"], report["reserved_tokens"], report["requests"]) == (0, 0, 0)
        assert pair.paths() == []
