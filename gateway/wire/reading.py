"""Reading a stream of server-sent events one by one, whatever the dialect makes of each."""

from abc import ABC, abstractmethod

from gateway.errors import GatewayError, UpstreamTruncated
from gateway.exchange import TokenUsage
from gateway.wire.sse import EventSplitter


class EventReader(ABC):
    """The part of a ResponseReader that all dialects share; see there. A dialect says what the
    client gets of an event, and calls `_stop` when nothing is to follow."""

    __slots__ = ("_events", "_is_over", "_rescued", "is_complete", "saw_content")

    def __init__(self) -> None:
        self._events = EventSplitter()
        self.saw_content = False
        self.is_complete = False
        self._is_over = False
        self._rescued = b""

    @property
    @abstractmethod
    def usage(self) -> TokenUsage: ...

    @property
    def rescued(self) -> bytes:
        return self._rescued

    def feed(self, chunk: bytes) -> bytes:
        return self._walk(chunk)

    def finish(self) -> bytes:
        # A last event may lack its empty line; the terminator is one all the same.
        rest = self._walk(b"\n\n") if self._events.held else b""
        if self.is_complete:
            return rest
        raise UpstreamTruncated("The upstream closed its answer before the end.")

    def _walk(self, chunk: bytes) -> bytes:
        """Event by event. What stood before one that fails is kept in `rescued`."""
        if self._is_over:
            return b""
        passed: list[bytes] = []
        try:
            for event in self._events.feed(chunk):
                passed.append(self._read(event))
                if self._is_over:
                    break
            self._events.require_bounded()
        except GatewayError:
            self._stop()
            self._rescued = b"".join(passed)
            raise
        return b"".join(passed)

    @abstractmethod
    def _read(self, event: bytes) -> bytes:
        """What the client gets of one event."""

    def _stop(self) -> None:
        self._is_over = True
