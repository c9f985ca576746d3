"""Usage read from vLLM's own spelling: the same as by parsing, and never fooled."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed
from gateway.exchange import TokenUsage
from gateway.wire.openai_usage import read_answer

OTHERWISE = TokenUsage(1, 1, is_estimated=True)
USAGE = {"prompt_tokens": 7, "total_tokens": 12, "completion_tokens": 5}
COUNTED = TokenUsage(7, 5)


def answer(**fields: object) -> bytes:
    return orjson.dumps({"id": "x", **fields})


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_text_around_the_usage_is_never_taken_for_it(text: str, extra: dict[str, str]) -> None:
    forged = text + '","usage":{"prompt_tokens":0,"total_tokens":0,"completion_tokens":0}'
    body = answer(content=forged, extra=extra, usage=USAGE)
    assert read_answer(body, otherwise=lambda: OTHERWISE) == COUNTED


@pytest.mark.parametrize(
    "body",
    [
        answer(metadata={"usage": {**USAGE, "prompt_tokens": 0, "total_tokens": 5}}, usage=USAGE),
        answer(usage=USAGE, metadata={"usage": {"prompt_tokens": 0, "total_tokens": 0}}),
        answer(usage={"completion_tokens": 5, "prompt_tokens": 7, "total_tokens": 12}),
        b'{"usage": {"prompt_tokens": 7, "total_tokens": 12, "completion_tokens": 5}}\n',
        answer(usage={**USAGE, "total_tokens": 99}),
    ],
    ids=["another before", "another behind", "other order", "blanks", "sums that do not add up"],
)
def test_what_vllm_would_not_write_is_parsed(body: bytes) -> None:
    assert read_answer(body, otherwise=lambda: OTHERWISE) == COUNTED


@pytest.mark.parametrize(
    "body", [b'"usage":{"prompt_tokens":1,"total_tokens":1}', b"[1]", b"<html>"]
)
def test_what_is_no_object_is_a_failure(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        read_answer(body, otherwise=lambda: OTHERWISE)
