"""A second opinion on a stream of Anthropic's events: their framing and their order."""

from typing import Any

import orjson

from gateway.errors import GatewayError
from gateway.exchange import ResponseReader

DELTAS = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
}
FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def events_in(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event, whose frame must be two lines that name the same type."""
    assert stream == b"" or stream.endswith(b"\n\n")
    events = []
    for frame in stream.split(b"\n\n")[:-1]:
        if frame.startswith(b":"):
            continue
        first, second = frame.split(b"\n")
        assert first.startswith(b"event: "), frame
        assert second.startswith(b"data: "), frame
        data = orjson.loads(second[6:])
        assert first[7:].decode() == data["type"]
        events.append(data)
    return events


def message_in(stream: bytes, *, is_whole: bool = True) -> dict[str, Any]:
    """The message that a client adds up. Raises AssertionError at an event out of place."""
    message: dict[str, Any] = {}
    is_open = has_ended = has_stopped = False
    for event in events_in(stream):
        kind = event["type"]
        assert not has_stopped
        if kind == "ping":
            continue
        if not message:
            assert kind == "message_start"
            message = {**event["message"], "content": []}
            assert message["id"].startswith("msg_")
            assert message["usage"]["input_tokens"] > 0 or "cache_read_input_tokens" in event
            continue
        content = message["content"]
        if kind == "content_block_start":
            assert not is_open
            assert not has_ended
            assert event["index"] == len(content)
            block = event["content_block"]
            content.append({**block, "input": ""} if block["type"] == "tool_use" else dict(block))
            is_open = True
        elif kind == "content_block_delta":
            delta, block = event["delta"], content[-1]
            assert is_open
            assert event["index"] == len(content) - 1
            assert delta["type"] in DELTAS[block["type"]]
            field = FIELDS[delta["type"]]
            name = "input" if field == "partial_json" else field
            block[name] = block.get(name, "") + delta[field]
        elif kind == "content_block_stop":
            assert is_open
            assert event["index"] == len(content) - 1
            is_open = False
        elif kind == "message_delta":
            assert not is_open
            has_ended = True
            message |= event["delta"]
            message["usage"] |= {k: v for k, v in event["usage"].items() if v is not None}
        else:
            assert kind == "message_stop"
            assert has_ended
            has_stopped = True
    assert has_stopped or not is_whole
    return message


def billed(message: dict[str, Any]) -> tuple[int, int]:
    """Input and output tokens as the client sees them."""
    usage = message["usage"]
    cached = (usage.get(f"cache_{verb}_input_tokens") or 0 for verb in ("creation", "read"))
    return usage["input_tokens"] + sum(cached), usage["output_tokens"]


def replay(reader: ResponseReader, *chunks: bytes) -> tuple[bytes, str]:
    """What the client got, and how it ended."""
    passed = b""
    try:
        for chunk in chunks:
            passed += reader.feed(chunk)
        return passed + reader.finish(), "complete"
    except GatewayError as error:
        return passed + reader.rescued, type(error).__name__
