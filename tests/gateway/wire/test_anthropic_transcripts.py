"""What a real vLLM answered, read as Anthropic's clients get it, at every split point."""

import json
from typing import Any

import orjson
import pytest

from gateway.errors import GatewayError, UpstreamRejected
from gateway.exchange import NO_USAGE, InferenceCall, Operation, TokenUsage
from gateway.wire import anthropic_errors
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIConfig
from tests.gateway.wire.anthropic_order import billed, message_in, replay
from tests.gateway.wire.test_transcripts import TRANSCRIPTS, body_of, is_stream, named

DIALECT = AnthropicDialect(OpenAIConfig())
ASKED = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hi."}]}


def recorded(path: str) -> list[dict[str, Any]]:
    transcripts = [json.loads(file.read_bytes()) for file in sorted(TRANSCRIPTS.glob("*.json"))]
    return [one for one in transcripts if one["request"]["path"] == path]


NATIVE = recorded("/v1/messages")
NATIVE_STREAMS = [one for one in NATIVE if is_stream(one)]
NATIVE_WHOLE = [one for one in NATIVE if one["status"] == 200 and not is_stream(one)]
REFUSED = [one for one in NATIVE if one["status"] != 200]
CHAT = [
    one
    for one in recorded("/v1/chat/completions")
    if one["status"] == 200
    and one["request"]["body"].get("n") is None
    and "logprobs" not in one["name"]
]
CHAT_STREAMS = [one for one in CHAT if is_stream(one)]
CHAT_WHOLE = [one for one in CHAT if not is_stream(one)]


def native(transcript: dict[str, Any]) -> InferenceCall:
    return DIALECT.parse(Operation.MESSAGES, orjson.dumps(transcript["request"]["body"]))


def translated() -> InferenceCall:
    call = DIALECT.parse(Operation.MESSAGES, orjson.dumps({**ASKED, "stream": True}))
    return call.as_served_by(frozenset({Operation.CHAT}))


def stated(transcript: dict[str, Any]) -> TokenUsage:
    """The last usage in a recorded answer, whichever dialect it is in."""
    found = NO_USAGE
    for line in body_of(transcript).splitlines():
        text = line.removeprefix(b"data: ")
        if not text.startswith(b"{"):
            continue
        fields = orjson.loads(text)
        usage = fields.get("usage") or fields.get("message", {}).get("usage") or {}
        if "prompt_tokens" in usage:
            found = TokenUsage(usage["prompt_tokens"], usage["completion_tokens"])
        elif "input_tokens" in usage:
            cached = usage.get("cache_read_input_tokens", 0)
            found = TokenUsage(usage["input_tokens"] + cached, usage["output_tokens"])
    return found


def test_there_are_transcripts_to_replay() -> None:
    assert NATIVE_STREAMS
    assert NATIVE_WHOLE
    assert REFUSED
    assert CHAT_STREAMS
    assert CHAT_WHOLE


@pytest.mark.parametrize("transcript", NATIVE_STREAMS + CHAT_STREAMS, ids=named)
def test_a_stream_is_the_same_wherever_its_reads_end(transcript: dict[str, Any]) -> None:
    call = native(transcript) if transcript in NATIVE_STREAMS else translated()
    stream = body_of(transcript)
    whole = call.new_reader("claude")
    expected = replay(whole, stream)
    # Long streams repeat themselves: every split point of the first events and of the last.
    points = [at for at in range(1, len(stream)) if at < 2500 or at > len(stream) - 2500]
    for at in points:
        reader = call.new_reader("claude")
        assert replay(reader, stream[:at], stream[at:]) == expected, at
        assert reader.usage == whole.usage
    reader = call.new_reader("claude")
    assert replay(reader, *(stream[at : at + 1] for at in range(len(stream)))) == expected
    assert reader.usage == whole.usage


