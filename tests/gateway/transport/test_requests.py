"""What an upstream is sent: constant paths, our key, and nothing a client could add a line to."""

import socket
from contextlib import closing

import pytest

from gateway.transport.client import UpstreamClient
from gateway.transport.config import TransportConfig
from tests.fakes.upstream import Receive, ScriptedUpstream, Send, whole
from tests.gateway.transport.calls import BODY, ask, client_of, send, talking


async def test_a_request_is_a_post_of_json_under_our_key_and_nothing_else() -> None:
    async with talking() as (client, upstream):
        with closing(await send(client, headers=[(b"x-request-id", b"r-1")])):
            pass
        (request,) = upstream.requests
        assert request.line == "POST /v1/chat/completions HTTP/1.1"
        assert request.body == BODY
        assert request.headers == [
            ("host", upstream.url.removeprefix("http://")),
            ("accept-encoding", "identity"),
            ("user-agent", "vllm-gateway"),
            ("authorization", "Bearer upstream-secret"),
            ("content-type", "application/json"),
            ("x-request-id", "r-1"),
            ("content-length", str(len(BODY))),
        ]


async def test_without_a_key_of_the_upstream_no_authorization_is_sent() -> None:
    async with (
        ScriptedUpstream() as upstream,
        UpstreamClient(url=upstream.url, api_key=None, config=TransportConfig()) as client,
    ):
        await ask(client)
        assert "authorization" not in dict(upstream.requests[0].headers)


@pytest.mark.parametrize("prefix", ["", "/", "/gpu/0", "/gpu/0/"])
async def test_the_path_of_the_url_stands_before_every_path(prefix: str) -> None:
    async with ScriptedUpstream() as upstream, client_of(upstream.url + prefix) as client:
        await ask(client)
        assert upstream.requests[0].path == prefix.rstrip("/") + "/v1/chat/completions"


async def test_a_user_in_the_url_is_not_part_of_the_host() -> None:
    async with ScriptedUpstream() as upstream:
        url = upstream.url.replace("http://", "http://user:word@")
        async with client_of(url) as client:
            await ask(client)
        assert dict(upstream.requests[0].headers)["host"] == f"127.0.0.1:{upstream.port}"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_an_ipv6_host_is_called_and_named_in_brackets() -> None:
    async with ScriptedUpstream(host="::1") as upstream, client_of(upstream.url) as client:
        await ask(client)
        assert dict(upstream.requests[0].headers)["host"] == f"[::1]:{upstream.port}"


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb"])
async def test_a_header_with_a_line_break_is_never_sent(value: bytes) -> None:
    async with talking() as (client, upstream):
        with pytest.raises(ValueError, match="line break"):
            await send(client, headers=[(b"x-request-id", value)])
        assert upstream.requests == []
        assert client.open_connections == 0


def test_a_key_with_a_line_break_is_refused_before_any_call() -> None:
    with pytest.raises(ValueError, match="line break"):
        UpstreamClient(url="http://h", api_key="a\r\nx-evil: 1", config=TransportConfig())


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", None),
        ("inf", None),
        ("nan", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
async def test_retry_after_is_read_where_it_counts_seconds(
    said: str, understood: float | None
) -> None:
    answer = whole(status=503, headers=f"Retry-After: {said}\r\n")
    async with talking((Receive(), Send(answer))) as (client, _):
        with closing(await send(client)) as reply:
            assert reply.status == 503
            assert reply.content_type == b"application/json"
            assert reply.retry_after_seconds == understood


async def test_an_answer_without_retry_after_or_content_type_says_so() -> None:
    async with talking((Receive(), Send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))) as (
        client,
        _,
    ):
        with closing(await send(client)) as reply:
            assert (reply.content_type, reply.retry_after_seconds) == (b"", None)
