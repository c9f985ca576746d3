"""A native stream passes as it came but for what clients of Anthropic would stumble over."""

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, UpstreamFailed, UpstreamRejected, UpstreamTruncated
from gateway.exchange import NO_USAGE, TokenUsage
from gateway.wire.anthropic_stream import AnthropicStreamReader
from gateway.wire.sse import MAX_EVENT_BYTES
from tests.gateway.wire.anthropic_order import billed, events_in, message_in, replay

DONE = b"data: [DONE]\n\n"


def event(kind: str, **fields: Any) -> bytes:
    data = orjson.dumps({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def start(*, identity: str = "chatcmpl-1", **usage: Any) -> bytes:
    message = {"id": identity, "type": "message", "model": "served", "content": [], "usage": usage}
    return event("message_start", message=message)


def delta(text: str = "word", kind: str = "text") -> bytes:
    said = {"type": f"{kind}_delta", kind: text}
    return event("content_block_delta", delta=said, index=0)


def end(**usage: Any) -> bytes:
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    return event("message_delta", delta=stop, usage=usage)


START = start(input_tokens=7, output_tokens=0)
OPEN = event("content_block_start", content_block={"type": "text", "text": ""}, index=0)
CLOSE = event("content_block_stop", index=0)
STOP = event("message_stop")
END = end(input_tokens=7, output_tokens=9)
STREAM = START + OPEN + delta("a") + delta("b") + CLOSE + END + STOP
ERROR = event("error", error={"type": "internal_error", "message": "EngineCore died"})


def reader(*, shown_model: str = "") -> AnthropicStreamReader:
    return AnthropicStreamReader(prompt_tokens=5, shown_model=shown_model)


def test_what_vllm_writes_passes_but_for_the_id() -> None:
    one = reader()
    assert one.feed(STREAM) == STREAM.replace(b"chatcmpl-1", b"msg_1")
    assert one.is_complete
    assert one.usage == TokenUsage(7, 9)


def test_the_model_is_named_as_the_client_named_it() -> None:
    assert message_in(reader(shown_model="claude").feed(STREAM))["model"] == "claude"
    assert message_in(reader().feed(STREAM))["model"] == "served"


def test_an_id_of_anthropics_form_stays() -> None:
    kept = START.replace(b"chatcmpl-1", b"msg_1")
    assert reader().feed(kept) == kept


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 0, "output_tokens": 0}])
def test_an_input_of_nothing_is_shown_as_the_estimate_until_it_is_known(usage: Any) -> None:
    one = reader()
    first = one.feed(start(**usage))
    assert billed(message_in(first, is_whole=False)) == (5, 0)
    assert one.usage == TokenUsage(5, 0, is_estimated=True)
    rest = one.feed(OPEN + delta() + CLOSE + end(input_tokens=20, output_tokens=4) + STOP)
    assert one.usage == TokenUsage(20, 4)
    assert billed(message_in(first + rest)) == (20, 4)


@pytest.mark.parametrize(
    ("opening", "closing", "expected"),
    [
        ({}, {}, (5, 1)),
        ({}, {"output_tokens": 4}, (5, 4)),
        ({}, {"input_tokens": 0, "output_tokens": 4}, (5, 4)),
        ({"input_tokens": 7}, {"output_tokens": 4}, (7, 4)),
        ({"input_tokens": 293}, {"input_tokens": 37, "cache_read_input_tokens": 256}, (293, 1)),
        ({"input_tokens": 37, "cache_read_input_tokens": 256}, {"output_tokens": 4}, (293, 4)),
        ({"input_tokens": 37, "cache_read_input_tokens": 256}, {"input_tokens": 37}, (293, 1)),
        ({"input_tokens": 7}, {"input_tokens": 7, "output_tokens": -3}, (7, 1)),
        ({"input_tokens": "7"}, {"input_tokens": True, "output_tokens": 10**12}, (5, 1)),
    ],
)
def test_what_the_client_adds_up_is_what_is_charged(
    opening: Any, closing: Any, expected: tuple[int, int]
) -> None:
    one = reader()
    passed = one.feed(start(**opening) + OPEN + delta() + CLOSE + end(**closing) + STOP)
    assert billed(message_in(passed)) == expected
    assert one.usage[:2] == expected


def test_each_piece_of_content_counts_until_the_end_tells_the_truth() -> None:
    one = reader()
    one.feed(START + OPEN)
    assert not one.saw_content
    one.feed(delta("s", "signature"))
    assert not one.saw_content
    one.feed(delta() + delta("x", "thinking") + delta("{", "partial_json"))
    assert one.saw_content
    assert one.usage == TokenUsage(7, 3, is_estimated=True)
    one.feed(delta() * 40)
    assert one.usage == TokenUsage(7, 43, is_estimated=True)
    one.feed(CLOSE + end(input_tokens=7, output_tokens=40))
    assert one.usage == TokenUsage(7, 40)


def test_reads_of_deltas_alone_pass_untouched_and_mixed_ones_are_read() -> None:
    one = reader()
    one.feed(START + OPEN + delta())
    assert one.feed(delta() + delta()) == delta() + delta()
    assert one.feed(delta() + CLOSE + END) == delta() + CLOSE + END
    assert one.usage == TokenUsage(7, 9)
    assert one.feed(delta()[:9]) == b""
    assert one.feed(delta()[9:]) == delta()


