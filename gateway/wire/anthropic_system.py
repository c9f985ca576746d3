"""System messages inside `messages`, brought to where every server understands them: `system`.

Coding agents put reminders between the turns. Some vLLM versions refuse a system message there,
others render it where it stands and lose the tools (vllm-project/vllm#48874).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.wire.anthropic_fields import objects_in, text_in

# vLLM joins the texts of `system` without anything between them.
_BETWEEN: Final = "\n\n"


def hoist_system(fields: Mapping[str, object]) -> Mapping[str, object]:
    """The changes to a request that leave no system text in `messages`; empty without any.

    Blocks that are no text, which add and remove tools, are understood there alone and stay.
    """
    messages = objects_in(fields.get("messages"))
    inner = [message for message in messages if message.get("role") == "system"]
    if not inner:
        return {}
    texts = [text for message in inner for text in _texts_of(message.get("content"))]
    kept = [left for message in messages if (left := _without_text(message)) is not None]
    return {"messages": kept, "system": _extended(fields.get("system"), texts)}


def system_text(system: object) -> str:
    """The whole system prompt, joined as vLLM's own endpoint joins it."""
    return "".join(_texts_of(system))


def _extended(system: object, texts: Sequence[str]) -> object:
    if isinstance(system, list):
        return [*system, *({"type": "text", "text": _BETWEEN + text} for text in texts)]
    return _BETWEEN.join(filter(None, [text_in(system), *texts]))


def _without_text(message: Mapping[str, object]) -> Mapping[str, object] | None:
    if message.get("role") != "system":
        return message
    blocks = [block for block in objects_in(message.get("content")) if block.get("type") != "text"]
    return {**message, "content": blocks} if blocks else None


def _texts_of(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    blocks = objects_in(content)
    texts = [text_in(block.get("text")) for block in blocks if block.get("type") == "text"]
    # A coding agent's note to Anthropic's billing; it differs in every request, and what differs
    # at the head of a prompt keeps the rest out of the prefix cache.
    return [text for text in texts if not text.startswith("x-anthropic-billing-header")]
