"""An alias is answered under its own name, and nothing but the name is touched."""

import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import Operation
from gateway.wire.openai import OpenAIConfig, OpenAIDialect
from gateway.wire.openai_naming import RESPONSE_EVENT, RenamedStream, renamed
from gateway.wire.openai_responses import ResponsesStreamReader
from gateway.wire.openai_stream import OpenAIStreamReader, StreamWishes
from tests.gateway.wire.events import DONE, chat_event, event, final_event, usage
from tests.gateway.wire.fuzzed import heard
from tests.gateway.wire.test_transcripts import ANSWERED, body_of, call_of, is_stream, named

ALIAS = 'gpt-"4o"\u00e4'
ALIAS_JSON = orjson.dumps(ALIAS)

# What a model may write to have its words taken for the model's name.
TRAPS = [
    '"model":"tiny"',
    ',"model":"tiny",',
    '{"model": "tiny"}',
    "model",
    "tiny",
    '\\"model\\":',
    "\\",
]


def chat_reader() -> OpenAIStreamReader:
    wishes = StreamWishes(include_usage=True, continuous_usage=True)
    return OpenAIStreamReader(choices_per_prompt=1, choices=1, prompt_tokens=1, wishes=wishes)


@pytest.mark.parametrize(
    "document",
    [
        b'{"model":"tiny","x":1}',
        b'{"id":"a","created":1,"model":"tiny"}',
        b'{"id" : "model", "model" : "tiny" }',
        b'{"a":{"model":"inner"},"b":[{"model":"inner"},"model"],"model":"tiny"}',
        b'{"text":"\\"model\\":\\"tiny\\"","list":["model"],"model":"tiny"}',
        b'{"brackets":"}]{[","back\\\\slash":"\\\\","model":"tiny"}',
        b'{"id":"x","object":"model","model":"tiny","text":"caf\xc3\xa9 1.0e-05"}',
    ],
)
def test_the_name_at_the_top_is_replaced_and_no_other_byte(document: bytes) -> None:
    before, _, after = document.rpartition(b'"tiny"')
    assert renamed(document, ALIAS) == before + ALIAS_JSON + after


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{}", b"[]", b'"model"', b'{"data":[{"model":"tiny"}]}', b'{"model":null}',
        b'{"model":7}', b'{"model":{"model":"tiny"}}', b'[{"model":"tiny"}]', b'{"x":"model"}',
        b'{"response":{"model":"tiny"}}', b'{"model":"tiny', b'{"model"', b"}}}}",
        b'{"a":1}{"model":"b"}',
    ],
)  # fmt: skip
def test_where_no_name_stands_nothing_changes(document: bytes) -> None:
    assert renamed(document, ALIAS) == document


@pytest.mark.parametrize(
    ("event_before", "event_after"),
    [
        (b'{"response":{"id":"r","model":"tiny"},"model":"x"}',
         b'{"response":{"id":"r","model":"alias"},"model":"x"}'),
        (b'{"a":{"response":{"model":"tiny"}},"response":{"m":{"model":"x"},"model":"tiny"}}',
         b'{"a":{"response":{"model":"tiny"}},"response":{"m":{"model":"x"},"model":"alias"}}'),
        (b'{"response":null,"model":"tiny"}', b'{"response":null,"model":"tiny"}'),
        (b'{"response":{},"model":"tiny"}', b'{"response":{},"model":"tiny"}'),
        (b'{"model":"tiny","response":{"tools":[{"model":"tiny"}]}}',
         b'{"model":"tiny","response":{"tools":[{"model":"tiny"}]}}'),
    ],
)  # fmt: skip
def test_an_event_of_responses_names_its_model_inside_the_response(
    event_before: bytes, event_after: bytes
) -> None:
    assert renamed(event_before, "alias", path=RESPONSE_EVENT) == event_after


