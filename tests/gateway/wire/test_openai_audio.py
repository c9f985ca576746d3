"""Speech to text: what a form asks for, what goes to vLLM, what is counted."""

from typing import Any

import orjson
import pytest

from gateway.errors import GatewayError, InvalidRequest, UpstreamFailed
from gateway.exchange import NO_USAGE, InferenceCall, Operation, TokenUsage
from gateway.wire.openai import OpenAIConfig, OpenAIDialect
from tests.gateway.wire.events import DONE, event, feed_all, usage
from tests.gateway.wire.forms import AUDIO, CONTENT_TYPE, field, file, form, read

DIALECT = OpenAIDialect(OpenAIConfig())


def parsed(*parts: bytes, operation: Operation = Operation.TRANSCRIPTIONS) -> InferenceCall:
    return DIALECT.parse_form(operation, form(*parts), CONTENT_TYPE)


def asked(**values: str) -> InferenceCall:
    return parsed(*[field(name, text) for name, text in values.items()], file())


def sent(call: InferenceCall) -> dict[str, bytes]:
    return read(call.encode(model="whisper", output_limit=None), call.content_type)


def heard_words(*words: str, **fields: Any) -> bytes:
    return b"".join(
        event({"model": "whisper", "choices": [{"delta": {"content": word}}], **fields})
        for word in words
    )


@pytest.mark.parametrize("parts", [(field("model", "m"), file()), (file(), field("model", "m"))])
def test_the_model_is_found_before_and_behind_the_file(parts: tuple[bytes, ...]) -> None:
    call = parsed(*parts)
    assert call.model == "m"
    assert sent(call) == {"model": b"whisper", "file": AUDIO}


def test_a_form_without_a_model_gets_one() -> None:
    assert asked().model == ""
    assert sent(asked())["model"] == b"whisper"


def test_other_fields_go_on_as_they_are() -> None:
    call = asked(language="de", prompt="träum", response_format="verbose_json", temperature="0.2")
    assert sent(call)["prompt"] == "träum".encode()
    assert set(sent(call)) == {
        "model", "language", "prompt", "response_format", "temperature", "file"
    }  # fmt: skip


def test_nothing_is_held_of_the_quota_and_one_answer_is_asked_for() -> None:
    call = asked(model="m", max_completion_tokens="400")
    assert (call.prompt.estimate, call.output_limit, call.choices) == (0, 0, 1)
    assert call.is_metered
    assert call.tokenize_bodies(model="m") == ()


@pytest.mark.parametrize("word", ["true", "True", "1", "on", "yes"])
def test_a_stream_is_asked_for_its_running_usage(word: str) -> None:
    call = asked(stream=word)
    assert call.is_stream
    values = {name: text for name, text in sent(call).items() if name.startswith("stream")}
    assert values == {
        "stream": b"true",
        "stream_include_usage": b"true",
        "stream_continuous_usage_stats": b"true",
    }


@pytest.mark.parametrize("word", ["false", "0", "off", ""])
def test_what_is_not_streamed_goes_on_without_stream_fields(word: str) -> None:
    # vLLM takes any text in the usage fields for a wish, "false" too.
    call = asked(stream=word, stream_include_usage="false")
    assert not call.is_stream
    assert not [name for name in sent(call) if name.startswith("stream")]


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ([field("model", "m")], "file", "missing_required_parameter"),
        ([field("file", "text")], "file", "invalid_type"),
        ([file(), file(name="model")], "model", "invalid_type"),
        ([file(b"")], "file", "invalid_value"),
        ([file(), field("stream", "maybe")], "stream", "invalid_type"),
        ([file(), field("stream_include_usage", "true")], "stream_include_usage", "invalid_value"),
        ([file(), field("model", "m" * 513)], "model", "invalid_value"),
        ([file(), field("use_beam_search", "true")], "use_beam_search", "unsupported_parameter"),
        ([file(), field("vllm_xargs", "{}")], "vllm_xargs", "unsupported_parameter"),
        ([file(), field("prompt", b"\xff")], "prompt", "invalid_form"),
    ],
)
def test_a_wrong_form_is_refused_by_name(parts: list[bytes], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(*parts)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_a_field_that_asks_for_nothing_is_not_refused() -> None:
    assert asked(use_beam_search="false")


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        ({"text": "hi", "usage": {"type": "duration", "seconds": 3}}, NO_USAGE),
        ({"text": "hi"}, NO_USAGE),
        ({"text": "hi", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 5,
                                  "total_tokens": 19}}, TokenUsage(14, 5)),
    ],
)  # fmt: skip
def test_seconds_cost_no_tokens_and_tokens_do(answer: dict[str, Any], counted: TokenUsage) -> None:
    body = orjson.dumps(answer)
    assert asked().mend_answer(body) == (counted, body)


def test_a_stream_costs_what_it_reports_and_shows_what_was_asked_for() -> None:
    stream = heard_words(" a") + heard_words(" b")
    reported = b"".join(
        event({"model": "whisper", "choices": [{"delta": {"content": word}}]}, usage(54, count))
        for count, word in enumerate([" a", " b"], 1)
    )
    final = event({"model": "whisper", "choices": []}, usage(54, 3))
    silent = asked(stream="true").new_reader()
    shown = asked(stream="true", stream_include_usage="true").new_reader("alias")

    assert feed_all(silent, reported + final + DONE) == stream + DONE
    assert feed_all(shown, reported + final + DONE).count(b'"model":"alias"') == 3
    assert silent.usage == shown.usage == TokenUsage(54, 3)
    assert silent.is_complete


def test_a_failing_stream_and_a_refusal_speak_openai() -> None:
    reader = asked(stream="true").new_reader()
    with pytest.raises(UpstreamFailed):
        reader.feed(event({"error": {"message": "EngineCore", "code": 500}}))
    refusal: GatewayError = asked().read_rejection(
        404, b'{"detail":"Not Found"}', retry_after_seconds=None
    )
    assert refusal.message == "The upstream does not offer this operation."


def test_a_json_body_is_no_form() -> None:
    with pytest.raises(InvalidRequest) as refused:
        DIALECT.parse_form(Operation.TRANSCRIPTIONS, b"{}", b"application/json")
    assert refused.value.status == 415
