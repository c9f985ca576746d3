"""Reading a request body once, bounded, and all bodies together."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.edge.asgi import Message, Receive, Scope
from gateway.errors import (
    ClientDisconnected,
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    UnsupportedMediaType,
)

# So many bodies of the largest size may be on their way at the same time.
LARGEST_AT_ONCE = 16
# Smaller ones are bounded well enough by how many calls may wait and run.
COUNTED_FROM_BYTES = 64 * 1024
RETRY_SECONDS = 1.0


class BodyMemory:
    """The bytes of all bodies that have not come to their end, and of large ones until they are
    answered: a call asks for its place only when its body is read, and then may wait for it.

    A body that comes in one piece is not counted while it is read. None means no bound.
    """

    def __init__(self, *, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0

    def take(self, size: int) -> None:
        """Hold so much more, even where this raises Overloaded: the caller gives it back."""
        self.held_bytes += size
        if self._max_bytes is not None and self.held_bytes > self._max_bytes:
            raise Overloaded(
                f"More than {self._max_bytes} bytes of request bodies are held "
                f"({LARGEST_AT_ONCE} times MAX_BODY_BYTES). Try again.",
                retry_after_seconds=RETRY_SECONDS,
            )

    def give_back(self, size: int) -> None:
        self.held_bytes -= size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold so much more for a block. Raises Overloaded where there is no room."""
        try:
            self.take(size)
            yield
        finally:
            self.give_back(size)


async def read_json_body(
    scope: Scope, receive: Receive, *, limit_bytes: int | None, memory: BodyMemory
) -> bytes:
    """The body of a JSON request. Refused on its headers where they say enough.

    Raises UnsupportedMediaType (415), RequestTooLarge (413), InvalidRequest for an empty body,
    Overloaded (503) where `memory` has no room, ClientDisconnected if the client leaves meanwhile.
    """
    _judge_headers(scope, limit_bytes)
    message = await receive()
    if message.get("more_body", False):
        body = await _read_on(message, receive, limit_bytes, memory)
    else:
        body = _part(message)
        _require_size(len(body), limit_bytes)
    if not body:
        raise InvalidRequest("The request has no body; send a JSON object.", code="invalid_json")
    return body


async def read_form_body(
    scope: Scope, receive: Receive, *, limit_bytes: int | None, memory: BodyMemory
) -> bytes:
    """The body of a form, raising as `read_json_body` does; what its Content-Type says of it is
    judged by who reads it."""
    _judge_headers(scope, limit_bytes, is_json=False)
    body = await _read_on(await receive(), receive, limit_bytes, memory)
    if not body:
        raise InvalidRequest("The request has no body; send a form.", code="invalid_form")
    return body


async def _read_on(
    message: Message, receive: Receive, limit_bytes: int | None, memory: BodyMemory
) -> bytes:
    part = _part(message)
    if not message.get("more_body", False):
        _require_size(len(part), limit_bytes)
        return part

    parts: list[bytes] = []
    size = 0
    try:
        while True:
            parts.append(part)
            size += len(part)
            memory.take(len(part))
            _require_size(size, limit_bytes)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()
            part = _part(message)
    finally:
        memory.give_back(size)


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnected("The client left while sending its request.")
    part: bytes = message.get("body", b"")
    return part


def _require_size(size: int, limit_bytes: int | None) -> None:
    if limit_bytes is not None and size > limit_bytes:
        raise _too_large(limit_bytes)


def _judge_headers(scope: Scope, limit_bytes: int | None, *, is_json: bool = True) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            if limit_bytes is not None and int(value) > limit_bytes:
                raise _too_large(limit_bytes)
        elif name == b"content-type" and is_json:
            media_type = value.partition(b";")[0].strip().lower()
            if media_type != b"application/json" and not media_type.endswith(b"+json"):
                raise UnsupportedMediaType("Send the body as Content-Type: application/json.")
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaType("Send the body without Content-Encoding.")


def _too_large(limit_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limit_bytes} bytes (MAX_BODY_BYTES).")
