"""The load generator: clients that ask again once they are answered, and verify every answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, cast

import httptools

from tests.benchmarks.answers import Expected, Likeness
from tests.benchmarks.processes import TargetFailed

_END_OF_HEAD: Final = b"\r\n\r\n"
_OK: Final = b"HTTP/1.1 200"


@dataclass(slots=True)
class Tally:
    """What a set of clients saw since the last `take`; faults are kept for good. Seconds.

    `rewritten` are the answers whose meaning was right and whose bytes were not the upstream's.
    """

    answers: int = 0
    rewritten: int = 0
    events: int = 0
    reads: int = 0
    latencies_seconds: list[float] = field(default_factory=list)
    worst_gap_seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    def take(self) -> "Tally":
        """What was seen until now, without the faults; from here on anew."""
        seen = replace(self, faults=Counter())
        self.answers = self.rewritten = self.events = self.reads = 0
        self.latencies_seconds = []
        self.worst_gap_seconds = 0.0
        return seen


class Client(asyncio.Protocol):
    """One kept-alive connection with one request at a time.

    After `stop` the answer under way is the last; `ended` is done once it is complete.
    """

    def __init__(self, request: bytes, tally: Tally) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._tally = tally
        self._transport = cast(asyncio.Transport, None)
        self._asked_at = 0.0
        self._is_stopping = False
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.fail("the connection was closed")

    def ask(self) -> None:
        if self.ended.done():
            return
        self._asked_at = time.perf_counter()
        self._transport.write(self._request)

    @property
    def has_begun(self) -> bool:
        """True while an answer is coming in."""
        return False

    def stop(self) -> None:
        self._is_stopping = True

    def cut(self) -> None:
        """End in the middle of whatever is under way."""
        if not self.ended.done():
            self.ended.set_result(None)
        self._transport.abort()

    def fail(self, fault: str) -> None:
        self._tally.faults[fault] += 1
        self.cut()

    def _go_on(self) -> None:
        if not self._is_stopping:
            self.ask()
        elif not self.ended.done():
            self.ended.set_result(None)
            self._transport.close()


class PlainClient(Client):
    """Asks for whole answers; each must be as `expected`."""

    def __init__(self, request: bytes, tally: Tally, *, expected: Expected) -> None:
        super().__init__(request, tally)
        self._expected = expected
        self._held = b""

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        if not data.startswith(_OK[: len(data)]):
            self.fail(_status_line(data))
            return
        head_end = data.find(_END_OF_HEAD)
        if head_end < 0:
            self._held = data
            return
        body_at = head_end + len(_END_OF_HEAD)
        length = self._expected.body_bytes(data)
        if length < 0:
            self.fail("a whole answer without content-length")
        elif body_at + length > len(data):
            self._held = data
        else:
            self._held = b""
            self._judge(data[body_at:])

    def _judge(self, body: bytes) -> None:
        likeness = self._expected.likeness(body)
        if likeness is Likeness.WRONG:
            self.fail("status 200, another body")
            return
        tally = self._tally
        tally.answers += 1
        tally.rewritten += likeness is Likeness.REWRITTEN
        tally.latencies_seconds.append(time.perf_counter() - self._asked_at)
        self._go_on()


class StreamClient(Client):
    """Asks for streams; each must be as `expected`, whatever the reads were.

    A latency is the time to the first event, a gap the time between two reads of one stream.
    """

    def __init__(self, request: bytes, tally: Tally, *, expected: Expected) -> None:
        super().__init__(request, tally)
        self._expected = expected
        self._parts: list[bytes] = []
        self._last_read_at = 0.0
        self._has_ended = False
        self._parser = httptools.HttpResponseParser(self)

    @property
    def has_begun(self) -> bool:
        return bool(self._parts)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        before = len(self._parts)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(f"not HTTP: {error}")
            return
        if len(self._parts) > before:
            self._note(now, is_first=before == 0)
        if self._has_ended:
            self._has_ended = False
            self._end()

    def on_status(self, _reason: bytes) -> None:
        if self._parser.get_status_code() != 200:
            self.fail(f"status {self._parser.get_status_code()}")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._tally.events += body.count(b"\n\n")

    def on_message_complete(self) -> None:
        self._has_ended = True

    def _note(self, now: float, *, is_first: bool) -> None:
        tally = self._tally
        tally.reads += 1
        if is_first:
            tally.latencies_seconds.append(now - self._asked_at)
        else:
            tally.worst_gap_seconds = max(tally.worst_gap_seconds, now - self._last_read_at)
        self._last_read_at = now

    def _end(self) -> None:
        payload, self._parts = b"".join(self._parts), []
        likeness = self._expected.likeness(payload)
        if likeness is Likeness.WRONG:
            self.fail(f"a stream of {len(payload)} bytes that is another one")
            return
        self._tally.answers += 1
        self._tally.rewritten += likeness is Likeness.REWRITTEN
        self._go_on()


async def connect(port: int, count: int, new_client: Callable[[], Client]) -> list[Client]:
    """`count` connected clients that have not asked for anything yet. Raises TargetFailed."""
    loop = asyncio.get_running_loop()
    clients = []
    for number in range(count):
        try:
            _, client = await loop.create_connection(new_client, "127.0.0.1", port)
        except OSError as error:
            raise TargetFailed(f"connection {number + 1} of {count}: {error}") from None
        clients.append(client)
    return clients


def _status_line(data: bytes) -> str:
    return data.partition(b"\r\n")[0].decode("latin-1")[:80]
