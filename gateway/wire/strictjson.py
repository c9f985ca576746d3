"""Strict JSON: a body means one thing to every reader, or it is refused.

What is refused beyond RFC 8259: duplicate keys, a byte order mark, lone surrogates, NaN and
Infinity, numbers that a float or 64 bits cannot hold, nesting beyond MAX_DEPTH, and more
brackets or commas than MAX_CONTAINERS and MAX_VALUES.
"""

import json
from collections.abc import Sequence
from typing import Final, NoReturn

import orjson

from gateway.errors import InvalidRequest

MAX_DEPTH: Final = 64
# What a few bytes of body become in memory is many times their size: `[],` makes 56 bytes.
MAX_CONTAINERS: Final = 200_000
MAX_VALUES: Final = 2_000_000
# Below this no body can hold enough of either to hurt, and counting would only cost.
_SMALL_BYTES: Final = 64 * 1024


class StrictObject:
    """A JSON object, parsed, and the only bytes that spell it (`canonical`)."""

    __slots__ = ("canonical", "fields")

    def __init__(self, fields: dict[str, object], canonical: bytes) -> None:
        self.fields = fields
        self.canonical = canonical

    def forget(self) -> None:
        """Become an empty object, whoever holds it."""
        self.fields = {}
        self.canonical = b"{}"


def parse_object(body: bytes) -> StrictObject:
    """Parse `body`. Raises InvalidRequest (`invalid_json`) unless it is one strict JSON object.

    orjson refuses all of the above but two: of duplicate keys it keeps the last, and integers
    over 64 bits become floats. Both leave a trace in what it serialises again, so that the
    slow exact check is needed only where a trace may be hidden.
    """
    if len(body) > _SMALL_BYTES:
        _require_few_values(body)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = f"{error.msg} (line {error.lineno}, column {error.colno})"
        raise _invalid(f"The request body is not valid JSON: {reason}.") from None
    if type(fields) is not dict:
        raise _invalid("The request body must be a JSON object.")

    _require_depth(fields, body)
    canonical = orjson.dumps(fields)
    if canonical == body:
        return StrictObject(fields, body)
    if not _lost_nothing(body, canonical):
        _require_exactness(body)
    # What orjson returns holds kilobytes that it does not use, for as long as the call lasts.
    return StrictObject(fields, bytes(memoryview(canonical)))


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_json")


def _require_few_values(body: bytes) -> None:
    """Bound what parsing would allocate, before it does; characters inside strings count too."""
    if body.count(b"{") + body.count(b"[") > MAX_CONTAINERS:
        raise _invalid(
            f"The request body has more than {MAX_CONTAINERS} opening brackets and braces, "
            "those inside strings included."
        )
    if body.count(b",") > MAX_VALUES:
        raise _invalid(
            f"The request body has more than {MAX_VALUES} commas, those inside strings included."
        )


def _require_depth(fields: dict[str, object], body: bytes) -> None:
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    level: list[object] = [fields]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else _items(node))
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _invalid(f"The request body is nested deeper than {MAX_DEPTH} levels.")


def _items(node: object) -> Sequence[object]:
    return node if isinstance(node, list) else ()


def _lost_nothing(body: bytes, canonical: bytes) -> bool:
    """True where two counts prove that `canonical` says all that `body` said.

    Every key has its colon and only an escape can add one, so equal numbers of colons mean
    that no key was dropped. An integer over 64 bits became a float of 1e18 or more, and orjson
    writes those with a positive exponent; a text that holds "e+" merely pays for the exact check.
    """
    return (
        body.count(b":") == canonical.count(b":")
        and b"\\u003" not in body
        and b"e+" not in canonical
    )


def _require_exactness(body: bytes) -> None:
    # orjson has accepted the grammar and bounded the depth: nothing here can recurse away.
    _EXACT.decode(body.decode("utf-8"))


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    if len(pairs) == len(dict(pairs)):
        return
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _invalid(f"The request body has the key {key[:100]!r} twice in one object.")
        seen.add(key)


def _refuse_big_integers(digits: str) -> None:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise _invalid("The request body has an integer that does not fit into 64 bits.")


def _refuse_constants(word: str) -> NoReturn:
    raise _invalid(f"The request body has {word}, which is no JSON.")


_EXACT: Final = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates,
    parse_int=_refuse_big_integers,
    parse_constant=_refuse_constants,
)
