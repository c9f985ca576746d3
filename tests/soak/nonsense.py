"""Requests that are wrong, each with the answers that are right."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_CHAT: Final = "POST /v1/chat/completions HTTP/1.1"


@dataclass(frozen=True, slots=True)
class Nonsense:
    """`statuses` holds 0 where the connection may also just be closed."""

    name: str
    request: Callable[[str], bytes]
    statuses: frozenset[int]


def _raw(line: str, *fields: str, body: bytes = b"", key: str = "") -> bytes:
    lines = [line, "host: soak", *fields]
    if key:
        lines.append(f"authorization: Bearer {key}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _posts(body: bytes) -> Callable[[str], bytes]:
    fields = ("content-type: application/json", f"content-length: {len(body)}")
    return lambda key: _raw(_CHAT, *fields, body=body, key=key)


def _chat(**fields: object) -> bytes:
    body = {"model": "sim-model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    return json.dumps(body | fields).encode()


NONSENSE: Final = tuple(
    Nonsense(name, request, frozenset(statuses))
    for name, request, statuses in (
        ("no JSON", _posts(b'{"model": '), {400}),
        ("deep JSON", _posts(b"[" * 100_000), {400}),
        ("a key twice", _posts(b'{"model": "a", "model": "b"}'), {400}),
        ("not a number", _posts(_chat(temperature="x").replace(b'"x"', b"NaN")), {400}),
        ("half a surrogate", _posts(_chat(user="x").replace(b'"x"', b'"\\ud800"')), {400}),
        ("no UTF-8", _posts(b'{"model": "\xff"}'), {400}),
        ("an unknown model", _posts(_chat(model="nothing")), {404, 503}),
        ("a refused field", _posts(_chat(priority=1)), {400}),
        ("no bool", _posts(_chat(stream="true")), {400}),
        ("too many choices", _posts(_chat(n=1000)), {400}),
        ("no key", lambda _: _posts(_chat())(""), {401}),
        ("a wrong key", lambda _: _posts(_chat())("sk-" + "x" * 40), {401}),
        ("no such path", lambda key: _raw("GET /v1/secrets HTTP/1.1", key=key), {404}),
        ("a wrong method", lambda key: _raw("GET /v1/chat/completions HTTP/1.1", key=key), {405}),
        (
            "a length and chunks",
            lambda key: _raw(
                _CHAT, "content-length: 4", "transfer-encoding: chunked", body=b"0\r\n\r\n", key=key
            ),
            {400},
        ),
        (
            "two lengths",
            lambda key: _raw(_CHAT, "content-length: 4", "content-length: 5", body=b"abcd"),
            {400},
        ),
        (
            "a folded field",
            lambda key: _raw(_CHAT, "x-a: b\r\n c", "content-length: 0", key=key),
            {400},
        ),
        ("a head without an end", lambda key: _raw(_CHAT, "x-a: " + "b" * 100_000), {431, 400, 0}),
        ("another protocol", lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400, 0}),
        (
            "a body in gzip",
            lambda key: _raw(
                _CHAT,
                "content-encoding: gzip",
                "content-type: application/json",
                "content-length: 2",
                body=b"{}",
                key=key,
            ),
            {415},
        ),
    )
)
