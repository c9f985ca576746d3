"""How long the client waits for what, and that it then lets go of the connection."""

import asyncio
import socket
from contextlib import closing
from time import monotonic

import pytest

from gateway.errors import UpstreamTimeout, UpstreamUnavailable
from gateway.transport.config import TransportConfig
from tests.fakes.backlog import full_backlog
from tests.fakes.upstream import (
    LAST_CHUNK,
    OK,
    STREAM_HEAD,
    Drip,
    Hang,
    Receive,
    Script,
    Send,
    Wait,
    chunk,
    let_it_be_read,
)
from tests.gateway.transport.calls import LIMIT_BYTES, ask, client_of, next_read, send, talking

SHORT_SECONDS = 0.05
EVENT = chunk(b"data: 1\n\n")


async def test_connecting_has_a_deadline() -> None:
    with full_backlog() as url:
        async with client_of(url, TransportConfig(connect_timeout_seconds=0.1)) as client:
            with pytest.raises(UpstreamUnavailable, match="CONNECT_TIMEOUT_SECONDS"):
                await ask(client)
            assert client.open_connections == 0


async def test_a_refused_connection_is_known_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with client_of(url) as client:
        with pytest.raises(UpstreamUnavailable) as refused:
            await ask(client)
        assert refused.value.retry_after_seconds == 1.0


async def test_an_unknown_host_is_unavailable() -> None:
    async with client_of("http://upstream.invalid:8000") as client:
        with pytest.raises(UpstreamUnavailable):
            await ask(client)


