"""What can befall a request, named so that the count of each name helps."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import orjson

_LONGEST_CODE: Final = 64
_LONGEST_MESSAGE: Final = 200
# Capacity and limits: the server is well and says "not now".
_REFUSALS: Final = frozenset({429, 503, 529})


class FailureKind(StrEnum):
    """Where a request ended that did not end well."""

    CONNECT = "connect"  # no connection was made
    TIMEOUT = "timeout"  # no complete answer within --timeout
    CLOSED = "closed"  # the connection ended before the answer began
    PROTOCOL = "protocol"  # what came is not the answer of such a server
    HTTP = "http"  # a status other than 200
    TRUNCATED = "truncated"  # the answer stopped before its end
    ERROR_EVENT = "error_event"  # the stream itself reported an error


@dataclass(frozen=True, slots=True)
class Failure:
    """One request's end. `code` and `message` are the server's words, cut to a bounded length."""

    kind: FailureKind
    status: int = 0
    code: str = ""
    message: str = ""

    @property
    def is_refusal(self) -> bool:
        return self.kind is FailureKind.HTTP and self.status in _REFUSALS

    @property
    def label(self) -> str:
        """The name under which it is counted: `http 429 rate_limit_exceeded`."""
        words = (self.kind.value, str(self.status) if self.status else "", self.code)
        return " ".join(word for word in words if word)


def http_failure(status: int, body: bytes) -> Failure:
    """What an answer with that status says, in OpenAI's shape or any other."""
    code, message = error_words(body)
    return Failure(FailureKind.HTTP, status, code, message)


def event_failure(event: object) -> Failure:
    """What an error event says."""
    return Failure(FailureKind.ERROR_EVENT, 0, *_words_of(event))


def error_words(body: bytes) -> tuple[str, str]:
    """Code and message of an error body; empty where it has none."""
    try:
        return _words_of(orjson.loads(body))
    except orjson.JSONDecodeError:
        return "", _printable(body[:_LONGEST_MESSAGE].decode(errors="replace"), _LONGEST_MESSAGE)


def _words_of(document: object) -> tuple[str, str]:
    if isinstance(document, dict) and "error" in document:
        document = document["error"]
    if not isinstance(document, dict):
        return "", _printable(document, _LONGEST_MESSAGE) if isinstance(document, str) else ""
    # vLLM's codes are mere repetitions of the status: its type says more.
    code = document.get("code")
    word = code if isinstance(code, str) and code else document.get("type")
    message = document.get("message") or document.get("detail")
    return _printable(word, _LONGEST_CODE), _printable(message, _LONGEST_MESSAGE)


def _printable(value: object, longest: int) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value[:longest])