@pytest.mark.parametrize("transcript", NATIVE_STREAMS + CHAT_STREAMS, ids=named)
def test_a_client_sees_well_ordered_events_and_the_usage_it_is_charged(
    transcript: dict[str, Any],
) -> None:
    call = native(transcript) if transcript in NATIVE_STREAMS else translated()
    reader = call.new_reader("claude")
    passed, ending = replay(reader, body_of(transcript))
    message = message_in(passed, is_whole=ending == "complete")
    assert message["model"] == "claude"
    assert b"EngineCore" not in passed
    assert b"pydantic" not in passed
    if ending == "complete":
        assert billed(message) == reader.usage[:2]
        if transcript["name"] != "chat_stream" and "interval" not in transcript["name"]:
            assert reader.usage[:2] == stated(transcript)[:2] or reader.usage.is_estimated
    else:
        assert "killed" in transcript["name"] or "dead" in transcript["name"]
        assert ending == "UpstreamErredInStream"
        assert reader.usage.output_tokens >= 1


@pytest.mark.parametrize("transcript", NATIVE_WHOLE + CHAT_WHOLE, ids=named)
def test_a_whole_answer_becomes_a_message_with_the_usage_that_is_charged(
    transcript: dict[str, Any],
) -> None:
    call = native(transcript) if transcript in NATIVE_WHOLE else translated()
    usage, body = call.mend_answer(body_of(transcript), "claude")
    message = orjson.loads(body)
    assert message["id"].startswith("msg_")
    assert message["model"] == "claude"
    assert message["content"]
    assert message["stop_reason"] in ("end_turn", "max_tokens", "tool_use", "stop_sequence")
    assert "stop_sequence" in message
    assert billed(message) == usage[:2] == stated(transcript)[:2]
    assert not usage.is_estimated


@pytest.mark.parametrize("transcript", NATIVE_WHOLE + NATIVE_STREAMS, ids=named)
def test_the_ceiling_of_a_prompt_holds(transcript: dict[str, Any]) -> None:
    assert stated(transcript).input_tokens <= native(transcript).prompt.ceiling


@pytest.mark.parametrize("transcript", REFUSED, ids=named)
def test_a_refusal_keeps_its_meaning_and_shows_no_dump(transcript: dict[str, Any]) -> None:
    status = transcript["status"]
    error = anthropic_errors.read_rejection(status, body_of(transcript), retry_after_seconds=None)
    rendered = DIALECT.render_error(error, request_id="r")
    assert b"pydantic" not in rendered
    assert b"validation error" not in rendered
    assert b"EngineCore" not in rendered
    if status in (401, 500) or "wrongly" in transcript["name"]:
        assert error.status == 502
        return
    assert isinstance(error, UpstreamRejected)
    assert error.status == status


def test_too_long_a_prompt_is_said_in_the_words_that_make_agents_shorten_it() -> None:
    for transcript in REFUSED:
        if "too_long" in transcript["name"]:
            error = anthropic_errors.read_rejection(
                400, body_of(transcript), retry_after_seconds=None
            )
            assert error.message == "prompt is too long: 2049 tokens > 2048 maximum"


@pytest.mark.parametrize("transcript", REFUSED, ids=named)
def test_what_vllm_refuses_never_crashes_the_parser(transcript: dict[str, Any]) -> None:
    try:
        native(transcript)
    except GatewayError as error:
        assert error.status == 400


def test_a_recorded_count_passes_as_it_came() -> None:
    (transcript,) = recorded("/v1/messages/count_tokens")
    body = orjson.dumps(transcript["request"]["body"])
    call = DIALECT.parse(Operation.COUNT_TOKENS, body)
    assert call.mend_answer(body_of(transcript)) == (NO_USAGE, body_of(transcript))


def test_a_recorded_count_of_tokenize_becomes_anthropics() -> None:
    transcript = json.loads((TRANSCRIPTS / "tokenize_messages.json").read_bytes())
    call = DIALECT.parse(Operation.COUNT_TOKENS, orjson.dumps(ASKED)).as_served_by(frozenset())
    assert call.operation is Operation.TOKENIZE
    assert call.mend_answer(body_of(transcript)) == (NO_USAGE, b'{"input_tokens":18}')
