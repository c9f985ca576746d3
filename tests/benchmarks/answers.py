"""What an answer has to be: the upstream's bytes, or for a proxy that rewrites them its meaning."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

import orjson

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_DATA: Final = b"data: "
_DONE: Final = b"[DONE]"

# What a client reads of an answer: its pieces of text in order, why it ended, and its token counts.
Meaning = tuple[tuple[str, ...], str, tuple[int, ...]]


class Likeness(Enum):
    """How near an answer came to what the upstream sent."""

    SAME = "the same bytes"
    REWRITTEN = "other bytes with the same meaning"
    WRONG = "another answer"


class Expected(Protocol):
    """What the answers to one request are held against."""

    def body_bytes(self, head: bytes) -> int:
        """The length of a whole answer's body whose head begins this; -1 if it does not say."""
        ...

    def likeness(self, payload: bytes) -> Likeness: ...


@dataclass(frozen=True, slots=True)
class Exactly:
    """Every byte as the upstream sent it."""

    payload: bytes

    def body_bytes(self, head: bytes) -> int:
        return len(self.payload)

    def likeness(self, payload: bytes) -> Likeness:
        return Likeness.SAME if payload == self.payload else Likeness.WRONG


@dataclass(frozen=True, slots=True)
class InMeaning:
    """The same bytes, or others that say the same to whoever parses them with `read`."""

    payload: bytes
    read: Callable[[bytes], Meaning]
    meaning: Meaning = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "meaning", self.read(self.payload))

    def body_bytes(self, head: bytes) -> int:
        length = _LENGTH.search(head)
        return int(length[1]) if length else -1

    def likeness(self, payload: bytes) -> Likeness:
        if payload == self.payload:
            return Likeness.SAME
        try:
            is_alike = self.read(payload) == self.meaning
        except (ValueError, LookupError, TypeError):
            return Likeness.WRONG
        return Likeness.REWRITTEN if is_alike else Likeness.WRONG


def whole_meaning(payload: bytes) -> Meaning:
    """Of a chat completion. Raises ValueError, LookupError or TypeError for anything else."""
    document: dict[str, Any] = orjson.loads(payload)
    choice = document["choices"][0]
    usage = document["usage"]
    counts = (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"])
    return (choice["message"]["content"],), choice["finish_reason"], counts


def stream_meaning(payload: bytes) -> Meaning:
    """Of a stream of chunks with its end. Raises ValueError, LookupError or TypeError.

    Events without text count for nothing: proxies may add and take away the first and the last.
    """
    pieces = []
    reason = ""
    *events, last = _events(payload)
    if last != _DONE:
        raise ValueError("a stream without its end")
    for event in events:
        for choice in orjson.loads(event)["choices"]:
            if text := choice["delta"].get("content"):
                pieces.append(text)
            reason = choice.get("finish_reason") or reason
    return tuple(pieces), reason, ()


def _events(payload: bytes) -> Iterator[bytes]:
    """The data of each event, one line each, as all of these proxies write them."""
    for event in payload.split(b"\n\n"):
        if event.startswith(_DATA):
            yield event.removeprefix(_DATA)
        elif event.strip() and not event.startswith(b":"):
            raise ValueError("not an event of one line of data")
