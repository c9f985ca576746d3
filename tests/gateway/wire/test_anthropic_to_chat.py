"""What an Anthropic request says in the words of chat."""

from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest
from gateway.exchange import InferenceCall, Operation
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIConfig

DIALECT = AnthropicDialect(OpenAIConfig(refused_fields=frozenset()))
USER = {"role": "user", "content": "hello"}
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [USER]}
TOOL = {"name": "weather", "description": "d", "input_schema": {"properties": {}}}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


def translated(**changes: Any) -> InferenceCall:
    call = DIALECT.parse(Operation.MESSAGES, orjson.dumps({**ASKED, **changes}))
    return call.as_served_by({Operation.CHAT})


def chat(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(
        translated(**changes).encode(model="served", output_limit=None)
    )
    return body


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = chat(messages=list(messages))["messages"]
    return said


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def result(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", "content": content, **more}


def test_a_call_is_served_natively_where_that_is_possible() -> None:
    call = DIALECT.parse(Operation.MESSAGES, orjson.dumps(ASKED))
    assert call.as_served_by({Operation.MESSAGES, Operation.CHAT}) is call
    other = call.as_served_by({Operation.CHAT})
    assert other.operation is Operation.CHAT
    assert (other.model, other.prompt, other.output_limit, other.is_metered) == (
        call.model,
        call.prompt,
        call.output_limit,
        True,
    )
    assert other.as_served_by(()) is other


def test_a_plain_question_stays_plain() -> None:
    assert chat() == {"model": "served", "max_tokens": 100, "messages": [USER]}


def test_the_output_limit_only_ever_lowers() -> None:
    call = translated()
    assert orjson.loads(call.encode(model="m", output_limit=7))["max_tokens"] == 7
    assert orjson.loads(call.encode(model="m", output_limit=700))["max_tokens"] == 100


def test_a_stream_asks_for_its_running_usage() -> None:
    body = chat(stream=True)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_sampling_keeps_its_names_and_stop_sequences_get_theirs() -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 4}
    body = chat(**sampling, stop_sequences=["a"], metadata={"user_id": "u"}, service_tier="auto")
    assert body == {**chat(), **sampling, "stop": ["a"]}


def test_a_system_prompt_of_blocks_is_joined_as_vllm_joins_it() -> None:
    header = text("x-anthropic-billing-header: cc_version=1;")
    body = chat(system=[header, text("Be"), {**text(" brief."), "cache_control": {}}])
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, USER]
    assert chat(system="Be brief.")["messages"] == body["messages"]
    inner = chat(messages=[USER, {"role": "system", "content": "B"}], system="A")
    assert inner["messages"] == [{"role": "system", "content": "A\n\nB"}, USER]


def test_text_and_pictures_become_parts() -> None:
    assert turns(user(text("a")))[0]["content"] == "a"
    assert turns(user(text("a"), text("b"), PICTURE))[0]["content"] == [text("a"), text("b"), SHOWN]
    note = {"type": "document", "source": {"type": "text", "data": "notes"}}
    assert turns(user(note))[0]["content"] == "notes"


def test_calls_and_thoughts_of_the_model_go_back() -> None:
    said = turns(
        USER,
        assistant(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "xx"},
            text("Let me see."),
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
        ),
    )
    call = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert said[1] == {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning": "hm",
        "tool_calls": [{"id": "t1", "type": "function", "function": call}],
    }


def test_results_follow_the_calls_at_once_and_the_rest_follows_the_results() -> None:
    other = {**result("rain"), "tool_use_id": "t2"}
    said = turns(user(text("so?"), result([text("sun"), PICTURE]), other))
    assert said[:2] == [
        {"role": "tool", "tool_call_id": "t1", "content": "sun"},
        {"role": "tool", "tool_call_id": "t2", "content": "rain"},
    ]
    assert said[2]["role"] == "user"
    assert said[2]["content"] == [
        text("so?"),
        text("The result of the tool call t1 shows:"),
        SHOWN,
    ]
    assert len(said) == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("no such city", "Error: no such city"),
        ("Error: no such city", "Error: no such city"),
        ([text("a"), text("b")], "Error: a\nb"),
        (None, "Error"),
    ],
)
def test_a_failed_tool_says_so_in_its_text(content: Any, expected: str) -> None:
    assert turns(user(result(content, is_error=True)))[0]["content"] == expected


def test_tools_become_functions() -> None:
    (tool,) = chat(tools=[{**TOOL, "cache_control": {}}])["tools"]
    parameters = {"type": "object", "properties": {}}
    assert tool == {
        "type": "function",
        "function": {"name": "weather", "description": "d", "parameters": parameters},
    }


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "weather"},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        (None, {}),
    ],
)
def test_a_choice_of_tools_is_kept(asked: Any, expected: dict[str, Any]) -> None:
    body = chat(tools=[TOOL], tool_choice=asked)
    names = ("tool_choice", "parallel_tool_calls")
    assert {name: body[name] for name in names if name in body} == expected
    assert "tool_choice" not in chat(tool_choice=asked)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "enabled", "budget_tokens": 2000}, {"enable_thinking": True}),
        ({"type": "disabled"}, {"enable_thinking": False}),
        ({"type": "adaptive"}, None),
        (None, None),
    ],
)
def test_whether_to_think_is_told_to_the_template(thinking: Any, expected: Any) -> None:
    body = chat(thinking=thinking)
    assert body.get("chat_template_kwargs") == expected
    assert "thinking_token_budget" not in body


def test_the_callers_own_word_to_the_template_wins() -> None:
    own = {"enable_thinking": True, "x": 1}
    body = chat(thinking={"type": "disabled"}, chat_template_kwargs=own)
    assert body["chat_template_kwargs"] == own


def test_effort_and_a_schema_for_the_answer_are_kept() -> None:
    schema = {"type": "object"}
    shape = {"type": "json_schema", "schema": schema}
    named = {"type": "json_schema", "json_schema": {"name": "json_schema", "schema": schema}}
    body = chat(output_config={"effort": "low", "format": shape})
    assert body["reasoning_effort"] == "low"
    assert body["response_format"] == named
    assert chat(output_format=shape)["response_format"] == named


def test_vllms_own_fields_pass_where_the_operator_lets_them() -> None:
    assert chat(cache_salt="s")["cache_salt"] == "s"


@pytest.mark.parametrize(
    "message",
    [
        user({"type": "document", "source": {"type": "base64", "data": "AA"}}),
        user({"type": "search_result", "content": []}),
        user({"type": "image", "source": {"type": "file", "file_id": "f"}}),
        user(result([{"type": "tool_reference", "tool_name": "x"}])),
        assistant({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        {"role": "system", "content": [{"type": "tool_removal", "tool": {}}]},
    ],
)
def test_what_chat_has_no_words_for_is_refused_before_anything_is_sent(
    message: dict[str, Any],
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        translated(messages=[USER, message])
    assert refused.value.param is not None
    assert refused.value.param.startswith("messages.1.content")


def test_an_unknown_choice_of_tools_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        translated(tools=[TOOL], tool_choice={"type": "some"})
