"""Streams of /v1/responses: estimated while they run, exact at their last event."""

import orjson
import pytest

from gateway.errors import UpstreamFailed, UpstreamTruncated
from gateway.exchange import NO_USAGE, TokenUsage
from gateway.wire.openai_responses import ResponsesStreamReader
from tests.gateway.wire.events import DONE, feed_all


def named(name: str, **fields: object) -> bytes:
    data = orjson.dumps({"type": name, **fields})
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def ended(name: str = "response.completed") -> bytes:
    return named(name, response={"usage": {"input_tokens": 9, "output_tokens": 4}})


DELTA = named("response.output_text.delta", delta="x")
CREATED = named("response.created", response={"usage": None})


@pytest.fixture
def reader() -> ResponsesStreamReader:
    return ResponsesStreamReader(prompt_tokens=5)


def test_a_delta_counts_one_token(reader: ResponsesStreamReader) -> None:
    assert reader.usage == NO_USAGE
    reader.feed(CREATED)
    assert not reader.saw_content
    reader.feed(DELTA + named("response.function_call_arguments.delta", delta="{"))
    assert reader.saw_content
    assert reader.usage == TokenUsage(5, 2, is_estimated=True)


@pytest.mark.parametrize("name", ["response.completed", "response.incomplete"])
def test_the_last_event_settles_the_count(reader: ResponsesStreamReader, name: str) -> None:
    stream = CREATED + DELTA + ended(name)
    assert feed_all(reader, *(stream[at : at + 1] for at in range(len(stream)))) == stream
    assert reader.usage == TokenUsage(9, 4)
    assert reader.is_complete
    assert reader.finish() == b""


def test_events_without_a_name_are_known_by_their_type(reader: ResponsesStreamReader) -> None:
    stream = b"".join(event.partition(b"\n")[2] for event in (CREATED, DELTA, ended()))
    assert reader.feed(stream) == stream
    assert reader.usage == TokenUsage(9, 4)


def test_nothing_follows_the_last_event_not_even_a_terminator_of_chat(
    reader: ResponsesStreamReader,
) -> None:
    assert reader.feed(ended() + DELTA + DONE + b": note\n\n") == ended()


@pytest.mark.parametrize(
    "failure",
    [
        named("response.failed", response={"error": {"message": "Traceback ..."}, "usage": None}),
        named("error", message="EngineCore", code="server_error"),
        b'data: {"error": {"message": "EngineCore", "code": 500}}\n\n',
    ],
)
def test_a_failure_is_raised_and_what_stood_before_is_rescued(
    reader: ResponsesStreamReader, failure: bytes
) -> None:
    with pytest.raises(UpstreamFailed) as raised:
        reader.feed(DELTA + failure + DONE)
    assert reader.rescued == DELTA
    assert raised.value.message == "The upstream reported an internal error."
    assert reader.feed(ended()) == b""
    assert not reader.is_complete


def test_the_usage_of_a_failed_answer_is_kept(reader: ResponsesStreamReader) -> None:
    with pytest.raises(UpstreamFailed):
        reader.feed(ended("response.failed"))
    assert reader.usage == TokenUsage(9, 4)


@pytest.mark.parametrize("stream", [b"", CREATED + DELTA, ended()[:-1], DONE])
def test_a_stream_without_its_last_event_is_truncated(
    reader: ResponsesStreamReader, stream: bytes
) -> None:
    reader.feed(stream)
    with pytest.raises(UpstreamTruncated):
        reader.finish()


@pytest.mark.parametrize(
    "event",
    [
        b"event: response.completed\ndata: nonsense\n\n",
        b"event: response.completed\ndata: []\n\n",
        named("response.completed", response=3),
        named("response.completed", response={"usage": {"input_tokens": -1}}),
    ],
)
def test_a_malformed_end_still_ends(reader: ResponsesStreamReader, event: bytes) -> None:
    assert reader.feed(DELTA + event) == DELTA + event
    assert reader.is_complete
    assert reader.usage == TokenUsage(5, 1, is_estimated=True)