@pytest.mark.parametrize(
    ("is_stream", "config", "setting"),
    [
        (True, TransportConfig(first_byte_timeout_seconds=SHORT_SECONDS), "FIRST_BYTE"),
        (False, TransportConfig(unstreamed_timeout_seconds=SHORT_SECONDS), "UNSTREAMED"),
    ],
)
@pytest.mark.parametrize(
    "script",
    [(Receive(), Hang()), (Receive(), Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1"), Hang())],
    ids=["silent", "half a head"],
)
async def test_the_head_has_a_deadline(
    is_stream: bool, config: TransportConfig, setting: str, script: Script
) -> None:
    async with talking(script, config=config) as (client, upstream):
        with pytest.raises(UpstreamTimeout, match=f"{setting}_TIMEOUT_SECONDS"):
            await ask(client, is_stream=is_stream)
        await upstream.sees_end()
        await let_it_be_read()
        assert client.open_connections == 0


async def test_a_streams_head_is_no_first_byte() -> None:
    config = TransportConfig(first_byte_timeout_seconds=SHORT_SECONDS)
    async with talking((Receive(), Send(STREAM_HEAD), Hang()), config=config) as (client, _):
        with (
            closing(await send(client)) as answer,
            pytest.raises(UpstreamTimeout, match="FIRST_BYTE_TIMEOUT_SECONDS"),
        ):
            await next_read(answer)


async def test_an_answer_that_is_not_streamed_may_take_longer_than_a_streams_first_byte() -> None:
    config = TransportConfig(first_byte_timeout_seconds=SHORT_SECONDS)
    async with talking((Receive(), Wait(0.3), Send(OK)), config=config) as (client, _):
        assert (await ask(client, is_stream=False)).status == 200


async def test_a_dripping_head_does_not_extend_its_deadline() -> None:
    config = TransportConfig(first_byte_timeout_seconds=0.1)
    drips = [step for letter in b"HTTP/1.1 200" for step in (Send(bytes([letter])), Wait(0.05))]
    async with talking((Receive(), *drips, Hang()), config=config) as (client, _):
        with pytest.raises(UpstreamTimeout):
            await ask(client)


async def test_a_timeout_is_never_retried_on_another_connection() -> None:
    config = TransportConfig(first_byte_timeout_seconds=SHORT_SECONDS)
    script = (Receive(), Send(OK), Receive(), Hang())
    async with talking(script, (Receive(), Send(OK)), config=config) as (client, upstream):
        await ask(client)
        with pytest.raises(UpstreamTimeout):
            await ask(client)
        assert len(upstream.connections) == 1


async def test_silence_in_the_middle_of_an_answer_has_a_deadline() -> None:
    config = TransportConfig(idle_timeout_seconds=SHORT_SECONDS)
    async with talking((Receive(), Send(STREAM_HEAD + EVENT), Hang()), config=config) as (
        client,
        upstream,
    ):
        with closing(await send(client)) as answer:
            assert await next_read(answer) == b"data: 1\n\n"
            with pytest.raises(UpstreamTimeout, match="IDLE_TIMEOUT_SECONDS"):
                await next_read(answer)
            await upstream.sees_end()


async def test_an_upstream_that_keeps_talking_is_never_idle() -> None:
    config = TransportConfig(idle_timeout_seconds=0.3)
    events = [step for _ in range(8) for step in (Wait(0.1), Send(EVENT))]
    async with talking(
        (Receive(), Send(STREAM_HEAD), *events, Send(LAST_CHUNK)), config=config
    ) as (
        client,
        _,
    ):
        assert (await ask(client)).body == b"data: 1\n\n" * 8


async def test_the_whole_answer_has_a_deadline_however_busy_the_upstream() -> None:
    config = TransportConfig(answer_timeout_seconds=0.2)
    async with talking((Receive(), Send(STREAM_HEAD), Drip(EVENT * 10**6)), config=config) as (
        client,
        upstream,
    ):
        began = monotonic()
        with pytest.raises(UpstreamTimeout, match="ANSWER_TIMEOUT_SECONDS"):
            await ask(client)
        assert 0.19 < monotonic() - began < 1.0  # uvloop's clock counts whole milliseconds.
        await upstream.sees_end()


async def test_a_slow_reader_is_not_an_idle_upstream() -> None:
    config = TransportConfig(idle_timeout_seconds=SHORT_SECONDS)
    body = b"x" * 3_000_000
    async with talking(
        (Receive(), Send(STREAM_HEAD + chunk(body) + LAST_CHUNK)), config=config
    ) as (client, _):
        with closing(await send(client)) as answer:
            first = await next_read(answer)
            await asyncio.sleep(0.4)
            rest = await answer.read(limit_bytes=LIMIT_BYTES)
            assert first + rest == body


async def test_the_idle_deadline_runs_again_once_a_slow_reader_has_caught_up() -> None:
    config = TransportConfig(idle_timeout_seconds=SHORT_SECONDS)
    script = (Receive(), Send(STREAM_HEAD + chunk(b"x" * 3_000_000)), Hang())
    async with talking(script, config=config) as (client, upstream):
        with closing(await send(client)) as answer:
            await asyncio.sleep(0.3)
            with pytest.raises(UpstreamTimeout):
                await answer.read(limit_bytes=LIMIT_BYTES)
            await upstream.sees_end()


async def test_what_came_before_the_deadline_is_read_before_the_error() -> None:
    config = TransportConfig(idle_timeout_seconds=SHORT_SECONDS)
    async with talking((Receive(), Send(STREAM_HEAD + EVENT), Hang()), config=config) as (
        client,
        upstream,
    ):
        with closing(await send(client)) as answer:
            await upstream.sees_end()
            assert await next_read(answer) == b"data: 1\n\n"
            with pytest.raises(UpstreamTimeout):
                await next_read(answer)


async def test_a_whole_answer_has_no_deadline_left() -> None:
    config = TransportConfig(
        idle_timeout_seconds=SHORT_SECONDS, answer_timeout_seconds=SHORT_SECONDS
    )
    async with talking(config=config) as (client, upstream):
        with closing(await send(client)) as answer:
            await asyncio.sleep(0.3)
            assert await answer.read(limit_bytes=100) == b'{"ok":true}'
        await ask(client)
        assert len(upstream.connections) == 1
