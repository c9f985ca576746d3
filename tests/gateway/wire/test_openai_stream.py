"""The client gets vLLM's very bytes, minus the usage that only the gateway had asked for."""

import contextlib
import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, UpstreamFailed, UpstreamRejected, UpstreamTruncated
from gateway.exchange import NO_USAGE, TokenUsage
from gateway.wire.openai_stream import OpenAIStreamReader, StreamWishes
from gateway.wire.sse import MAX_EVENT_BYTES
from tests.gateway.wire.events import (
    DONE,
    chat_event,
    event,
    feed_all,
    final_event,
    text_event,
    usage,
)

NOTHING = StreamWishes()
FINAL = StreamWishes(include_usage=True)
EVERYTHING = StreamWishes(include_usage=True, continuous_usage=True)

ROLE = chat_event("", role="assistant", usage=usage(7, 0))
ERROR = b'data: {"error": {"message": "EngineCore encountered an issue", "code": 500}}\n\n'

KEYS = ["choices", "usage", "delta", "index", "prompt_tokens", "completion_tokens", "error", "text"]

# What a model may write to make a reader believe that it sees usage, an end or an error.
TRAPS = [
    ',"usage":{"prompt_tokens":1,"completion_tokens":9999}',
    '"usage":{}',
    "[DONE]",
    "data: [DONE]\n\n",
    '{"error":{"message":"no"}}',
    '"choices":[]',
    "\r\n\r\n",
    "\u2028}\n\n",
    "\\",
    '\\",',
]


def reader(
    *,
    wishes: StreamWishes = NOTHING,
    n: int = 1,
    prompts: int = 1,
    prompt_tokens: int = 5,
) -> OpenAIStreamReader:
    return OpenAIStreamReader(
        choices_per_prompt=n, choices=n * prompts, prompt_tokens=prompt_tokens, wishes=wishes
    )


def without_usage(stream: bytes) -> bytes:
    """The same events, built without the key."""
    events = []
    for text in stream.split(b"\n\n")[:-1]:
        if text == b"data: [DONE]":
            events.append(DONE)
            continue
        fields = orjson.loads(text[6:])
        fields.pop("usage", None)
        events.append(event(fields))
    return b"".join(events)


STREAM = b"".join(
    [
        ROLE,
        chat_event("one", usage=usage(7, 1)),
        chat_event(" two", usage=usage(7, 2)),
        chat_event(" three", usage=usage(7, 4)),
    ]
)
LAST = final_event(usage(7, 4))


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (NOTHING, without_usage(STREAM) + DONE),
        (FINAL, without_usage(STREAM) + LAST + DONE),
        (EVERYTHING, STREAM + LAST + DONE),
    ],
)
def test_the_client_sees_the_usage_it_asked_for(wishes: StreamWishes, expected: bytes) -> None:
    whole, bytewise = reader(wishes=wishes), reader(wishes=wishes)
    stream = STREAM + LAST + DONE
    assert feed_all(whole, stream) == expected
    assert feed_all(bytewise, *(stream[at : at + 1] for at in range(len(stream)))) == expected
    assert whole.usage == bytewise.usage == TokenUsage(7, 4)
    assert whole.is_complete


def test_a_null_usage_passes() -> None:
    fields = {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": None}
    assert reader().feed(event(fields)) == event(fields)


def test_spaces_after_the_usage_key_are_no_obstacle() -> None:
    choices = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]'
    spaced = choices + b', "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\n'
    one = reader()
    assert one.feed(spaced) == choices + b"}\n\n"
    assert one.usage == TokenUsage(3, 1)


def test_usage_with_details_is_cut_whole() -> None:
    details = usage(7, 2, prompt_tokens_details={"cached_tokens": 4}, completion_tokens_details={})
    one = reader()
    one.feed(chat_event("seen", usage=usage(7, 1)))
    assert one.feed(chat_event("x", usage=details)) == chat_event("x")
    assert one.usage == TokenUsage(7, 2)


def test_a_count_of_thousands_of_digits_is_no_count() -> None:
    one = reader()
    one.feed(chat_event("seen", usage=usage(7, 1)))
    absurd = b'{"prompt_tokens":7,"completion_tokens":' + b"9" * 5000 + b"}"
    counted = chat_event("x")[:-3] + b',"usage":' + absurd + b"}\n\n"
    assert one.feed(counted) == chat_event("x")
    assert one.usage == TokenUsage(7, 1)


