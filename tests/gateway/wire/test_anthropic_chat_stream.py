"""A stream of chat becomes a stream of Anthropic's events, in order, whatever order it had."""

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, UpstreamFailed, UpstreamRejected, UpstreamTruncated
from gateway.exchange import NO_USAGE, TokenUsage
from gateway.wire.anthropic_chat_stream import TranslatedStreamReader
from gateway.wire.sse import MAX_EVENT_BYTES
from tests.gateway.wire.anthropic_order import billed, events_in, message_in, replay
from tests.gateway.wire.events import DONE, chat_event, event, final_event, usage

ROLE = chat_event("", role="assistant", usage=usage(7, 0))
LAST = final_event(usage(7, 9))
ERROR = b'data: {"error": {"message": "EngineCore encountered an issue", "code": 500}}\n\n'


def reader(*, shown_model: str = "") -> TranslatedStreamReader:
    return TranslatedStreamReader(prompt_tokens=5, shown_model=shown_model)


def call(number: int, arguments: str = "", *, name: str | None = None, **more: Any) -> bytes:
    """One piece of a call, with its id where it begins."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    fields: dict[str, Any] = {"index": number, "function": function, **more}
    if name is not None:
        fields = {"id": f"id-{number}", "type": "function", **fields}
    return chat_event(None, tool_calls=[fields])


def finish(reason: str = "stop", met: Any = None) -> bytes:
    return event(
        {"choices": [{"index": 0, "delta": {}, "finish_reason": reason, "stop_reason": met}]}
    )


def message_of(*pieces: bytes, reason: str = "stop", met: Any = None) -> dict[str, Any]:
    stream = ROLE + b"".join(pieces) + finish(reason, met) + LAST + DONE
    passed, ending = replay(reader(), stream)
    assert ending == "complete"
    message = message_in(passed)
    single, _ = replay(reader(), *(stream[at : at + 1] for at in range(len(stream))))
    assert single == passed
    return message


def contents(message: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"tool_use": "input", "text": "text", "thinking": "thinking"}
    return [(block["type"], block[names[block["type"]]]) for block in message["content"]]


def test_a_message_begins_with_what_is_known_and_a_ping() -> None:
    first, second = events_in(reader(shown_model="claude").feed(ROLE))
    assert first["message"] == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 0},
    }
    assert second == {"type": "ping"}
    (named, _) = events_in(reader().feed(ROLE))
    assert named["message"]["model"] == "tiny"


def test_text_and_thought_stream_piece_by_piece() -> None:
    one = reader()
    one.feed(ROLE)
    assert not one.saw_content
    opened = events_in(one.feed(chat_event(None, reasoning="h")))
    assert [found["type"] for found in opened] == ["content_block_start", "content_block_delta"]
    assert one.saw_content
    (piece,) = events_in(one.feed(chat_event(None, reasoning_content="m")))
    assert piece["delta"] == {"type": "thinking_delta", "thinking": "m"}
    turned = events_in(one.feed(chat_event("yes")))
    assert [found["type"] for found in turned] == [
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
    ]
    assert turned[0]["delta"] == {"type": "signature_delta", "signature": "1"}


def test_thought_text_and_calls_in_turn_are_blocks_in_turn() -> None:
    message = message_of(
        chat_event(None, reasoning="hm"),
        chat_event("so"),
        call(0, name="weather"),
        call(0, '{"city":'),
        call(0, '"Oslo"}'),
        chat_event("and"),
        chat_event("then"),
    )
    assert contents(message) == [
        ("thinking", "hm"),
        ("text", "so"),
        ("tool_use", '{"city":"Oslo"}'),
        ("text", "andthen"),
    ]
    tool = message["content"][2]
    assert (tool["id"], tool["name"]) == ("id-0", "weather")
    assert message["stop_reason"] == "tool_use"
    assert billed(message) == (7, 9)


def test_calls_one_after_the_other_stream_at_once() -> None:
    one = reader()
    one.feed(ROLE + call(0, '{"a":1}', name="x"))
    opened = events_in(one.feed(call(1, '{"b', name="y")))
    assert [found["type"] for found in opened] == [
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
    ]


def test_calls_whose_pieces_are_mixed_come_apart() -> None:
    message = message_of(
        call(0, '{"a"', name="x"),
        call(1, '{"b"', name="y"),
        call(2, '{"c"', name="z"),
        chat_event("said between"),
        call(1, ":2"),
        call(0, ":1}"),
        call(2, ":3}"),
        call(1, "}"),
        call(0, "\n"),
    )
    assert contents(message) == [
        ("tool_use", '{"a":1}'),
        ("tool_use", '{"b":2}'),
        ("tool_use", '{"c":3}'),
        ("text", "said between"),
    ]
    assert [block.get("name") for block in message["content"]] == ["x", "y", "z", None]


def test_a_number_looks_whole_and_is_not() -> None:
    message = message_of(call(0, "5", name="x"), chat_event("word"), call(0, "11"))
    assert contents(message) == [("tool_use", "511"), ("text", "word")]


def test_calls_in_one_event_and_calls_without_arguments() -> None:
    both = [
        {"index": 0, "id": "a", "function": {"name": "x", "arguments": "{}"}},
        {"index": 1, "id": "b", "function": {"name": "y"}},
    ]
    message = message_of(chat_event(None, tool_calls=both))
    assert contents(message) == [("tool_use", "{}"), ("tool_use", "")]


def test_a_number_that_returns_with_another_id_is_another_call() -> None:
    message = message_of(call(0, "{}", name="x"), call(0, "{}", name="y", id="other"))
    assert [block["id"] for block in message["content"]] == ["id-0", "other"]


def test_a_name_that_comes_late_keeps_the_arguments_and_one_that_never_comes_no_block() -> None:
    message = message_of(call(0, '{"a":'), call(0, "1}", name="x"), call(1, "{}"))
    assert contents(message) == [("tool_use", '{"a":1}')]


def test_a_call_without_an_id_gets_one() -> None:
    message = message_of(call(0, "{}", name="x", id=None))
    assert message["content"][0]["id"] == "toolu_1_0"


@pytest.mark.parametrize(
    ("pieces", "reason", "met", "expected"),
    [
        ([chat_event("x")], "stop", None, ("end_turn", None)),
        ([chat_event("x")], "stop", 151645, ("end_turn", None)),
        ([chat_event("x")], "stop", "END", ("stop_sequence", "END")),
        ([chat_event("x")], "length", None, ("max_tokens", None)),
        ([chat_event("x")], "content_filter", None, ("refusal", None)),
        ([chat_event(None, refusal="no")], "stop", None, ("refusal", None)),
        ([call(0, "{}", name="x")], "stop", None, ("tool_use", None)),
        ([call(0, "{}", name="x")], "stop", "END", ("tool_use", None)),
        ([call(0, '{"a', name="x")], "stop", "END", ("stop_sequence", "END")),
        ([call(0, '{"a', name="x")], "length", None, ("max_tokens", None)),
        ([], "tool_calls", None, ("end_turn", None)),
    ],
)
def test_every_end_has_its_reason(
    pieces: list[bytes], reason: str, met: Any, expected: tuple[str, str | None]
) -> None:
    message = message_of(*pieces, reason=reason, met=met)
    assert (message["stop_reason"], message["stop_sequence"]) == expected


def test_an_answer_of_nothing_is_an_empty_text() -> None:
    assert contents(message_of()) == [("text", "")]


def test_cached_tokens_are_shown_apart_and_charged() -> None:
    details = {"cached_tokens": 256, "created_cache_tokens": 0}
    one = reader()
    stream = chat_event("x", usage=usage(293, 1)) + finish()
    passed = one.feed(stream + final_event(usage(293, 6, prompt_tokens_details=details)) + DONE)
    message = message_in(passed)
    assert message["usage"] == {
        "input_tokens": 37,
        "output_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 256,
    }
    assert one.usage == TokenUsage(293, 6)


def test_the_running_usage_counts_while_it_streams() -> None:
    one = reader()
    assert one.usage == NO_USAGE
    one.feed(ROLE + chat_event("a", usage=usage(7, 22)))
    assert one.usage == TokenUsage(7, 22)


@pytest.mark.parametrize("last", [b"", final_event(usage(0, 0)), final_event({})])
def test_a_server_that_reports_nothing_is_counted_by_its_pieces(last: bytes) -> None:
    one = reader()
    passed = one.feed(chat_event("") + chat_event("a") + chat_event("b") + finish() + last + DONE)
    assert one.usage[:2] == (5, 2)
    assert billed(message_in(passed)) == (5, 2)


def test_an_error_in_the_stream_is_raised_and_what_stood_before_is_rescued() -> None:
    one = reader()
    with pytest.raises(UpstreamFailed) as failure:
        one.feed(ROLE + chat_event("a", usage=usage(7, 2)) + ERROR + DONE)
    assert "EngineCore" not in failure.value.message
    assert contents(message_in(one.rescued, is_whole=False)) == [("text", "a")]
    assert one.usage == TokenUsage(7, 2)
    assert one.feed(DONE) == b""
    assert not one.is_complete


def test_an_error_that_blames_the_request_keeps_its_words() -> None:
    with pytest.raises(UpstreamRejected, match="top_k"):
        reader().feed(event({"error": {"message": "top_k is too large", "code": 400}}))


@pytest.mark.parametrize("stream", [b"", ROLE, ROLE + chat_event("a") + finish() + LAST, DONE])
def test_an_end_too_early_is_a_truncation(stream: bytes) -> None:
    one = reader()
    with pytest.raises(UpstreamTruncated):
        one.feed(stream)
        one.finish()
    assert not one.is_complete


def test_a_terminator_without_its_empty_line_is_completed() -> None:
    one = reader()
    begun = one.feed(ROLE + chat_event("a") + finish() + LAST + b"data: [DONE]")
    assert message_in(begun + one.finish())["stop_reason"] == "end_turn"
    assert one.is_complete


def test_nothing_follows_the_end_and_comments_pass() -> None:
    one = reader()
    assert one.feed(b": alive\r\r") == b": keep-alive\n\n"
    assert one.feed(ROLE + DONE + ROLE).endswith(b'data: {"type":"message_stop"}\n\n')
    assert one.feed(ROLE) == b""
    assert one.finish() == b""


def test_an_event_too_large_ends_the_stream() -> None:
    one = reader()
    with pytest.raises(UpstreamFailed):
        one.feed(ROLE + b"data: " + b"x" * MAX_EVENT_BYTES)
    assert one.rescued


TEXTS = st.sampled_from(["[DONE]", "\n\nevent: error\n", '"}}', "\u2028", "\\", "{}"]) | st.text(
    max_size=6
)
CALLS = st.builds(
    call,
    st.integers(0, 2),
    st.sampled_from(["{", '"a":1', "}", "{}", "", "5", " ", '{"b":"}"}']),
    name=st.sampled_from([None, None, "x", "y"]),
)
SAID = st.builds(chat_event, TEXTS) | st.builds(
    lambda words: chat_event(None, reasoning=words), TEXTS
)


@given(
    pieces=st.lists(SAID | CALLS, max_size=12),
    reason=st.sampled_from(["stop", "length", "tool_calls", None]),
    data=st.data(),
)
def test_any_mixture_of_pieces_is_a_well_ordered_message_however_it_is_cut(
    pieces: list[bytes], reason: Any, data: st.DataObject
) -> None:
    stream = ROLE + b"".join(pieces) + finish(reason) + LAST + DONE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    one, other = reader(), reader()
    passed, ending = replay(one, *(stream[a:b] for a, b in itertools.pairwise(edges)))
    assert ending == "complete"
    assert (passed, ending) == replay(other, stream)
    message = message_in(passed)
    assert billed(message) == one.usage[:2]
    said = [orjson.loads(piece[6:])["choices"][0]["delta"] for piece in pieces]
    texts = [block["text"] for block in message["content"] if block["type"] == "text"]
    assert "".join(texts) == "".join(found.get("content") or "" for found in said)


PIECES = [ROLE, chat_event("a"), call(0, "{", name="x"), finish(), LAST, ERROR, DONE, b"\n\n"]


@given(st.lists(st.binary(max_size=20) | st.sampled_from(PIECES), max_size=20))
def test_whatever_comes_what_leaves_is_well_ordered_and_counted(chunks: list[bytes]) -> None:
    one = reader()
    passed, ending = replay(one, *chunks)
    if b"event: message_start" in passed:
        message_in(passed, is_whole=ending == "complete")
        assert one.usage.total_tokens > 0


KEYS = ["choices", "delta", "content", "tool_calls", "index", "function", "name", "arguments"]
KEYS += ["usage", "prompt_tokens", "completion_tokens", "error", "id", "reasoning"]


@given(
    st.recursive(
        st.none() | st.integers(-9, 10**12) | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
        max_leaves=20,
    )
)
def test_json_of_any_shape_raises_nothing_but_gateway_errors(value: object) -> None:
    one = reader()
    try:
        passed = one.feed(b"data: " + orjson.dumps(value) + b"\n\n")
        passed += one.feed(event({"choices": [value]}) + DONE)
        message_in(passed)
    except GatewayError:
        assert not one.is_complete
