"""A request is read as vLLM would read it, checked where we read it, and sent on as one parse."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, UpstreamFailed
from gateway.exchange import NO_USAGE, InferenceCall, Operation, PromptSize, TokenUsage
from gateway.wire.openai import OpenAIConfig, OpenAIDialect
from gateway.wire.openai_fields import REFUSED_FIELDS

MESSAGES = [{"role": "user", "content": "Hello there"}]
READ_FIELDS = [
    *("model", "stream", "stream_options", "n", "max_tokens", "echo", "best_of", "messages"),
    *("prompt", "input", "query", "documents", "tools", "text_1", "image_url"),
    "chat_template_kwargs",
]
GENERATING = [Operation.CHAT, Operation.COMPLETIONS, Operation.RESPONSES]


def parsed(
    operation: Operation = Operation.CHAT,
    *,
    config: OpenAIConfig = OpenAIConfig(),  # noqa: B008 - frozen
    **fields: Any,
) -> InferenceCall:
    defaults: dict[Operation, dict[str, Any]] = {
        Operation.CHAT: {"messages": MESSAGES},
        Operation.COMPLETIONS: {"prompt": "Once upon"},
        Operation.RESPONSES: {"input": "Hello"},
        Operation.EMBEDDINGS: {"input": "Hello"},
        Operation.RERANK: {"query": "sea", "documents": ["ship"]},
    }
    body = {"model": "tiny", **defaults.get(operation, {}), **fields}
    return OpenAIDialect(config).parse(operation, orjson.dumps(body))


def refusal(operation: Operation = Operation.CHAT, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        parsed(operation, **fields)
    return raised.value


def sent(call: InferenceCall, *, model: str = "tiny", output_limit: int | None = None) -> Any:
    return orjson.loads(call.encode(model=model, output_limit=output_limit))


# What is read


def test_the_model_may_be_absent() -> None:
    assert parsed(model=None).model == ""
    assert sent(parsed(model=None), model="served")["model"] == "served"


@pytest.mark.parametrize(
    ("operation", "field", "value"),
    [
        (Operation.CHAT, "model", 3),
        (Operation.CHAT, "stream", "true"),
        (Operation.CHAT, "stream", 1),
        (Operation.CHAT, "stream_options", []),
        (Operation.CHAT, "n", "2"),
        (Operation.CHAT, "n", 1.0),
        (Operation.CHAT, "n", True),
        (Operation.CHAT, "max_tokens", "1e6"),
        (Operation.CHAT, "max_tokens", 1.5),
        (Operation.CHAT, "max_completion_tokens", True),
        (Operation.CHAT, "messages", "Hello"),
        (Operation.CHAT, "messages", []),
        (Operation.CHAT, "messages", ["Hello"]),
        (Operation.CHAT, "chat_template_kwargs", []),
        (Operation.COMPLETIONS, "prompt", []),
        (Operation.COMPLETIONS, "prompt", {}),
        (Operation.COMPLETIONS, "prompt", ["a", 1]),
        (Operation.COMPLETIONS, "prompt", [True]),
        (Operation.COMPLETIONS, "prompt", [[1], []]),
        (Operation.COMPLETIONS, "prompt", [[1.5]]),
        (Operation.COMPLETIONS, "echo", 1),
        (Operation.RESPONSES, "input", []),
        (Operation.RESPONSES, "max_output_tokens", "9"),
        (Operation.EMBEDDINGS, "input", 3),
    ],
)
def test_a_wrong_type_names_its_parameter(operation: Operation, field: str, value: Any) -> None:
    error = refusal(operation, **{field: value})
    assert (error.param, error.code) == (field, "invalid_type")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 129),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_completion_tokens", 10**12),
        ("best_of", 2),
    ],
)
def test_a_number_out_of_range_names_its_parameter(field: str, value: Any) -> None:
    error = refusal(Operation.CHAT, **{field: value})
    assert (error.param, error.code) == (field, "invalid_value")


@pytest.mark.parametrize(
    ("operation", "field"),
    [
        (Operation.CHAT, "messages"),
        (Operation.COMPLETIONS, "prompt"),
        (Operation.RESPONSES, "input"),
    ],
)
def test_a_missing_prompt_names_its_parameter(operation: Operation, field: str) -> None:
    error = refusal(operation, **{field: None})
    assert (error.param, error.code) == (field, "missing_required_parameter")


def test_stream_options_need_a_stream() -> None:
    assert refusal(stream_options={"include_usage": True}).param == "stream_options"
    error = refusal(stream=True, stream_options={"include_usage": 1})
    assert error.param == "stream_options.include_usage"
    parsed(stream_options={})
    parsed(stream=True, stream_options=None)


def test_background_answers_are_refused() -> None:
    assert refusal(Operation.RESPONSES, background=True).param == "background"
    parsed(Operation.RESPONSES, background=False)


@pytest.mark.parametrize("operation", GENERATING)
def test_a_stream_is_a_stream(operation: Operation) -> None:
    assert parsed(operation, stream=True).is_stream
    assert not parsed(operation, stream=None).is_stream


def test_an_embedding_is_no_stream() -> None:
    assert not parsed(Operation.EMBEDDINGS, stream=True).is_stream


@pytest.mark.parametrize(
    ("operation", "fields", "limit"),
    [
        (Operation.CHAT, {}, None),
        (Operation.CHAT, {"max_tokens": 9}, 9),
        (Operation.CHAT, {"max_tokens": 9, "max_completion_tokens": 30}, 30),
        (Operation.CHAT, {"max_tokens": 9, "max_completion_tokens": None}, 9),
        (Operation.COMPLETIONS, {}, 16),
        (Operation.COMPLETIONS, {"max_tokens": None}, None),
        (Operation.COMPLETIONS, {"max_tokens": 0, "echo": True}, 1),
        (Operation.RESPONSES, {"max_output_tokens": 9}, 9),
        (Operation.RESPONSES, {"max_tokens": 9}, None),
        (Operation.EMBEDDINGS, {"max_tokens": 9}, 0),
        (Operation.TOKENIZE, {"prompt": "x"}, 0),
    ],
)
def test_the_output_limit_is_the_one_vllm_obeys(
    operation: Operation, fields: dict[str, Any], limit: int | None
) -> None:
    assert parsed(operation, **fields).output_limit == limit


@pytest.mark.parametrize(
    ("operation", "fields", "choices"),
    [
        (Operation.CHAT, {}, 1),
        (Operation.CHAT, {"n": 3}, 3),
        (Operation.CHAT, {"n": None}, 1),
        (Operation.COMPLETIONS, {"prompt": ["a", "b"], "n": 3}, 6),
        (Operation.COMPLETIONS, {"prompt": [1, 2]}, 1),
        (Operation.COMPLETIONS, {"prompt": [[1], [2]]}, 2),
    ],
)
def test_choices_are_prompts_times_n(
    operation: Operation, fields: dict[str, Any], choices: int
) -> None:
    assert parsed(operation, **fields).choices == choices


def test_only_tokenizing_is_free() -> None:
    spoken = [op for op in Operation if op not in (Operation.MESSAGES, Operation.COUNT_TOKENS)]
    assert [op for op in spoken if not parsed(op).is_metered] == [
        Operation.TOKENIZE,
        Operation.DETOKENIZE,
    ]


# What is refused or dropped


@pytest.mark.parametrize("field", sorted(REFUSED_FIELDS))
@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS])
def test_a_refused_field_names_itself_and_the_setting(operation: Operation, field: str) -> None:
    error = refusal(operation, **{field: {"a": 1}})
    assert (error.param, error.code) == (field, "unsupported_parameter")
    assert "REFUSED_FIELDS" in error.message


@pytest.mark.parametrize("nothing", [None, False])
def test_a_refused_field_that_asks_for_nothing_passes(nothing: object) -> None:
    parsed(use_beam_search=nothing)


def test_the_operator_may_allow_a_field() -> None:
    config = OpenAIConfig(refused_fields=frozenset())
    body: dict[str, Any] = {
        "priority": 3,
        "chat_template": "{}",
        "chat_template_kwargs": {"chat_template": ""},
    }
    assert sent(parsed(Operation.CHAT, config=config, **body)).items() >= body.items()


@pytest.mark.parametrize("override", ["chat_template", "tokenize"])
def test_a_template_cannot_hide_among_its_arguments(override: str) -> None:
    assert refusal(chat_template_kwargs={override: "{{}}"}).param == override
    parsed(chat_template_kwargs={"enable_thinking": False})


def test_dropped_fields_do_not_reach_the_upstream() -> None:
    assert "session_id" not in sent(parsed(session_id="s"))


def test_unknown_fields_pass() -> None:
    assert sent(parsed(top_k=3, new_in_vllm={"a": [1]}))["new_in_vllm"] == {"a": [1]}


# What is sent


def test_an_unmodified_body_is_its_own_canonical_form() -> None:
    body = b'{ "model": "tiny", "messages": [{"role": "user", "content": "\\u00e9"}] }'
    call = OpenAIDialect(OpenAIConfig()).parse(Operation.CHAT, body)
    expected = '{"model":"tiny","messages":[{"role":"user","content":"é"}]}'.encode()
    assert call.encode(model="tiny", output_limit=None) == expected


def test_another_model_is_put_in_its_place() -> None:
    assert sent(parsed(), model="other") == {"model": "other", "messages": MESSAGES}


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETIONS])
def test_a_stream_is_asked_for_all_usage(operation: Operation) -> None:
    options = {"include_usage": False, "future": 1}
    assert sent(parsed(operation, stream=True, stream_options=options))["stream_options"] == {
        "include_usage": True,
        "continuous_usage_stats": True,
        "future": 1,
    }
    assert "stream_options" not in sent(parsed(operation))


def test_a_stream_of_responses_states_its_usage_anyway() -> None:
    assert "stream_options" not in sent(parsed(Operation.RESPONSES, stream=True))


@pytest.mark.parametrize(
    ("operation", "fields", "expected"),
    [
        (Operation.CHAT, {}, {"max_tokens": 50}),
        (Operation.CHAT, {"max_tokens": None}, {"max_tokens": 50}),
        (Operation.CHAT, {"max_tokens": 99}, {"max_tokens": 50}),
        (Operation.CHAT, {"max_tokens": 9}, {"max_tokens": 9}),
        (Operation.CHAT, {"max_completion_tokens": 99}, {"max_completion_tokens": 50}),
        (
            Operation.CHAT,
            {"max_completion_tokens": 99, "max_tokens": 999},
            {"max_completion_tokens": 50, "max_tokens": 50},
        ),
        (Operation.COMPLETIONS, {}, {"max_tokens": 16}),
        (Operation.COMPLETIONS, {"max_tokens": None}, {"max_tokens": 50}),
        (Operation.COMPLETIONS, {"max_tokens": 0, "echo": True}, {"max_tokens": 0}),
        (Operation.RESPONSES, {}, {"max_output_tokens": 50}),
        (Operation.EMBEDDINGS, {}, {}),
    ],
)
def test_an_output_limit_only_lowers(
    operation: Operation, fields: dict[str, Any], expected: dict[str, int]
) -> None:
    body = sent(parsed(operation, **fields), output_limit=50)
    assert {name: value for name, value in body.items() if name.startswith("max_")} == expected


# How long the prompt is


def test_token_ids_are_exact() -> None:
    size = PromptSize(5, 5)
    assert parsed(Operation.COMPLETIONS, prompt=[1, 2, 3, 4, 5]).prompt == size
    assert parsed(Operation.EMBEDDINGS, input=[[1, 2, 3], [4, 5]]).prompt == size


@given(st.text(min_size=1, max_size=300))
def test_the_ceiling_holds_every_byte(text: str) -> None:
    messages = [{"role": "user", "content": text}]
    for call in (parsed(messages=messages), parsed(Operation.COMPLETIONS, prompt=text)):
        assert call.prompt.ceiling >= len(text.encode())
        assert 0 < call.prompt.estimate <= call.prompt.ceiling


def test_an_image_weighs_the_same_however_it_is_encoded() -> None:
    def image(size: int) -> PromptSize:
        url = "data:image/png;base64," + "A" * size
        part = {"type": "image_url", "image_url": {"url": url}}
        return parsed(messages=[{"role": "user", "content": [part]}]).prompt

    assert image(100) == image(1_000_000)
    assert image(100).estimate > 1_000


def test_reranking_reads_the_query_for_every_document() -> None:
    query, documents = "q" * 1000, ["d"] * 50
    size = parsed(Operation.RERANK, query=query, documents=documents).prompt
    assert size.ceiling >= 50 * 1000
    assert size.estimate >= 50 * 1000 // 4


def test_a_chat_is_counted_by_its_messages_and_tools() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    call = parsed(tools=tools, chat_template_kwargs={"a": 1}, temperature=0.5, session_id="s")
    (body,) = call.tokenize_bodies(model="served")
    assert orjson.loads(body) == {
        "model": "served",
        "messages": MESSAGES,
        "tools": tools,
        "chat_template_kwargs": {"a": 1},
    }


def test_prompts_are_counted_one_by_one() -> None:
    call = parsed(Operation.COMPLETIONS, prompt=["a", "b"], add_special_tokens=False)
    assert [orjson.loads(body) for body in call.tokenize_bodies(model="m")] == [
        {"model": "m", "prompt": "a", "add_special_tokens": False},
        {"model": "m", "prompt": "b", "add_special_tokens": False},
    ]


def test_a_response_is_counted_as_the_conversation_it_becomes() -> None:
    (text,) = parsed(Operation.RESPONSES, instructions="Be brief").tokenize_bodies(model="m")
    assert orjson.loads(text)["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Hello"},
    ]

    (items,) = parsed(Operation.RESPONSES, input=MESSAGES).tokenize_bodies(model="m")
    assert orjson.loads(items)["messages"] == MESSAGES


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        (Operation.COMPLETIONS, {"prompt": [1, 2]}),
        (Operation.COMPLETIONS, {"prompt": ["a"] * 17}),
        (Operation.RESPONSES, {"tools": [{"type": "function", "name": "f"}]}),
        (Operation.RESPONSES, {"input": [{"type": "function_call_output", "output": "7"}]}),
        (Operation.EMBEDDINGS, {"input": MESSAGES}),
        (
            Operation.CHAT,
            {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        ),
    ],
)
def test_what_cannot_be_counted_is_not(operation: Operation, fields: dict[str, Any]) -> None:
    assert parsed(operation, **fields).tokenize_bodies(model="m") == ()


# What was answered


@pytest.mark.parametrize(
    ("operation", "usage", "expected"),
    [
        (Operation.CHAT, {"prompt_tokens": 7, "completion_tokens": 3}, TokenUsage(7, 3)),
        (Operation.RESPONSES, {"input_tokens": 7, "output_tokens": 3}, TokenUsage(7, 3)),
        (Operation.EMBEDDINGS, {"prompt_tokens": 7, "total_tokens": 7}, TokenUsage(7, 0)),
        (Operation.RERANK, {"prompt_tokens": 7, "total_tokens": 7}, TokenUsage(7, 0)),
        (Operation.CHAT, {"prompt_tokens": 7}, TokenUsage(7, 1, is_estimated=True)),
    ],
)
def test_the_usage_of_an_answer(
    operation: Operation, usage: dict[str, int], expected: TokenUsage
) -> None:
    assert parsed(operation).mend_answer(orjson.dumps({"usage": usage}))[0] == expected


@pytest.mark.parametrize(
    "answer", [{}, {"usage": None}, {"usage": {"prompt_tokens": -7, "completion_tokens": 1}}]
)
def test_a_missing_usage_is_estimated_and_never_nothing(answer: dict[str, Any]) -> None:
    call = parsed(n=3)
    expected = TokenUsage(call.prompt.estimate, 3, is_estimated=True)
    assert call.mend_answer(orjson.dumps(answer))[0] == expected


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices":[', b"null"])
def test_an_answer_that_is_no_object_has_failed(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        parsed().mend_answer(body)


def test_a_free_operation_uses_nothing() -> None:
    assert parsed(Operation.TOKENIZE, prompt="x").mend_answer(b'{"count":1}')[0] == NO_USAGE


# Whatever comes


@given(
    st.sampled_from(Operation),
    st.dictionaries(
        st.sampled_from(READ_FIELDS),
        st.recursive(
            st.none() | st.booleans() | st.integers(-3, 300) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["url", "type", "image_url", "x"]), inner)
            ),
            max_leaves=6,
        ),
    ),
)
def test_any_object_is_read_or_refused(operation: Operation, fields: dict[str, Any]) -> None:
    try:
        call = OpenAIDialect(OpenAIConfig()).parse(operation, orjson.dumps(fields))
    except InvalidRequest:
        return
    assert isinstance(sent(call, output_limit=5), dict)
    assert call.prompt.estimate <= call.prompt.ceiling
    call.tokenize_bodies(model="m")
    call.new_reader()
