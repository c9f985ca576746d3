"""A streamed chat or completions answer: passed byte for byte, counted on the way."""

import re
from dataclasses import dataclass
from typing import Final

from gateway.errors import UpstreamTruncated
from gateway.exchange import TokenUsage
from gateway.wire.openai_errors import stream_failure
from gateway.wire.openai_running import RunningUsage
from gateway.wire.openai_usage import as_object, read_usage
from gateway.wire.reading import EventReader
from gateway.wire.sse import data_of

# The running usage of an event, with one level of details inside. Inside a JSON string every
# quote is escaped, so `,"usage":{` can only be a key of an object: whatever a model writes, it
# writes `,\"usage\":{`. vLLM's events have no other key of this name that holds an object.
_USAGE_KEY: Final = b',"usage":{'
_USAGE: Final = re.compile(rb',\s?"usage":\s?\{[^{}\r\n]*(?:\{[^{}\r\n]*\}[^{}\r\n]*)*\}')

_DETAILS: Final = b"{"
_COMPLETION: Final = b'"completion_tokens":'
_DIGITS_MAX: Final = 18  # Python refuses numbers of thousands of digits.

_DONE: Final = b"[DONE]"
_ERROR: Final = b'"error"'
_NO_CHOICES: Final = b'"choices":[]'

_CONTENT_KEYS: Final = ("content", "reasoning", "reasoning_content", "tool_calls", "function_call")


@dataclass(frozen=True, slots=True)
class StreamWishes:
    """Which usage the client asked to see; the gateway itself asks for all of it."""

    include_usage: bool = False
    continuous_usage: bool = False


class OpenAIStreamReader(EventReader):
    """A ResponseReader for the events of /v1/chat/completions and /v1/completions.

    A read of whole events that all count the same single choice, the ordinary case, is searched
    instead of parsed; `_walk` reads everything else event by event. Both give the same bytes for
    what vLLM writes: one line of data per event, and `usage` right behind `choices`.
    """

    __slots__ = (
        "_may_search",
        "_running",
        "_wishes",
    )

    def __init__(
        self, *, choices_per_prompt: int, choices: int, prompt_tokens: int, wishes: StreamWishes
    ) -> None:
        super().__init__()
        self._running = RunningUsage(
            choices_per_prompt=choices_per_prompt, choices=choices, prompt_tokens=prompt_tokens
        )
        self._wishes = wishes
        self._may_search = False

    @property
    def usage(self) -> TokenUsage:
        return self._running.as_usage()

    def feed(self, chunk: bytes) -> bytes:
        if self._may_search and not self._events.held:
            usage_at = chunk.rfind(_USAGE_KEY)
            if usage_at > 0 and chunk[-2:] == b"\n\n" and chunk[usage_at - 2 : usage_at] != b"[]":
                return self._search(chunk, usage_at)
        return self._walk(chunk)

    def finish(self) -> bytes:
        if self.is_complete:
            return b""
        if not self._is_over and bytes(self._events.held).strip() == b"data: [DONE]":
            self.is_complete = True
            return b"data: [DONE]\n\n"
        raise UpstreamTruncated("The upstream closed its answer before the end.")

    def _search(self, chunk: bytes, usage_at: int) -> bytes:
        """Note the last count of an ordinary read, and cut out all of them."""
        usage_ends = chunk.find(b"}", usage_at) + 1
        if _DETAILS in chunk[usage_at + len(_USAGE_KEY) : usage_ends]:
            last = _USAGE.match(chunk, usage_at)
            usage_ends = last.end() if last else 0
        if not usage_ends or _ERROR in chunk:
            return self._walk(chunk)
        if chunk.find(b"\n") == len(chunk) - 2:
            if not chunk.startswith(b"data: {"):
                return self._walk(chunk)
            bare = chunk[:usage_at] + chunk[usage_ends:]
        else:
            bare, counts = _USAGE.subn(b"", chunk)
            if 2 * counts != chunk.count(b"\n") or not _holds_only_answers(chunk):
                # An event without a count is a token that the last count may not hold.
                return self._walk(chunk)
        self._running.advance(_completion_tokens(chunk[usage_at + 9 : usage_ends]))
        return chunk if self._wishes.continuous_usage else bare

    def _read(self, event: bytes) -> bytes:
        """What the client gets of one event."""
        data = data_of(event)
        if data is None:
            return event
        if data.strip() == _DONE:
            self.is_complete = True
            self._stop()
            return event
        fields = as_object(data)
        if fields.get("error"):
            raise stream_failure(fields["error"])
        return self._count(event, fields.get("choices"), fields.get("usage"))

    def _count(self, event: bytes, choices: object, usage: object) -> bytes:
        self._running.begin()
        reported = read_usage(usage)
        if not isinstance(choices, list) or not choices:
            if reported is None:
                return event
            self._running.settle(reported)
            return event if self._wishes.include_usage else b""

        has_content = any(map(_has_content, choices))
        if has_content:
            self.saw_content = True
        if reported is not None:
            self._running.report(_index_of(choices[0]), reported)
            self._may_search = self.saw_content and self._running.can_advance
        elif has_content:
            self._running.count_unreported()
        if usage is None or self._wishes.continuous_usage:
            return event
        return _USAGE.sub(b"", event)

    def _stop(self) -> None:
        super()._stop()
        self._may_search = False


def _holds_only_answers(chunk: bytes) -> bool:
    """True where several events hold neither a terminator nor a final count.

    A text that merely looks like one of these costs time and nothing else.
    """
    return b"\r" not in chunk and _DONE not in chunk and _NO_CHOICES not in chunk


def _completion_tokens(usage: bytes) -> object:
    """The running count of a `usage` object, without parsing it where vLLM wrote it."""
    start = usage.find(_COMPLETION) + len(_COMPLETION)
    # Where it stands last no comma is found, and -1 cuts off the closing brace.
    digits = usage[start : usage.find(b",", start)]
    if digits.isdigit() and len(digits) <= _DIGITS_MAX and start > len(_COMPLETION):
        return int(digits)
    return as_object(usage).get("completion_tokens")


def _has_content(choice: object) -> bool:
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(delta.get(key) for key in _CONTENT_KEYS)
    return bool(choice.get("text"))


def _index_of(choice: object) -> object:
    return choice.get("index", 0) if isinstance(choice, dict) else None
