"""Server-sent events as bytes: where one ends, and what it carries."""

import re
from typing import Final

from gateway.errors import UpstreamFailed

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024

# An empty line ends an event. Lines end with LF, CRLF or CR and with nothing else: a splitter
# of text would also cut at U+2028, which JSON strings may hold.
_END_OF_EVENT: Final = re.compile(rb"\n\r?\n|\r\r")
_END_OF_LINE: Final = re.compile(rb"\r\n|\n|\r")


class EventSplitter:
    """Cuts a stream into whole events, each with its terminator.

    `held` is the part of an event whose end has not come yet; to be read, not changed.
    """

    __slots__ = ("_searched", "held")

    def __init__(self) -> None:
        self.held = bytearray()
        self._searched = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes."""
        if not self.held:
            return self._cut(chunk)
        self.held += chunk
        end = _END_OF_EVENT.search(self.held, self._searched)
        if end is None:
            # The terminator may be cut in two: look again at its first bytes.
            self._searched = max(0, len(self.held) - 2)
            return []
        joined = bytes(self.held)
        self.held.clear()
        self._searched = 0
        return self._cut(joined)

    def require_bounded(self) -> None:
        """Raises UpstreamFailed where the event held back exceeds MAX_EVENT_BYTES."""
        if len(self.held) > MAX_EVENT_BYTES:
            raise UpstreamFailed("The upstream sent an event that is too large.")

    def _cut(self, stream: bytes) -> list[bytes]:
        if b"\r" not in stream:
            *texts, rest = stream.split(b"\n\n")
            self.held += rest
            return [text + b"\n\n" for text in texts]
        events = []
        start = 0
        for match in _END_OF_EVENT.finditer(stream):
            events.append(stream[start : match.end()])
            start = match.end()
        if start < len(stream):
            self.held += stream[start:]
        return events


def data_of(event: bytes) -> bytes | None:
    """The data of one event, its lines joined by LF (WHATWG HTML 9.2.6); None without data."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [value for name, value in _fields_of(event) if name == b"data"]
    return b"\n".join(lines) if lines else None


def name_of(event: bytes) -> bytes:
    """The event's type; empty where it has none."""
    name = b""
    for field, value in _fields_of(event):
        if field == b"event":
            name = value
    return name


def named_data_of(event: bytes) -> tuple[bytes, bytes | None]:
    """What `name_of` and `data_of` say; at once for an event of one line each."""
    if event.startswith(b"event: ") and b"\r" not in event:
        name_ends = event.find(b"\n")
        data_ends = event.find(b"\n", name_ends + 1)
        if data_ends == len(event) - 2 and event.startswith(b"data: ", name_ends + 1):
            return event[7:name_ends], event[name_ends + 7 : data_ends]
    return name_of(event), data_of(event)


def _fields_of(event: bytes) -> list[tuple[bytes, bytes]]:
    fields = []
    for line in _END_OF_LINE.split(event):
        name, _, value = line.partition(b":")
        fields.append((name, value.removeprefix(b" ")))
    return fields
