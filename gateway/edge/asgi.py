"""The bits of ASGI every layer here uses: types, what the scope holds, whole responses.

A layer that has nothing to do once the inner ones have answered is a plain function and returns
what they return: a coroutine more would be 300 bytes for as long as the answer lasts.
"""

import json
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.exchange import Exchange
from gateway.wire.dialect import Dialect

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send"]

Headers = Sequence[tuple[bytes, bytes]]
JSON_TYPE = b"application/json"


def exchange_of(scope: Scope) -> Exchange:
    """The Exchange that the observing layer opened for this request."""
    exchange: Exchange = scope["gateway.exchange"]
    return exchange


def dialect_of(scope: Scope) -> Dialect:
    """The dialect in which this request is answered, chosen by the observing layer."""
    dialect: Dialect = scope["gateway.dialect"]
    return dialect


def header(scope: Scope, name: bytes) -> bytes | None:
    """One request header by its lower-case name; the first of several."""
    for candidate, value in scope["headers"]:
        if candidate == name:
            found: bytes = value
            return found
    return None


async def respond(
    send: Send, *, status: int, body: bytes, content_type: bytes, headers: Headers = ()
) -> None:
    """Send a whole response, in the one message that our server takes for it."""
    start = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start, "body": body})


async def respond_json(
    send: Send, document: object, *, status: int = 200, headers: Headers = ()
) -> None:
    """Send a small document of ours; answers of models never pass here."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    await respond(send, status=status, body=body, content_type=JSON_TYPE, headers=headers)
