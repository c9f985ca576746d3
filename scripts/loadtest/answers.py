"""Readers of an answer's body: streamed, whole, or an error."""

from typing import Final, Protocol

import orjson

from gateway.wire.sse import EventSplitter, data_of
from scripts.loadtest.exchange import Exchange
from scripts.loadtest.failure import FailureKind, event_failure, http_failure

_DONE: Final = b"[DONE]"
_KEPT_ERROR_BYTES: Final = 16 * 1024
_MAX_WHOLE_BYTES: Final = 64 * 2**20


class Answer(Protocol):
    """Takes a body as it comes and writes into the exchange what it means."""

    def feed(self, data: bytes, now: float) -> None:
        """What one read brought, at the time of that read."""

    def end(self) -> None:
        """The body is complete as HTTP goes; whether the answer is, is said here."""


class StreamedAnswer:
    """Server-sent events. Only the first event with a token, usage, errors and the end are
    parsed: of every other event it is enough to know that it came."""

    __slots__ = ("_exchange", "_is_done", "_splitter")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._splitter = EventSplitter()
        self._is_done = False

    def feed(self, data: bytes, now: float) -> None:
        has_begun = self._exchange.token_events > 0
        tokens = 0
        for event in self._splitter.feed(data):
            # Neither word can stand in a JSON string without backslashes before its quotes.
            is_plain = has_begun and event[6:7] == b"{"
            if is_plain and b'"usage"' not in event and b'"error"' not in event:
                tokens += 1
            elif self._read(event):
                tokens += 1
                has_begun = True
        if tokens:
            self._exchange.note_tokens(tokens, now)

    def end(self) -> None:
        if not self._is_done:
            self._exchange.fail(FailureKind.TRUNCATED, "the stream ended without [DONE]")

    def _read(self, event: bytes) -> bool:
        """Note what an event says; True if it brings a token."""
        payload = data_of(event)
        if payload is None:
            return False  # A comment that keeps the connection alive.
        if payload == _DONE:
            self._is_done = True
            return False
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError:
            self._exchange.fail(FailureKind.PROTOCOL, "an event is not JSON")
            return False
        if not isinstance(document, dict):
            return False
        if document.get("error") is not None:
            self._exchange.failure = self._exchange.failure or event_failure(document)
            return False
        if document.get("usage") is not None:
            self._exchange.note_usage(document["usage"])
        return _has_token(document)


class WholeAnswer:
    """One JSON document with the usage in it."""

    __slots__ = ("_exchange", "_parts", "_size")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, now: float) -> None:
        self._size += len(data)
        if self._size <= _MAX_WHOLE_BYTES:
            self._parts.append(data)

    def end(self) -> None:
        if self._size > _MAX_WHOLE_BYTES:
            self._exchange.fail(FailureKind.PROTOCOL, "the answer is larger than 64 MiB")
            return
        try:
            document = orjson.loads(b"".join(self._parts))
        except orjson.JSONDecodeError:
            self._exchange.fail(FailureKind.PROTOCOL, "the answer is not JSON")
            return
        if not isinstance(document, dict) or not ("choices" in document or "data" in document):
            self._exchange.fail(FailureKind.PROTOCOL, "the answer is no completion or embedding")
            return
        self._exchange.note_usage(document.get("usage"))


class ErrorAnswer:
    """The body of any status but 200."""

    __slots__ = ("_exchange", "_kept", "_status")

    def __init__(self, exchange: Exchange, status: int) -> None:
        self._exchange = exchange
        self._status = status
        self._kept = b""

    def feed(self, data: bytes, now: float) -> None:
        self._kept = (self._kept + data)[:_KEPT_ERROR_BYTES]

    def end(self) -> None:
        self._exchange.failure = self._exchange.failure or http_failure(self._status, self._kept)


def _has_token(document: dict[str, object]) -> bool:
    choices = document.get("choices")
    if not isinstance(choices, list):
        return False
    return any(isinstance(choice, dict) and _says_something(choice) for choice in choices)


def _says_something(choice: dict[str, object]) -> bool:
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return False
    spoken = ("content", "reasoning", "reasoning_content", "tool_calls")
    return any(delta.get(name) for name in spoken)
