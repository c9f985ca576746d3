"""Events as vLLM writes them, for tests of the stream readers."""

from typing import Any

import orjson

from gateway.errors import UpstreamFailed
from gateway.exchange import ResponseReader

DONE = b"data: [DONE]\n\n"


def chat_event(
    content: str | None = "word",
    *,
    index: int = 0,
    usage: dict[str, Any] | None = None,
    **delta: Any,
) -> bytes:
    """One chunk of a streamed chat, with vLLM's order of keys."""
    choice = {"index": index, "delta": {"content": content, **delta}, "finish_reason": None}
    return event({"id": "chatcmpl-1", "model": "tiny", "choices": [choice]}, usage)


def text_event(text: str, *, index: int = 0, usage: dict[str, Any] | None = None) -> bytes:
    """One chunk of a streamed completion."""
    return event({"id": "cmpl-1", "choices": [{"index": index, "text": text}]}, usage)


def final_event(usage: dict[str, Any]) -> bytes:
    """The chunk without choices that ends a stream whose usage was asked for."""
    return event({"id": "chatcmpl-1", "choices": []}, usage)


def event(fields: dict[str, Any], usage: dict[str, Any] | None = None) -> bytes:
    return (
        b"data: " + orjson.dumps(fields if usage is None else {**fields, "usage": usage}) + b"\n\n"
    )


def usage(prompt: Any, completion: Any, **details: Any) -> dict[str, Any]:
    """A usage object with vLLM's order of keys."""
    total = prompt + completion if isinstance(prompt, int) and isinstance(completion, int) else 0
    return {
        "prompt_tokens": prompt,
        "total_tokens": total,
        "completion_tokens": completion,
        **details,
    }


def feed_all(reader: ResponseReader, *chunks: bytes) -> bytes:
    """What the client gets of all chunks, and of those before a failure."""
    passed = b""
    try:
        for chunk in chunks:
            passed += reader.feed(chunk)
    except UpstreamFailed:
        passed += reader.rescued
    return passed
