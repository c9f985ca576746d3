"""Reading a request body once, bounded."""

from gateway.edge.asgi import Message, Receive, Scope
from gateway.errors import ClientDisconnected, InvalidRequest, RequestTooLarge, UnsupportedMediaType


async def read_json_body(scope: Scope, receive: Receive, *, limit_bytes: int | None) -> bytes:
    """The body of a JSON request. Refused on its headers where they say enough.

    Raises UnsupportedMediaType (415), RequestTooLarge (413), InvalidRequest for an empty body,
    ClientDisconnected if the client leaves meanwhile.
    """
    _judge_headers(scope, limit_bytes)
    message = await receive()
    body = await _read_on(message, receive, limit_bytes)
    if not body:
        raise InvalidRequest("The request has no body; send a JSON object.", code="invalid_json")
    return body


async def _read_on(message: Message, receive: Receive, limit_bytes: int | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("The client left while sending its request.")
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if limit_bytes is not None and size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
        message = await receive()


def _judge_headers(scope: Scope, limit_bytes: int | None) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            if limit_bytes is not None and int(value) > limit_bytes:
                raise _too_large(limit_bytes)
        elif name == b"content-type":
            media_type = value.partition(b";")[0].strip().lower()
            if media_type != b"application/json" and not media_type.endswith(b"+json"):
                raise UnsupportedMediaType("Send the body as Content-Type: application/json.")
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaType("Send the body without Content-Encoding.")


def _too_large(limit_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limit_bytes} bytes (MAX_BODY_BYTES).")