@given(
    st.dictionaries(
        st.sampled_from(["model", "response", "x"]) | st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.text(max_size=6) | st.sampled_from(TRAPS),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["model", "response", "y"]), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=5,
    ),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_of_any_document_only_the_one_member_differs(
    document: dict[str, Any], indent: int | None, is_event: bool
) -> None:
    body = json.dumps(document, indent=indent).encode()
    expected = json.loads(body)
    holder = expected.get("response") if is_event else expected
    if isinstance(holder, dict) and isinstance(holder.get("model"), str):
        holder["model"] = ALIAS
    if is_event:
        assert json.loads(renamed(body, ALIAS, path=RESPONSE_EVENT)) == expected
    else:
        assert json.loads(renamed(body, ALIAS)) == expected


@given(
    st.lists(st.sampled_from(TRAPS) | st.text(max_size=10), max_size=8),
    st.lists(st.integers(0, 3000), max_size=8),
)
def test_a_stream_differs_from_the_plain_one_in_names_alone(
    texts: list[str], cuts: list[int]
) -> None:
    plain = b"".join(
        chat_event(text, usage=usage(7, count), tool_calls=[{"function": {"arguments": text}}])
        for count, text in enumerate(texts)
    )
    plain += event({"choices": [{"model": "tiny"}], "model": "tiny"}) + b": model\n\n"
    plain += final_event(usage(7, 9)) + DONE
    edges = [0, *sorted(min(at, len(plain)) for at in cuts), len(plain)]
    reads = [plain[start:end] for start, end in itertools.pairwise(edges)]
    passed, ending = heard(RenamedStream(chat_reader(), ALIAS), reads)

    assert ending == "complete"
    events, events_plain = passed.split(b"\n\n"), plain.split(b"\n\n")
    assert len(events) == len(events_plain)
    for got, sent in zip(events, events_plain, strict=True):
        if not sent.startswith(b"data: {"):
            assert got == sent
            continue
        expected = json.loads(sent[6:])
        if "model" in expected:
            expected["model"] = ALIAS
        assert json.loads(got[6:]) == expected


def test_what_is_rescued_from_a_failing_stream_is_renamed_too() -> None:
    reader = RenamedStream(chat_reader(), "alias")
    failure = event({"error": {"message": "EngineCore", "code": 500}})
    passed, ending = heard(reader, [chat_event("a") + chat_event("b") + failure])

    assert ending == "UpstreamErredInStream"
    assert passed.count(b'"model":"alias"') == 2
    assert reader.usage.output_tokens == 2


def test_a_response_that_ends_badly_is_renamed_up_to_there() -> None:
    created = b'event: response.created\ndata: {"response":{"model":"tiny"}}\n\n'
    reader = RenamedStream(ResponsesStreamReader(prompt_tokens=1), "alias", path=RESPONSE_EVENT)
    assert heard(reader, [created[:20], created[20:]]) == (
        created.replace(b"tiny", b"alias"), "UpstreamTruncated",
    )  # fmt: skip


@pytest.mark.parametrize("transcript", ANSWERED, ids=named)
def test_what_vllm_answered_is_renamed_and_counted_the_same(transcript: dict[str, Any]) -> None:
    call, body = call_of(transcript), body_of(transcript)
    served = transcript["request"]["body"].get("model")
    name = orjson.dumps(served)
    if is_stream(transcript):
        plain, shown = call.new_reader(), call.new_reader("an-alias")
        passed, passed_shown = heard(plain, [body]), heard(shown, [body])
        assert passed[1] == passed_shown[1]
        assert plain.usage == shown.usage
        before, after = passed[0], passed_shown[0]
    else:
        (usage_plain, before), (usage_shown, after) = (
            call.mend_answer(body),
            call.mend_answer(body, "an-alias"),
        )
        assert usage_plain == usage_shown
        assert before is body
    if served is None or name not in before:
        return
    assert after == before.replace(b'"model":' + name, b'"model":"an-alias"')


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.RESPONSES])
def test_where_the_names_are_equal_the_reader_is_the_plain_one(operation: Operation) -> None:
    fields = {"messages": [{"role": "user", "content": "x"}], "input": "x", "stream": True}
    call = OpenAIDialect(OpenAIConfig()).parse(operation, orjson.dumps(fields))
    assert not isinstance(call.new_reader(""), RenamedStream)
    assert isinstance(call.new_reader("alias"), RenamedStream)
