"""The story of a call: whom it asks, what it is charged, and nothing left held."""

import asyncio

import pytest

from gateway.breaker import BreakerState
from gateway.dispatch import REJECTION_BYTES_MAX, DispatchConfig
from gateway.errors import (
    AnswerTooLarge,
    InvalidRequest,
    ModelNotAllowed,
    QuotaExceeded,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from gateway.exchange import (
    NO_USAGE,
    Operation,
    TokenUsage,
)
from gateway.transport.config import TransportConfig
from tests.fakes.call import DONE, ERROR, TOKEN, FakeCall
from tests.fakes.upstream import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Hang,
    Receive,
    Reset,
    Script,
    Send,
    Step,
    Wait,
    chunk,
    event_stream,
    whole,
)
from tests.gateway.dispatching import ROLE, STREAM, bench_of, key

WHOLE: Script = (Receive(), Send(whole(b"3")))
MISCONFIGURED: Script = (Receive(), Send(whole(b"who are you?", status=401)))
PLAIN = FakeCall(is_stream=False)
# As vLLM answers: the head of a stream comes long before the first event.
HEAD_THEN_HANG: Script = (Receive(), Send(STREAM_HEAD), Hang())
TWO_TOKENS_THEN_HANG: Script = (
    Receive(),
    Send(STREAM_HEAD + chunk(ROLE) + chunk(TOKEN) + chunk(TOKEN)),
    Hang(),
)


# Success


async def test_a_stream_is_passed_on_counted_and_charged_once() -> None:
    async with bench_of([STREAM]) as bench:
        exchange = await bench.run(FakeCall())
        assert bench.client.received == ROLE + TOKEN * 3 + DONE
        assert bench.client.is_finished
        assert bench.booked == (1, 10, 3)
        assert exchange.usage == TokenUsage(10, 3)
        assert (exchange.model, exchange.upstream, exchange.attempts) == ("m", "u0", 1)
        assert exchange.first_token_at is not None


async def test_a_whole_answer_is_passed_on_counted_and_charged_once() -> None:
    async with bench_of([WHOLE]) as bench:
        exchange = await bench.run(PLAIN)
        assert bench.client.answered == b"3"
        assert bench.booked == (1, 10, 3)
        assert exchange.usage == TokenUsage(10, 3)


async def test_a_stream_is_known_by_its_answer_whatever_its_case() -> None:
    shouted = event_stream(TOKEN, DONE).replace(b"text/event-stream", b"Text/Event-Stream")
    async with bench_of([(Receive(), Send(shouted))]) as bench:
        await bench.run(FakeCall())
        assert bench.client.received == TOKEN + DONE


async def test_the_ids_of_the_exchange_travel_to_the_upstream() -> None:
    async with bench_of([STREAM]) as bench:
        exchange = bench.exchange()
        exchange.trace_headers.append((b"traceparent", b"00-a-b-01"))
        await bench.dispatch(FakeCall(), exchange, bench.client)
        headers = dict(bench.upstreams[0].requests[0].headers)
        assert (headers["x-request-id"], headers["traceparent"]) == ("r-1", "00-a-b-01")


async def test_a_call_that_costs_no_tokens_reserves_and_charges_none() -> None:
    call = FakeCall(is_stream=False, is_metered=False, operation=Operation.TOKENIZE)
    async with bench_of([(Receive(), Send(whole(b"0")))], principal=key(quota=0)) as bench:
        await bench.run(call)
        assert bench.upstreams[0].requests[0].path == "/tokenize"
        assert bench.bodies == [["m None"]]


# Refusals before anything is sent


async def test_a_model_not_allowed_is_refused_before_anything_is_sent() -> None:
    async with bench_of([STREAM], principal=key(models=frozenset({"other"}))) as bench:
        await bench.fails(FakeCall(), ModelNotAllowed)
        await bench.fails(FakeCall(model=""), InvalidRequest)
        assert bench.bodies == [[]]
        assert bench.booked == (0, 0, 0)


async def test_a_quota_too_small_is_refused_before_anything_is_sent() -> None:
    async with bench_of([STREAM], principal=key(quota=10)) as bench:
        await bench.fails(FakeCall(), QuotaExceeded)
        assert bench.bodies == [[]]
        assert bench.booked == (0, 0, 0)


# Failure and failover

