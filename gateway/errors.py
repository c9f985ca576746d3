"""Everything the gateway answers instead of a model, as types with a cause and a cure.

    GatewayError
    +- InvalidRequest            400  the body or a parameter is wrong
    |  +- UnsupportedMediaType   415
    |  +- RequestTooLarge        413
    |  +- RequestTimeout         408  the client did not finish sending
    +- AuthenticationFailed      401  no key, unknown key, revoked key, expired key
    +- PermissionDenied          403
    |  +- ModelNotAllowed        403
    +- NotFound                  404
    |  +- ModelNotFound          404
    +- MethodNotAllowed          405
    +- Refusal                        a limit said no; what other limits took is given back
    |  +- RateLimitExceeded      429
    |  +- ConcurrencyExceeded    429
    |  +- QuotaExceeded          429
    |  +- QuotaReserved          429  the rest of the quota is held by running requests
    |  +- Overloaded             503  too many in flight, or queued too long
    +- Draining                  503
    +- SharedStateUnavailable    503  a limit cannot be checked: the shared store is silent
    +- UpstreamUnavailable       503  breaker open, nothing healthy, or it said 503 itself
    |  +- UpstreamUnreachable    503  no connection could be made
    +- UpstreamRejected          4xx  vLLM's own refusal, in our envelope
    +- UpstreamFailed            502  broken or nonsensical answer
    |  +- UpstreamHungUp         502  it closed the connection before it answered
    |  +- UpstreamErred          502  it answered with a 5xx
    |  |  +- UpstreamErredInStream    it reported an error inside a stream
    |  +- UpstreamTruncated      502  the answer began and did not end
    |  +- UpstreamMisconfigured  502  the upstream refuses us, not the caller
    +- AnswerUnusable            502  generated, and not to be passed on
    |  +- AnswerTooLarge         502  a whole answer beyond the bound
    +- UpstreamTimeout           504
    +- ClientDisconnected        499  nobody is left to answer
    +- InternalError             500

Wire formats are not known here: a dialect renders `kind`, `code`, `message` and `param`.
"""

import math
from enum import Enum


class ErrorKind(Enum):
    """What went wrong, in no dialect. Each dialect maps it to its own `type` word."""

    INVALID_REQUEST = "invalid_request"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    RATE_LIMIT = "rate_limit"
    TOKEN_LIMIT = "token_limit"  # noqa: S105 - tokens of a model, no password
    QUOTA = "quota"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    UPSTREAM = "upstream"
    INTERNAL = "internal"


class UpstreamFault(Enum):
    """In which way a call to an upstream failed; a closed set, used as a metric label."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    RESET = "reset"
    TRUNCATED = "truncated"
    STATUS_5XX = "status_5xx"
    ERROR_EVENT = "error_event"
    PROTOCOL = "protocol"
    MISCONFIGURED = "misconfigured"


class GatewayError(Exception):
    """An answer that is not a model's.

    `code` is a stable word for programs, `message` a sentence for people that holds no
    secret. `retry_after_seconds` says when the same request may succeed; `should_retry`
    becomes the SDKs' `x-should-retry` header when it is not None. `fault` says in which way
    an upstream failed, None where it is not the upstream that did.
    """

    status = 500
    fault: UpstreamFault | None = None
    kind = ErrorKind.INTERNAL
    code: str | None = "internal_error"
    should_retry: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        if code is not None:
            self.code = code

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The response headers that every dialect shares (RFC 9110, and what the SDKs obey)."""
        headers = []
        if self.retry_after_seconds is not None:
            wait_seconds = max(self.retry_after_seconds, 0.0)
            whole_seconds = max(1, math.ceil(wait_seconds))
            headers.append((b"retry-after", b"%d" % whole_seconds))
            headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(wait_seconds * 1000))))
        if self.should_retry is not None:
            headers.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        return headers


class InvalidRequest(GatewayError):
    """The request itself is wrong; sending it again changes nothing."""

    status = 400
    kind = ErrorKind.INVALID_REQUEST
    code = "invalid_value"


class UnsupportedMediaType(InvalidRequest):
    """A content type or content encoding that is not read here."""

    status = 415
    code = "unsupported_media_type"


class RequestTooLarge(InvalidRequest):
    """The body exceeds `MAX_BODY_BYTES`."""

    status = 413
    kind = ErrorKind.TOO_LARGE
    code = "request_too_large"
    should_retry = False


class RequestTimeout(InvalidRequest):
    """The client took longer than `BODY_TIMEOUT_SECONDS` to send its body."""

    status = 408
    code = "request_timeout"
    should_retry = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"connection", b"close")]


class AuthenticationFailed(GatewayError):
    """No usable key. `code` tells missing, invalid, revoked and expired keys apart."""

    status = 401
    kind = ErrorKind.AUTHENTICATION
    code = "invalid_api_key"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"www-authenticate", b'Bearer realm="vllm-gateway"')]


class PermissionDenied(GatewayError):
    """Known, but not allowed."""

    status = 403
    kind = ErrorKind.PERMISSION
    code = "permission_denied"


class ModelNotAllowed(PermissionDenied):
    """The model exists, but not for this key."""

    code = "model_not_allowed"


