"""A streamed /v1/responses answer: passed byte for byte, counted on the way."""

from collections.abc import Mapping
from typing import Final, NoReturn

from gateway.errors import UpstreamTruncated
from gateway.exchange import TokenUsage
from gateway.wire.openai_errors import stream_failure
from gateway.wire.openai_running import RunningUsage
from gateway.wire.openai_usage import as_object, read_usage
from gateway.wire.reading import EventReader
from gateway.wire.sse import named_data_of

_ENDS: Final = (b"response.completed", b"response.incomplete")
_FAILURES: Final = (b"response.failed", b"error")


class ResponsesStreamReader(EventReader):
    """A ResponseReader for the events of /v1/responses.

    Only the last event states the usage; until then every delta counts as one token.
    """

    __slots__ = ("_running",)

    def __init__(self, *, prompt_tokens: int) -> None:
        super().__init__()
        self._running = RunningUsage(choices_per_prompt=1, choices=1, prompt_tokens=prompt_tokens)

    @property
    def usage(self) -> TokenUsage:
        return self._running.as_usage()

    def finish(self) -> bytes:
        if self.is_complete:
            return b""
        raise UpstreamTruncated("The upstream closed its answer before the end.")

    def _read(self, event: bytes) -> bytes:
        name, data = named_data_of(event)
        if data is None:
            return event
        name = name or _name_in(as_object(data))
        self._running.begin()
        if name.endswith(b".delta"):
            self.saw_content = True
            self._running.count_unreported()
        elif name in _ENDS:
            self._settle(as_object(data).get("response"))
            self.is_complete = True
            self._stop()  # Some servers add chat's terminator.
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
