"""Errors in Anthropic's envelope, with the types that its SDKs know."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    AnswerTooLarge,
    AnswerUnusable,
    AuthenticationFailed,
    ClientDisconnected,
    ConcurrencyExceeded,
    Draining,
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotAllowed,
    ModelNotFound,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    QuotaReserved,
    RateLimitExceeded,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedMediaType,
    UpstreamErred,
    UpstreamErredInStream,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from gateway.wire import anthropic_errors
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.anthropic_errors import stream_failure
from gateway.wire.openai import OpenAIConfig

DIALECT = AnthropicDialect(OpenAIConfig())


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("x"), 400, "invalid_request_error"),
        (UnsupportedMediaType("x"), 415, "invalid_request_error"),
        (RequestTooLarge("x"), 413, "request_too_large"),
        (RequestTimeout("x"), 408, "invalid_request_error"),
        (AuthenticationFailed("x"), 401, "authentication_error"),
        (PermissionDenied("x"), 403, "permission_error"),
        (ModelNotAllowed("x"), 403, "permission_error"),
        (NotFound("x"), 404, "not_found_error"),
        (ModelNotFound("x"), 404, "not_found_error"),
        (MethodNotAllowed("x", allow="POST"), 405, "invalid_request_error"),
        (RateLimitExceeded("x", limit="ip_rate", retry_after_seconds=1), 429, "rate_limit_error"),
        (ConcurrencyExceeded("x"), 429, "rate_limit_error"),
        (QuotaExceeded("x"), 429, "rate_limit_error"),
        (QuotaReserved("x"), 429, "rate_limit_error"),
        (Overloaded("x"), 529, "overloaded_error"),
        (Draining("x"), 529, "overloaded_error"),
        (UpstreamUnavailable("x"), 529, "overloaded_error"),
        (UpstreamUnreachable("x"), 529, "overloaded_error"),
        (UpstreamFailed("x"), 502, "api_error"),
        (UpstreamErred("x"), 502, "api_error"),
        (UpstreamTruncated("x"), 502, "api_error"),
        (AnswerTooLarge("x"), 502, "api_error"),
        (UpstreamTimeout("x"), 504, "timeout_error"),
        (ClientDisconnected("x"), 499, "api_error"),
        (InternalError("x"), 500, "api_error"),
    ],
)
def test_every_error_has_its_status_and_type(error: GatewayError, status: int, kind: str) -> None:
    assert DIALECT.status_of(error) == status
    envelope = orjson.loads(DIALECT.render_error(error, request_id="req-1"))
    assert envelope["type"] == "error"
    assert envelope["request_id"] == "req-1"
    assert envelope["error"]["type"] == kind
    assert envelope["error"]["message"] == "x"
    assert envelope["error"]["details"]["error_code"] == error.code


def test_an_error_in_a_stream_is_one_event_with_both_names() -> None:
    event = DIALECT.error_event(QuotaExceeded("used up"), request_id="r")
    assert event.startswith(b'event: error\ndata: {"type":"error","error":{"type":"rate_limit')
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 3


def test_a_message_that_is_no_unicode_is_shown_all_the_same() -> None:
    assert b"?" in DIALECT.render_error(InvalidRequest("\ud800", param="p"), request_id="r")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "1 validation error:\n  {'type': 'missing', 'loc': 'body.max_tokens', 'msg': 'Field "
            "required', 'input': '<dict of 3 items>'}",
            "max_tokens: Field required",
        ),
        (
            "1 validation error:\n  {'loc': 'body.messages.0.role', 'msg': \"Input should be "
            "'user'\", 'input': 'bot'}",
            "messages.0.role: Input should be 'user'",
        ),
        (
            "1 validation error for X\nfield\n  Wrong [input_value=secret]\n errors.pydantic.dev/x",
            "The upstream does not accept a field of the request.",
        ),
        (
            "This model's maximum context length is 100 tokens. However, you requested 130 tokens "
            "(90 in the messages, 40 in the completion).",
            "input length and `max_tokens` exceed context limit: 90 + 40 > 100, decrease input "
            "length or `max_tokens` and try again",
        ),
        (
            "This model's maximum context length is 100 tokens. However, you requested 160 tokens "
            "(120 in the messages, 40 in the completion).",
            "prompt is too long: 120 tokens > 100 maximum",
        ),
        ("the prompt of 9 tokens is too long", "prompt is too long"),
        (
            "max_completion_tokens=400 cannot be greater than max_model_len=100. Please request.",
            "max_tokens: 400 > 100, which is the maximum allowed number of output tokens for this "
            "model",
        ),
    ],
)
def test_vllms_words_become_those_that_clients_of_anthropic_know(
    message: str, expected: str
) -> None:
    body = orjson.dumps({"error": {"message": message, "type": "Bad Request", "code": 400}})
    error = anthropic_errors.read_rejection(400, body, retry_after_seconds=None)
    assert error.message == expected
    assert error.status == 400


@pytest.mark.parametrize(
    "message",
    [
        "1 validation error for AnthropicContentBlock\ninput\n  Input should be a valid dictionary",
        "Expecting ',' delimiter: line 1 column 5 (char 4)",
    ],
)
def test_a_call_that_the_model_wrote_badly_blames_neither_request_nor_upstream(
    message: str,
) -> None:
    body = orjson.dumps({"type": "error", "error": {"type": "BadRequestError", "message": message}})
    error = anthropic_errors.read_rejection(400, body, retry_after_seconds=None)
    assert (error.status, error.code, error.fault) == (502, "malformed_tool_call", None)
    assert isinstance(error, AnswerUnusable)


def test_a_dumped_error_event_is_judged_by_the_code_inside_the_dump() -> None:
    dump = (
        "2 validation errors for ChatCompletionStreamResponse\nmodel\n  Field required "
        "[type=missing, input_value={'error': {'message': 'Gr...am': None, 'code': %d}}, "
        "input_type=dict]\n    For further information visit https://errors.pydantic.dev/2"
    )
    refused = stream_failure({"error": {"type": "internal_error", "message": dump % 400}})
    assert (refused.status, refused.message) == (400, "The upstream refused the request.")
    failed = stream_failure({"error": {"type": "internal_error", "message": dump % 500}})
    assert isinstance(failed, UpstreamErredInStream)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"type": "invalid_request_error", "message": "no"}, 400),
        ({"type": "overloaded_error", "message": "no"}, 502),
        ({"message": "no", "code": 400}, 400),
        ({"message": "no", "code": 500}, 502),
        ("no", 502),
        (["no"], 502),
        (None, 502),
    ],
)
def test_an_error_event_is_understood_in_either_envelope(error: object, status: int) -> None:
    assert stream_failure({"type": "error", "error": error}).status == status


@given(
    status=st.integers(300, 599),
    body=st.binary(max_size=50)
    | st.recursive(
        st.none() | st.integers(-1, 999) | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "detail"]), inner
        ),
    ).map(lambda value: orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS)),
)
def test_any_rejection_can_be_read_and_rendered(status: int, body: bytes) -> None:
    error = anthropic_errors.read_rejection(status, body, retry_after_seconds=None)
    assert 400 <= DIALECT.status_of(error) < 600
    assert orjson.loads(DIALECT.render_error(error, request_id="r"))["error"]["message"]
