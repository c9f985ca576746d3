"""Rescue: an exception becomes one answer, or a visible cut; never a second answer."""

from typing import Any

import orjson

from gateway.edge.asgi import Message, Receive, Scope, Send
from gateway.edge.rescue import Rescue
from gateway.errors import ClientDisconnected, UpstreamTruncated
from gateway.exchange import Exchange, Outcome
from gateway.wire.dialect import Dialect
from gateway.wire.openai import OpenAIConfig, OpenAIDialect


class Faults:
    """What `on_fault` was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Exception]] = []

    def __call__(self, exchange: Exchange, fault: Exception) -> None:
        self.heard.append((exchange.request_id, fault))


def no_limit_headers(_exchange: Exchange, _dialect: Dialect) -> list[tuple[bytes, bytes]]:
    return []


async def rescued(error: Exception, *, after: list[Message]) -> tuple[list[Any], Exchange, Faults]:
    """The messages that leave, when an application sends `after` and then raises."""
    faults = Faults()
    sent: list[Any] = []
    exchange = Exchange(request_id="req-1", method="POST", started_at=0.0, client_address="::1")
    exchange.is_stream = bool(after)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in after:
            await send(message)
        raise error

    layer = Rescue(
        application,
        limit_headers=no_limit_headers,  # type: ignore[arg-type]  # all of it that is called
        on_fault=faults,
    )
    scope = {
        "type": "http",
        "gateway.exchange": exchange,
        "gateway.dialect": OpenAIDialect(OpenAIConfig()),
    }
    await layer(scope, receive, send)
    return sent, exchange, faults


BEGUN: list[Message] = [
    {"type": "http.response.start", "status": 200, "headers": []},
    {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True},
]


async def test_a_fault_of_ours_is_a_500_that_names_the_request_and_nothing_else() -> None:
    sent, exchange, faults = await rescued(ZeroDivisionError("secret detail"), after=[])

    error = orjson.loads(sent[-1]["body"])["error"]
    assert sent[0]["status"] == 500
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "req-1" in error["message"]
    assert "secret" not in error["message"]
    assert exchange.outcome is Outcome.ERROR
    assert [(name, str(fault)) for name, fault in faults.heard] == [("req-1", "secret detail")]


async def test_a_fault_within_a_stream_ends_it_with_an_error_event_and_without_an_end() -> None:
    sent, exchange, faults = await rescued(ZeroDivisionError("secret detail"), after=BEGUN)

    last = sent[-1]
    assert len(sent) == len(BEGUN) + 1
    assert last["body"].startswith(b'data: {"error":')
    assert b"secret" not in last["body"]
    assert last["more_body"] is True
    assert exchange.outcome is Outcome.TRUNCATED
    assert len(faults.heard) == 1


async def test_a_truncated_upstream_is_no_fault_of_ours() -> None:
    _, exchange, faults = await rescued(UpstreamTruncated("cut"), after=BEGUN)

    assert exchange.error_code == "upstream_truncated"
    assert faults.heard == []


async def test_who_left_gets_no_answer() -> None:
    sent, exchange, _ = await rescued(ClientDisconnected("gone"), after=[])

    assert sent == []
    assert (exchange.status, exchange.outcome) == (499, Outcome.CANCELLED)
