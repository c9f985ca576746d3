"""The stream between an upstream and a client: no delay, no buffer, every token seen."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.exchange import NO_USAGE, Client, ResponseReader, TokenUsage, UpstreamAnswer


class StreamWatch(Protocol):
    """Watches how streams go on. What `follow` gives is called for each read that carried
    events, from the first content on: it must be quick."""

    def follow(self, model: str) -> AbstractContextManager[Callable[[], None]]: ...


class NobodyWatches:
    """The StreamWatch that does nothing."""

    def follow(self, model: str) -> AbstractContextManager[Callable[[], None]]:
        return nullcontext(_nothing)


def _nothing() -> None:
    return


class Meter:
    """What one exchange has used so far; the reservation looks at it while the stream runs.

    `settle` is told the final word, before a whole answer goes out, so that the headers of
    that answer already count it.
    """

    __slots__ = ("_reader", "_settle", "_usage")

    def __init__(self, *, settle: Callable[[TokenUsage], None]) -> None:
        self._settle = settle
        self._reader: ResponseReader | None = None
        self._usage = NO_USAGE

    @property
    def usage(self) -> TokenUsage:
        return self._usage if self._reader is None else self._reader.usage

    def follow(self, reader: ResponseReader) -> None:
        """From now on the stream's own running count."""
        self._reader = reader

    def conclude(self, usage: TokenUsage) -> None:
        """The final word, where it is not a stream's own: a whole answer, or an estimate."""
        self._reader = None
        self._usage = usage
        self._settle(usage)

    def close(self) -> TokenUsage:
        """Settle whatever is known."""
        self._settle(self.usage)
        return self.usage


class Audience:
    """The client, and whether it has heard anything; `on_heard` is told when it first does.
    Before it hears the end, all is settled: who has read the terminator finds it in the books."""

    __slots__ = ("_client", "_meter", "has_heard", "on_heard", "send_now")

    def __init__(self, client: Client, meter: Meter) -> None:
        self._client = client
        self._meter = meter
        self.has_heard = False
        self.on_heard: Callable[[], None] = _nothing
        self.send_now = client.send_now

    def answer(self, *, content_type: bytes, body: bytes) -> Coroutine[Any, Any, None]:
        self.has_heard = True
        return self._client.answer(content_type=content_type, body=body)

    def send(self, chunk: bytes) -> Coroutine[Any, Any, None]:
        if not self.has_heard:
            self.has_heard = True
            self.on_heard()
        return self._client.send(chunk)

    def finish(self, last: bytes) -> Coroutine[Any, Any, None]:
        self.has_heard = True
        self._meter.close()
        return self._client.finish(last)


class _Passage:
    """What is done with each read of a stream, without waiting for anybody."""

    __slots__ = ("_awaits_content", "_on_content", "_on_events", "_reader", "_send_now", "events")

    def __init__(
        self,
        reader: ResponseReader,
        client: Client,
        *,
        on_content: Callable[[], None],
        on_events: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._send_now = client.send_now
        self._on_content = on_content
        self._on_events = on_events
        self._awaits_content = True
        self.events = b""

    def take(self, chunk: bytes) -> bool:
        """Pass a read on. False: `events` are left to be sent, by someone who can wait."""
        reader = self._reader
        events = reader.feed(chunk)
        if self._awaits_content and reader.saw_content:
            self._awaits_content = False
            self._on_content()
        if events and not self._awaits_content:
            self._on_events()
        if reader.is_complete or (events and not self._send_now(events)):
            self.events = events
            return False
        return True


async def relay(
    answer: UpstreamAnswer,
    *,
    reader: ResponseReader,
    client: Client,
    on_content: Callable[[], None],
    on_events: Callable[[], None],
    on_end: Callable[[], None],
) -> None:
    """Pass an event stream on, one `send` per read.

    `on_content` hears of the first token, `on_events` of each read with events from there on,
    `on_end` that the upstream has said all.

    Raises what `deliver` and `reader` raise; the client then has whole events and no
    terminator, so one error event can follow.
    """
    passage = _Passage(reader, client, on_content=on_content, on_events=on_events)
    try:
        while await answer.deliver(passage.take):
            if reader.is_complete:
                # At once, slots and all: vLLM may take its time to end what has ended.
                on_end()
                answer.see_out()
                await client.finish(passage.events)
                return
            await client.send(passage.events)
            passage.events = b""
        last = reader.finish()
        on_end()
        await client.finish(last)
    except GatewayError:
        if reader.rescued:
            await client.send(reader.rescued)
        raise
    except asyncio.CancelledError:
        # Generated, and not taken by a slow client that left: it counts all the same.
        with suppress(GatewayError):
            reader.feed(answer.take_unread())
        raise
