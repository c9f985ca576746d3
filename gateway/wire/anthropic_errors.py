"""Errors in Anthropic's words: ours on their way out, vLLM's on their way in."""

import re
from collections.abc import Mapping
from typing import Final

import orjson

from gateway.errors import (
    AnswerUnusable,
    ErrorKind,
    GatewayError,
    UpstreamErredInStream,
    UpstreamRejected,
)
from gateway.wire import openai_errors
from gateway.wire.openai_usage import as_object

# docs.anthropic.com/en/api/errors
_TYPES: Final[Mapping[ErrorKind, str]] = {
    ErrorKind.INVALID_REQUEST: "invalid_request_error",
    ErrorKind.AUTHENTICATION: "authentication_error",
    ErrorKind.PERMISSION: "permission_error",
    ErrorKind.NOT_FOUND: "not_found_error",
    ErrorKind.TOO_LARGE: "request_too_large",
    ErrorKind.RATE_LIMIT: "rate_limit_error",
    ErrorKind.TOKEN_LIMIT: "rate_limit_error",
    ErrorKind.QUOTA: "rate_limit_error",
    ErrorKind.OVERLOADED: "overloaded_error",
    ErrorKind.TIMEOUT: "timeout_error",
    ErrorKind.UPSTREAM: "api_error",
    ErrorKind.INTERNAL: "api_error",
}
_STATUSES: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "not_found_error": 404,
    "request_too_large": 413,
}
_OVERLOADED: Final = 529
_MAX_MESSAGE: Final = 10_000

# vLLM's endpoint reads its own chat stream with a strict schema, so an error event in there ends
# as a dump of the schema's complaint; the dump ends with what the event had been.
_DUMPED_CODE: Final = re.compile(r"'code': (\d{3})\}\}, input_type=dict\]")
_DUMP: Final = re.compile(r"validation errors? for |errors\.pydantic\.dev|\d validation errors?:")
_COMPLAINT: Final = re.compile(
    r"""'loc': '(?:body\.)?([^']{0,200})', 'msg': (?:'([^']{0,500})'|"([^"]{0,500})")"""
)

# What vLLM says of an answer, not of a request: arguments of a tool that are no JSON object.
_WRITTEN_WRONGLY: Final = re.compile(
    r"for Anthropic(?:ContentBlock|MessagesResponse)\b|\(char \d+\)$"
)

_CONTEXT: Final = re.compile(r"maximum context length is (\d+) tokens")
_OVER: Final = re.compile(r"max_(?:completion_)?tokens=(\d+) cannot be greater than \w+=(\d+)")
_ASKED: Final = re.compile(r"\((\d+) in the (?:messages|prompt), (\d+) in the completion\)")
_PROMPT: Final = re.compile(r"(?:at least |contains |passed |request has )(\d+) (?:input )?tokens")


def status_of(error: GatewayError) -> int:
    """The status of an error answer: Anthropic has its own for being overloaded."""
    return _OVERLOADED if error.kind is ErrorKind.OVERLOADED else error.status


def error_body(error: GatewayError, *, request_id: str) -> bytes:
    """Anthropic's envelope; `details.error_code` is where its SDKs look for a word for programs."""
    said: dict[str, object] = {
        "type": _TYPES[error.kind],
        "message": error.message.encode("utf-8", "replace").decode("utf-8"),
    }
    if error.code is not None:
        said["details"] = {"error_code": error.code}
        if error.param is not None:
            said["details"] = {"error_code": error.code, "param": error.param}
    return orjson.dumps({"type": "error", "error": said, "request_id": request_id})


def error_event(error: GatewayError, *, request_id: str) -> bytes:
    return b"event: error\ndata: " + error_body(error, request_id=request_id) + b"\n\n"


def read_rejection(status: int, body: bytes, *, retry_after_seconds: float | None) -> GatewayError:
    """What a non-2xx answer of an upstream means for the caller; schema dumps stay here."""
    message = _said(body)
    if status in (400, 422, 500) and _WRITTEN_WRONGLY.search(message):
        # The request was right and tokens were spent: neither it nor the upstream is to blame.
        return AnswerUnusable(
            "The model called a tool with arguments that are no JSON object; ask again.",
            code="malformed_tool_call",
        )
    if status in (400, 422) and _DUMP.search(message):
        return _complaint(message, status)
    error = openai_errors.read_rejection(status, body, retry_after_seconds=retry_after_seconds)
    if error.code == "context_length_exceeded":
        return _too_long(error)
    return error


def stream_failure(fields: Mapping[str, object]) -> GatewayError:
    """What an error event inside a stream means, in whichever envelope it comes."""
    reported = fields.get("error")
    said = reported if isinstance(reported, dict) else {}
    message = said.get("message")
    words = message[:_MAX_MESSAGE] if isinstance(message, str) else ""
    if type(said.get("code")) is int:
        return openai_errors.stream_failure(said)
    dumped = _DUMPED_CODE.search(words)
    status = int(dumped[1]) if dumped else _STATUSES.get(str(said.get("type")))
    if status is None:
        return UpstreamErredInStream("The upstream reported an internal error.")
    hides = dumped or _DUMP.search(words)
    shown = "The upstream refused the request." if hides else words
    return openai_errors.stream_failure({"message": shown, "code": status})


def _complaint(message: str, status: int) -> UpstreamRejected:
    """What a schema has against a request: each place and its fault, without the input."""
    found = _COMPLAINT.findall(message)
    faults = "; ".join(f"{place}: {fault or quoted}" for place, fault, quoted in found)
    return UpstreamRejected(
        faults or "The upstream does not accept a field of the request.",
        status=status,
        kind=ErrorKind.INVALID_REQUEST,
        code="invalid_value",
        param=found[0][0] if found else None,
    )


def _too_long(error: GatewayError) -> GatewayError:
    """In the words by which coding agents know that they must shorten their history."""
    over = _OVER.search(error.message)
    if over:
        # Not the prompt's fault: shortening the history would not help.
        return UpstreamRejected(
            f"max_tokens: {over[1]} > {over[2]}, which is the maximum allowed number of output "
            "tokens for this model",
            status=400,
            kind=ErrorKind.INVALID_REQUEST,
            code="invalid_value",
            param="max_tokens",
        )
    context = _CONTEXT.search(error.message)
    asked, prompt = _ASKED.search(error.message), _PROMPT.search(error.message)
    message = "prompt is too long"
    if context and asked and int(asked[1]) <= int(context[1]):
        message = (
            f"input length and `max_tokens` exceed context limit: {asked[1]} + {asked[2]} > "
            f"{context[1]}, decrease input length or `max_tokens` and try again"
        )
    elif context and (counted := asked or prompt):
        message = f"prompt is too long: {counted[1]} tokens > {context[1]} maximum"
    return UpstreamRejected(
        message, status=400, kind=ErrorKind.INVALID_REQUEST, code="context_length_exceeded"
    )


def _said(body: bytes) -> str:
    error = as_object(body).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return message[:_MAX_MESSAGE] if isinstance(message, str) else ""
