"""A slow reader stops the upstream, costs a bounded buffer, and still gets every byte once."""

import asyncio
from contextlib import closing
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.transport.connection import BUFFERED_BYTES_MAX
from tests.fakes.upstream import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Drip,
    Receive,
    ScriptedUpstream,
    Send,
    chunk,
    let_it_be_read,
    whole,
)
from tests.gateway.transport.calls import LIMIT_BYTES, next_read, send, talking

# What one read of the event loop may bring at most (asyncio and uvloop alike).
ONE_READ_BYTES = 256 * 1024
# What the kernel keeps between two sockets of one machine.
KERNEL_BYTES = 16 * 1024 * 1024
BODY = bytes(range(256)) * 400_000


def digest(data: bytes) -> str:
    """Compared instead of the bytes themselves, whose difference nobody could read."""
    return f"{len(data)} bytes, {sha256(data).hexdigest()}"


async def stall(upstream: ScriptedUpstream) -> int:
    """Wait until the upstream can write no more; how many bytes it has written."""
    written = -1
    while written != upstream.connections[0].sent_bytes:
        written = upstream.connections[0].sent_bytes
        await asyncio.sleep(0.05)
    return written


@pytest.mark.parametrize(
    "answer",
    [STREAM_HEAD + chunk(BODY) + LAST_CHUNK, whole(BODY)],
    ids=["chunked", "content-length"],
)
async def test_an_upstream_waits_for_a_slow_reader_and_no_byte_is_lost(answer: bytes) -> None:
    async with talking((Receive(), Send(answer))) as (client, upstream):
        with closing(await send(client)) as reply:
            assert await stall(upstream) < KERNEL_BYTES < len(BODY)
            parts = []
            while part := await next_read(reply):
                parts.append(part)
                assert len(part) <= BUFFERED_BYTES_MAX + ONE_READ_BYTES
            assert digest(b"".join(parts)) == digest(BODY)
        (await send(client)).close()
        assert len(upstream.connections) == 1


async def test_every_pause_of_the_reader_stops_the_upstream_again() -> None:
    async with talking((Receive(), Send(whole(BODY)))) as (client, upstream):
        with closing(await send(client)) as reply:
            received = 0
            for _ in range(3):
                written = await stall(upstream)
                assert written - received < KERNEL_BYTES
                while received < written:
                    received += len(await next_read(reply))
            received += len(await reply.read(limit_bytes=2 * LIMIT_BYTES))
            assert received == len(BODY)


async def test_the_end_of_an_answer_without_length_waits_for_a_slow_reader() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    async with talking((Receive(), Send(head + BODY), Close())) as (client, upstream):
        with closing(await send(client)) as reply:
            await stall(upstream)
            assert digest(await reply.read(limit_bytes=2 * LIMIT_BYTES)) == digest(BODY)


async def test_closing_a_paused_answer_cuts_it() -> None:
    async with talking((Receive(), Send(whole(BODY)))) as (client, upstream):
        reply = await send(client)
        await stall(upstream)
        reply.close()
        await upstream.sees_end()
        await let_it_be_read()
        assert client.open_connections == 0


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(1, 150_000), min_size=1, max_size=12),
    piece=st.integers(10_000, 400_000),
    naps=st.lists(st.booleans(), min_size=1, max_size=5),
)
async def test_no_byte_is_lost_or_doubled_whatever_the_sizes_and_pauses(
    sizes: list[int], piece: int, naps: list[bool]
) -> None:
    body = BODY[: sum(sizes)]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    chunks = [chunk(body[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
    answer = STREAM_HEAD + b"".join(chunks) + LAST_CHUNK
    async with talking((Receive(), Drip(answer, piece))) as (client, _):
        with closing(await send(client)) as reply:
            received = b""
            turn = 0
            while part := await next_read(reply):
                received += part
                turn += 1
                if naps[turn % len(naps)]:
                    await let_it_be_read()
            assert digest(received) == digest(body)
