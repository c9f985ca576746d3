"""What a real vLLM answered, read again at every split point."""

import base64
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.errors import GatewayError, UpstreamFailed, UpstreamRejected
from gateway.exchange import InferenceCall, Operation, ResponseReader, TokenUsage
from gateway.wire import openai_errors
from gateway.wire.openai import OpenAIConfig, OpenAIDialect
from tests.gateway.wire.events import DONE

TRANSCRIPTS = Path(__file__).resolve().parents[2] / "transcripts"
# Recorded without the gateway's policy: some requests hold fields that it refuses.
DIALECT = OpenAIDialect(OpenAIConfig(refused_fields=frozenset()))
ANTHROPIC = {Operation.MESSAGES, Operation.COUNT_TOKENS}
OPERATIONS = {operation.value: operation for operation in Operation if operation not in ANTHROPIC}


def body_of(transcript: dict[str, Any]) -> bytes:
    if "body_lines" in transcript:
        return "\n".join(transcript["body_lines"]).encode()
    return base64.b64decode(transcript["body_base64"])


def recorded() -> list[dict[str, Any]]:
    transcripts = [json.loads(path.read_bytes()) for path in sorted(TRANSCRIPTS.glob("*.json"))]
    return [
        transcript
        for transcript in transcripts
        if transcript["request"]["path"] in OPERATIONS
        and isinstance(transcript["request"].get("body"), dict)
    ]


def named(transcript: dict[str, Any]) -> str:
    return str(transcript["name"])


def is_stream(transcript: dict[str, Any]) -> bool:
    return str(transcript["headers"].get("content-type", "")).startswith("text/event-stream")


ANSWERED = [transcript for transcript in recorded() if transcript["status"] == 200]
STREAMS = [transcript for transcript in ANSWERED if is_stream(transcript)]
WHOLE = [transcript for transcript in ANSWERED if not is_stream(transcript)]
REFUSED = [transcript for transcript in recorded() if transcript["status"] != 200]


def call_of(transcript: dict[str, Any], **changes: Any) -> InferenceCall:
    request = transcript["request"]
    body = orjson.dumps({**request["body"], **changes})
    return DIALECT.parse(OPERATIONS[request["path"]], body)


def replay(reader: ResponseReader, *chunks: bytes) -> tuple[bytes, str, TokenUsage]:
    """What the client got, how it ended, and what was counted."""
    passed, ending = b"", "complete"
    try:
        for chunk in chunks:
            passed += reader.feed(chunk)
        passed += reader.finish()
    except UpstreamFailed as failure:
        passed, ending = passed + reader.rescued, type(failure).__name__
    return passed, ending, reader.usage


def stated_usage(stream: bytes) -> TokenUsage | None:
    """The usage in the last event that has one, if it speaks for all choices."""
    stated = None
    for line in stream.splitlines():
        if not line.startswith(b"data: {"):
            continue
        event = orjson.loads(line[6:])
        usage = event.get("usage") or event.get("response", {}).get("usage")
        if usage and not event.get("choices"):
            stated = usage
    if stated is None:
        return None
    if "input_tokens" in stated:
        return TokenUsage(stated["input_tokens"], stated["output_tokens"])
    return TokenUsage(stated["prompt_tokens"], stated["completion_tokens"])


def test_there_are_transcripts_to_replay() -> None:
    assert STREAMS
    assert WHOLE
    assert REFUSED


@pytest.mark.parametrize("transcript", STREAMS, ids=named)
def test_a_stream_is_the_same_wherever_its_reads_end(transcript: dict[str, Any]) -> None:
    stream, call = body_of(transcript), call_of(transcript)
    expected = replay(call.new_reader(), stream)
    for at in range(1, len(stream)):
        assert replay(call.new_reader(), stream[:at], stream[at:]) == expected, at
    single = (stream[at : at + 1] for at in range(len(stream)))
    assert replay(call.new_reader(), *single) == expected
    events = (event + b"\n\n" for event in stream.split(b"\n\n")[:-1])
    assert replay(call.new_reader(), *events) == expected