DEATHS: dict[str, tuple[Step, ...]] = {
    "closes": (Receive(), Close()),
    "resets": (Receive(), Reset()),
    "says 500": (Receive(), Send(whole(b"engine dead", status=500))),
    "says 503": (Receive(), Send(whole(b"", status=503))),
    "speaks no HTTP": (Receive(), Send(b"SSH-2.0-OpenSSH\r\n"), Hang()),
    "compresses": (Receive(), Send(whole(b"\x1f", headers="content-encoding: gzip\r\n"))),
    "ends a stream before its first event": (Receive(), Send(STREAM_HEAD + LAST_CHUNK)),
    "dies before the first event": (Receive(), Send(STREAM_HEAD), Wait(0.01), Close()),
    "fails in the first event": (Receive(), Send(event_stream(ERROR, DONE))),
    "answers nonsense": (Receive(), Send(whole(b"<html>", content_type="text/html"))),
    "cuts a whole answer": (Receive(), Send(whole(b"33")[:-1]), Wait(0.01), Close()),
}


@pytest.mark.parametrize("death", DEATHS)
async def test_another_upstream_is_asked_while_the_client_has_heard_nothing(death: str) -> None:
    async with bench_of([DEATHS[death]], [STREAM]) as bench:
        exchange = await bench.run(FakeCall())
        assert bench.client.received == ROLE + TOKEN * 3 + DONE
        assert (exchange.upstream, exchange.attempts) == ("u1", 2)
        assert bench.booked == (1, 10, 3)
        assert (bench.breaker(0), bench.breaker(1)) == (BreakerState.OPEN, BreakerState.CLOSED)


async def test_an_upstream_that_cannot_be_reached_is_passed_over() -> None:
    async with bench_of([STREAM], [STREAM]) as bench:
        await bench.upstreams[0].__aexit__(None, None, None)
        exchange = await bench.run(FakeCall())
        assert exchange.upstream == "u1"


@pytest.mark.parametrize("death", DEATHS)
async def test_each_upstream_is_asked_once_and_the_first_failure_is_told(death: str) -> None:
    unavailable: Script = (Receive(), Send(whole(b"", status=503)))
    async with bench_of([unavailable], [DEATHS[death]]) as bench:
        exchange = await bench.fails(FakeCall(), UpstreamUnavailable)
        assert [len(upstream.requests) for upstream in bench.upstreams] == [1, 1]
        assert exchange.attempts == 2
        assert bench.booked[1:] == (0, 0)
        assert bench.client.sent == []


async def test_never_another_upstream_after_a_timeout() -> None:
    impatient = TransportConfig(first_byte_timeout_seconds=0.05)
    async with bench_of([(Receive(), Hang())], [STREAM], transport=impatient) as bench:
        await bench.fails(FakeCall(), UpstreamTimeout)
        assert bench.bodies[1] == []
        assert bench.breaker(0) is BreakerState.OPEN
        assert bench.booked[1:] == (0, 0)


async def test_never_another_upstream_once_the_client_has_heard_something() -> None:
    dies: Script = (Receive(), Send(STREAM_HEAD + chunk(ROLE + TOKEN)), Wait(0.01), Close())
    async with bench_of([dies], [STREAM]) as bench:
        call = FakeCall()
        exchange = await bench.fails(call, UpstreamTruncated)
        assert call.forgotten == [True]
        assert bench.client.received == ROLE + TOKEN
        assert not bench.client.is_finished
        assert bench.bodies[1] == []
        assert bench.booked == (1, 10, 1)
        assert exchange.usage == TokenUsage(10, 1)
        assert bench.breaker(0) is BreakerState.OPEN


async def test_a_failure_inside_a_stream_counts_against_the_upstream_and_charges_its_tokens() -> (
    None
):
    async with bench_of([(Receive(), Send(event_stream(TOKEN, TOKEN, ERROR, DONE)))]) as bench:
        await bench.fails(FakeCall(), UpstreamFailed)
        assert bench.client.received == TOKEN + TOKEN
        assert bench.booked == (1, 10, 2)
        assert bench.breaker(0) is BreakerState.OPEN


@pytest.mark.parametrize("status", [400, 404, 422, 429])
async def test_a_rejection_is_told_charged_nothing_and_no_fault_of_the_upstream(
    status: int,
) -> None:
    refusing: Script = (Receive(), Send(whole(b"no", status=status)))
    async with bench_of([refusing], [STREAM]) as bench:
        exchange = await bench.fails(FakeCall(), UpstreamRejected)
        assert bench.bodies[1] == []
        assert bench.booked[1:] == (0, 0)
        assert exchange.usage == NO_USAGE
        assert bench.breaker(0) is BreakerState.CLOSED


