"""Answers are held against the upstream's: byte by byte, or by what they say."""

import orjson
import pytest

from tests.benchmarks import shapes
from tests.benchmarks.answers import (
    Exactly,
    InMeaning,
    Likeness,
    stream_meaning,
    whole_meaning,
)

WHOLE = shapes.plain_body()
STREAM = shapes.script(4, has_usage=False).payload


def test_exactly_takes_nothing_but_the_same_bytes() -> None:
    expected = Exactly(WHOLE)

    assert expected.likeness(WHOLE) is Likeness.SAME
    assert expected.likeness(WHOLE + b" ") is Likeness.WRONG


def test_a_whole_answer_written_anew_is_told_from_the_same_bytes() -> None:
    expected = InMeaning(WHOLE, whole_meaning)
    anew = orjson.dumps(orjson.loads(WHOLE), option=orjson.OPT_SORT_KEYS)

    assert expected.likeness(WHOLE) is Likeness.SAME
    assert expected.likeness(anew) is Likeness.REWRITTEN


@pytest.mark.parametrize(
    "change",
    [
        {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
        {"choices": [{"message": {"content": "No."}, "finish_reason": "stop"}]},
        {"choices": []},
        {"usage": None},
    ],
)
def test_a_whole_answer_that_says_something_else_is_wrong(change: dict[str, object]) -> None:
    other = orjson.dumps(orjson.loads(WHOLE) | change)

    assert InMeaning(WHOLE, whole_meaning).likeness(other) is Likeness.WRONG


def test_a_stream_may_lose_its_role_event_and_gain_comments_and_an_empty_event() -> None:
    first, *rest = STREAM.split(b"\n\n")
    assert b'"role"' in first
    empty = b'data: {"choices":[{"delta":{},"finish_reason":null}]}'
    anew = b"\n\n".join([b": ping", empty, *rest])

    assert InMeaning(STREAM, stream_meaning).likeness(anew) is Likeness.REWRITTEN


@pytest.mark.parametrize(
    "other",
    [
        STREAM.removesuffix(b"data: [DONE]\n\n"),
        STREAM.replace(b'"stop"', b'"length"'),
        STREAM.replace(b" fox", b" ox"),
        b"\n\n".join(STREAM.split(b"\n\n")[:2] + STREAM.split(b"\n\n")[3:]),
        b"event: error\n\n" + STREAM,
        b"",
    ],
    ids=["no end", "another reason", "another word", "an event less", "no data", "nothing"],
)
def test_a_stream_that_says_something_else_is_wrong(other: bytes) -> None:
    assert InMeaning(STREAM, stream_meaning).likeness(other) is Likeness.WRONG


def test_two_events_made_one_are_wrong_though_the_text_is_whole() -> None:
    first, second = (b'{"content":" quick"}', b'{"content":" brown"}')
    events = [event for event in STREAM.split(b"\n\n") if second not in event]
    merged = b"\n\n".join(events).replace(first, b'{"content":" quick brown"}')

    assert InMeaning(STREAM, stream_meaning).likeness(merged) is Likeness.WRONG
