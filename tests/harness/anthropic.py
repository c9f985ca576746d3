"""Callers that speak Anthropic: requests, the SDK, and the events of a stream."""

import json
from typing import Any

import anthropic

from tests.harness.gateway import GatewayProcess

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def message(content: Any = "hello", **fields: Any) -> dict[str, Any]:
    """A request to the simulator's model."""
    return {
        "model": "sim-model",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 8,
        **fields,
    }


def sdk(
    gateway: GatewayProcess, *, key: str | None = None, retries: int = 0
) -> anthropic.AsyncAnthropic:
    """The official SDK, as its users make it; close it, or leave it to the end of the test."""
    return anthropic.AsyncAnthropic(
        base_url=gateway.url, api_key=key or gateway.key, max_retries=retries, timeout=20
    )


def events(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each of which must be named in its `event` line as in its data."""
    found = []
    for block in stream.split(b"\n\n"):
        if not block or block.startswith(b":"):
            continue
        name, _, data = block.partition(b"\n")
        event: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode(), block
        found.append(event)
    return found


def kinds(stream: bytes) -> list[str]:
    """The types of the events in their order, the same ones in a row once, without pings."""
    names = [event["type"] for event in events(stream) if event["type"] != "ping"]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def only(answer: Any) -> Any:
    """The one block of a message; untyped, because the SDK knows a dozen kinds of them."""
    (block,) = answer.content
    return block


def error_in(caught: anthropic.APIStatusError) -> dict[str, Any]:
    """The error of the envelope that the SDK was sent."""
    body: Any = caught.body
    error: dict[str, Any] = body["error"]
    return error