def test_before_the_first_event_nothing_was_used() -> None:
    assert reader().usage == NO_USAGE


@pytest.mark.parametrize(
    "stray", [DONE, b"data: {half\n\n", b"event: x\n\n", b"data: 3\n\n", b'data: {"type":3}\n\n']
)
def test_what_is_no_event_of_anthropics_is_dropped(stray: bytes) -> None:
    one = reader()
    assert one.feed(stray + START + stray) == START.replace(b"chatcmpl-1", b"msg_1")
    assert one.feed(OPEN + stray + delta() + stray) == OPEN + delta()


def test_nothing_follows_the_end() -> None:
    one = reader()
    assert one.feed(STREAM + DONE + START).endswith(STOP)
    assert one.feed(DONE) == b""
    assert one.finish() == b""


@pytest.mark.parametrize("comment", [b": alive\n\n", b":\r\r", b":a\nb\r\n\r\n"])
def test_pings_pass_and_comments_keep_the_connection_alive(comment: bytes) -> None:
    ping = event("ping")
    assert reader().feed(comment + ping) == b": keep-alive\n\n" + ping


@pytest.mark.parametrize(
    "framing",
    [
        lambda frame: frame.split(b"\n", 1)[1],
        lambda frame: frame.replace(b"event: content_block_start", b"event: message"),
        lambda frame: frame.replace(b"\n", b"\r\n"),
    ],
)
def test_events_are_framed_as_clients_need_them(framing: Any) -> None:
    one = reader()
    passed = one.feed(START + framing(OPEN) + framing(delta()) + CLOSE + END + STOP)
    assert message_in(passed)["content"][0]["text"] == "word"


def test_an_error_in_the_stream_is_raised_and_what_stood_before_is_rescued() -> None:
    one = reader()
    with pytest.raises(UpstreamFailed) as failure:
        one.feed(START + OPEN + delta() + ERROR)
    assert "EngineCore" not in failure.value.message
    assert events_in(one.rescued)[-1]["type"] == "content_block_delta"
    assert one.usage == TokenUsage(7, 1, is_estimated=True)
    assert one.feed(STOP) == b""
    assert not one.is_complete


def test_an_error_in_chats_form_is_understood_too() -> None:
    with pytest.raises(UpstreamRejected, match="top_k"):
        reader().feed(b'data: {"error":{"message":"top_k is too large","code":400}}\n\n')


def test_an_end_too_early_is_a_truncation() -> None:
    one = reader()
    one.feed(STREAM.removesuffix(STOP))
    with pytest.raises(UpstreamTruncated):
        one.finish()


def test_a_terminator_without_its_empty_line_is_completed() -> None:
    one = reader()
    one.feed(STREAM[:-2])
    assert one.finish() == STOP
    assert one.is_complete


def test_an_event_too_large_ends_the_stream() -> None:
    one = reader()
    with pytest.raises(UpstreamFailed):
        one.feed(START + b"data: " + b"x" * MAX_EVENT_BYTES)
    assert one.rescued


TRAPS = [
    "event: content_block_delta\ndata: {",
    "\n\nevent: message_stop\n\n",
    "[DONE]",
    '{"type":"error","error":{}}',
    '"usage":{"output_tokens":9}',
    "\u2028\r\n\\",
]


@given(texts=st.lists(st.sampled_from(TRAPS) | st.text(max_size=9), max_size=8), data=st.data())
def test_whatever_a_model_writes_passes_unharmed(texts: list[str], data: st.DataObject) -> None:
    deltas = b"".join(map(delta, texts))
    stream = START + OPEN + deltas + CLOSE + END + STOP
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    one = reader()
    parts = (stream[here:there] for here, there in itertools.pairwise(edges))
    passed, ending = replay(one, *parts)
    assert ending == "complete"
    assert passed == stream.replace(b"chatcmpl-1", b"msg_1")
    assert message_in(passed)["content"][0]["text"] == "".join(texts)
    assert one.usage == TokenUsage(7, 9)


PIECES = [START, OPEN, delta(), CLOSE, END, STOP, ERROR, DONE, b"\n\n", b"\r\n\r\n", b"data: {"]


@given(st.lists(st.binary(max_size=20) | st.sampled_from(PIECES), max_size=20))
def test_whatever_comes_what_leaves_is_well_framed_and_counted(chunks: list[bytes]) -> None:
    one = reader()
    passed, _ = replay(one, *chunks)
    events = events_in(passed)
    if any(found["type"] == "content_block_delta" for found in events):
        assert one.usage.total_tokens > 0


@given(
    st.recursive(
        st.none() | st.integers(-9, 10**12) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["type", "message", "usage", "delta", "error", "input_tokens"]),
                inner,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(["message_start", "message_delta", "content_block_delta", "error", "x y"]),
)
def test_json_of_any_shape_raises_nothing_but_gateway_errors(value: object, kind: str) -> None:
    one = reader()
    fields = {**value, "type": kind} if isinstance(value, dict) else value
    try:
        events_in(one.feed(b"data: " + orjson.dumps(fields) + b"\n\n"))
    except GatewayError:
        assert one.rescued == b""
    assert one.usage.output_tokens >= 0
