"""Refusals in vLLM's words: a status and the error body that goes with it.

ApiError            in the words of vLLM's own handlers
└── FrameworkError  in those of the web framework below them
"""

import orjson

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class ApiError(Exception):
    """A refusal, with everything its answer needs."""

    def __init__(
        self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param

    def headers(self) -> bytes:
        """Header lines that belong to the answer."""
        return b""

    def body(self) -> bytes:
        """The JSON body of the answer."""
        error = {
            "message": str(self),
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        return orjson.dumps({"error": error})


class FrameworkError(ApiError):
    """A refusal of the web framework itself, which has another body than vLLM's."""

    def __init__(self, status: int, detail: str, *, allow: bytes = b"") -> None:
        super().__init__(status, detail)
        self._allow = allow

    def headers(self) -> bytes:
        return b"allow: %b\r\n" % self._allow if self._allow else b""

    def body(self) -> bytes:
        return orjson.dumps({"detail": str(self)})


def bad_request(message: str, param: str | None = None) -> ApiError:
    """A value vLLM refuses."""
    return ApiError(400, message, param=param)


def invalid(param: str, message: str, kind: str) -> ApiError:
    """A body that fails validation, as vLLM words pydantic's complaint."""
    detail = f"{{'type': '{kind}', 'loc': '{param}', 'msg': '{message}'}}"
    return ApiError(400, f"1 validation error:\n  {detail}", "Bad Request", param)


def not_found() -> ApiError:
    """A path vLLM does not have."""
    return FrameworkError(404, "Not Found")


def method_not_allowed(allowed: bytes) -> ApiError:
    """A path asked with the wrong method."""
    return FrameworkError(405, "Method Not Allowed", allow=allowed)


def unreadable_body() -> ApiError:
    """A body that is not even text."""
    return FrameworkError(400, "There was an error parsing the body")


def wrong_media_type() -> ApiError:
    """A body not announced as JSON."""
    complaint = "Unsupported Media Type: Only 'application/json' is allowed"
    return ApiError(400, f"1 validation error:\n  {complaint}", "Bad Request")


def unknown_model(name: str, param: str | None) -> ApiError:
    """A model that is not served; only the generating endpoints name the parameter."""
    return ApiError(404, f"The model `{name}` does not exist.", "NotFoundError", param)


def prompt_too_long(tokens: int, limit: int) -> ApiError:
    """A prompt beyond the context; vLLM stops counting one token past the limit."""
    counted = f"at least {limit + 1}" if tokens > limit else str(tokens)
    return bad_request(
        f"This model's maximum context length is {limit} tokens. However, your prompt contains "
        f"{counted} input tokens, which exceeds this limit even without any output tokens. "
        "Please reduce the length of the input prompt. "
        f"(parameter=input_tokens, value={min(tokens, limit + 1)})",
        "input_tokens",
    )


def engine_dead() -> ApiError:
    """The engine process is gone; the API server still answers."""
    return ApiError(500, ENGINE_DEAD, "InternalServerError")
