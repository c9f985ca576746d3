"""Whatever a client sends or an upstream answers whole: understood, or a GatewayError."""

import contextlib
import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidRequest, UpstreamFailed
from gateway.exchange import Operation
from gateway.wire import openai_errors, openai_usage
from gateway.wire.openai import OpenAIConfig, OpenAIDialect
from gateway.wire.sse import EventSplitter, data_of, name_of, named_data_of
from gateway.wire.strictjson import parse_object
from tests.gateway.wire.fuzzed import documents

DIALECT = OpenAIDialect(OpenAIConfig())
OTHERS = {
    Operation.MESSAGES, Operation.COUNT_TOKENS, Operation.TRANSCRIPTIONS, Operation.TRANSLATIONS,
}  # fmt: skip
SPOKEN = [operation for operation in Operation if operation not in OTHERS]
FRAGMENTS = [
    b"{", b"}", b"[", b"]", b'"a"', b'"a":', b":", b",", b"1", b"-0", b"1e400", b" ", b"\x00", b"'",
    b"18446744073709551616", b"NaN", b"true", b"null", b'"\\ud800"', b'"\\u0061":', b"\xff",
    b"\xef\xbb\xbf",
]  # fmt: skip
USAGE = b'"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}'

bodies = (
    st.binary(max_size=40)
    | st.lists(st.sampled_from(FRAGMENTS), max_size=14).map(b"".join)
    | documents.map(lambda document: json.dumps(document).encode())
)


@given(bodies)
def test_a_strict_body_reads_the_same_everywhere_or_is_refused(body: bytes) -> None:
    try:
        document = parse_object(body)
    except InvalidRequest as refused:
        assert refused.code == "invalid_json"
        return
    assert json.loads(body) == document.fields == json.loads(document.canonical)
    assert parse_object(document.canonical).canonical == document.canonical


@given(st.lists(st.sampled_from(["a", "b", "\\u0061", "c"]), min_size=1, max_size=5))
def test_a_key_that_is_twice_there_is_never_read(keys: list[str]) -> None:
    body = "{" + ",".join(f'"{key}":{at}' for at, key in enumerate(keys)) + "}"
    names = [key.replace("\\u0061", "a") for key in keys]
    if len(set(names)) == len(names):
        assert set(parse_object(body.encode()).fields) == set(names)
        return
    with pytest.raises(InvalidRequest, match="twice"):
        parse_object(body.encode())


@given(st.sampled_from(SPOKEN), bodies)
def test_any_body_is_a_call_or_refused(operation: Operation, body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        call = DIALECT.parse(operation, body)
        json.loads(call.encode(model="m", output_limit=3))


@pytest.mark.parametrize("pattern", [b"[", b'{"a":', b'"\\', b'{"a":1},', b"9", b"-", b'\\"'])
def test_no_body_takes_longer_than_its_length_deserves(pattern: bytes) -> None:
    began_at = time.monotonic()
    with contextlib.suppress(InvalidRequest):
        parse_object(b'{"x":' + pattern * (2**20 // len(pattern)))
    assert time.monotonic() - began_at < 5


@pytest.mark.parametrize("operation", SPOKEN)
@given(body=bodies | bodies.map(lambda body: b'{"x":' + body + b"," + USAGE + b"}"))
def test_a_whole_answer_is_counted_or_has_failed(operation: Operation, body: bytes) -> None:
    fields = {"input": "x", "prompt": "x", "messages": [{}], "query": "x", "documents": "x"}
    call = DIALECT.parse(operation, orjson.dumps(fields))
    for shown in ("", "alias"):
        try:
            usage, answer = call.mend_answer(body, shown)
        except UpstreamFailed:
            continue
        assert shown or answer is body
        assert min(usage) >= 0
        assert usage.total_tokens > 0 or not call.is_metered or b'"usage"' in body


@given(bodies)
def test_a_token_count_is_believable_or_has_failed(body: bytes) -> None:
    with contextlib.suppress(UpstreamFailed):
        assert 0 <= openai_usage.read_token_count(body) <= openai_usage.MOST_TOKENS


@given(
    st.integers(300, 999),
    bodies | documents.map(lambda said: json.dumps({"error": said, "detail": said}).encode()),
)
def test_any_refusal_of_an_upstream_becomes_an_error_of_ours(status: int, body: bytes) -> None:
    error = openai_errors.read_rejection(status, body, retry_after_seconds=None)
    assert isinstance(error, GatewayError)
    assert 400 <= error.status < 600
    assert error.message
    rendered = json.loads(DIALECT.render_error(error, request_id="r"))["error"]
    assert set(rendered) == {"message", "type", "param", "code"}
    assert len(rendered["message"]) <= 2_200


@given(documents)
def test_any_error_event_becomes_an_error_of_ours(said: object) -> None:
    assert isinstance(openai_errors.stream_failure(said), GatewayError)


@given(
    st.lists(
        st.sampled_from([b"event: ", b"data: ", b"data:", b"x", b"\n", b"\r\n", b": ", b"{}"]),
        max_size=10,
    )
)
def test_the_short_way_to_an_events_name_and_data_is_the_long_one(pieces: list[bytes]) -> None:
    stream = b"".join(pieces) + b"\n\n"
    ordinary = b"event: x\ndata: {}\n\n"
    for event in (*EventSplitter().feed(stream), ordinary):
        assert named_data_of(event) == (name_of(event), data_of(event))
