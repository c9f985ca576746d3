"""The official SDK reads what this dialect writes: streams, answers, errors, counts, models."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import orjson
import pytest

from gateway.errors import AuthenticationFailed, ModelNotFound, Overloaded, QuotaExceeded
from gateway.exchange import InferenceCall, Operation, ServedModel
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.anthropic_models import model_card, model_list
from gateway.wire.openai import OpenAIConfig
from tests.gateway.wire.anthropic_order import message_in, replay
from tests.gateway.wire.test_anthropic_transcripts import (
    CHAT_STREAMS,
    CHAT_WHOLE,
    NATIVE_STREAMS,
    NATIVE_WHOLE,
)
from tests.gateway.wire.test_transcripts import body_of, named

DIALECT = AnthropicDialect(OpenAIConfig())
ASKED: dict[str, Any] = {
    "model": "claude",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Say hi."}],
}
TOOL: Any = {"name": "weather", "input_schema": {"type": "object"}}


class Answering:
    """One HTTP answer for each connection, and the body of the last request."""

    def __init__(self, body: bytes, *, status: int = 200, is_stream: bool = False) -> None:
        kind = b"text/event-stream" if is_stream else b"application/json"
        self._answer = b"HTTP/1.1 %d Said\r\ncontent-type: %b\r\nconnection: close\r\n\r\n%b" % (
            status,
            kind,
            body,
        )
        self.asked = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.lower().splitlines()
                if b"content-le" in line
            ),
            0,
        )
        self.asked = await reader.readexactly(length)
        writer.write(self._answer)
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def client_of(answering: Answering) -> AsyncIterator[anthropic.AsyncAnthropic]:
    server = await asyncio.start_server(answering, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with (
        server,
        asyncio.timeout(20),
        anthropic.AsyncAnthropic(
            api_key="k", base_url=f"http://{host}:{port}", max_retries=0
        ) as client,
    ):
        yield client


def call_of(transcript: dict[str, Any]) -> InferenceCall:
    call = DIALECT.parse(Operation.MESSAGES, orjson.dumps(ASKED))
    is_native = transcript["request"]["path"] == Operation.MESSAGES.value
    return call if is_native else call.as_served_by({Operation.CHAT})


@pytest.mark.parametrize(
    "transcript",
    [one for one in NATIVE_STREAMS + CHAT_STREAMS if "killed" not in one["name"]],
    ids=named,
)
async def test_a_stream_adds_up_to_the_same_message(transcript: dict[str, Any]) -> None:
    stream, _ = replay(call_of(transcript).new_reader("claude"), body_of(transcript))
    ours = message_in(stream)
    async with (
        client_of(Answering(stream, is_stream=True)) as client,
        client.messages.stream(**ASKED) as events,
    ):
        message = await events.get_final_message()
    assert message.id == ours["id"]
    assert message.stop_reason == ours["stop_reason"]
    assert message.usage.input_tokens == ours["usage"]["input_tokens"]
    assert message.usage.output_tokens == ours["usage"]["output_tokens"]
    assert [block.type for block in message.content] == [b["type"] for b in ours["content"]]
    for block, expected in zip(message.content, ours["content"], strict=True):
        if block.type == "text":
            assert block.text == expected["text"]


@pytest.mark.parametrize("transcript", NATIVE_WHOLE + CHAT_WHOLE, ids=named)
async def test_a_whole_answer_is_a_message_of_the_sdk(transcript: dict[str, Any]) -> None:
    _, body = call_of(transcript).mend_answer(body_of(transcript), "claude")
    async with client_of(Answering(body)) as client:
        message = await client.messages.create(**ASKED)
    assert anthropic.types.Message.model_validate(orjson.loads(body)) == message
    assert message.model == "claude"


async def test_a_cut_stream_ends_in_an_error_of_the_sdk() -> None:
    (killed,) = (one for one in NATIVE_STREAMS if "killed" in one["name"])
    stream, _ = replay(call_of(killed).new_reader(), body_of(killed))
    ended = stream + DIALECT.error_event(Overloaded("full"), request_id="r")
    async with client_of(Answering(ended, is_stream=True)) as client:
        with pytest.raises(anthropic.APIStatusError) as failure:
            async with client.messages.stream(**ASKED) as events:
                await events.get_final_message()
    assert failure.value.type == "overloaded_error"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AuthenticationFailed("no key"), anthropic.AuthenticationError),
        (ModelNotFound("no model"), anthropic.NotFoundError),
        (QuotaExceeded("used up"), anthropic.RateLimitError),
        (Overloaded("full"), anthropic.InternalServerError),
    ],
)
async def test_an_error_is_the_sdks_own(error: Any, expected: type[Exception]) -> None:
    body = DIALECT.render_error(error, request_id="req-9")
    async with client_of(Answering(body, status=DIALECT.status_of(error))) as client:
        with pytest.raises(anthropic.APIStatusError) as failure:
            await client.messages.create(**ASKED)
    assert isinstance(failure.value, expected)
    assert error.message in failure.value.message


async def test_counts_and_models_are_the_sdks_own() -> None:
    async with client_of(Answering(b'{"input_tokens":18}')) as client:
        asked = {name: ASKED[name] for name in ("model", "messages")}
        assert (await client.messages.count_tokens(**asked)).input_tokens == 18
    async with client_of(Answering(orjson.dumps(model_list([ServedModel("a", 9)])))) as client:
        assert [model.id async for model in client.models.list()] == ["a"]
    async with client_of(Answering(orjson.dumps(model_card(ServedModel("a", 9))))) as client:
        assert (await client.models.retrieve("a")).max_input_tokens == 9


async def test_a_conversation_of_the_sdk_survives_the_translation() -> None:
    """What the SDK answers with goes back as history, with the result of the tool behind it."""
    (called,) = (one for one in CHAT_WHOLE if one["name"] == "tool_auto_plain")
    call = call_of(called)
    answering = Answering(call.mend_answer(body_of(called))[1])
    async with client_of(answering) as client:
        first = await client.messages.create(**ASKED, tools=[TOOL])
        result = {"type": "tool_result", "tool_use_id": first.content[-1].id, "content": "sun"}
        history: list[Any] = [
            *ASKED["messages"],
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result, {"type": "text", "text": "so?"}]},
        ]
        await client.messages.create(**{**ASKED, "messages": history}, tools=[TOOL])
    asked = DIALECT.parse(Operation.MESSAGES, answering.asked).as_served_by({Operation.CHAT})
    chat = json.loads(asked.encode(model="m", output_limit=None))
    assert [turn["role"] for turn in chat["messages"]] == ["user", "assistant", "tool", "user"]
    call_id = chat["messages"][1]["tool_calls"][0]["id"]
    assert chat["messages"][2] == {"role": "tool", "tool_call_id": call_id, "content": "sun"}
    assert chat["messages"][1]["content"] == "Let me see. "
