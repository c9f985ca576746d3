"""How long a prompt is before anybody has counted it, and the bodies that would count it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from gateway.errors import InvalidRequest
from gateway.exchange import Operation, PromptSize
from gateway.wire.openai_media import NO_MEDIA, MediaLoad

# English and code run at about four bytes per token; a token of a byte-level vocabulary spans
# at least one byte, so the number of bytes bounds the number of tokens.
_BYTES_PER_TOKEN: Final = 4

# What chat templates add at most: around the whole, around a message, around a tool.
_TEMPLATE_TOKENS: Final = 512
_MESSAGE_TOKENS: Final = 16
_TOOL_TOKENS: Final = 64
# Special tokens around a plain prompt, and the instructions rerankers wrap around a pair.
_PROMPT_TOKENS: Final = 4
_PAIR_TOKENS: Final = 128

# Qwen2-VL's default ceiling for an image is 16,384 tokens; typical pictures take about 1,000.
_IMAGE: Final = PromptSize(estimate=1_000, ceiling=16_384)
_OTHER_MEDIA: Final = PromptSize(estimate=2_000, ceiling=32_768)

_MAX_TOKENIZE_BODIES: Final = 16
_CHAT_TOKENIZE_FIELDS: Final = (
    "messages",
    "tools",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
)


@dataclass(slots=True)
class Prompts:
    """The prompts of one request: their number, their size, and the texts where they are texts."""

    count: int
    size: PromptSize
    texts: list[str] = field(default_factory=list)


def chat_prompt(fields: Mapping[str, object], body_bytes: int, media: MediaLoad) -> Prompts:
    """One conversation. The JSON around a message weighs about what its template adds."""
    messages, tools = fields.get("messages", fields.get("input")), fields.get("tools")
    message_count = len(messages) if isinstance(messages, list) else 1
    tool_count = len(tools) if isinstance(tools, list) else 0
    text_bytes = body_bytes if media is NO_MEDIA else max(0, body_bytes - media.encoded_bytes)
    estimate = text_bytes // _BYTES_PER_TOKEN
    ceiling = (
        text_bytes + _TEMPLATE_TOKENS + _MESSAGE_TOKENS * message_count + _TOOL_TOKENS * tool_count
    )
    return Prompts(1, _with_media(estimate, ceiling, media))


def read_prompts(value: object, *, param: str) -> Prompts:
    """A text, a list of texts, a list of token ids, or a list of such lists.

    Raises InvalidRequest for anything else. Token ids are exact, texts are estimated.
    """
    if isinstance(value, str):
        return _text_prompts([value])
    if isinstance(value, list) and value:
        kinds = set(map(type, value))
        if kinds == {str}:
            return _text_prompts([*value])
        if kinds == {int}:
            return Prompts(1, PromptSize(len(value), len(value)))
        if kinds == {list} and all(set(map(type, ids)) == {int} for ids in value):
            total = sum(map(len, value))
            return Prompts(len(value), PromptSize(total, total))
    raise InvalidRequest(
        f"{param!r} must be a string, a list of strings, a list of token ids, or a list of "
        "lists of token ids, and not empty.",
        code="missing_required_parameter" if value is None else "invalid_type",
        param=param,
    )


def pair_prompt(fields: Mapping[str, object], body_bytes: int, media: MediaLoad) -> Prompts:
    """Rerank and score: a text beside a list is read once for every item of the list."""
    sides = [
        fields[name]
        for name in (
            "query",
            "queries",
            "text_1",
            "data_1",
            "documents",
            "items",
            "text_2",
            "data_2",
        )
        if name in fields
    ]
    pairs = max((len(side) for side in sides if isinstance(side, list)), default=1)
    repeated = sum(len(orjson.dumps(side)) for side in sides if not isinstance(side, list))
    text_bytes = max(0, body_bytes - media.encoded_bytes) + repeated * max(0, pairs - 1)
    ceiling = text_bytes + _PAIR_TOKENS * max(1, pairs)
    return Prompts(1, _with_media(text_bytes // _BYTES_PER_TOKEN, ceiling, media))


def tokenize_bodies(
    operation: Operation, fields: Mapping[str, object], texts: Sequence[str], *, model: str
) -> tuple[bytes, ...]:
    """Bodies for vLLM's /tokenize; none where it cannot count, or would cost more than it tells."""
    if operation is Operation.CHAT:
        chat = {name: fields[name] for name in _CHAT_TOKENIZE_FIELDS if name in fields}
        return (orjson.dumps({"model": model, **chat}),)
    if operation is Operation.RESPONSES:
        messages = _messages_of_response(fields)
        return (orjson.dumps({"model": model, "messages": messages}),) if messages else ()
    if len(texts) > _MAX_TOKENIZE_BODIES:
        return ()
    options = {name: fields[name] for name in ("add_special_tokens",) if name in fields}
    return tuple(orjson.dumps({"model": model, "prompt": text, **options}) for text in texts)


def _messages_of_response(fields: Mapping[str, object]) -> list[object]:
    """The conversation that vLLM makes of a response's input; empty where more is in it."""
    asked, instructions = fields.get("input"), fields.get("instructions")
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if fields.get("tools") or fields.get("previous_response_id") or not isinstance(items, list):
        return []
    if not all(isinstance(item, dict) and "role" in item for item in items):
        return []
    system = [{"role": "system", "content": instructions}] if instructions else []
    return [*system, *items]


def _text_prompts(texts: list[str]) -> Prompts:
    text_bytes = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    estimate = text_bytes // _BYTES_PER_TOKEN + len(texts)
    ceiling = text_bytes + _PROMPT_TOKENS * len(texts)
    return Prompts(len(texts), PromptSize(estimate, ceiling), texts)


def _with_media(estimate: int, ceiling: int, media: MediaLoad) -> PromptSize:
    if media is NO_MEDIA:
        return PromptSize(estimate, ceiling)
    return PromptSize(
        estimate + _IMAGE.estimate * media.images + _OTHER_MEDIA.estimate * media.others,
        ceiling + _IMAGE.ceiling * media.images + _OTHER_MEDIA.ceiling * media.others,
    )
