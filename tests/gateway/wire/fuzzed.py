"""Streams as an upstream might send them, well or ill, and reads that end anywhere."""

import itertools
import json
import re
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.exchange import ResponseReader
from tests.gateway.wire.events import DONE, chat_event, event, final_event, text_event, usage

KEYS = ["choices", "usage", "delta", "index", "model", "response", "error", "text", "type", "code"]

# What no server of sound mind sends.
ODDITIES = [
    b"\n\n",
    b"\r\n",
    b": note\n\n",
    b"data\n\n",
    b"data:\n\n",
    b"data: {half\n\n",
    b"data: [1,2]\n\n",
    b"data: null\r\n\r\n",
    b"data: \xff\xfe\n\n",
    b'data: "\\ud800"\n\n',
    b"data: " + b"[" * 2000 + b"\n\n",
    b"data: NaN\n\ndata: 1e999\n\n",
    b"event: response.completed\n\n",
    b"event: response.completed\ndata: {}\n\n",
    b"event: error\ndata: oops\n\n",
    b'data: {"error":null}\n\n',
    b'data: {"choices":{"0":1}}\n\n',
    b'data: {"choices":[null,3]}\n\n',
    b'data: {"choices":[{"delta":[],"text":7}],"usage":[]}\n\n',
    b'data: {"model":7,"choices":[{"index":-1,"delta":{"content":"x"}}]}\n\n',
    b"id: 3\nretry: 9\n\n",
    "data: \u2028\u0085\n\n".encode(),
]
FAILURES = [
    event({"error": {"message": "EngineCore", "code": 500}}),
    event({"error": "EngineCore"}),
    b'event: response.failed\ndata: {"response":{"error":{"message":"x"}}}\n\n',
]

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=10,
)


def _event_of(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@st.composite
def chat_streams(draw: st.DrawFn) -> bytes:
    """Content whose counts rise, whatever else is among it, and maybe an end."""
    stream, count = b"", 0
    for kind in draw(st.lists(st.integers(0, 6), max_size=12)):
        count += draw(st.integers(0, 3))
        stream += (
            chat_event("x", usage=usage(7, count)),
            text_event("y", usage=usage(7, count)),
            chat_event("z"),
            chat_event("", usage=usage(7, count)),
            draw(st.sampled_from(ODDITIES)),
            draw(st.binary(max_size=12)),
            _event_of(draw(documents)),
        )[kind]
    ends = [b"", DONE, final_event(usage(7, count)) + DONE, *FAILURES]
    return stream + draw(st.sampled_from(ends))


@st.composite
def responses_streams(draw: st.DrawFn) -> bytes:
    """Deltas, whatever else is among them, and maybe an end."""
    data = b'data: {"type":"response.output_text.delta","delta":"x"}\n\n'
    delta = b"event: response.output_text.delta\n" + data
    ended = {"type": "response.completed", "response": {"usage": {"input_tokens": 9}}}
    named = b'event: response.created\ndata: {"response":{"model":"m","usage":null}}\n\n'
    pieces = st.one_of(
        st.sampled_from([delta, data, named, *ODDITIES, *FAILURES]),
        st.binary(max_size=12),
        st.builds(_event_of, documents),
    )
    ending = draw(st.sampled_from([b"", _event_of(ended), DONE, *FAILURES]))
    return b"".join(draw(st.lists(pieces, max_size=10))) + ending


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream in reads that end anywhere."""
    stream = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]


def heard(reader: ResponseReader, reads: Iterable[bytes]) -> tuple[bytes, str]:
    """All that the client gets, and how it ends. Whatever is no GatewayError goes on up."""
    passed = b""
    try:
        for read in reads:
            passed += reader.feed(read)
            if reader.is_complete:
                break
        passed += reader.finish()
    except GatewayError as error:
        return passed + reader.rescued, type(error).__name__
    return passed, "complete"


def data_in(stream: bytes) -> list[Any]:
    """The JSON objects of a stream's lines of data, read without the readers."""
    found = []
    for line in re.split(rb"\r\n|\n|\r", stream):
        try:
            document = json.loads(line.removeprefix(b"data:")) if line[:5] == b"data:" else None
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            found.append(document)
    return found