async def test_an_answer_beyond_the_limit_is_refused_and_cut() -> None:
    small = DispatchConfig(max_answer_bytes=100)
    flood: Script = (Receive(), Send(whole(b"3" * 101)), Hang())
    async with bench_of([flood], [WHOLE], config=small) as bench:
        await bench.fails(PLAIN, AnswerTooLarge)
        assert bench.client.answered is None
        await bench.upstreams[0].sees_end()


async def test_an_answer_beyond_the_limit_was_generated_and_is_charged_once() -> None:
    small = DispatchConfig(max_answer_bytes=100)
    flood: Script = (Receive(), Send(whole(b"3" * 101)), Hang())
    async with bench_of([flood], [WHOLE], config=small) as bench:
        exchange = await bench.fails(PLAIN, AnswerTooLarge)
        assert bench.bodies[1] == []
        assert bench.booked == (1, 10, 0)
        assert exchange.usage == TokenUsage(10, 0, is_estimated=True)
        assert bench.breaker(0) is BreakerState.CLOSED


@pytest.mark.parametrize(("status", "asked"), [(500, 1), (400, 0)])
async def test_a_refusal_of_too_many_words_is_one_without_words(status: int, asked: int) -> None:
    words = b"x" * (REJECTION_BYTES_MAX + 1)
    wordy: Script = (Receive(), Send(whole(words, status=status)), Hang())
    async with bench_of([wordy], [WHOLE]) as bench:
        if asked:
            await bench.run(PLAIN)
        else:
            await bench.fails(PLAIN, UpstreamRejected)
        assert len(bench.bodies[1]) == asked


async def test_where_the_first_upstream_refuses_us_another_is_asked_and_no_circuit_opens() -> None:
    async with bench_of([MISCONFIGURED], [WHOLE]) as bench:
        exchange = await bench.run(PLAIN)
        assert (exchange.upstream, exchange.attempts) == ("u1", 2)
        assert bench.breaker(0) is BreakerState.CLOSED


async def test_where_every_upstream_refuses_us_the_caller_hears_it() -> None:
    async with bench_of([MISCONFIGURED]) as bench:
        await bench.fails(PLAIN, UpstreamMisconfigured)
        assert bench.breaker(0) is BreakerState.CLOSED
        assert bench.booked[1:] == (0, 0)


# The client leaves


@pytest.mark.parametrize(
    ("call", "script"),
    [
        (FakeCall(), (Receive(), Hang())),
        (PLAIN, (Receive(), Hang())),
        (FakeCall(), HEAD_THEN_HANG),
        (PLAIN, (Receive(), Send(whole(b"12")[:-1]), Hang())),
    ],
    ids=["a stream", "a whole answer", "after the head", "in the middle of a whole answer"],
)
async def test_a_client_that_leaves_before_the_answer_pays_the_estimated_prompt(
    call: FakeCall, script: Script
) -> None:
    async with bench_of([script]) as bench:
        exchange = await bench.cancelled(call, when_sent=0)
        assert bench.booked == (1, 10, 0)
        assert exchange.usage == TokenUsage(10, 0, is_estimated=True)
        assert bench.breaker(0) is BreakerState.CLOSED


async def test_a_client_that_leaves_in_the_middle_pays_what_was_generated() -> None:
    async with bench_of([TWO_TOKENS_THEN_HANG]) as bench:
        exchange = await bench.cancelled(FakeCall(), when_sent=len(ROLE + TOKEN * 2))
        assert bench.booked == (1, 10, 2)
        assert exchange.usage == TokenUsage(10, 2)
        assert bench.breaker(0) is BreakerState.CLOSED


async def test_a_client_that_leaves_while_it_is_sent_something_holds_nothing() -> None:
    async with bench_of([TWO_TOKENS_THEN_HANG]) as bench:
        bench.client.hold = asyncio.Event()
        await bench.cancelled(FakeCall(), when_sent=len(ROLE))
        assert bench.booked[0] == 1


async def test_what_a_stream_has_used_is_visible_to_the_ledger_while_it_runs() -> None:
    async with bench_of([TWO_TOKENS_THEN_HANG]) as bench:
        call = asyncio.create_task(bench.run(FakeCall()))
        while len(bench.client.received) < len(ROLE + TOKEN * 2):
            await asyncio.sleep(0.001)
        bench.ledger.drain()
        standing = bench.ledger.standing(bench.principal)
        assert (standing.used, standing.reserved) == (12, 98)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
