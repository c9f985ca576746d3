"""Once an answer has begun, no call keeps its prompt: a stream may last for many minutes."""

import gc
import sys
from collections.abc import Callable

import orjson
import pytest

from gateway.exchange import InferenceCall, Operation
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIConfig, OpenAIDialect

PROMPT = "What a long prompt this is. " * 4_000
CONFIG = OpenAIConfig()
BOUNDARY = b"a-boundary"


def chat() -> InferenceCall:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    return OpenAIDialect(CONFIG).parse(Operation.CHAT, orjson.dumps(body))


def completion() -> InferenceCall:
    body = {"model": "m", "stream": True, "prompt": [PROMPT, "and a short one"]}
    return OpenAIDialect(CONFIG).parse(Operation.COMPLETIONS, orjson.dumps(body))


def message() -> InferenceCall:
    turns = [{"role": "user", "content": PROMPT}]
    body = {"model": "m", "stream": True, "max_tokens": 9, "messages": turns}
    return AnthropicDialect(CONFIG).parse(Operation.MESSAGES, orjson.dumps(body))


def translated() -> InferenceCall:
    return message().as_served_by({Operation.CHAT})


def speech() -> InferenceCall:
    lines = [
        b"--" + BOUNDARY,
        b'Content-Disposition: form-data; name="file"; filename="a.wav"',
        b"Content-Type: audio/wav",
        b"",
        PROMPT.encode(),
        b"--" + BOUNDARY + b"--",
        b"",
    ]
    return OpenAIDialect(CONFIG).parse_form(
        Operation.TRANSCRIPTIONS,
        b"\r\n".join(lines),
        b"multipart/form-data; boundary=" + BOUNDARY,
    )


@pytest.mark.parametrize("parsed", [chat, completion, message, translated, speech])
def test_a_call_that_forgot_holds_none_of_its_prompt(parsed: Callable[[], InferenceCall]) -> None:
    call = parsed()
    assert largest(call) >= len(PROMPT)
    call.forget()
    assert largest(call) < 4_096


def largest(root: object) -> int:
    """The size of the largest text or byte string that is reached from an object."""
    seen: set[int] = set()
    pending, most = [root], 0
    while pending:
        node = pending.pop()
        if id(node) in seen or isinstance(node, type):
            continue
        seen.add(id(node))
        if isinstance(node, str | bytes):
            most = max(most, sys.getsizeof(node))
        elif isinstance(node, memoryview):
            most = max(most, node.nbytes)
        elif not callable(node):
            pending += gc.get_referents(node)
    return most
