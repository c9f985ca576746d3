"""A dialect: one wire protocol, from the request's bytes to the words of its errors."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.errors import GatewayError
from gateway.exchange import Allowance, InferenceCall, Operation, ServedModel


class Dialect(Protocol):
    """What a protocol must be able to say and to understand. Pure; instances are shared."""

    def parse(self, operation: Operation, body: bytes) -> InferenceCall:
        """Read a request. Raises InvalidRequest, with `param` and `code` where they help."""
        ...

    def status_of(self, error: GatewayError) -> int:
        """The HTTP status of an error answer."""
        ...

    def render_error(self, error: GatewayError, *, request_id: str) -> bytes:
        """The JSON body of an error answer."""
        ...

    def error_event(self, error: GatewayError, *, request_id: str) -> bytes:
        """One server-sent event that ends a stream which had begun; no terminator follows it."""
        ...

    def identity_headers(self, request_id: bytes) -> list[tuple[bytes, bytes]]:
        """The request's id under every name by which clients of this protocol look for it."""
        ...

    def limit_headers(
        self, requests: Allowance | None, tokens: Allowance | None, *, now: float
    ) -> list[tuple[bytes, bytes]]:
        """What a caller has left of its requests and of its tokens of the day; None: no limit.
        `now` is in seconds since 1970."""
        ...

    def model_list(self, models: Sequence[ServedModel]) -> Mapping[str, object]:
        """The answer of GET /v1/models."""
        ...

    def model_card(self, model: ServedModel) -> Mapping[str, object]:
        """The answer of GET /v1/models/{id}."""
        ...
