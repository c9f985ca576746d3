"""Whatever an upstream streams: nothing but GatewayErrors, no hang, no answer for nothing."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from gateway.errors import GatewayError
from gateway.exchange import ResponseReader
from gateway.wire.openai_naming import RESPONSE_EVENT, RenamedStream
from gateway.wire.openai_responses import ResponsesStreamReader
from gateway.wire.openai_stream import OpenAIStreamReader, StreamWishes
from gateway.wire.sse import MAX_EVENT_BYTES
from tests.gateway.wire.events import chat_event, usage
from tests.gateway.wire.fuzzed import chat_streams, cut, data_in, heard, responses_streams

EVERYTHING = StreamWishes(include_usage=True, continuous_usage=True)


def chat_reader(wishes: StreamWishes = EVERYTHING) -> ResponseReader:
    return OpenAIStreamReader(choices_per_prompt=1, choices=1, prompt_tokens=5, wishes=wishes)


def responses_reader() -> ResponseReader:
    return ResponsesStreamReader(prompt_tokens=5)


READERS: dict[str, Callable[[], ResponseReader]] = {
    "chat": chat_reader,
    "chat renamed": lambda: RenamedStream(chat_reader(), "alias"),
    "responses": responses_reader,
    "responses renamed": lambda: RenamedStream(responses_reader(), "alias", path=RESPONSE_EVENT),
}

# Each took, or would take, the square of its length in some plausible parser.
LONG = {
    "no end of line": b"x" * 16,
    "no end of an event": b"data: x\n",
    "brackets": b"[",
    "objects": b'{"a":',
    "quotes": b'\\"',
    "quotes that open": b'"\\',
    "usage": b',"usage":{',
    "usage of usage": b',"usage":{{}',
    "carriage returns": b"\r\n: ",
    "models": b'"model":"m",',
}


@given(cut(chat_streams()))
def test_what_a_client_of_chat_has_read_is_on_the_meter(reads: list[bytes]) -> None:
    reader = chat_reader()
    passed, _ = heard(reader, reads)

    least, has_choices = 0, False
    for document in data_in(passed):
        has_choices = has_choices or bool(document.get("choices"))
        least = max(least, _content_in(document), _count_in(document))
    assert reader.usage.output_tokens >= least
    assert not has_choices or reader.usage.input_tokens >= 5


@given(cut(responses_streams()))
def test_what_a_client_of_responses_has_read_is_on_the_meter(reads: list[bytes]) -> None:
    reader = responses_reader()
    passed, _ = heard(reader, reads)

    events = data_in(passed)
    deltas = [event for event in events if event.get("type") == "response.output_text.delta"]
    assert reader.usage.output_tokens >= len(deltas)
    assert not events or reader.usage.input_tokens >= 5


@pytest.mark.parametrize("name", READERS)
@given(reads=cut(chat_streams() | responses_streams()))
def test_where_reads_end_makes_no_difference(name: str, reads: list[bytes]) -> None:
    whole, pieces = READERS[name](), READERS[name]()

    assert heard(whole, [b"".join(reads)]) == heard(pieces, reads)
    assert whole.saw_content == pieces.saw_content
    assert whole.is_complete == pieces.is_complete
    assert whole.usage == pieces.usage


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("size", [1000, 65_536])
def test_an_event_without_end_is_refused_before_it_fills_the_memory(name: str, size: int) -> None:
    reader, fed = READERS[name](), 0
    with pytest.raises(GatewayError):
        while fed < 2 * MAX_EVENT_BYTES:
            assert reader.feed(b"x" * size) == b""
            fed += size
    assert fed <= MAX_EVENT_BYTES + size


@pytest.mark.parametrize("pattern", LONG)
@pytest.mark.parametrize("name", READERS)
def test_no_event_takes_longer_than_its_length_deserves(name: str, pattern: str) -> None:
    filling = LONG[pattern] * (2**19 // len(LONG[pattern]))
    reader = READERS[name]()
    reader.feed(chat_event("a", usage=usage(7, 1)))
    began_at = time.monotonic()
    heard(reader, [b'data: {"model":"m",' + filling, filling + b"\n\n"])
    # A second of a megabyte is fifty times what it takes; squares would take hours.
    assert time.monotonic() - began_at < 5


def _content_in(document: Any) -> int:
    """One where an event shows text and states no count."""
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or "usage" in document:
        return 0
    delta = first.get("delta")
    return 1 if isinstance(delta, dict) and delta.get("content") == "z" else 0


def _count_in(document: Any) -> int:
    stated = document.get("usage")
    count = stated.get("completion_tokens") if isinstance(stated, dict) else None
    return count if isinstance(count, int) else 0
