"""When a connection is used again, and what happens when it turns out to be gone."""

import asyncio

import pytest

from gateway.errors import UpstreamFailed, UpstreamTruncated
from gateway.transport.config import TransportConfig
from tests.fakes.upstream import (
    LAST_CHUNK,
    OK,
    STREAM_HEAD,
    Close,
    Hang,
    Receive,
    ReceiveHead,
    Reset,
    Script,
    Send,
    Step,
    Wait,
    chunk,
    let_it_be_read,
    whole,
)
from tests.gateway.transport.calls import ask, next_read, send, talking

FRESH: Script = (Receive(), Send(whole(b"fresh")))
ENDINGS = pytest.mark.parametrize("ending", [Close(), Reset()], ids=["FIN", "RST"])


def test_an_idle_connection_is_given_up_before_vllm_closes_it() -> None:
    vllm_closes_after_seconds = 5.0
    assert TransportConfig().keepalive_seconds < vllm_closes_after_seconds


async def test_calls_one_after_the_other_share_a_connection() -> None:
    async with talking() as (client, upstream):
        for _ in range(20):
            await ask(client)
        assert len(upstream.requests) == 20
        assert len(upstream.connections) == 1
        assert client.open_connections == 1


async def test_calls_at_the_same_time_have_a_connection_each() -> None:
    async with talking() as (client, upstream):
        await asyncio.gather(*(ask(client) for _ in range(10)))
        assert len(upstream.connections) == 10
        await asyncio.gather(*(ask(client) for _ in range(10)))
        assert len(upstream.connections) == 10


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    config = TransportConfig(keepalive_seconds=0.05)
    async with talking(config=config) as (client, upstream):
        await ask(client)
        await upstream.sees_end()
        await let_it_be_read()
        assert client.open_connections == 0


async def test_a_connection_past_its_time_is_not_used_even_before_the_sweeper_comes() -> None:
    config = TransportConfig(keepalive_seconds=0.01)
    async with talking(config=config) as (client, upstream):
        await ask(client)
        await asyncio.sleep(0.02)
        await ask(client)
        assert len(upstream.connections) == 2


async def test_idle_connections_beyond_the_maximum_are_closed() -> None:
    config = TransportConfig(max_idle_connections=3)
    async with talking(config=config) as (client, _):
        await asyncio.gather(*(ask(client) for _ in range(10)))
        await let_it_be_read()
        assert client.open_connections == 3


async def test_leaving_the_client_closes_every_connection() -> None:
    async with talking((Receive(), Send(OK), Hang())) as (client, upstream):
        await asyncio.gather(*(ask(client) for _ in range(3)))
        await client.__aexit__(None, None, None)
        assert client.open_connections == 0
        for number in range(3):
            await upstream.sees_end(number)
        await client.__aenter__()


# The upstream closes a kept-alive connection.


@ENDINGS
async def test_a_connection_closed_while_idle_is_replaced_unseen(ending: Step) -> None:
    async with talking((Receive(), Send(OK), ending), FRESH) as (client, upstream):
        await ask(client)
        await upstream.sees_end(0)
        await let_it_be_read()
        assert (await ask(client)).body == b"fresh"
        assert len(upstream.requests) == 2


@ENDINGS
async def test_a_used_connection_closed_before_any_byte_is_retried_once_unseen(
    ending: Step,
) -> None:
    async with talking((Receive(), Send(OK), Receive(), ending), FRESH) as (client, upstream):
        await ask(client)
        assert (await ask(client)).body == b"fresh"
        assert [request.body for request in upstream.requests] == [b'{"model":"m"}'] * 3


@ENDINGS
async def test_a_used_connection_closed_with_the_request_in_the_air_is_retried(
    ending: Step,
) -> None:
    async with talking((Receive(), Send(OK), ReceiveHead(), ending), FRESH) as (client, _):
        await ask(client)
        assert (await ask(client, body=b"x" * 1_000_000)).body == b"fresh"


@ENDINGS
async def test_a_fresh_connection_closed_before_any_byte_is_a_failure_without_retry(
    ending: Step,
) -> None:
    async with talking((Receive(), ending), FRESH) as (client, upstream):
        with pytest.raises(UpstreamFailed, match="before it answered"):
            await ask(client)
        assert len(upstream.requests) == 1


@ENDINGS
async def test_a_connection_closed_as_soon_as_it_is_accepted_is_a_failure(ending: Step) -> None:
    async with talking((ending,), FRESH) as (client, upstream):
        with pytest.raises(UpstreamFailed):
            await ask(client)
        assert len(upstream.connections) == 1


@ENDINGS
async def test_a_retry_is_never_retried(ending: Step) -> None:
    async with talking((Receive(), Send(OK), Receive(), ending), (Receive(), ending), FRESH) as (
        client,
        upstream,
    ):
        await ask(client)
        with pytest.raises(UpstreamFailed):
            await ask(client)
        assert len(upstream.requests) == 3


