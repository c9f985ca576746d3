"""The head of a request: what it must be, and the ASGI scope that is made of it."""

from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools

from gateway.edge.asgi import Scope
from gateway.protocol.limits import HEADER_BYTES_MAX, HEADER_FIELDS_MAX, PIPELINED_MAX
from gateway.protocol.refusal import RequestRefused

Fields = list[tuple[bytes, bytes]]
_ORDINARY = 64
_ASGI = {"version": "3.0", "spec_version": "2.3"}


def check_head(version: str, url: bytes, headers: Fields, *, read_bytes: int, waiting: int) -> bool:
    """What RFC 9112 demands and llhttp lets pass. Raises RequestRefused.

    `read_bytes` bounds what the head can be long, `waiting` requests stand before this one. True
    if the client waits for a "100 Continue" before it sends the body.
    """
    hosts, expects_continue = 0, False
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            expects_continue = True
    if version not in ("1.1", "1.0"):
        raise RequestRefused(505, "Speak HTTP/1.1.")
    if len(headers) > HEADER_FIELDS_MAX:
        raise RequestRefused(431, f"The head has more than {HEADER_FIELDS_MAX} fields.")
    if read_bytes > HEADER_BYTES_MAX and len(url) + _size(headers) > HEADER_BYTES_MAX:
        raise too_large()
    if waiting > PIPELINED_MAX:
        raise RequestRefused(400, "Too many requests wait on this connection.")
    if hosts != 1 and (hosts or version != "1.0"):
        raise RequestRefused(400, "The head must have exactly one Host field.")
    return expects_continue


def scope_of(
    method: bytes, url: bytes, version: str, headers: Fields, client: tuple[str, int] | None
) -> Scope:
    """ASGI's scope. `url` is the request's target, in any of its forms."""
    # The cache must not hold kilobytes per entry because somebody sent them.
    path, raw_path, query = _known_target(url) if len(url) <= _ORDINARY else _target_of(url)
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": method.decode("ascii"),
        "scheme": "http",
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": None,
    }


def _target_of(url: bytes) -> tuple[str, bytes, bytes]:
    """The path as text, the path as sent, and the query."""
    raw_path, query = url, b""
    if b"?" in url or b"#" in url or not url.startswith(b"/"):
        parsed: Any = httptools.parse_url(url)
        raw_path, query = parsed.path, parsed.query or b""
    path = raw_path.decode("ascii")
    return unquote(path) if "%" in path else path, raw_path, query


_known_target = lru_cache(maxsize=1024)(_target_of)


def too_large() -> RequestRefused:
    return RequestRefused(431, f"The head is larger than {HEADER_BYTES_MAX} bytes.")


def _size(headers: Fields) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)
