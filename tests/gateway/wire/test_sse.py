"""Events end where the standard says, wherever the reads end."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed
from gateway.wire.sse import MAX_EVENT_BYTES, EventSplitter, data_of, name_of


@pytest.mark.parametrize("end_of_line", [b"\n", b"\r\n", b"\r"])
def test_any_of_the_three_line_ends_ends_an_event(end_of_line: bytes) -> None:
    first, second = b"data: 1" + end_of_line * 2, b": note" + end_of_line * 2
    assert EventSplitter().feed(first + second + b"data") == [first, second]


def test_unicode_line_separators_end_nothing() -> None:
    event = "data: a\u2028\u2028b\x85\x85c\n\n".encode()
    assert EventSplitter().feed(event) == [event]


@given(
    st.lists(st.sampled_from([b"data: x", b"\n", b"\r\n", b"\r", b"\n\n", b":"]), max_size=12),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_reads_may_end_anywhere(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    whole = EventSplitter()
    parts = EventSplitter()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = [
        event for start, end in itertools.pairwise(edges) for event in parts.feed(stream[start:end])
    ]
    assert events == whole.feed(stream)
    assert parts.held == whole.held


def test_an_event_is_bounded() -> None:
    splitter = EventSplitter()
    splitter.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 6))
    splitter.require_bounded()
    splitter.feed(b"x")
    with pytest.raises(UpstreamFailed):
        splitter.require_bounded()


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data: {}\r\n\r\n", b"{}"),
        (b"data: {}\r\r", b"{}"),
        (b"data: {\ndata: }\n\n", b"{\n}"),
        (b"event: x\nid: 1\ndata:  y\n\n", b" y"),
        (b"data\n\n", b""),
        (b": comment\n\n", None),
        (b"\n\n", None),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


def test_the_name_of_an_event() -> None:
    assert name_of(b"event: response.created\ndata: {}\n\n") == b"response.created"
    assert name_of(b"data: {}\n\n") == b""
