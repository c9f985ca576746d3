"""A streamed /v1/responses answer: passed byte for byte, counted on the way."""

from collections.abc import Mapping
from typing import Final, NoReturn

from gateway.errors import GatewayError, UpstreamTruncated
from gateway.exchange import TokenUsage
from gateway.wire.openai_errors import stream_failure
from gateway.wire.openai_running import RunningUsage
from gateway.wire.openai_usage import as_object, read_usage
from gateway.wire.sse import EventSplitter, named_data_of

_ENDS: Final = (b"response.completed", b"response.incomplete")
_FAILURES: Final = (b"response.failed", b"error")


class ResponsesStreamReader:
    """A ResponseReader for the events of /v1/responses.

    Only the last event states the usage; until then every delta counts as one token.
    """

    __slots__ = ("_events", "_has_failed", "_is_complete", "_rescued", "_running", "_saw_content")

    def __init__(self, *, prompt_tokens: int) -> None:
        self._events = EventSplitter()
        self._running = RunningUsage(choices_per_prompt=1, choices=1, prompt_tokens=prompt_tokens)
        self._saw_content = False
        self._is_complete = False
        self._has_failed = False
        self._rescued = b""

    @property
    def usage(self) -> TokenUsage:
        return self._running.as_usage()

    @property
    def saw_content(self) -> bool:
        return self._saw_content

    @property
    def is_complete(self) -> bool:
        return self._is_complete

    @property
    def rescued(self) -> bytes:
        return self._rescued

    def feed(self, chunk: bytes) -> bytes:
        if self._has_failed:
            return b""
        passed: list[bytes] = []
        try:
            for event in self._events.feed(chunk):
                passed.append(self._read(event))  # noqa: PERF401 - kept when a later event fails
            self._events.require_bounded()
        except GatewayError:
            self._has_failed = True
            self._rescued = b"".join(passed)
            raise
        return b"".join(passed)

    def finish(self) -> bytes:
        if self._is_complete:
            return b""
        raise UpstreamTruncated("The upstream closed its answer before the end.")

    def _read(self, event: bytes) -> bytes:
        if self._is_complete:
            return b""  # Some servers add chat's terminator.
        name, data = named_data_of(event)
        if data is None:
            return event
        name = name or _name_in(as_object(data))
        self._running.begin()
        if name.endswith(b".delta"):
            self._saw_content = True
            self._running.count_unreported()
        elif name in _ENDS:
            self._settle(as_object(data).get("response"))
            self._is_complete = True
        elif name in _FAILURES:
            self._fail(as_object(data))
        return event

    def _settle(self, response: object) -> None:
        reported = read_usage(response.get("usage")) if isinstance(response, dict) else None
        if reported is not None:
            self._running.settle(reported)

    def _fail(self, fields: Mapping[str, object]) -> NoReturn:
        response = fields.get("response")
        self._settle(response)
        source = response if isinstance(response, dict) else fields
        raise stream_failure(source.get("error", source))


def _name_in(fields: Mapping[str, object]) -> bytes:
    """The type of an event that has no `event:` line; vLLM's plain error event has neither."""
    kind = fields.get("type")
    if isinstance(kind, str):
        return kind.encode("utf-8", "replace")
    return b"error" if fields.get("error") else b""