@pytest.mark.parametrize("choices", [1, 2])
@given(texts=st.lists(st.sampled_from(TRAPS) | st.text(max_size=20), max_size=8), data=st.data())
def test_whatever_a_model_writes_passes_unharmed(
    choices: int, texts: list[str], data: st.DataObject
) -> None:
    stream = bare = ROLE
    bare = without_usage(ROLE)
    for count, text in enumerate(texts):
        call = [{"index": 0, "function": {"name": text, "arguments": text}}]
        logprobs = {"content": [{"token": text, "bytes": [], "top_logprobs": [{"token": text}]}]}
        choice = {"index": 0, "delta": {"content": text, "tool_calls": call}, "logprobs": logprobs}
        fields: dict[str, Any] = {"id": "1", "choices": [choice]}
        stream += event(fields, usage(7, count))
        bare += event(fields)
    stream, bare = stream + DONE, bare + DONE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    parts = (stream[start:end] for start, end in itertools.pairwise(edges))
    one = reader(n=choices)
    assert feed_all(one, *parts) == bare
    assert one.is_complete
    assert one.usage.output_tokens == max(0, len(texts) - 1)


@given(st.lists(st.binary(max_size=30) | st.sampled_from([STREAM, ERROR, DONE, b"\n\n"])))
def test_arbitrary_bytes_raise_nothing_but_gateway_errors(chunks: list[bytes]) -> None:
    one = reader()
    try:
        for chunk in chunks:
            one.feed(chunk)
        one.finish()
    except GatewayError:
        pass
    assert one.usage.output_tokens >= 0


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
        max_leaves=12,
    )
)
def test_json_of_any_shape_raises_nothing_but_gateway_errors(value: object) -> None:
    one = reader(n=2)
    with contextlib.suppress(GatewayError, orjson.JSONEncodeError):
        one.feed(b"data: " + orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS) + b"\n\n")
    assert one.usage.output_tokens >= 0


def test_an_event_leaves_only_when_it_is_whole() -> None:
    one = reader()
    whole = chat_event("x")
    assert one.feed(whole[:-1]) == b""
    assert one.feed(whole[-1:] + b"data: {") == whole
    with pytest.raises(UpstreamTruncated):
        one.finish()


@pytest.mark.parametrize(
    "other", [b": keep-alive\n\n", b"id: 4\nretry: 10\n\n", b"data: {half\n\n"]
)
def test_comments_unknown_fields_and_malformed_events_pass(other: bytes) -> None:
    one = reader()
    assert one.feed(chat_event("a") + other) == chat_event("a") + other
    assert one.feed(other) == other


def test_carriage_returns_and_several_data_lines_are_understood() -> None:
    one = reader()
    choices = b'data: {"choices":[{"index":0,\r\ndata: "text":"x"}],'
    spread = choices + b'"usage":{"prompt_tokens":3,\r\ndata: "completion_tokens":1}}\r\n\r\n'
    assert one.feed(spread + b"data: [DONE]\r\n\r\n").endswith(b"data: [DONE]\r\n\r\n")
    assert one.is_complete
    assert one.usage == TokenUsage(3, 1)


def test_nothing_follows_the_terminator() -> None:
    one = reader()
    assert one.feed(chat_event("a") + DONE + chat_event("b")) == chat_event("a") + DONE
    assert one.feed(chat_event("c")) == b""
    assert one.finish() == b""


def test_a_terminator_without_its_empty_line_is_completed() -> None:
    one = reader()
    assert one.feed(b"data: [DONE]") == b""
    assert one.finish() == DONE
    assert one.is_complete


@pytest.mark.parametrize("warm_up", [b"", chat_event("a", usage=usage(7, 1))])
def test_an_error_in_the_stream_is_raised_and_what_stood_before_is_rescued(warm_up: bytes) -> None:
    one = reader(wishes=EVERYTHING)
    one.feed(warm_up)
    before = chat_event("b", usage=usage(7, 2))
    with pytest.raises(UpstreamFailed) as failure:
        one.feed(before + ERROR + DONE)
    assert one.rescued == before
    assert failure.value.code == "upstream_error"
    assert "EngineCore" not in failure.value.message
    assert one.usage == TokenUsage(7, 2)
    assert one.feed(DONE) == b""
    assert not one.is_complete


def test_an_error_that_blames_the_request_is_the_requests_fault_and_keeps_its_words() -> None:
    with pytest.raises(UpstreamRejected, match="top_k is too large") as refused:
        reader().feed(event({"error": {"message": "top_k is too large", "code": 400}}))
    assert refused.value.status == 400


