"""FinishedTrace: an exchange's facts in OpenTelemetry's words, and nothing a client invented."""

import asyncio
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from gateway.errors import ErrorKind, GatewayError, UpstreamErred, UpstreamRejected
from gateway.exchange import Exchange, Outcome, Principal, TokenUsage
from gateway.telemetry.spans import FinishedTrace, UpstreamCall
from tests.harness.otlp import events, facts

CHAT = "/v1/chat/completions"
BEGAN_NS = 1_000_000_000_000


def exchange(**known: Any) -> Exchange:
    made = Exchange(request_id="r-1", method="POST", started_at=100.0, client_address="::1")
    for name, value in {"route": CHAT, "status": 200, "model": "m", **known}.items():
        setattr(made, name, value)
    return made


def call(
    error: BaseException | None = None, *, path: str = CHAT, at: float = 100.5
) -> UpstreamCall:
    made = UpstreamCall(7, "gen-a", "https://replica.example/vllm", path, 50, at)
    made.end(error, at + 1)
    return made


def spans(
    of: Exchange, *calls: UpstreamCall, outcome: Outcome = Outcome.OK, state: bytes = b""
) -> list[Span]:
    trace = FinishedTrace(of, outcome, 103.0, BEGAN_NS, 5, 6, 3, state, None, None, calls)
    scope = ScopeSpans()
    trace.add_to(scope.spans)
    assert trace.size == len(scope.spans)
    return list(scope.spans)


def test_times_are_on_one_wall_clock() -> None:
    server, client = spans(exchange(first_token_at=101.0), call())

    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (
        BEGAN_NS,
        BEGAN_NS + 3_000_000_000,
    )
    assert (client.start_time_unix_nano, client.end_time_unix_nano) == (
        BEGAN_NS + 500_000_000,
        BEGAN_NS + 1_500_000_000,
    )
    assert client.events[0].time_unix_nano == BEGAN_NS + 1_000_000_000
    assert facts(client)["gen_ai.response.time_to_first_chunk"] == 0.5


def test_ids_flags_and_state_are_those_that_travelled() -> None:
    server, client = spans(exchange(), call(), state=b"a=b")

    assert server.trace_id == client.trace_id == (5).to_bytes(16, "big")
    assert client.parent_span_id == server.span_id == (6).to_bytes(8, "big")
    assert (server.flags & 0xFF, server.trace_state) == (3, "a=b")


def test_what_held_a_request_up_and_who_asked_is_said() -> None:
    known = exchange(
        queue_seconds=0.25, limit="quota", principal=Principal("k-1", "Key"), status=429
    )
    (server,) = spans(known, outcome=Outcome.REJECTED)

    seen = facts(server)
    assert (seen["gateway.queue_seconds"], seen["gateway.limit"]) == (0.25, "quota")
    assert (seen["gateway.key_id"], seen["gateway.outcome"]) == ("k-1", "rejected")
    assert server.status.code == Status.STATUS_CODE_UNSET


def test_a_method_or_a_path_of_the_clients_own_is_no_name() -> None:
    (odd,) = spans(exchange(method="PROPFIND", route="other", status=404))
    (known,) = spans(exchange(method="PURGE"))

    assert (odd.name, facts(odd)["http.request.method"]) == ("HTTP", "_OTHER")
    assert "http.route" not in facts(odd)
    assert known.name == f"HTTP {CHAT}"


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        (CHAT, "chat"),
        ("/v1/responses", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/rerank", "rerank"),
        ("/detokenize", "detokenize"),
    ],
)
def test_operations_have_opentelemetrys_names_where_it_has_one(path: str, operation: str) -> None:
    _, client = spans(exchange(route=path), call(path=path))

    assert client.name == f"{operation} m"
    assert facts(client)["gen_ai.operation.name"] == operation
    assert facts(client)["server.address"] == "replica.example"
    assert facts(client)["server.port"] == 443


REJECTED = UpstreamRejected("no", status=422, kind=ErrorKind.INVALID_REQUEST)


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (UpstreamErred("x"), "bad_gateway", "status_5xx"),
        (REJECTED, None, "422"),
        (GatewayError("x", code="odd"), "odd", "odd"),
        (ValueError("what a prompt says"), "internal_error", "ValueError"),
        (asyncio.CancelledError(), "client_disconnected", "client_disconnected"),
        (asyncio.CancelledError(), None, "cancelled"),
    ],
)
def test_an_error_is_a_word_of_a_closed_set(
    error: BaseException, code: str | None, word: str
) -> None:
    _, client = spans(exchange(error_code=code), call(error), outcome=Outcome.ERROR)

    assert facts(client)["error.type"] == word
    is_failure = not isinstance(error, asyncio.CancelledError)
    assert (client.status.code == Status.STATUS_CODE_ERROR) == is_failure


def test_only_the_call_that_was_answered_has_the_usage_and_a_failover_tells_of_the_others() -> None:
    known = exchange(usage=TokenUsage(3, 4, is_estimated=True), first_token_at=102.2)
    counting, failed, answered = call(path="/tokenize"), call(UpstreamErred("x")), call(at=102.0)

    server, *clients = spans(known, counting, failed, answered)

    used = [facts(client).get("gen_ai.usage.output_tokens") for client in clients]
    assert used == [None, None, 4]
    assert facts(clients[2])["gateway.usage_estimated"] is True
    assert [len(client.events) for client in clients] == [0, 0, 1]
    assert events(server) == [
        (
            "failover",
            {"gateway.upstream": "gen-a", "error.type": "status_5xx"},
        )
    ]
