"""Errors in OpenAI's words: ours on their way out, vLLM's on their way in."""

import re
from collections.abc import Mapping
from typing import Final

import orjson

from gateway.errors import (
    ErrorKind,
    GatewayError,
    UpstreamErred,
    UpstreamErredInStream,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.wire.openai_usage import as_object

# platform.openai.com/docs/guides/error-codes, and what OpenAI's servers send in fact.
_TYPES: Final[Mapping[ErrorKind, str]] = {
    ErrorKind.INVALID_REQUEST: "invalid_request_error",
    ErrorKind.AUTHENTICATION: "invalid_request_error",
    ErrorKind.PERMISSION: "invalid_request_error",
    ErrorKind.NOT_FOUND: "invalid_request_error",
    ErrorKind.TOO_LARGE: "invalid_request_error",
    ErrorKind.RATE_LIMIT: "requests",
    ErrorKind.TOKEN_LIMIT: "tokens",
    ErrorKind.QUOTA: "insufficient_quota",
    ErrorKind.OVERLOADED: "service_unavailable_error",
    ErrorKind.TIMEOUT: "server_error",
    ErrorKind.UPSTREAM: "server_error",
    ErrorKind.INTERNAL: "server_error",
}

_PASSED_ON: Final[Mapping[int, ErrorKind]] = {
    400: ErrorKind.INVALID_REQUEST,
    404: ErrorKind.NOT_FOUND,
    405: ErrorKind.INVALID_REQUEST,
    409: ErrorKind.INVALID_REQUEST,
    413: ErrorKind.TOO_LARGE,
    415: ErrorKind.INVALID_REQUEST,
    422: ErrorKind.INVALID_REQUEST,
}
_MAX_MESSAGE: Final = 2_000
_INTERNAL: Final = "The upstream reported an internal error."

# vLLM's several ways of saying that a prompt is too long; some versions say it with a 500.
_TOO_LONG: Final = re.compile(
    r"maximum (?:context|model) length|max_model_len|prompt .{0,80}too long|context length",
    re.IGNORECASE,
)


def error_body(error: GatewayError) -> bytes:
    """OpenAI's envelope. `param` and `code` are present even where they are null."""
    return orjson.dumps(
        {
            "error": {
                "message": error.message.encode("utf-8", "replace").decode("utf-8"),
                "type": _TYPES[error.kind],
                "param": error.param,
                "code": error.code,
            }
        }
    )


def read_rejection(status: int, body: bytes, *, retry_after_seconds: float | None) -> GatewayError:
    """What a non-2xx answer of an upstream means for the caller."""
    message, param = _said(body)
    if status in (401, 403):
        return UpstreamMisconfigured(
            "The upstream refused the gateway's own key; the operator must correct VLLM_API_KEY.",
            code="upstream_auth",
        )
    if status == 429:
        return UpstreamRejected(
            message or "The upstream is receiving too many requests.",
            status=429,
            kind=ErrorKind.RATE_LIMIT,
            code="rate_limit_exceeded",
            retry_after_seconds=retry_after_seconds,
        )
    if status == 503:
        return UpstreamUnavailable(
            "The upstream is not available.", retry_after_seconds=retry_after_seconds
        )
    if status == 500 and _TOO_LONG.search(message):
        status = 400
    if status in _PASSED_ON:
        return _passed_on(status, message, param)
    if status >= 500:
        return UpstreamErred(_INTERNAL)
    return UpstreamMisconfigured(f"The upstream answered with the unexpected status {status}.")


def stream_failure(reported: object) -> UpstreamErredInStream | UpstreamRejected:
    """What an error event inside a stream means.

    vLLM judges some fields, a grammar that does not compile for one, only when it has sent the
    head of a stream; that is the request's fault, and another upstream would say the same.
    """
    fields = reported if isinstance(reported, Mapping) else {}
    message, code = fields.get("message"), fields.get("code")
    if type(code) is int and code in _PASSED_ON and isinstance(message, str):
        return _passed_on(code, message[:_MAX_MESSAGE], None)
    return UpstreamErredInStream(_INTERNAL)


def _passed_on(status: int, message: str, param: str | None) -> UpstreamRejected:
    code: str | None = None
    if _TOO_LONG.search(message):
        code = "context_length_exceeded"
    elif status == 404 and "model" in message:
        # Which other models there are is not for every caller to know.
        message, code = message.partition(" Valid aliases")[0], "model_not_found"
    elif status == 404:
        message = "The upstream does not offer this operation."
    return UpstreamRejected(
        message or "The upstream refused the request.",
        status=status,
        kind=_PASSED_ON[status],
        code=code,
        param=param,
    )


def _said(body: bytes) -> tuple[str, str | None]:
    """Message and param of vLLM's envelope, of a bare string, or of FastAPI's `detail`."""
    answer = as_object(body)
    error = answer.get("error", answer.get("detail", answer.get("message")))
    if isinstance(error, str):
        return error[:_MAX_MESSAGE], None
    if isinstance(error, list):
        parts = [part["msg"] for part in error if isinstance(part, dict) and "msg" in part]
        return "; ".join(map(str, parts))[:_MAX_MESSAGE], None
    if not isinstance(error, dict):
        return "", None
    message, param = error.get("message"), error.get("param")
    return (
        message[:_MAX_MESSAGE] if isinstance(message, str) else "",
        # vLLM names its argument before the parameter where pydantic found the fault.
        param.removeprefix("body.")[:200] if isinstance(param, str) else None,
    )