@pytest.mark.parametrize("code", [401, 429, 500, "400", None])
def test_any_other_error_is_the_upstreams(code: object) -> None:
    with pytest.raises(UpstreamFailed, match="internal error"):
        reader().feed(event({"error": {"message": "secret detail", "code": code}}))


def test_an_event_too_large_ends_the_stream() -> None:
    one = reader()
    with pytest.raises(UpstreamFailed):
        one.feed(chat_event("a") + b"data: " + b"x" * MAX_EVENT_BYTES)
    assert one.rescued == chat_event("a")


def test_first_content_is_text_reasoning_or_a_tool_call_but_not_a_role() -> None:
    assert not _saw(ROLE)
    assert not _saw(chat_event(None, tool_calls=[]))
    assert not _saw(text_event(""))
    assert _saw(chat_event("x"))
    assert _saw(chat_event(None, reasoning="x"))
    assert _saw(chat_event(None, reasoning_content="x"))
    assert _saw(chat_event(None, tool_calls=[{"index": 0}]))
    assert _saw(text_event("x"))


def test_before_the_first_event_nothing_was_used() -> None:
    assert reader().usage == NO_USAGE


def test_counts_of_several_choices_add_up_and_their_prompt_counts_once() -> None:
    one = reader(n=2)
    one.feed(chat_event("a", usage=usage(7, 3)) + chat_event("b", index=1, usage=usage(7, 2)))
    one.feed(chat_event("a", usage=usage(7, 4)))
    assert one.usage == TokenUsage(7, 6)


def test_prompts_count_each_for_itself() -> None:
    one = reader(n=2, prompts=2)
    one.feed(text_event("a", index=1, usage=usage(7, 1)))
    assert one.usage == TokenUsage(7, 1, is_estimated=True)
    one.feed(text_event("b", index=2, usage=usage(4, 1)))
    assert one.usage == TokenUsage(11, 2)
    one.feed(final_event(usage(11, 9)))
    assert one.usage == TokenUsage(11, 9)


@pytest.mark.parametrize("index", [-1, 2, 10**12, True, "0", None])
def test_a_choice_nobody_asked_for_counts_nothing(index: Any) -> None:
    one = reader(n=2)
    one.feed(chat_event("a", index=index, usage=usage(7, 5)))
    assert one.usage.output_tokens == 0


@pytest.mark.parametrize("count", [-1, 1.5, "9", True, None, 10**15, 3])
def test_an_absurd_count_changes_nothing(count: Any) -> None:
    one = reader()
    one.feed(chat_event("a", usage=usage(7, 3)))
    one.feed(chat_event("b", usage=usage(count, count)))
    one.feed(final_event(usage(count, count)))
    assert one.usage == TokenUsage(7, 3)


def test_a_lower_count_is_not_believed() -> None:
    one = reader()
    one.feed(chat_event("a", usage=usage(7, 30)))
    one.feed(chat_event("b", usage=usage(2, 4)))
    assert one.feed(final_event(usage(1, 1))) == b""
    assert one.usage == TokenUsage(7, 30)


def test_without_usage_every_content_event_is_a_token() -> None:
    one = reader(prompt_tokens=5)
    one.feed(chat_event("") + chat_event("a") + chat_event("b") + chat_event(None))
    assert one.usage == TokenUsage(5, 2, is_estimated=True)


def test_an_event_without_a_count_counts_the_same_wherever_the_reads_end() -> None:
    first, silent = chat_event("a", usage=usage(7, 1)), chat_event("b")
    last = chat_event("c", usage=usage(7, 1))
    for pair in ((silent, last), (last, silent), (silent, silent)):
        together, apart = reader(), reader()
        for read in (first, b"".join(pair)):
            together.feed(read)
        for read in (first, *pair):
            apart.feed(read)
        assert together.usage == apart.usage
        assert together.usage.output_tokens == 1 + pair.count(silent)


def test_a_report_replaces_the_estimate_but_never_lowers_it() -> None:
    one = reader()
    one.feed(chat_event("a") * 5)
    one.feed(chat_event("b", usage=usage(7, 3)))
    assert one.usage == TokenUsage(7, 5)
    one.feed(chat_event("c"))
    assert one.usage == TokenUsage(7, 5, is_estimated=True)
    one.feed(chat_event("c", usage=usage(7, 8)))
    assert one.usage == TokenUsage(7, 8)


def _saw(event: bytes) -> bool:
    one = reader()
    one.feed(event)
    return one.saw_content
