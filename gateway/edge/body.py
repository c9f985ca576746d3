"""Reading a request body once, bounded."""

from gateway.edge.asgi import Receive, Scope
from gateway.errors import ClientDisconnected, InvalidRequest, RequestTooLarge, UnsupportedMediaType


async def read_json_body(scope: Scope, receive: Receive, *, limit_bytes: int | None) -> bytes:
    """The body of a JSON request. Refused on its headers where they say enough.

    Raises UnsupportedMediaType (415), RequestTooLarge (413), InvalidRequest for an empty body,
    ClientDisconnected if the client leaves meanwhile.
    """
    _judge_headers(scope, limit_bytes)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False):
        if limit_bytes is not None and len(body) > limit_bytes:
            raise _too_large(limit_bytes)
    else:
        body = await _read_on(message, receive, limit_bytes)
    if not body:
        raise InvalidRequest("The request has no body; send a JSON object.", code="invalid_json")
    return body


async def _read_on(message: dict[str, object], receive: Receive, limit_bytes: int | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("The client left while sending its request.")
        part = message.get("body", b"")
        assert isinstance(part, bytes)
        parts.append(part)
        size += len(part)
        if limit_bytes is not None and size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = dict(await receive())


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
