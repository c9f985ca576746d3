"""What dispatch notes on the exchange for those who count: failed attempts, aborts, ends, times."""

import asyncio

import pytest

from gateway.dispatch import DispatchConfig
from gateway.errors import (
    AnswerTooLarge,
    UpstreamFailed,
    UpstreamFault,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
)
from gateway.exchange import Exchange, PromptSize
from gateway.routing.asking import Asking
from gateway.transport.config import TransportConfig
from tests.fakes.call import TOKEN, FakeCall
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import (
    STREAM_HEAD,
    Close,
    Hang,
    Receive,
    Reset,
    Script,
    Send,
    chunk,
    whole,
)
from tests.gateway.dispatching import STREAM, bench_of, key

HANGS: Script = (Receive(), Send(STREAM_HEAD + chunk(TOKEN)), Hang())

URL = "http://upstream.test:8000"


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ((Receive(), Reset()), UpstreamFault.RESET),
        ((Receive(), Close()), UpstreamFault.RESET),
        ((Receive(), Send(STREAM_HEAD), Close()), UpstreamFault.TRUNCATED),
        ((Receive(), Send(b"nonsense\r\n\r\n"), Close()), UpstreamFault.PROTOCOL),
        ((Receive(), Send(whole(status=503))), UpstreamFault.STATUS_5XX),
        ((Receive(), Send(whole(status=401))), UpstreamFault.MISCONFIGURED),
    ],
    ids=["reset", "closed", "truncated", "no HTTP", "503", "401"],
)
async def test_an_attempt_that_another_upstream_made_good_is_noted_all_the_same(
    script: Script, fault: UpstreamFault
) -> None:
    async with bench_of([script], [STREAM]) as bench:
        exchange = await bench.run(FakeCall())

    assert exchange.faults == (("u0", fault),)
    assert exchange.aborts == ()
    assert (exchange.upstream, exchange.attempts) == ("u1", 2)


async def test_who_takes_no_connection_is_noted_as_that() -> None:
    async with bench_of([STREAM], [STREAM]) as bench:
        await bench.upstreams[0].__aexit__(None, None, None)
        exchange = await bench.run(FakeCall())

    assert exchange.faults == (("u0", UpstreamFault.CONNECT),)


async def test_the_clients_own_fault_is_no_upstreams() -> None:
    async with bench_of([(Receive(), Send(whole(b"no", status=400)))]) as bench:
        exchange = await bench.fails(FakeCall(), UpstreamRejected)

    assert (exchange.faults, exchange.aborts) == ((), ())


async def test_every_attempt_counts_also_the_last() -> None:
    refuses: Script = (Receive(), Send(whole(status=401)))
    async with bench_of([refuses], [refuses]) as bench:
        exchange = await bench.fails(FakeCall(), UpstreamMisconfigured)

    assert [upstream for upstream, _ in exchange.faults] == ["u0", "u1"]


async def test_a_client_that_leaves_is_an_abort_and_no_fault() -> None:
    async with bench_of([HANGS]) as bench:
        exchange = await bench.cancelled(FakeCall(), when_sent=len(TOKEN))

    assert (exchange.faults, exchange.aborts) == ((), ("u0",))


async def test_a_silent_upstream_is_a_fault_and_an_abort() -> None:
    impatient = TransportConfig(idle_timeout_seconds=0.1)
    async with bench_of([HANGS], transport=impatient) as bench:
        exchange = await bench.fails(FakeCall(), UpstreamTimeout)

    assert exchange.faults == (("u0", UpstreamFault.TIMEOUT),)
    assert exchange.aborts == ("u0",)


async def test_an_answer_that_is_too_large_is_cut_and_no_fault() -> None:
    config = DispatchConfig(max_answer_bytes=10)
    async with bench_of([(Receive(), Send(whole(b"1" * 100)))], config=config) as bench:
        exchange = await bench.fails(FakeCall(is_stream=False), AnswerTooLarge)

    assert (exchange.faults, exchange.aborts) == ((), ("u0",))


@pytest.mark.parametrize(
    "script", [STREAM, (Receive(), Send(whole(b"3")))], ids=["stream", "whole answer"]
)
async def test_a_complete_answer_says_when_it_ended(script: Script) -> None:
    async with bench_of([script]) as bench:
        exchange = await bench.run(FakeCall(is_stream=script is STREAM, choices=3))

    assert exchange.heard_at is not None
    assert exchange.choices == 3


async def test_a_broken_stream_has_no_end() -> None:
    script: Script = (Receive(), Send(STREAM_HEAD + chunk(TOKEN)), Close())
    async with bench_of([script]) as bench:
        exchange = await bench.fails(FakeCall(), UpstreamTruncated)

    assert exchange.heard_at is None


def test_the_upstreams_time_ends_with_its_answer_and_adds_up() -> None:
    clock = FakeClock()
    exchange = Exchange(request_id="r", method="POST", started_at=0.0, client_address="::1")

    with pytest.raises(UpstreamFailed), Asking(exchange, "a", url=URL, path="/", clock=clock):
        clock.advance(1.0)
        raise UpstreamFailed("first attempt")
    with Asking(exchange, "b", url=URL, path="/", clock=clock) as asking:
        clock.advance(2.0)
        asking.hear_end()
        clock.advance(4.0)

    assert exchange.upstream_seconds == 3.0


def test_a_cancellation_after_the_end_cuts_nothing_off() -> None:
    exchange = Exchange(request_id="r", method="POST", started_at=0.0, client_address="::1")

    with (
        pytest.raises(asyncio.CancelledError),
        Asking(exchange, "a", url=URL, path="/", clock=FakeClock()) as asking,
    ):
        asking.hear_end()
        raise asyncio.CancelledError

    assert exchange.aborts == ()


async def test_what_went_wrong_at_the_tokenizer_is_noted_too() -> None:
    near_the_quota = FakeCall(prompt=PromptSize(estimate=10, ceiling=200))
    counts_and_answers: Script = (Receive(), Send(whole(b"10")), *STREAM)
    async with bench_of(
        [(Receive(), Close())], [counts_and_answers], principal=key(quota=150)
    ) as bench:
        exchange = await bench.run(near_the_quota)

    assert exchange.faults == (("u0", UpstreamFault.RESET),)
    assert (exchange.attempts, exchange.upstream) == (1, "u1")
