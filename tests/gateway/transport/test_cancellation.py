"""A call given up, at whatever stage, closes the upstream's socket and leaves nothing behind."""

import asyncio
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from gateway.transport.client import UpstreamClient
from gateway.transport.config import TransportConfig
from tests.fakes.upstream import (
    OK,
    STREAM_HEAD,
    Hang,
    Receive,
    ReceiveHead,
    Script,
    ScriptedUpstream,
    Send,
    Wait,
    chunk,
    let_it_be_read,
)
from tests.gateway.transport.calls import Whole, ask, client_of, next_read, send, talking

EVENT = chunk(b"data: 1\n\n")


async def give_up(call: asyncio.Task[Whole] | asyncio.Task[None]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def open_files() -> int:
    return len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))


async def connect_in_vain(client: UpstreamClient) -> None:
    call = asyncio.create_task(ask(client))
    await asyncio.sleep(0.02)
    await give_up(call)
    await let_it_be_read()


async def cut_one(client: UpstreamClient, upstream: ScriptedUpstream) -> None:
    call = asyncio.create_task(follow(client))
    await upstream.sees_requests(1)
    await give_up(call)
    await upstream.sees_end()


async def follow(client: UpstreamClient) -> None:
    with closing(await send(client)) as answer:
        while await next_read(answer):
            pass


async def test_cancelled_while_connecting_it_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with client_of(url) as client:
            await connect_in_vain(client)
            before = open_files()
            for _ in range(5):
                await connect_in_vain(client)
            assert client.open_connections == 0
            assert open_files() == before
        for each in waiting:
            each.close()


STAGES: dict[str, Script] = {
    "sending the request": (ReceiveHead(), Wait(0.05), Hang()),
    "waiting for the head": (Receive(), Hang()),
    "in the middle of the head": (Receive(), Send(b"HTTP/1.1 200"), Hang()),
    "before the first event": (Receive(), Send(STREAM_HEAD), Hang()),
    "in the middle of the answer": (Receive(), Send(STREAM_HEAD + EVENT), Hang()),
    "in the middle of an event": (Receive(), Send(STREAM_HEAD + EVENT[:-4]), Hang()),
}


@pytest.mark.parametrize("stage", STAGES)
async def test_cancelled_at_any_stage_the_upstream_sees_it_within_a_second(stage: str) -> None:
    async with talking(STAGES[stage]) as (client, upstream):
        call = asyncio.create_task(follow(client))
        await upstream.sees_requests(1)
        await asyncio.sleep(0.02)
        await give_up(call)
        await upstream.sees_end(within_seconds=1.0)
        await let_it_be_read()
        assert client.open_connections == 0


async def test_cancelled_with_a_large_request_under_way_the_upstream_sees_it() -> None:
    async with talking((ReceiveHead(), Wait(0.1), Hang())) as (client, upstream):
        call = asyncio.create_task(ask(client, body=b"x" * 30_000_000))
        await upstream.sees_requests(1)
        await give_up(call)
        await upstream.sees_end()


async def test_cancelled_on_a_used_connection_it_is_cut_and_not_retried() -> None:
    async with talking((Receive(), Send(OK), Receive(), Hang())) as (client, upstream):
        await ask(client)
        call = asyncio.create_task(ask(client))
        await upstream.sees_requests(2)
        await give_up(call)
        await upstream.sees_end()
        assert len(upstream.requests) == 2


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_in_the_tick_in_which_the_answer_arrives_nothing_leaks(turns: int) -> None:
    release = asyncio.Event()
    async with talking((Receive(), Wait(release), Send(OK))) as (client, upstream):
        call = asyncio.create_task(ask(client))
        await upstream.sees_requests(1)
        release.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        (ending,) = await asyncio.gather(call, return_exceptions=True)
        await let_it_be_read()
        if isinstance(ending, asyncio.CancelledError):
            await upstream.sees_end()
            assert client.open_connections == 0
        else:
            assert (await ask(client)).status == 200
            assert len(upstream.connections) == 1


async def test_cancelled_at_random_moments_no_connection_and_no_file_is_left() -> None:
    script = (
        Receive(),
        Send(STREAM_HEAD),
        *[step for _ in range(5) for step in (Wait(0.002), Send(EVENT))],
        Hang(),
    )
    config = TransportConfig(keepalive_seconds=0.05)
    async with talking(script, config=config) as (client, upstream):
        await cut_one(client, upstream)  # Event loops open files of their own with the first.
        before = open_files()
        calls = []
        for number in range(60):
            calls.append(asyncio.create_task(follow(client)))
            await asyncio.sleep(0.0005 * (number % 5))
            calls[number // 2].cancel()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for number in range(len(upstream.connections)):
            await upstream.sees_end(number)
        await asyncio.sleep(0.05)
        assert client.open_connections == 0
        assert open_files() <= before
