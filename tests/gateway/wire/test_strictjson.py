"""A body is one JSON object with one meaning, or it is refused."""

import contextlib
import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.wire.strictjson import MAX_CONTAINERS, MAX_DEPTH, MAX_VALUES, parse_object

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\x01"}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":18446744073709551616}',
        b'{"a":-9223372036854775809}',
        b'{"a": 18446744073709551616}',
        b'{"a":[99999999999999999999999999]}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1,"a":1}',
        b'{"a":1, "a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":1,"a":2,"b":"\\u003a"}',
        b'{"a":1,"a":"\\u003a\\u003A"}',
        b'{"x":{"y":[{"a":1,"a":1}]}}',
    ],
)
def test_an_ambiguous_or_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_object(body)
    assert refusal.value.code == "invalid_json"
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"a":-0}',
        b'{"a":1E5}',
        b'{"a":-0.0}',
        b'{"a":1e-400}',
        b'{"a":18446744073709551615}',
        b'{"a": "e+ and \\u003a"}',
        b'{"a":"\\/","b":"\\ud83d\\ude00"}',
        b' {"a" : [1 , 2.50], "b": {"a": null}}\r\n',
    ],
)
def test_an_unusual_spelling_of_one_meaning_is_read(body: bytes) -> None:
    assert parse_object(body).fields == json.loads(body)


def test_a_syntax_error_is_located() -> None:
    with pytest.raises(InvalidRequest, match="line 2, column 5"):
        parse_object(b'{\n"a":?}')


def test_nesting_is_bounded() -> None:
    parse_object(nested(MAX_DEPTH))
    with pytest.raises(InvalidRequest, match="deeper than 64"):
        parse_object(nested(MAX_DEPTH + 1))


def test_many_shallow_objects_are_not_deep() -> None:
    body = orjson.dumps({"messages": [{"role": "user", "content": "hi"}] * 1000})
    assert parse_object(body).canonical == body


@pytest.mark.parametrize(
    ("item", "most", "word"), [(b"[]", MAX_CONTAINERS, "brackets"), (b"0", MAX_VALUES, "commas")]
)
def test_a_body_that_is_small_on_the_wire_and_huge_in_memory_is_refused(
    item: bytes, most: int, word: str
) -> None:
    parse_object(b'{"a":[' + b",".join([item] * (most - 2)) + b"]}")
    with pytest.raises(InvalidRequest, match=f"more than {most} .*{word}.*inside strings"):
        parse_object(b'{"a":[' + b",".join([item] * (most + 2)) + b"]}")


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_half_a_million_brackets_are_refused_at_once(bracket: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidRequest):
        parse_object(b'{"a":' + bracket * 500_000)
    assert time.perf_counter() - started < 0.5


@given(st.dictionaries(st.text(), JSON, max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_every_json_object_survives(
    fields: dict[str, object], ensure_ascii: bool, indent: int | None
) -> None:
    body = json.dumps(fields, ensure_ascii=ensure_ascii, indent=indent).encode()
    parsed = parse_object(body)
    assert parsed.fields == fields
    assert orjson.loads(parsed.canonical) == fields


@given(st.text(min_size=1), JSON, JSON, st.sampled_from(["", " "]))
def test_a_repeated_key_never_survives(key: str, first: object, second: object, space: str) -> None:
    name, one, two = json.dumps(key), json.dumps(first), json.dumps(second)
    with pytest.raises(InvalidRequest):
        parse_object(f'{{"o":[{{{name}:{space}{one},{name}:{space}{two}}}]}}'.encode())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        parse_object(body)
