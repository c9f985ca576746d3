"""An Anthropic request is read strictly, and reaches vLLM as vLLM can read it."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidRequest
from gateway.exchange import InferenceCall, Operation
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIConfig

DIALECT = AnthropicDialect(OpenAIConfig(allowed_media_domains=frozenset({"images.example"})))
USER = {"role": "user", "content": "hello"}
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [USER]}
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


def parse(**changes: Any) -> InferenceCall:
    return DIALECT.parse(Operation.MESSAGES, orjson.dumps({**ASKED, **changes}))


def refused(**changes: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        parse(**changes)
    return refusal.value


def sent(*, output_limit: int | None = None, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(
        parse(**changes).encode(model="m", output_limit=output_limit)
    )
    return fields


def image(**source: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image", "source": source}]}


def test_an_ordinary_request_is_forwarded_as_it_was_parsed() -> None:
    body = orjson.dumps({**ASKED, "stream": True})
    call = DIALECT.parse(Operation.MESSAGES, body)
    assert call.encode(model="m", output_limit=None) == body
    assert (call.model, call.is_stream, call.output_limit, call.choices) == ("m", True, 100, 1)
    assert call.is_metered


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
def test_what_anthropic_requires_is_required(name: str) -> None:
    error = refused(**{name: None})
    assert (error.status, error.code, error.param) == (400, "missing_required_parameter", name)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": 3}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"messages": [{"role": "bot", "content": ""}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [USER, {"role": "user", "content": [3]}]}, "messages.1.content.0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text",
        ),
        ({"system": 3}, "system"),
        ({"system": [{"text": "no type"}]}, "system.0"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools.0"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
        ({"tools": [{"name": "x", "type": "web_search_20250305"}]}, "tools.0"),
        ({"chat_template_kwargs": {"tokenize": True}}, "tokenize"),
    ],
)
def test_a_fault_is_named_by_its_place(changes: dict[str, Any], param: str) -> None:
    error = refused(**changes)
    assert error.status == 400
    assert error.param == param


@pytest.mark.parametrize(
    "name", ["cache_salt", "kv_transfer_params", "ec_transfer_params", "vllm_xargs", "priority"]
)
def test_vllms_own_fields_are_refused_as_in_every_dialect(name: str) -> None:
    assert refused(**{name: "x"}).code == "unsupported_parameter"
    assert name not in sent(**{name: None}) or sent(**{name: None})[name] is None


def test_what_only_anthropics_servers_understand_is_dropped() -> None:
    unheard: dict[str, Any] = {
        "metadata": {"user_id": "somebody"},
        "context_management": {"edits": []},
        "container": "c",
        "mcp_servers": [],
        "service_tier": "auto",
        "betas": ["x"],
        "session_id": "s",
    }
    assert sent(**unheard) == ASKED


def test_the_model_is_replaced_and_the_output_only_ever_lowered() -> None:
    call = parse()
    assert orjson.loads(call.encode(model="served", output_limit=7)) == {
        **ASKED,
        "model": "served",
        "max_tokens": 7,
    }
    assert sent(output_limit=900) == ASKED


def test_a_system_message_among_the_messages_moves_to_system() -> None:
    inner = {"role": "system", "content": "B"}
    assert sent(messages=[USER, inner], system="A") == {**ASKED, "system": "A\n\nB"}
    assert sent(messages=[inner, USER]) == {**ASKED, "system": "B"}
    blocks = [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}]
    moved = sent(messages=[USER, {"role": "system", "content": blocks}], system=blocks)
    assert moved["system"] == [*blocks, {"type": "text", "text": "\n\nA"}]
    assert moved["messages"] == [USER]


def test_changes_of_tools_stay_where_vllm_looks_for_them() -> None:
    change = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "weather"}}
    inner = {"role": "system", "content": [{"type": "text", "text": "B"}, change]}
    moved = sent(messages=[USER, inner], tools=[TOOL])
    assert moved["messages"] == [USER, {"role": "system", "content": [change]}]
    assert moved["system"] == "B"


def test_a_budget_of_thought_becomes_a_wish_to_think() -> None:
    enabled = {"type": "enabled", "budget_tokens": 1024}
    assert sent(thinking=enabled)["thinking"] == {"type": "adaptive"}
    assert sent(thinking={"type": "disabled"})["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "https://other.example/a.png", "file:///etc/passwd", "x"],
)
def test_images_are_fetched_from_allowed_hosts_only(url: str) -> None:
    error = refused(messages=[image(type="url", url=url)])
    assert error.code == "media_url_not_allowed"
    result = {"type": "tool_result", "tool_use_id": "t", "content": image(url=url)["content"]}
    assert refused(messages=[{"role": "user", "content": [result]}]).code == error.code
    document = {"type": "document", "source": {"type": "url", "url": url}}
    assert refused(messages=[{"role": "user", "content": [document]}]).code == error.code


def test_an_allowed_image_passes_and_weighs_by_kind_not_by_bytes() -> None:
    url = parse(messages=[image(type="url", url="https://images.example/a.png")])
    encoded = parse(messages=[image(type="base64", media_type="image/png", data="A" * 400_000)])
    assert 1_000 <= url.prompt.estimate < 1_200
    assert 1_000 <= encoded.prompt.estimate < 1_200
    assert encoded.tokenize_bodies(model="m") == ()


def test_a_url_that_a_tool_was_called_with_is_fetched_by_nobody() -> None:
    call = {"type": "tool_use", "id": "t", "name": "get", "input": {"source": {"url": "http://x"}}}
    parse(messages=[USER, {"role": "assistant", "content": [call]}])


def test_a_prompt_can_be_counted_by_the_translation_that_vllm_makes() -> None:
    call = parse(system="S", tools=[TOOL], thinking={"type": "disabled"})
    (body,) = call.tokenize_bodies(model="served")
    fields = orjson.loads(body)
    assert fields["model"] == "served"
    assert [message["role"] for message in fields["messages"]] == ["system", "user"]
    assert fields["tools"][0]["function"]["name"] == "weather"
    assert call.read_token_count(b'{"count":18}') == 18


def test_a_prompt_that_chat_cannot_say_is_not_counted() -> None:
    block = {"type": "search_result", "content": []}
    assert parse(messages=[{"role": "user", "content": [block]}]).tokenize_bodies(model="m") == ()


def test_a_count_is_free_and_needs_no_max_tokens() -> None:
    body = orjson.dumps({"model": "m", "messages": [USER]})
    call = DIALECT.parse(Operation.COUNT_TOKENS, body)
    assert not call.is_metered
    assert not call.is_stream
    assert call.output_limit == 0
    assert call.as_served_by({Operation.COUNT_TOKENS}) is call
    assert orjson.loads(call.encode(model="n", output_limit=None))["model"] == "n"


def test_a_translated_count_leaves_images_to_an_estimate() -> None:
    picture = image(type="base64", media_type="image/png", data="AAAA")
    picture["content"].append({"type": "text", "text": "what?"})
    body = orjson.dumps({"model": "m", "messages": [picture]})
    call = DIALECT.parse(Operation.COUNT_TOKENS, body).as_served_by({Operation.CHAT})
    assert call.operation is Operation.TOKENIZE
    sent_body = call.encode(model="m", output_limit=None)
    assert b"image" not in sent_body
    assert b"what?" in sent_body
    assert call.mend_answer(b'{"count":10}')[1] == b'{"input_tokens":1010}'


@pytest.mark.parametrize(
    "body", [b"[]", b'{"input_tokens":-1}', b'{"input_tokens":"9"}', b"{", b""]
)
def test_a_count_that_is_none_is_a_failure(body: bytes) -> None:
    asked = orjson.dumps({"model": "m", "messages": [USER]})
    native = DIALECT.parse(Operation.COUNT_TOKENS, asked)
    for call in (native, native.as_served_by(())):
        with pytest.raises(GatewayError):
            call.mend_answer(body)


KEYS = ["role", "content", "type", "text", "source", "url", "data", "tool_use_id", "input", "name"]
WORDS = ["user", "assistant", "system", "text", "image", "tool_use", "tool_result", "thinking"]
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(WORDS) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=20,
)
NAMES = ["system", "tools", "tool_choice", "thinking", "stop_sequences", "output_config", "stream"]


@given(messages=SHAPES, others=st.dictionaries(st.sampled_from(NAMES), SHAPES))
def test_any_json_is_read_and_translated_or_refused_by_name(
    messages: object, others: dict[str, object]
) -> None:
    conversation = [{"role": "user", "content": messages}]
    for asked in (messages, conversation, [USER, *conversation]):
        for operation in (Operation.MESSAGES, Operation.COUNT_TOKENS):
            body = orjson.dumps({**ASKED, **others, "messages": asked})
            try:
                call = DIALECT.parse(operation, body)
                orjson.loads(call.encode(model="x", output_limit=3))
                call.tokenize_bodies(model="x")
                orjson.loads(call.as_served_by(()).encode(model="x", output_limit=3))
            except InvalidRequest as error:
                assert error.status == 400
                assert error.message


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        DIALECT.parse(Operation.MESSAGES, body)
