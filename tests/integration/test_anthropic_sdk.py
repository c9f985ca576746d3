"""The official anthropic SDK, unchanged, in front of the gateway, on both ways to the upstream."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from tests.harness.anthropic import WEATHER, error_in, message, only, sdk
from tests.harness.callers import Fronted
from tests.harness.commands import KeyCommands
from tests.integration.anthropic_paths import BOTH, NATIVE, UPSTREAM_PATHS, on

pytestmark = pytest.mark.asyncio(loop_scope="module")

# One pixel.
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BOTH)
async def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fronted]:
    pace = SimulatorConfig(models=("sim-model", "other-model"))
    patient = {
        "CIRCUIT_FAILURE_THRESHOLD": "1000",
        "CIRCUIT_FAILURE_RATIO": "1",
        "RETRY_ATTEMPTS": "1",
        "MAX_BODY_BYTES": "100000",
    }
    folder = tmp_path_factory.mktemp("anthropic")
    async with on(request.param, folder, pace=pace, **patient) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(pair: Fronted) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(pair.gateway) as opened:
        yield opened


# What works.


async def test_a_message(client: anthropic.AsyncAnthropic, pair: Fronted) -> None:
    answer = await client.messages.create(**message())

    block = only(answer)
    assert block.type == "text"
    assert block.text
    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "sim-model")
    assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)
    assert answer.usage.output_tokens == 8


async def test_an_answer_takes_the_way_that_the_upstream_offers(
    client: anthropic.AsyncAnthropic, pair: Fronted
) -> None:
    await client.messages.create(**message())

    way = NATIVE if not pair.simulator.config.no_messages else "translated"
    assert pair.paths()[-1] == UPSTREAM_PATHS[way]


async def test_a_token_serves_as_well_as_a_key(pair: Fronted) -> None:
    gateway = pair.gateway
    async with anthropic.AsyncAnthropic(
        base_url=gateway.url, auth_token=gateway.key, api_key=None, max_retries=0
    ) as client:
        answer = await client.beta.messages.create(
            **message(), betas=["fine-grained-tool-streaming-2025-05-14"]
        )

    assert answer.content


async def test_the_streaming_helper(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**message(max_tokens=12)) as stream:
        pieces = [piece async for piece in stream.text_stream]
        final = await stream.get_final_message()

    block = only(final)
    assert block.type == "text"
    assert "".join(pieces) == block.text
    assert len(pieces) > 3
    assert final.usage.output_tokens == 12
    assert final.usage.input_tokens > 0
    assert final.stop_reason == "max_tokens"


async def test_a_plain_stream_counts_the_prompt_at_its_start(
    client: anthropic.AsyncAnthropic,
) -> None:
    events = [event async for event in await client.messages.create(**message(), stream=True)]

    first, last = events[0], events[-1]
    assert first.type == "message_start"
    assert first.message.usage.input_tokens > 0
    assert last.type == "message_stop"


async def test_the_synchronous_client(pair: Fronted) -> None:
    def converse() -> tuple[Any, str]:
        with anthropic.Anthropic(
            base_url=pair.gateway.url, api_key=pair.gateway.key, max_retries=0
        ) as client:
            answer = client.messages.create(**message())
            with client.messages.stream(**message()) as stream:
                return answer.content[0], stream.get_final_text()

    block, text = await asyncio.to_thread(converse)

    assert block.text == text != ""


async def test_a_stop_sequence_is_named(client: anthropic.AsyncAnthropic) -> None:
    whole = await client.messages.create(**message(max_tokens=20))
    block = only(whole)
    assert block.type == "text"
    word = block.text.split()[4]

    answer = await client.messages.create(**message(max_tokens=20, stop_sequences=[word]))

    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", word)


async def test_a_forced_tool_is_called_whole_and_streamed(
    client: anthropic.AsyncAnthropic,
) -> None:
    asked = message(
        "rain in Oslo?",
        max_tokens=64,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "weather"},
    )
    answer = await client.messages.create(**asked)
    async with client.messages.stream(**asked) as stream:
        streamed = await stream.get_final_message()

    for told in (answer, streamed):
        call = only(told)
        assert call.type == "tool_use"
        assert (call.name, set(call.input)) == ("weather", {"city"})
        assert call.id
        assert told.stop_reason == "tool_use"


async def test_any_tool_is_a_tool(client: anthropic.AsyncAnthropic) -> None:
    asked = message(max_tokens=64, tools=[WEATHER], tool_choice={"type": "any"})

    answer = await client.messages.create(**asked)

    assert answer.stop_reason == "tool_use"


async def test_a_tool_that_is_not_needed_is_not_called(client: anthropic.AsyncAnthropic) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}

    answer = await client.messages.create(**message(tools=[WEATHER], tool_choice=choice))

    assert [block.type for block in answer.content] == ["text"]


async def test_the_result_of_a_tool_goes_back(
    client: anthropic.AsyncAnthropic, pair: Fronted
) -> None:
    called = await client.messages.create(
        **message(max_tokens=64, tools=[WEATHER], tool_choice={"type": "any"})
    )
    call = only(called)
    assert call.type == "tool_use"
    content: list[Any] = [{"type": "text", "text": "13 degrees"}]
    conversation: list[Any] = [
        {"role": "user", "content": "rain in Oslo?"},
        {"role": "assistant", "content": called.content},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": content},
                {"type": "text", "text": "in short"},
            ],
        },
    ]
    asked = message(messages=conversation, tools=[WEATHER])

    answer = await client.messages.create(**asked)

    assert answer.stop_reason == "max_tokens"
    sent = pair.simulator.requests[-1].body.decode()
    assert "13 degrees" in sent
    assert call.id in sent


async def test_what_coding_agents_send_along_is_accepted(client: anthropic.AsyncAnthropic) -> None:
    answer = await client.beta.messages.create(
        **message(
            [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}],
            max_tokens=2000,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            thinking={"type": "enabled", "budget_tokens": 1024},
            metadata={"user_id": "somebody"},
            tools=[{**WEATHER, "cache_control": {"type": "ephemeral"}}],
            extra_body={"temperature": 1},
        ),
        betas=["interleaved-thinking-2025-05-14", "context-management-2025-06-27"],
        context_management={"edits": []},
    )

    assert answer.stop_reason == "end_turn"


async def test_an_image_is_sent_as_data(client: anthropic.AsyncAnthropic) -> None:
    asked: Any = message([IMAGE, {"type": "text", "text": "what is it?"}])

    answer = await client.messages.create(**asked)

    assert answer.content


async def test_an_image_of_a_host_that_nobody_allowed_is_a_bad_request(
    client: anthropic.AsyncAnthropic,
) -> None:
    source = {"type": "url", "url": "http://169.254.169.254/latest"}
    asked: Any = message([{"type": "image", "source": source}])

    with pytest.raises(anthropic.BadRequestError) as caught:
        await client.messages.create(**asked)

    assert "169.254.169.254" in str(caught.value)


async def test_tokens_are_counted_as_they_will_be_charged(
    client: anthropic.AsyncAnthropic,
) -> None:
    asked = message("one two three four five", system="Be brief.")
    answer = await client.messages.create(**asked)
    del asked["max_tokens"]

    counted = await client.messages.count_tokens(**asked)

    assert counted.input_tokens == answer.usage.input_tokens


async def test_models_are_listed_and_told_one_by_one(client: anthropic.AsyncAnthropic) -> None:
    listed = [model async for model in client.models.list(limit=1)]
    told = await client.models.retrieve("sim-model")

    assert {"sim-model", "other-model"} <= {model.id for model in listed}
    assert (told.type, told.id, told.display_name) == ("model", "sim-model", "sim-model")


# What fails, by its class.


async def test_an_unknown_key_is_an_authentication_error(pair: Fronted) -> None:
    async with sdk(pair.gateway, key="sk-wrong") as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await client.messages.create(**message())

    assert caught.value.type == "authentication_error"
    assert caught.value.request_id


async def test_a_model_of_others_is_a_permission_error(pair: Fronted) -> None:
    secret = await _key(pair, "narrow", "--models", "sim-model")

    async with sdk(pair.gateway, key=secret) as client:
        with pytest.raises(anthropic.PermissionDeniedError) as caught:
            await client.messages.create(**message(model="other-model"))

    assert caught.value.type == "permission_error"


async def test_an_unknown_model_is_a_not_found_error(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.messages.create(**message(model="claude-of-another-house"))
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("none")

    assert caught.value.type == "not_found_error"


@pytest.mark.parametrize(
    "fields", [{"max_tokens": -1}, {"messages": []}, {"extra_body": {"temperature": -1}}]
)
async def test_a_wrong_value_is_a_bad_request(
    client: anthropic.AsyncAnthropic, fields: dict[str, Any]
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        await client.messages.create(**message(**fields))

    assert caught.value.type == "invalid_request_error"
    assert "pydantic" not in str(caught.value)


async def test_a_prompt_beyond_the_context_says_so_in_words_that_agents_know(
    client: anthropic.AsyncAnthropic,
) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: "):
        await client.messages.create(**message("a b " * 20_000))


async def test_a_body_too_large_is_a_request_too_large(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.RequestTooLargeError) as caught:
        await client.messages.create(**message("word " * 40_000))

    assert caught.value.status_code == 413
    assert error_in(caught.value)["type"] == "request_too_large"


async def test_a_broken_upstream_is_an_internal_server_error(
    client: anthropic.AsyncAnthropic, pair: Fronted
) -> None:
    pair.simulator.arm(Fault(FaultKind.ERROR_500, count=1))

    with pytest.raises(anthropic.InternalServerError) as caught:
        await client.messages.create(**message())

    assert (caught.value.status_code, caught.value.type) == (502, "api_error")


async def test_an_upstream_that_is_away_is_an_overloaded_error(
    client: anthropic.AsyncAnthropic, pair: Fronted
) -> None:
    pair.simulator.arm(Fault(FaultKind.ERROR_503, count=1))

    with pytest.raises(anthropic.OverloadedError) as caught:
        await client.messages.create(**message())

    assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")


@pytest.mark.parametrize(
    "kind", [FaultKind.RESET_MID_STREAM, FaultKind.CLOSE_MID_STREAM, FaultKind.STREAM_ERROR]
)
async def test_a_stream_that_breaks_is_an_api_status_error(
    client: anthropic.AsyncAnthropic, pair: Fronted, kind: FaultKind
) -> None:
    pair.simulator.arm(Fault(kind, events=6, count=1))
    received: list[str] = []

    with pytest.raises(anthropic.APIStatusError) as caught:
        async with client.messages.stream(**message(max_tokens=30)) as stream:
            async for piece in stream.text_stream:
                received.append(piece)  # noqa: PERF401 - what was heard before it raised counts

    assert len(received) >= 2
    assert "pydantic" not in str(caught.value)
    assert error_in(caught.value)["type"] == "api_error"


# What is tried again.


async def test_a_used_up_quota_is_a_rate_limit_error_that_is_not_tried_again(
    pair: Fronted,
) -> None:
    secret = await _key(pair, "poor", "--daily-tokens", "5")

    async with sdk(pair.gateway, key=secret, retries=2) as client:
        began = time.monotonic()
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(**message())

    assert caught.value.type == "rate_limit_error"
    assert error_in(caught.value)["details"]["error_code"] == "insufficient_quota"
    assert time.monotonic() - began < 0.4
    assert len(await pair.gateway.logged(error="insufficient_quota")) == 1


async def test_a_rate_limit_is_waited_out_as_told(pair: Fronted) -> None:
    secret = await _key(pair, "fast", "--rpm", "60")

    async with sdk(pair.gateway, key=secret, retries=1) as client:
        # 60 at once, and then one a second: the 61st is told to wait, waits, and succeeds.
        await asyncio.gather(*(client.messages.create(**message(max_tokens=1)) for _ in range(61)))

    assert len(await pair.gateway.logged(error="rate_limit_exceeded")) == 1


async def test_an_overloaded_upstream_is_asked_again(pair: Fronted) -> None:
    pair.simulator.arm(Fault(FaultKind.ERROR_503, count=1))

    async with sdk(pair.gateway, retries=2) as client:
        answer = await client.messages.create(**message())

    assert answer.content


async def _key(pair: Fronted, name: str, *options: str) -> str:
    """A key of its own, once the gateway knows it."""
    made = await KeyCommands(pair.gateway.settings).create(name, *options)
    async with asyncio.timeout(5), pair.gateway.client_with(made.secret) as asking:
        while (await asking.get("/v1/models")).status_code != 200:
            await asyncio.sleep(0.05)
    return made.secret