@pytest.mark.parametrize("transcript", STREAMS, ids=named)
def test_a_client_that_asked_for_everything_gets_the_very_bytes(
    transcript: dict[str, Any],
) -> None:
    changes: dict[str, Any] = {}
    if transcript["request"]["path"] != Operation.RESPONSES.value:
        changes["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    stream = body_of(transcript)
    passed, ending, _ = replay(call_of(transcript, **changes).new_reader(), stream)
    whole = stream if ending == "complete" else stream.removesuffix(DONE)
    assert whole.startswith(passed)
    assert b'{"error"' in whole[len(passed) :] or passed == whole


@pytest.mark.parametrize("transcript", STREAMS, ids=named)
def test_a_stream_counts_what_vllm_counted(transcript: dict[str, Any]) -> None:
    stream = body_of(transcript)
    stated = stated_usage(stream)
    _, _, counted = replay(call_of(transcript).new_reader(), stream)
    assert counted == stated if stated else counted.output_tokens >= 1


@pytest.mark.parametrize("transcript", STREAMS, ids=named)
def test_a_client_that_asked_for_nothing_sees_no_usage(transcript: dict[str, Any]) -> None:
    if transcript["request"]["path"] == Operation.RESPONSES.value:
        pytest.skip("responses always state their usage")
    call = call_of(transcript, stream_options=None)
    passed, _, _ = replay(call.new_reader(), body_of(transcript))
    assert b'"usage":{' not in passed
    assert b'"choices":[]' not in passed
    for event in passed.split(b"\n\n")[:-1]:
        assert event == b"data: [DONE]" or orjson.loads(event[6:])["choices"]


@pytest.mark.parametrize("transcript", WHOLE, ids=named)
def test_an_answer_counts_what_vllm_counted(transcript: dict[str, Any]) -> None:
    body, call = body_of(transcript), call_of(transcript)
    counted, _ = call.mend_answer(body)
    stated = orjson.loads(body).get("usage", {})
    assert counted.total_tokens == stated.get("total_tokens", 0)
    assert not counted.is_estimated


@pytest.mark.parametrize("transcript", WHOLE + STREAMS, ids=named)
def test_the_ceiling_of_a_prompt_holds(transcript: dict[str, Any]) -> None:
    call = call_of(transcript)
    if is_stream(transcript):
        counted = replay(call.new_reader(), body_of(transcript))[2]
    else:
        counted, _ = call.mend_answer(body_of(transcript))
    assert counted.input_tokens <= call.prompt.ceiling


@pytest.mark.parametrize("transcript", REFUSED, ids=named)
def test_a_refusal_keeps_its_meaning(transcript: dict[str, Any]) -> None:
    status = transcript["status"]
    error = openai_errors.read_rejection(status, body_of(transcript), retry_after_seconds=None)
    if status in (401, 500, 503):
        assert error.status in (502, 503)
        assert "EngineCore" not in error.message
        return
    assert isinstance(error, UpstreamRejected)
    assert error.status == status
    assert error.message


def test_a_killed_engine_ends_a_stream_as_a_failure() -> None:
    for transcript in STREAMS:
        if transcript["name"] == "engine_killed_mid_stream":
            passed, ending, usage = replay(call_of(transcript).new_reader(), body_of(transcript))
            assert ending == UpstreamFailed.__name__
            assert b"[DONE]" not in passed
            assert b"error" not in passed
            assert usage.output_tokens >= 1
            return
    pytest.skip("not recorded")


@pytest.mark.parametrize("transcript", REFUSED, ids=named)
def test_what_vllm_refuses_never_crashes_the_parser(transcript: dict[str, Any]) -> None:
    try:
        call_of(transcript)
    except GatewayError as error:
        assert error.status == 400
