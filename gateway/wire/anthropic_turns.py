"""One message of an Anthropic conversation as the messages that chat has for it."""

from collections.abc import Mapping
from typing import Final

import orjson

from gateway.errors import InvalidRequest
from gateway.wire.anthropic_failures import as_failure
from gateway.wire.anthropic_fields import objects_in, text_in
from gateway.wire.anthropic_media import image_url

_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})


def assistant_turn(content: object, where: str) -> dict[str, object]:
    """Text, calls and thoughts of the model. Raises InvalidRequest for any other block.

    Thoughts go back as `reasoning`, from which templates keep what a model wants to see again;
    what was redacted can be read by nobody.
    """
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    parts: list[dict[str, object]] = []
    calls: list[dict[str, object]] = []
    thoughts: list[str] = []
    for at, block in enumerate(objects_in(content)):
        kind = block.get("type")
        if kind == "tool_use":
            calls.append(_call(block))
        elif kind in _THOUGHTS:
            thoughts.append(text_in(block.get("thinking")))
        else:
            parts.extend(_parts(block, f"{where}.{at}"))
    turn: dict[str, object] = {"role": "assistant", "content": _joined(parts)}
    reasoning = "".join(thoughts)
    if reasoning:
        turn["reasoning"] = reasoning
    if calls:
        turn["tool_calls"] = calls
    return turn


def user_turns(content: object, where: str) -> list[dict[str, object]]:
    """The results of tools first, each its own message: nothing may stand between a call and
    its result. What else the user says or shows follows, pictures that tools returned included,
    which few templates take anywhere else. Raises InvalidRequest for blocks unknown to chat.
    """
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    turns: list[dict[str, object]] = []
    parts: list[dict[str, object]] = []
    for at, block in enumerate(objects_in(content)):
        if block.get("type") != "tool_result":
            parts.extend(_parts(block, f"{where}.{at}"))
            continue
        text, images = _result(block, f"{where}.{at}.content")
        identity = text_in(block.get("tool_use_id"))
        turns.append({"role": "tool", "tool_call_id": identity, "content": text})
        if images:
            parts.append(_text(f"The result of the tool call {identity} shows:"))
            parts.extend(images)
    if parts:
        turns.append({"role": "user", "content": _joined(parts)})
    return turns


def without_images(conversation: Mapping[str, object]) -> dict[str, object]:
    """The same conversation as far as a tokenizer can count it."""
    messages = []
    for message in objects_in(conversation.get("messages")):
        parts = message.get("content")
        if isinstance(parts, list):
            texts = [part for part in objects_in(parts) if part.get("type") == "text"]
            message = {**message, "content": texts}  # noqa: PLW2901 - the same message, lighter
        messages.append(message)
    return {**conversation, "messages": messages}


def _call(block: Mapping[str, object]) -> dict[str, object]:
    arguments = orjson.dumps(block.get("input") or {}).decode()
    function = {"name": text_in(block.get("name")), "arguments": arguments}
    return {"id": text_in(block.get("id")), "type": "function", "function": function}


def _result(block: Mapping[str, object], where: str) -> tuple[str, list[dict[str, object]]]:
    """Text and pictures of a tool's result. Chat has no flag for a failure: its text says it."""
    content = block.get("content")
    images: list[dict[str, object]] = []
    texts: list[str] = []
    if isinstance(content, str):
        texts.append(content)
    for at, inner in enumerate(objects_in(content)):
        for part in _parts(inner, f"{where}.{at}"):
            if part["type"] == "text":
                texts.append(text_in(part["text"]))
            else:
                images.append(part)
    text = "\n".join(texts)
    return as_failure(text) if block.get("is_error") is True else text, images


def _parts(block: Mapping[str, object], where: str) -> list[dict[str, object]]:
    """A block as parts of a chat message; an empty text is none."""
    kind, source = block.get("type"), block.get("source")
    if kind == "text":
        text = text_in(block.get("text"))
        return [_text(text)] if text else []
    if kind == "image" and (url := image_url(source)):
        return [{"type": "image_url", "image_url": {"url": url}}]
    if kind == "document" and isinstance(source, dict) and source.get("type") == "text":
        return [_text(text_in(source.get("data")))]
    raise InvalidRequest(
        f"{where}: the upstream cannot read a block of the type {str(kind)[:100]!r} here.",
        code="unsupported_parameter",
        param=where,
    )


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _joined(parts: list[dict[str, object]]) -> object:
    if not parts:
        return None
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
