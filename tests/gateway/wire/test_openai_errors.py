"""Errors in OpenAI's words, and vLLM's refusals in ours."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.errors import (
    ErrorKind,
    GatewayError,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.wire import openai_errors
from gateway.wire.dialect import Dialect
from gateway.wire.openai import OpenAIConfig, OpenAIDialect

DIALECT: Dialect = OpenAIDialect(OpenAIConfig())


def refused(status: int, body: object, retry_after_seconds: float | None = None) -> GatewayError:
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    return openai_errors.read_rejection(status, text, retry_after_seconds=retry_after_seconds)


def vllm(message: str, *, param: str | None = None, code: int = 400) -> dict[str, object]:
    return {"error": {"message": message, "type": "BadRequestError", "param": param, "code": code}}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (errors.InvalidRequest("m"), "invalid_request_error", "invalid_value"),
        (errors.NotFound("m"), "invalid_request_error", "not_found"),
        (errors.ModelNotFound("m"), "invalid_request_error", "model_not_found"),
        (errors.RequestTooLarge("m"), "invalid_request_error", "request_too_large"),
        (errors.AuthenticationFailed("m"), "invalid_request_error", "invalid_api_key"),
        (errors.ModelNotAllowed("m"), "invalid_request_error", "model_not_allowed"),
        (errors.ConcurrencyExceeded("m"), "requests", "concurrency_limit_exceeded"),
        (errors.QuotaReserved("m"), "tokens", "rate_limit_exceeded"),
        (errors.QuotaExceeded("m"), "insufficient_quota", "insufficient_quota"),
        (errors.Overloaded("m"), "service_unavailable_error", "server_is_overloaded"),
        (errors.UpstreamTimeout("m"), "server_error", "upstream_timeout"),
        (errors.UpstreamFailed("m"), "server_error", "bad_gateway"),
        (errors.InternalError("m"), "server_error", "internal_error"),
    ],
)
def test_the_envelope_is_openais(error: GatewayError, kind: str, code: str) -> None:
    envelope = orjson.loads(DIALECT.render_error(error, request_id="r"))
    assert envelope == {"error": {"message": "m", "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_has_a_type(kind: ErrorKind) -> None:
    error = UpstreamRejected("m", status=400, kind=kind)
    assert b'"type":"' in DIALECT.render_error(error, request_id="r")


def test_an_error_event_is_one_event_without_a_terminator() -> None:
    error = errors.UpstreamTruncated("a\n\nb \udc80")
    event = DIALECT.error_event(error, request_id="r")
    assert event == b"data: " + DIALECT.render_error(error, request_id="r") + b"\n\n"
    assert event.count(b"\n") == 2


@pytest.mark.parametrize("status", [400, 404, 405, 409, 413, 415, 422])
def test_what_blames_the_request_is_passed_on(status: int) -> None:
    error = refused(status, vllm("n must be at least 1", param="n"))
    assert isinstance(error, UpstreamRejected)
    assert error.status == status
    assert (error.param, error.code) == ("n", None)


def test_the_message_and_the_parameter_are_vllms() -> None:
    error = refused(400, vllm("temperature must be non-negative", param="body.temperature"))
    assert error.message == "temperature must be non-negative"
    assert error.param == "temperature"


def test_a_message_is_bounded() -> None:
    assert len(refused(400, vllm("x" * 100_000)).message) == 2_000


@pytest.mark.parametrize("status", [400, 500])
def test_a_prompt_too_long_is_named_whatever_the_status(status: int) -> None:
    error = refused(status, vllm("This model's maximum context length is 2048 tokens."))
    assert (error.status, error.code) == (400, "context_length_exceeded")


def test_an_unknown_model_is_named_but_not_the_known_ones() -> None:
    error = refused(404, vllm("The model `x` does not exist. Valid aliases: secret."))
    assert error.code == "model_not_found"
    assert error.message == "The model `x` does not exist."


@pytest.mark.parametrize("body", [{"detail": "Not Found"}, b""])
def test_a_missing_path_is_a_missing_operation(body: object) -> None:
    error = refused(404, body)
    assert error.code is None
    assert error.message == "The upstream does not offer this operation."


@pytest.mark.parametrize("status", [401, 403])
def test_our_own_credentials_are_never_the_clients_fault(status: int) -> None:
    error = refused(status, {"error": "Unauthorized"})
    assert isinstance(error, UpstreamFailed)
    assert (error.status, error.code) == (502, "upstream_auth")
    assert "VLLM_API_KEY" in error.message


def test_too_many_requests_keeps_its_wait() -> None:
    error = refused(429, b"", retry_after_seconds=7.0)
    assert (error.status, error.kind, error.retry_after_seconds) == (429, ErrorKind.RATE_LIMIT, 7.0)


def test_unavailable_keeps_its_wait() -> None:
    error = refused(503, b"<html>", retry_after_seconds=3.0)
    assert isinstance(error, UpstreamUnavailable)
    assert error.retry_after_seconds == 3.0


@pytest.mark.parametrize("status", [301, 302, 307, 418, 500, 501, 502, 504])
@pytest.mark.parametrize(
    "body", [vllm("EngineCore encountered an issue"), b"<html>nginx</html>", b"", b"[1]"]
)
def test_faults_of_the_upstream_are_bad_gateways_without_internals(
    status: int, body: object
) -> None:
    error = refused(status, body)
    assert isinstance(error, UpstreamFailed)
    assert error.status == 502
    assert "EngineCore" not in error.message
    assert "nginx" not in error.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "plain"}, "plain"),
        ({"detail": "text"}, "text"),
        ({"detail": [{"msg": "one"}, {"msg": "two"}, 3]}, "one; two"),
        ({"message": "old vLLM"}, "old vLLM"),
        ({"error": 3}, "The upstream refused the request."),
        (b"<html>", "The upstream refused the request."),
    ],
)
def test_several_shapes_of_refusal_are_read(body: object, message: str) -> None:
    assert refused(400, body).message == message


@given(st.integers(100, 599), st.binary(max_size=100))
def test_any_answer_has_a_meaning(status: int, body: bytes) -> None:
    error = refused(status, body)
    orjson.loads(DIALECT.render_error(error, request_id="r"))
