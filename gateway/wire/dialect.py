"""A dialect: one wire protocol, from the request's bytes to the words of its errors."""

from typing import Protocol

from gateway.errors import GatewayError
from gateway.exchange import InferenceCall, Operation


class Dialect(Protocol):
    """What a protocol must be able to say and to understand. Pure; instances are shared."""

    def parse(self, operation: Operation, body: bytes) -> InferenceCall:
        """Read a request. Raises InvalidRequest, with `param` and `code` where they help."""
        ...

    def render_error(self, error: GatewayError, *, request_id: str) -> bytes:
        """The JSON body of an error answer."""
        ...

    def error_event(self, error: GatewayError, *, request_id: str) -> bytes:
        """One server-sent event that ends a stream which had begun; no terminator follows it."""
        ...

    def read_rejection(
        self, status: int, body: bytes, *, retry_after_seconds: float | None
    ) -> GatewayError:
        """What an upstream's answer other than 2xx means for the caller. Never raises."""
        ...
