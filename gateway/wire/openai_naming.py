"""The model's name in an answer: the one the caller asked by, where that is an alias."""

import re
from collections.abc import Sequence
from typing import Final

import orjson

from gateway.exchange import ResponseReader, TokenUsage
from gateway.wire.sse import EventSplitter

ANSWER: Final[tuple[bytes, ...]] = (b'"model"',)
"""Where an answer, or an event of chat and completions, names its model."""
RESPONSE_EVENT: Final[tuple[bytes, ...]] = (b'"response"', b'"model"')
"""Where an event of /v1/responses does."""

_KEY: Final = b'"model"'
_QUOTE, _OPENING = b'"'[0], b"{["
# A string that never ends is one token to the end: looking again at each quote inside it would
# take the square of its length.
_TOKEN: Final = re.compile(rb'[{}\[\]]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_COLON: Final = re.compile(rb"\s*:\s*")


def renamed(document: bytes, shown_model: str, *, path: Sequence[bytes] = ANSWER) -> bytes:
    """The JSON document with another name in the member at `path`, and not a byte else changed.

    Left as it is where there is no such member, or where it holds no string.
    """
    span = _find_member(document, path)
    if span is None:
        return document
    start, end = span
    return document[:start] + orjson.dumps(shown_model) + document[end:]


class RenamedStream:
    """A ResponseReader that lets another one read, and puts the shown name into its events.

    What a reader gives are whole events, so no name is ever cut in two here. All events of a
    chat begin alike, up to the name and with it: from the second on that beginning is replaced,
    and nothing is searched for.
    """

    __slots__ = ("_beginning", "_path", "_reader", "_shown_beginning", "_shown_model")

    def __init__(
        self, reader: ResponseReader, shown_model: str, *, path: Sequence[bytes] = ANSWER
    ) -> None:
        self._reader = reader
        self._shown_model = shown_model
        self._path = path
        self._beginning = b""
        self._shown_beginning = b""

    @property
    def usage(self) -> TokenUsage:
        return self._reader.usage

    @property
    def saw_content(self) -> bool:
        return self._reader.saw_content

    @property
    def is_complete(self) -> bool:
        return self._reader.is_complete

    @property
    def rescued(self) -> bytes:
        return self._rename(self._reader.rescued)

    def feed(self, chunk: bytes) -> bytes:
        return self._rename(self._reader.feed(chunk))

    def finish(self) -> bytes:
        return self._rename(self._reader.finish())

    def _rename(self, events: bytes) -> bytes:
        # Inside a string every quote is escaped: both can only be JSON's own.
        mentions = events.count(_KEY)
        if not mentions:
            return events
        beginning, shown = self._beginning, self._shown_beginning
        if beginning and events.startswith(beginning):
            rest = events[len(beginning) :]
            if mentions == 1:
                return shown + rest
            if mentions == 1 + rest.count(b"\n\n" + beginning):
                return shown + rest.replace(b"\n\n" + beginning, b"\n\n" + shown)
        splitter = EventSplitter()
        whole = [self._rename_one(event) for event in splitter.feed(events)]
        return b"".join([*whole, splitter.held])

    def _rename_one(self, event: bytes) -> bytes:
        span = _find_member(event, self._path)
        if span is None:
            return event
        start, end = span
        before = event[:start] + orjson.dumps(self._shown_model)
        if event.startswith(b"data: {"):
            self._beginning, self._shown_beginning = event[:end], before
        return before + event[end:]


def _find_member(document: bytes, path: Sequence[bytes]) -> tuple[int, int] | None:
    """Where the string at `path` begins and ends, quotes included."""
    depth = entered = 0
    for token in _TOKEN.finditer(document):
        first = document[token.start()]
        if first in _OPENING:
            depth += 1
        elif first != _QUOTE:
            depth -= 1
            if depth <= entered:
                return None
        elif depth == entered + 1 and token.group() == path[entered]:
            colon = _COLON.match(document, token.end())
            if colon is None:
                continue  # A value that reads like the key.
            if entered + 1 == len(path):
                value = _STRING.match(document, colon.end())
                return value.span() if value else None
            if document[colon.end() : colon.end() + 1] != b"{":
                return None
            entered += 1
    return None
