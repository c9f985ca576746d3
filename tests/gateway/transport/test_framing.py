"""Where an answer begins and ends (RFC 9112), however the bytes arrive."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import AnswerTooLarge, UpstreamFailed, UpstreamTruncated
from gateway.transport.config import TransportConfig
from tests.fakes.upstream import (
    LAST_CHUNK,
    OK,
    Close,
    Drip,
    Hang,
    Receive,
    Reset,
    Script,
    Send,
    Step,
    chunk,
    let_it_be_read,
    whole,
)
from tests.gateway.transport.calls import Whole, ask, next_read, talking

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EOF_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n"
DONE = Whole(200, b"hello, world")

KEPT = {
    "content-length": whole(b"hello, world"),
    "chunked": CHUNKED_HEAD + chunk(b"hello, ") + chunk(b"world") + LAST_CHUNK,
    "chunk extensions": CHUNKED_HEAD + b'7;a=b;c="d"\r\nhello, \r\n05;x\r\nworld\r\n000;y\r\n\r\n',
    "upper case coding": CHUNKED_HEAD.replace(b"chunked", b"Chunked")
    + chunk(DONE.body)
    + b"0\r\n\r\n",
    "trailers": CHUNKED_HEAD + chunk(DONE.body) + b"0\r\nx-a: 1\r\nretry-after: 7\r\n\r\n",
    "100 before": b"HTTP/1.1 100 Continue\r\n\r\n" + whole(b"hello, world"),
    "103 before": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + whole(b"hello, world"),
    "two interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 2 + whole(b"hello, world"),
    "HTTP/1.0 kept alive": whole(b"hello, world", headers="connection: keep-alive\r\n").replace(
        b"1.1", b"1.0"
    ),
    "no reason phrase": whole(b"hello, world").replace(b" Said", b""),
}
CLOSED = {
    "until EOF": EOF_HEAD + b"hello, world",
    "HTTP/1.0": whole(b"hello, world").replace(b"1.1", b"1.0"),
    "HTTP/1.0 until EOF": EOF_HEAD.replace(b"1.1", b"1.0") + b"hello, world",
    "connection: close": whole(b"hello, world", headers="connection: close\r\n"),
    "chunked, then close": CHUNKED_HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    + chunk(b"hello, world")
    + LAST_CHUNK,
}


def split_at(answer: bytes, point: int, *after: Step) -> Script:
    return (Receive(), Drip(answer[:point], point or 1), Send(answer[point:]), *after)


@pytest.mark.parametrize("name", KEPT)
async def test_an_answer_is_whole_at_every_split_point_and_its_connection_kept(name: str) -> None:
    answer = KEPT[name]
    script = [step for point in range(len(answer)) for step in split_at(answer, point)]
    async with talking(script) as (client, upstream):
        for point in range(len(answer)):
            assert await ask(client) == DONE, point
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("name", CLOSED)
async def test_an_answer_that_closes_is_whole_at_every_split_point(name: str) -> None:
    answer = CLOSED[name]
    scripts = [split_at(answer, point, Close()) for point in range(len(answer))]
    async with talking(*scripts) as (client, upstream):
        for point in range(len(answer)):
            assert await ask(client) == DONE, point
        assert len(upstream.connections) == len(answer)


@pytest.mark.parametrize("name", [*KEPT, *CLOSED])
async def test_an_answer_is_whole_byte_by_byte(name: str) -> None:
    answer = {**KEPT, **CLOSED}[name]
    async with talking((Receive(), Drip(answer), Close())) as (client, _):
        assert await ask(client) == DONE


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=20), size=st.integers(1, 97))
async def test_chunks_of_any_size_arrive_unchanged(chunks: list[bytes], size: int) -> None:
    answer = CHUNKED_HEAD + b"".join(map(chunk, chunks)) + LAST_CHUNK
    async with talking((Receive(), Drip(answer, size))) as (client, _):
        assert (await ask(client)).body == b"".join(chunks)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        CHUNKED_HEAD + LAST_CHUNK,
    ],
)
async def test_an_answer_without_a_body_ends_with_its_head(answer: bytes) -> None:
    async with talking((Receive(), Send(answer))) as (client, upstream):
        assert (await ask(client)).body == b""
        assert (await ask(client)).body == b""
        assert len(upstream.connections) == 1


# Surplus: what comes after the answer belongs to nobody.


@pytest.mark.parametrize("surplus", [OK, b"x", b"HTTP/1.1 ", b"\x00"])
@pytest.mark.parametrize("answer", [KEPT["content-length"], KEPT["chunked"]])
async def test_a_connection_with_surplus_bytes_is_not_used_again(
    answer: bytes, surplus: bytes
) -> None:
    async with talking((Receive(), Send(answer + surplus), Hang()), (Receive(), Send(OK))) as (
        client,
        upstream,
    ):
        assert await ask(client) == DONE
        await upstream.sees_end(0)
        assert (await ask(client)).body == b'{"ok":true}'


async def test_surplus_bytes_that_come_later_close_the_idle_connection() -> None:
    async with talking(
        (Receive(), Send(OK), Drip(b""), Send(OK), Hang()), (Receive(), Send(whole(b"2")))
    ) as (client, upstream):
        await ask(client)
        await upstream.sees_end(0)
        assert (await ask(client)).body == b"2"


# Malformed: never passed on as an answer.

MALFORMED = {
    "html": b"<html>Bad Gateway</html>\r\n\r\n",
    "binary": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "another version": whole().replace(b"1.1", b"9.9"),
    "http/2": whole().replace(b"HTTP/1.1", b"HTTP/2"),
    "no status": b"HTTP/1.1 OK\r\ncontent-length: 2\r\n\r\nok",
    "two digits of status": whole(status=20),
    "status below 100": whole(b"ok", status=99).replace(b" 99 ", b" 099 "),
    "bare LF": whole().replace(b"\r\n", b"\n"),
    "NUL in a value": whole(headers="x-a: a\0b\r\n"),
    "CR in a value": whole(headers="x-a: a\rb\r\n"),
    "folded line": whole(headers="x-a: a\r\n b\r\n"),
    "space in a name": whole(headers="x a: b\r\n"),
    "content-length twice": whole(headers="content-length: 2\r\n"),
    "content-length as a list": whole(b"ok").replace(b": 2", b": 2, 2"),
    "negative content-length": whole(b"ok").replace(b": 2", b": -2"),
    "content-length in words": whole(b"ok").replace(b": 2", b": two"),
    "empty content-length": whole(b"ok").replace(b": 2", b": "),
    "content-length overflow": whole(b"ok").replace(b": 2", b": 99999999999999999999"),
    "length and coding": whole(headers="transfer-encoding: chunked\r\n"),
    "coding and length": CHUNKED_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-length: 2\r\n\r\n"),
    "unknown coding": CHUNKED_HEAD.replace(b"chunked", b"gzip") + b"ok",
    "coding besides chunked": CHUNKED_HEAD.replace(b"chunked", b"gzip, chunked") + LAST_CHUNK,
    "chunked twice": CHUNKED_HEAD.replace(b"chunked", b"chunked, chunked") + LAST_CHUNK,
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "101 without upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK,
    "gzip": whole(b"\x1f\x8b", headers="content-encoding: gzip\r\n"),
    "gzip, then identity": whole(
        b"\x1f\x8b", headers="content-encoding: gzip\r\ncontent-encoding: identity\r\n"
    ),
}
MALFORMED_BODIES = {
    "chunk size not hexadecimal": CHUNKED_HEAD + b"xy\r\nok\r\n" + LAST_CHUNK,
    "negative chunk size": CHUNKED_HEAD + b"-2\r\nok\r\n" + LAST_CHUNK,
    "chunk size overflow": CHUNKED_HEAD + b"ffffffffffffffffff\r\nok\r\n" + LAST_CHUNK,
    "chunk longer than its size": CHUNKED_HEAD + b"2\r\nokay\r\n" + LAST_CHUNK,
    "bare LF after a chunk size": CHUNKED_HEAD + b"2\nok\r\n" + LAST_CHUNK,
}


@pytest.mark.parametrize("name", [*MALFORMED, *MALFORMED_BODIES])
async def test_a_malformed_answer_is_refused_and_its_connection_closed(name: str) -> None:
    answer = {**MALFORMED, **MALFORMED_BODIES}[name]
    async with talking((Receive(), Send(answer), Hang())) as (client, upstream):
        with pytest.raises(UpstreamFailed):
            await ask(client)
        await upstream.sees_end()
        await let_it_be_read()
        assert client.open_connections == 0


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_head_is_refused_byte_by_byte(name: str) -> None:
    async with talking((Receive(), Drip(MALFORMED[name]), Hang())) as (client, _):
        with pytest.raises(UpstreamFailed):
            await ask(client)


SMALL = TransportConfig(max_head_bytes=1024)
OVERSIZED = {
    "one long header": whole(headers=f"x-a: {'a' * 2000}\r\n"),
    "an endless name": b"HTTP/1.1 200 OK\r\n" + b"a" * 5000,
    "an endless reason": b"HTTP/1.1 200 " + b"a" * 5000,
    "endless interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 200,
    "long repeated header": whole(headers="x-a: aaaaaaaaaaaaaaaa\r\n" * 100),
    "endless trailers": CHUNKED_HEAD + chunk(b"ok") + b"0\r\n" + b"x-a: a\r\n" * 500,
    "an endless trailer": CHUNKED_HEAD + chunk(b"ok") + b"0\r\nx-a: " + b"a" * 5000,
    "an endless chunk extension": CHUNKED_HEAD + chunk(b"ok") + b"1;" + b"a" * 5000,
}


@pytest.mark.parametrize("size", [100, 100_000], ids=["in pieces", "at once"])
@pytest.mark.parametrize("name", OVERSIZED)
async def test_what_is_not_body_has_a_bound(name: str, size: int) -> None:
    script = (Receive(), Drip(OVERSIZED[name], size), Drip(b"a" * 3000, size), Hang())
    async with talking(script, config=SMALL) as (client, upstream):
        with pytest.raises(UpstreamFailed):
            await ask(client)
        await upstream.sees_end()


async def test_an_answer_with_too_many_headers_is_refused() -> None:
    headers = "".join(f"x-{number}: a\r\n" for number in range(300))
    async with talking((Receive(), Send(whole(headers=headers)))) as (client, _):
        with pytest.raises(UpstreamFailed, match="too many headers"):
            await ask(client)


async def test_a_body_in_tiny_chunks_is_not_mistaken_for_an_oversized_head() -> None:
    answer = CHUNKED_HEAD + chunk(b"x") * 400 + LAST_CHUNK
    async with talking((Receive(), Drip(answer, 3)), config=SMALL) as (client, _):
        assert (await ask(client)).body == b"x" * 400


# Truncated: a cut answer never passes as a whole one.


@pytest.mark.parametrize("name", ["content-length", "chunked", "chunk extensions", "trailers"])
async def test_an_answer_cut_at_any_point_is_an_error(name: str) -> None:
    answer = KEPT[name]
    head_bytes = answer.index(b"\r\n\r\n") + 4
    scripts = [(Receive(), Send(answer[:point]), Close()) for point in range(len(answer))]
    async with talking(*scripts) as (client, _):
        for point in range(len(answer)):
            expected = UpstreamTruncated if point >= head_bytes else UpstreamFailed
            with pytest.raises(expected):
                await ask(client)


@pytest.mark.parametrize("answer", [KEPT["content-length"][:-3], EOF_HEAD + b"hello"])
async def test_a_reset_in_the_middle_of_an_answer_is_a_truncation(answer: bytes) -> None:
    async with talking((Receive(), Send(answer), Drip(b"", 1), Reset())) as (client, _):
        with pytest.raises(UpstreamTruncated):
            await ask(client)


async def test_what_came_before_a_cut_is_read_before_the_error() -> None:
    async with talking((Receive(), Send(CHUNKED_HEAD + chunk(b"hello")), Close())) as (client, _):
        answer = await client.send("/", b"", [], is_stream=True)
        await let_it_be_read()
        assert await next_read(answer) == b"hello"
        with pytest.raises(UpstreamTruncated):
            await next_read(answer)
        answer.close()


async def test_a_body_beyond_the_readers_limit_is_refused() -> None:
    async with talking((Receive(), Send(whole(b"a" * 1001)), Hang())) as (client, upstream):
        answer = await client.send("/", b"", [], is_stream=False)
        with pytest.raises(AnswerTooLarge, match="larger than 1000 bytes"):
            await answer.read(limit_bytes=1000)
        answer.close()
        await upstream.sees_end()
