"""One connection without a network: what no socket can be made to do at the right moment."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import UpstreamFailed, UpstreamTruncated
from gateway.transport.config import TransportConfig
from gateway.transport.connection import (
    BUFFERED_BYTES_MAX,
    StaleConnection,
    UpstreamConnection,
)
from tests.fakes.upstream import LAST_CHUNK, OK, STREAM_HEAD, chunk, let_it_be_read, whole
from tests.gateway.transport.calls import next_read


class FakeTransport(asyncio.Transport):
    """Remembers what was asked of it; says the end of the connection in the next turn."""

    def __init__(self, protocol: UpstreamConnection) -> None:
        super().__init__()
        self._protocol = protocol
        self._is_closing = False
        self.is_listening = True
        self.unsent_bytes = 0
        self.written = b""
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self.is_listening = False

    def resume_reading(self) -> None:
        self.is_listening = True

    def abort(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)


@pytest.fixture
async def connection() -> AsyncIterator[UpstreamConnection]:
    loop = asyncio.get_running_loop()
    yield UpstreamConnection(TransportConfig(), loop=loop, on_closed=lambda _: None)


@pytest.fixture
async def transport(connection: UpstreamConnection) -> FakeTransport:
    return FakeTransport(connection)


class Taker:
    """Keeps each read it is handed, and says whether it wants more."""

    def __init__(self, *, goes_on: bool) -> None:
        self.reads: list[bytes] = []
        self._goes_on = goes_on

    def __call__(self, read: bytes) -> bool:
        self.reads.append(read)
        return self._goes_on


async def begin(connection: UpstreamConnection, answer: bytes) -> None:
    """One exchange up to the head of its answer."""
    call = asyncio.create_task(connection.exchange(b"head", b"body", is_stream=True))
    await asyncio.sleep(0)
    connection.data_received(answer)
    await call


async def test_bytes_before_any_request_close_the_connection(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    connection.data_received(OK)
    assert transport.is_closing()
    with pytest.raises(UpstreamFailed):
        await connection.exchange(b"", b"", is_stream=True)


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_a_connection_lost_before_its_first_request_fails_at_once(
    connection: UpstreamConnection, transport: FakeTransport, error: Exception | None
) -> None:
    connection.connection_lost(error)
    async with asyncio.timeout(1):
        with pytest.raises(UpstreamFailed, match="before it answered"):
            await connection.exchange(b"", b"", is_stream=True)


async def test_the_end_is_seen_although_the_request_is_not_fully_sent(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    transport.unsent_bytes = 1
    await begin(connection, b"HTTP/1.1 200 OK\r\n\r\nall")
    connection.eof_received()
    assert await connection.read(limit_bytes=10) == b"all"
    assert not connection.release()


async def test_an_answer_with_any_of_the_request_unsent_ends_the_connection(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    transport.unsent_bytes = 1
    await begin(connection, OK)
    assert not connection.release()
    assert transport.is_closing()


async def test_a_half_closed_upstream_is_noticed_without_waiting_for_the_socket(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    transport.unsent_bytes = 1
    await begin(connection, STREAM_HEAD)
    connection.eof_received()
    with pytest.raises(UpstreamTruncated):
        await next_read(connection)


async def test_the_end_before_any_byte_is_stale_only_on_a_used_connection(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, OK)
    assert connection.release()
    call = asyncio.create_task(connection.exchange(b"", b"", is_stream=True))
    await asyncio.sleep(0)
    connection.eof_received()
    with pytest.raises(StaleConnection):
        await call


async def test_reading_pauses_above_the_bound_and_goes_on_when_the_reader_has_taken_it(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, STREAM_HEAD)
    connection.data_received(chunk(b"x" * BUFFERED_BYTES_MAX))
    assert transport.is_listening
    connection.data_received(chunk(b"y"))
    assert not transport.is_listening
    assert len(await next_read(connection)) == BUFFERED_BYTES_MAX + 1
    assert transport.is_listening


async def test_a_paused_connection_has_no_idle_deadline_but_that_of_the_answer(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, STREAM_HEAD)
    connection.data_received(chunk(b"x" * (BUFFERED_BYTES_MAX + 1)))
    now = asyncio.get_running_loop().time()
    assert connection.next_deadline > now + TransportConfig().idle_timeout_seconds + 1
    await next_read(connection)
    assert connection.next_deadline <= now + TransportConfig().idle_timeout_seconds + 1


async def test_bytes_after_the_connection_was_cut_are_nobodys(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, STREAM_HEAD)
    connection.abort()
    connection.data_received(chunk(b"late") + LAST_CHUNK)
    await let_it_be_read()
    with pytest.raises(UpstreamFailed):
        await next_read(connection)


async def test_each_read_is_handed_on_in_the_callback_that_brought_it(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, STREAM_HEAD)
    take = Taker(goes_on=True)
    delivery = asyncio.create_task(connection.deliver(take))
    await asyncio.sleep(0)
    connection.data_received(chunk(b"one"))
    assert take.reads == [b"one"]
    connection.data_received(chunk(b"two") + chunk(b"three"))
    assert take.reads == [b"one", b"twothree"]
    connection.data_received(LAST_CHUNK)
    assert await delivery is False


async def test_what_comes_after_a_read_that_stopped_the_delivery_waits_for_the_next_one(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, STREAM_HEAD)
    take = Taker(goes_on=False)
    delivery = asyncio.create_task(connection.deliver(take))
    await asyncio.sleep(0)
    connection.data_received(chunk(b"one"))
    connection.data_received(chunk(b"two"))
    assert await delivery is True
    assert take.reads == [b"one"]
    assert await connection.deliver(take) is True
    assert take.reads == [b"one", b"two"]


async def test_a_read_that_stopped_the_delivery_is_told_of_before_the_end_of_the_connection(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, STREAM_HEAD)
    delivery = asyncio.create_task(connection.deliver(lambda _read: False))
    await asyncio.sleep(0)
    connection.data_received(chunk(b"the terminator"))
    connection.eof_received()
    assert await delivery is True
    with pytest.raises(UpstreamTruncated):
        await next_read(connection)


async def test_what_the_taker_raises_is_raised_where_the_answer_is_awaited(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    def refuse(_read: bytes) -> bool:
        raise UpstreamFailed("an error event")

    await begin(connection, STREAM_HEAD)
    delivery = asyncio.create_task(connection.deliver(refuse))
    await asyncio.sleep(0)
    connection.data_received(chunk(b"bad"))
    connection.data_received(chunk(b"after it"))
    with pytest.raises(UpstreamFailed, match="an error event"):
        await delivery
    assert connection.take_unread() == b"after it"


async def test_what_comes_in_the_tick_of_a_cancellation_is_left_to_be_counted(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, STREAM_HEAD)
    take = Taker(goes_on=True)
    delivery = asyncio.create_task(connection.deliver(take))
    await asyncio.sleep(0)
    delivery.cancel()
    connection.data_received(chunk(b"late"))
    with pytest.raises(asyncio.CancelledError):
        await delivery
    assert (take.reads, connection.take_unread()) == ([], b"late")


async def test_every_pair_of_split_points_gives_the_same_answer() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM_HEAD + chunk(b"hi") + b"0\r\na: b\r\n\r\n"
    loop = asyncio.get_running_loop()
    for first in range(1, len(answer)):
        for second in range(first, len(answer)):
            connection = UpstreamConnection(TransportConfig(), loop=loop, on_closed=lambda _: None)
            FakeTransport(connection)
            call = connection.exchange(b"", b"", is_stream=True)
            call.send(None)
            for piece in (answer[:first], answer[first:second], answer[second:]):
                connection.data_received(piece)
            with pytest.raises(StopIteration):
                call.send(None)
            with pytest.raises(StopIteration) as read:
                connection.read(limit_bytes=10).send(None)
            assert (connection.status, read.value.value) == (200, b"hi"), (first, second)
            assert connection.release()


async def test_any_body_of_known_length_is_not_copied_twice(
    connection: UpstreamConnection, transport: FakeTransport
) -> None:
    await begin(connection, whole(b"once"))
    assert transport.written == b"headbody"
    assert await connection.read(limit_bytes=4) == b"once"
    assert await connection.read(limit_bytes=4) == b""
