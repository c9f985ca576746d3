"""The results of tools that failed: their text says so, for no server passes the flag on."""

from collections.abc import Mapping
from typing import Final

from gateway.wire.anthropic_fields import objects_in, text_in

_WORD: Final = "Error"


def say_failures(messages: object) -> list[object] | None:
    """The messages with each failure told in the text of its result; None without any."""
    if not isinstance(messages, list):
        return None
    told = [_told(message) for message in messages]
    return told if any(a is not b for a, b in zip(told, messages, strict=True)) else None


def as_failure(text: str) -> str:
    """The text of a failed result, which says so at its beginning."""
    if text.lower().startswith(_WORD.lower()):
        return text
    return f"{_WORD}: {text}" if text else _WORD


def _told(message: object) -> object:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, list):
        return message
    blocks = [_failed(block) if _is_failure(block) else block for block in content]
    return {**message, "content": blocks} if blocks != content else message


def _is_failure(block: object) -> bool:
    if not isinstance(block, dict) or block.get("type") != "tool_result":
        return False
    return block.get("is_error") is True


def _failed(block: Mapping[str, object]) -> Mapping[str, object]:
    content = block.get("content")
    if not isinstance(content, list):
        return {**block, "content": as_failure(text_in(content))}
    texts = [part for part in objects_in(content) if part.get("type") == "text"]
    first = text_in(texts[0].get("text")) if texts else ""
    said = {"type": "text", "text": as_failure(first)}
    rest = [part for part in content if not texts or part is not texts[0]]
    return {**block, "content": [said, *rest]}
