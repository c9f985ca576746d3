"""A deterministic, reversible tokeniser, a chat template and the words of every answer."""

import re
from collections.abc import Iterable, Sequence
from zlib import crc32

import orjson

# A token is up to four printable ASCII characters or one other character, each with the
# blank before it; so it is at most five bytes long and fits, marked, into a 64-bit id.
_PIECE = re.compile(r"[ \t\n\r]?[!-~]{1,4}|[ \t\n\r]?[^\x00-\x7f]|[\x00-\x20\x7f]")
_MARK = b"\x01"
_IMAGE = "<image>" * 8

_POEM = (
    "the a calm sea held one blue ship and we saw it pass by day or at dusk when wind from "
    "far land came over sand so all sat down near old oak tree to hear how rain sang in leaf "
    "root then each went home with song talk tea warm bed good rest till dawn made hill glow"
)
# Every word is exactly one token wherever it stands, so text and usage always agree.
WORDS = tuple(f" {word}" for word in _POEM.split())
_CYCLE = WORDS * 64


def split(text: str) -> list[str]:
    """The token strings of `text`; joined they give it back."""
    return _PIECE.findall(text)


def encode(text: str) -> list[int]:
    """The token ids of `text`; each id carries its own bytes."""
    return [int.from_bytes(_MARK + piece.encode()) for piece in split(text)]


def decode(ids: Iterable[int]) -> str:
    """The text of `ids`; an id no text gave becomes replacement characters."""
    return b"".join(_bytes_of(token) for token in ids).decode(errors="replace")


def spoken(prompt: str, count: int) -> Sequence[str]:
    """The first `count` tokens of the answer to `prompt`: always the same ones."""
    start = crc32(prompt.encode()) % len(WORDS)
    if start + count <= len(_CYCLE):
        return _CYCLE[start : start + count]
    return [WORDS[(start + step) % len(WORDS)] for step in range(count)]


def chat_prompt(messages: Iterable[object], tools: object = None, *, generate: bool = True) -> str:
    """The conversation as one text, in the manner of a ChatML template."""
    parts = [f"<|tools|>\n{orjson.dumps(tools).decode()}<|end|>\n"] if tools else []
    for message in messages:
        if not isinstance(message, dict):
            continue
        calls = message.get("tool_calls")
        called = orjson.dumps(calls).decode() if calls else ""
        role = message.get("role", "user")
        parts.append(f"<|{role}|>\n{content_text(message.get('content'))}{called}<|end|>\n")
    if generate:
        parts.append("<|assistant|>\n")
    return "".join(parts)


def content_text(content: object) -> str:
    """A message's content as text: a string, or parts of which images weigh a fixed amount."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(_part_text(part) for part in content)


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else _IMAGE


def _bytes_of(token: int) -> bytes:
    raw = token.to_bytes((token.bit_length() + 7) // 8 or 1)
    return raw[1:] if raw.startswith(_MARK) and len(raw) > 1 else raw
