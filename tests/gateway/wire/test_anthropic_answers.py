"""Whole answers, native and translated, as Anthropic's clients get them."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed
from gateway.exchange import InferenceCall, Operation, TokenUsage
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIConfig
from tests.gateway.wire.anthropic_order import billed

ASKED = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
NATIVE = AnthropicDialect(OpenAIConfig()).parse(Operation.MESSAGES, orjson.dumps(ASKED))
TRANSLATED = NATIVE.as_served_by({Operation.CHAT})
BOTH = [NATIVE, TRANSLATED]


def answer(finish_reason: str = "stop", *, usage: Any = None, **message: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "stop_reason": None}
    counted = {"prompt_tokens": 7, "total_tokens": 10, "completion_tokens": 3}
    return orjson.dumps(
        {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": usage or counted}
    )


def call(arguments: str, **more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"id": "t1", "type": "function", "function": function, **more}


def message_of(body: bytes) -> dict[str, Any]:
    message: dict[str, Any] = orjson.loads(TRANSLATED.mend_answer(body)[1])
    return message


def test_text_thought_and_calls_become_blocks_in_this_order() -> None:
    said = {"reasoning": "hm", "content": "Let me see.", "tool_calls": [call('{"city": "Oslo"}')]}
    message = message_of(answer("tool_calls", **said))
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "1"},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
    ]
    assert (message["id"], message["type"], message["role"]) == ("msg_1", "message", "assistant")
    assert (message["stop_reason"], message["stop_sequence"]) == ("tool_use", None)
    assert message["usage"] == {"input_tokens": 7, "output_tokens": 3}
    older = message_of(answer(reasoning_content="hm", content="x"))
    assert older["content"][0]["thinking"] == "hm"


@pytest.mark.parametrize(
    ("finish_reason", "met", "calls", "expected"),
    [
        ("stop", None, [], ("end_turn", None)),
        ("stop", 151645, [], ("end_turn", None)),
        ("stop", "END", [], ("stop_sequence", "END")),
        ("length", None, [], ("max_tokens", None)),
        ("length", None, [call("{}")], ("max_tokens", None)),
        ("content_filter", None, [], ("refusal", None)),
        ("stop", None, [call("{}")], ("tool_use", None)),
        ("tool_calls", None, [call("{}")], ("tool_use", None)),
        ("tool_calls", None, [], ("end_turn", None)),
        (None, None, [], ("end_turn", None)),
    ],
)
def test_every_end_has_its_reason(
    finish_reason: Any, met: Any, calls: Any, expected: tuple[str, str | None]
) -> None:
    fields = orjson.loads(answer(finish_reason, content="x", tool_calls=calls))
    fields["choices"][0]["stop_reason"] = met
    message = message_of(orjson.dumps(fields))
    assert (message["stop_reason"], message["stop_sequence"]) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ("{}", {}),
        ('{"a": 1}', {"a": 1}),
        ("511", {"INVALID_JSON": "511"}),
        ('{"a": ', {"INVALID_JSON": '{"a": '}),
    ],
)
def test_the_input_of_a_tool_is_always_an_object(arguments: str, expected: Any) -> None:
    (block,) = message_of(answer(tool_calls=[call(arguments)]))["content"]
    assert block["input"] == expected


def test_a_call_without_an_id_gets_one() -> None:
    (block,) = message_of(answer(tool_calls=[call("{}", id=None)]))["content"]
    assert block["id"] == "toolu_1_0"


def test_cached_tokens_are_shown_apart_and_charged() -> None:
    details = {"cached_tokens": 256, "created_cache_tokens": 10}
    counted = {"prompt_tokens": 293, "total_tokens": 299, "completion_tokens": 6}
    usage, body = TRANSLATED.mend_answer(
        answer(content="x", usage={**counted, "prompt_tokens_details": details})
    )
    message = orjson.loads(body)
    assert message["usage"] == {
        "input_tokens": 27,
        "output_tokens": 6,
        "cache_creation_input_tokens": 10,
        "cache_read_input_tokens": 256,
    }
    assert usage == TokenUsage(293, 6)
    assert billed(message) == (293, 6)


def test_an_answer_of_nothing_is_an_empty_text() -> None:
    assert message_of(answer(content=None))["content"] == [{"type": "text", "text": ""}]


def test_a_refusal_is_said_and_named() -> None:
    message = message_of(answer(refusal="I cannot."))
    assert message["content"] == [{"type": "text", "text": "I cannot."}]
    assert message["stop_reason"] == "refusal"


def test_a_native_answer_gets_an_id_and_the_name_that_was_asked_for() -> None:
    native = {
        "id": "chatcmpl-1",
        "type": "message",
        "model": "served",
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 30, "output_tokens": 6, "cache_read_input_tokens": 256},
    }
    usage, body = NATIVE.mend_answer(orjson.dumps(native), "claude")
    expected = {**native, "id": "msg_1", "model": "claude", "stop_sequence": None}
    assert orjson.loads(body) == expected
    assert usage == TokenUsage(286, 6)
    assert orjson.loads(NATIVE.mend_answer(orjson.dumps(native))[1])["model"] == "served"


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 0, "output_tokens": -1}, 3])
def test_an_answer_that_hides_its_usage_shows_the_estimate_that_is_charged(usage: Any) -> None:
    native = orjson.dumps({"id": "x", "content": [], "usage": usage})
    counted, body = NATIVE.mend_answer(native)
    assert counted == TokenUsage(NATIVE.prompt.estimate, 1, is_estimated=True)
    assert billed(orjson.loads(body)) == counted[:2]


@pytest.mark.parametrize("one", BOTH)
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"error":{"message":"x"}}'])
def test_what_is_no_answer_is_the_upstreams_failure(one: InferenceCall, body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        one.mend_answer(body)


KEYS = ["choices", "message", "content", "tool_calls", "function", "arguments", "usage"]
KEYS += ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "id", "reasoning"]


@pytest.mark.parametrize("one", BOTH)
@given(
    st.recursive(
        st.none() | st.integers(-5, 10**10) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
        ),
        max_leaves=25,
    )
)
def test_an_answer_of_any_shape_is_metered_or_a_failure(one: InferenceCall, value: object) -> None:
    try:
        usage, body = one.mend_answer(orjson.dumps(value))
    except UpstreamFailed:
        return
    assert usage.total_tokens > 0
    assert billed(orjson.loads(body)) == usage[:2]