@ENDINGS
async def test_many_dead_connections_cost_one_retry_not_many(ending: Step) -> None:
    everybody_is_here = asyncio.Event()
    dying: Script = (Receive(), Wait(everybody_is_here), Send(OK), Receive(), ending)
    async with talking(*[dying] * 8, (Receive(), ending), FRESH) as (client, upstream):
        calls = [asyncio.create_task(ask(client)) for _ in range(8)]
        await upstream.sees_requests(8)
        everybody_is_here.set()
        await asyncio.gather(*calls)
        with pytest.raises(UpstreamFailed):
            await ask(client)
        assert len(upstream.requests) == 8 + 2


@ENDINGS
@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_used_connection_closed_after_one_byte_is_never_retried(
    begun: bytes, ending: Step
) -> None:
    script = (Receive(), Send(OK), Receive(), Send(begun), Wait(0.01), ending)
    async with talking(script, FRESH) as (client, upstream):
        await ask(client)
        with pytest.raises(UpstreamFailed):
            await ask(client)
        assert len(upstream.requests) == 2


@ENDINGS
async def test_a_used_connection_closed_in_the_middle_of_an_answer_is_never_retried(
    ending: Step,
) -> None:
    script = (Receive(), Send(OK), Receive(), Send(STREAM_HEAD + chunk(b"a")), Wait(0.01), ending)
    async with talking(script, FRESH) as (client, upstream):
        await ask(client)
        with pytest.raises(UpstreamTruncated):
            await ask(client)
        assert len(upstream.requests) == 2


# What an answer leaves behind.


async def test_closing_an_answer_half_read_cuts_the_connection() -> None:
    script = (Receive(), Send(STREAM_HEAD + chunk(b"data: 1\n\n")), Hang())
    async with talking(script, FRESH) as (client, upstream):
        answer = await send(client)
        await next_read(answer)
        answer.close()
        await upstream.sees_end()
        assert (await ask(client)).body == b"fresh"


async def test_closing_a_whole_answer_keeps_the_connection_even_unread() -> None:
    async with talking() as (client, upstream):
        (await send(client)).close()
        (await send(client)).close()
        assert len(upstream.connections) == 1


async def test_closing_twice_gives_the_connection_back_once() -> None:
    async with talking() as (client, upstream):
        answer = await send(client)
        answer.close()
        answer.close()
        await asyncio.gather(ask(client), ask(client))
        assert len(upstream.connections) == 2


async def test_a_closed_answer_never_shows_somebody_elses() -> None:
    async with talking((Receive(), Send(OK), Receive(), Send(whole(b"secret")))) as (client, _):
        first = await send(client)
        first.close()
        second = await send(client)
        with pytest.raises(UpstreamFailed):
            await next_read(first)
        with pytest.raises(UpstreamFailed):
            await first.read(limit_bytes=100)
        assert await second.read(limit_bytes=100) == b"secret"
        second.close()


async def test_an_answer_before_all_of_the_request_was_sent_is_whole_but_ends_the_connection() -> (
    None
):
    refusal = whole(b"too large", status=413)
    async with talking((ReceiveHead(), Send(refusal), Hang()), FRESH) as (client, upstream):
        # Hang reads on, but only once the answer is out.
        body = b"x" * 20_000_000
        answer = await send(client, body=body)
        assert (answer.status, await answer.read(limit_bytes=100)) == (413, b"too large")
        answer.close()
        await upstream.sees_end()
        assert (await ask(client)).body == b"fresh"


async def test_a_large_request_arrives_whole() -> None:
    body = bytes(range(256)) * 40_000
    async with talking() as (client, upstream):
        await ask(client, body=body)
        await ask(client, body=body)
        assert [request.body == body for request in upstream.requests] == [True, True]
        assert len(upstream.connections) == 1


async def test_an_answer_seen_out_gives_its_connection_back_when_it_has_ended() -> None:
    late = (Receive(), Send(STREAM_HEAD + chunk(b"data: [DONE]\n\n")), Wait(0.05), Send(LAST_CHUNK))
    async with talking((*late, Receive(), Send(OK))) as (client, upstream):
        answer = await send(client)
        assert await next_read(answer) == b"data: [DONE]\n\n"
        answer.see_out()
        await asyncio.sleep(0.2)
        assert (await ask(client)).status == 200
        assert len(upstream.connections) == 1


async def test_an_answer_seen_out_that_does_not_end_is_cut() -> None:
    script = (Receive(), Send(STREAM_HEAD + chunk(b"data: [DONE]\n\n")), Hang())
    async with talking(script) as (client, upstream):
        answer = await send(client)
        await next_read(answer)
        answer.see_out()
        await upstream.sees_end(within_seconds=3.0)


async def test_what_was_not_read_can_be_taken_without_waiting() -> None:
    script = (Receive(), Send(STREAM_HEAD + chunk(b"1") + chunk(b"2")), Hang())
    async with talking(script) as (client, _):
        answer = await send(client)
        await asyncio.sleep(0.05)
        assert answer.take_unread() == b"12"
        assert answer.take_unread() == b""
        answer.close()