class NotFound(GatewayError):
    """No such path here: the gateway's paths are an allow-list."""

    status = 404
    kind = ErrorKind.NOT_FOUND
    code = "not_found"


class ModelNotFound(NotFound):
    """No upstream serves this model."""

    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    """The path exists, with other methods."""

    status = 405
    kind = ErrorKind.INVALID_REQUEST
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"allow", self.allow.encode("ascii"))]


class Refusal(GatewayError):
    """A limit said no. `limit` names it, in the words of the metric `refusals_total`."""

    status = 429
    kind = ErrorKind.RATE_LIMIT
    limit = "unknown"


class RateLimitExceeded(Refusal):
    """Too many requests in a window; `limit` is `ip_rate` or `key_rate`."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, limit: str, retry_after_seconds: float) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.limit = limit


class ConcurrencyExceeded(Refusal):
    """Too many requests of one key at the same time."""

    code = "concurrency_limit_exceeded"
    limit = "key_concurrency"


class QuotaExceeded(Refusal):
    """The key's tokens of the day are used up, or too few for this prompt."""

    kind = ErrorKind.QUOTA
    code = "insufficient_quota"
    limit = "quota"
    should_retry = False


class QuotaReserved(Refusal):
    """The quota is not used up, but running requests hold what is left of it."""

    kind = ErrorKind.TOKEN_LIMIT
    code = "rate_limit_exceeded"
    limit = "quota_reserved"
    should_retry = True


class Overloaded(Refusal):
    """The gateway as a whole is full: 503 says "us", where 429 says "you"."""

    status = 503
    kind = ErrorKind.OVERLOADED
    code = "server_is_overloaded"
    limit = "in_flight"
    should_retry = True


class Draining(GatewayError):
    """The gateway is shutting down and takes no new work."""

    status = 503
    kind = ErrorKind.OVERLOADED
    code = "server_is_draining"
    should_retry = True

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"connection", b"close")]


class SharedStateUnavailable(GatewayError):
    """A limit that must hold cannot be checked: the store that all gateways share is silent."""

    status = 503
    kind = ErrorKind.OVERLOADED
    code = "shared_state_unavailable"
    should_retry = True


class UpstreamUnavailable(GatewayError):
    """No upstream could be asked: breakers open, nothing healthy, or a 503 of its own."""

    status = 503
    kind = ErrorKind.OVERLOADED
    code = "upstream_unavailable"
    should_retry = True
    fault = UpstreamFault.STATUS_5XX


class UpstreamUnreachable(UpstreamUnavailable):
    """No connection to the upstream could be made."""

    fault = UpstreamFault.CONNECT


class UpstreamRejected(GatewayError):
    """The upstream's own 4xx, passed on with its status and words in our envelope."""

    code = None

    def __init__(
        self,
        message: str,
        *,
        status: int,
        kind: ErrorKind,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, code=code, param=param, retry_after_seconds=retry_after_seconds)
        self.status = status
        self.kind = kind


class UpstreamFailed(GatewayError):
    """The upstream's answer is an error of its own, or no answer one can pass on."""

    status = 502
    kind = ErrorKind.UPSTREAM
    code = "bad_gateway"
    fault = UpstreamFault.PROTOCOL


class UpstreamHungUp(UpstreamFailed):
    """The upstream closed the connection before it answered."""

    fault = UpstreamFault.RESET


class UpstreamErred(UpstreamFailed):
    """The upstream answered with a 5xx."""

    fault = UpstreamFault.STATUS_5XX


class UpstreamErredInStream(UpstreamErred):
    """The upstream reported an error inside a stream that had begun well."""

    code = "upstream_error"
    fault = UpstreamFault.ERROR_EVENT


class UpstreamTruncated(UpstreamFailed):
    """The answer began and never came to its end."""

    code = "upstream_truncated"
    fault = UpstreamFault.TRUNCATED


class UpstreamMisconfigured(UpstreamFailed):
    """The upstream refuses us, not the caller: our key, a redirect. It is alive all the same, so
    another one may be tried, but its circuit stays as it is."""

    fault = UpstreamFault.MISCONFIGURED


class AnswerUnusable(GatewayError):
    """An answer was generated, and cannot be passed on: the request's doing or its bad luck, no
    fault of the upstream. The prompt counts all the same."""

    status = 502
    kind = ErrorKind.UPSTREAM
    code = "answer_unusable"


class AnswerTooLarge(AnswerUnusable):
    """A whole answer beyond `MAX_ANSWER_BYTES`."""

    code = "answer_too_large"
    should_retry = False


class UpstreamTimeout(GatewayError):
    """The upstream was silent for too long. Generation may have run: do not retry blindly."""

    status = 504
    kind = ErrorKind.TIMEOUT
    code = "upstream_timeout"
    should_retry = False
    fault = UpstreamFault.TIMEOUT


class ClientDisconnected(GatewayError):
    """The client left. Nobody reads this; 499 is nginx's word for it in the log."""

    status = 499
    code = "client_disconnected"


class InternalError(GatewayError):
    """A fault of ours. The cause is in the log under the request id, never in the answer."""

    kind = ErrorKind.INTERNAL
