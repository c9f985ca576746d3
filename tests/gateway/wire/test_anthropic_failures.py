"""A tool that failed is told of in the text of its result, alike on both ways."""

from typing import Any

import orjson
import pytest

from gateway.exchange import Operation
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIConfig

TEXT = {"type": "text", "text": "no such city"}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}


def sent(content: object, *, is_native: bool = True, **fields: Any) -> list[dict[str, Any]]:
    """The messages that reach an upstream for a conversation that ends with this result."""
    result = {"type": "tool_result", "tool_use_id": "t1", "content": content, **fields}
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
    body = {
        "model": "m",
        "max_tokens": 8,
        "messages": [
            {"role": "user", "content": "rain?"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    }
    call_parsed = AnthropicDialect(OpenAIConfig()).parse(Operation.MESSAGES, orjson.dumps(body))
    operations = {Operation.MESSAGES} if is_native else {Operation.CHAT}
    encoded = call_parsed.as_served_by(operations).encode(model="m", output_limit=None)
    messages: list[dict[str, Any]] = orjson.loads(encoded)["messages"]
    return messages


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no such city", "Error: no such city"),
        ("Error 404", "Error 404"),
        ("", "Error"),
        ([TEXT], [{"type": "text", "text": "Error: no such city"}]),
        ([PICTURE], [{"type": "text", "text": "Error"}, PICTURE]),
        ([PICTURE, TEXT], [{"type": "text", "text": "Error: no such city"}, PICTURE]),
        (None, "Error"),
    ],
)
def test_a_native_server_reads_of_the_failure_in_the_text(content: object, told: object) -> None:
    (result,) = sent(content, is_error=True)[-1]["content"]

    assert result["content"] == told
    assert (result["tool_use_id"], result["is_error"]) == ("t1", True)


@pytest.mark.parametrize("is_error", [False, None, "true"])
def test_a_result_that_is_no_failure_stays_as_it_is(is_error: object) -> None:
    (result,) = sent([TEXT], is_error=is_error)[-1]["content"]

    assert result["content"] == [TEXT]


@pytest.mark.parametrize("content", ["no such city", [TEXT], [TEXT, TEXT], ""])
def test_both_ways_say_it_in_the_same_words(content: object) -> None:
    (native,) = sent(content, is_error=True)[-1]["content"]
    translated = sent(content, is_native=False, is_error=True)[-1]["content"]

    said = native["content"]
    if isinstance(said, list):
        said = "\n".join(part["text"] for part in said)
    assert translated == said
