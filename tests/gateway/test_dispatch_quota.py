"""What a call reserves: the bound on its output, and the exact count of its prompt."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from gateway.breaker import BreakerConfig, BreakerState, CircuitBreaker
from gateway.dispatch import DispatchConfig
from gateway.errors import Overloaded, QuotaExceeded
from gateway.exchange import Operation, PromptSize
from tests.fakes.call import FakeCall
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import (
    Close,
    Hang,
    Receive,
    Script,
    Send,
    whole,
)
from tests.gateway.dispatching import STREAM, bench_of, key

# The bound on the output


@pytest.mark.parametrize(
    ("quota", "output_limit", "context_tokens", "sent"),
    [
        (None, 100, 4096, "m None"),
        (None, None, None, "m None"),
        (1000, 100, 4096, "m None"),
        (1000, None, 500, "m None"),
        (1000, None, 4096, "m 990"),
        (1000, None, None, "m 990"),
        (50, 100, 4096, "m 40"),
    ],
)
async def test_the_output_is_bounded_only_where_the_quota_needs_it(
    quota: int | None, output_limit: int | None, context_tokens: int | None, sent: str
) -> None:
    call = FakeCall(output_limit=output_limit)
    async with bench_of([STREAM], principal=key(quota), context_tokens=context_tokens) as bench:
        await bench.run(call)
        assert bench.bodies == [[sent]]


async def test_the_quota_left_is_shared_by_all_choices() -> None:
    async with bench_of([STREAM], principal=key(50)) as bench:
        await bench.run(FakeCall(choices=4))
        assert bench.bodies == [["m 10"]]


@pytest.mark.parametrize(
    ("call", "quota", "sent"),
    [
        (FakeCall(choices=14, prompt=PromptSize(2100, 2100)), 3_000, "m 64"),
        (FakeCall(choices=128, prompt=PromptSize(1900, 8000)), 5_000, "m 24"),
        (
            FakeCall(choices=128, prompt=PromptSize(1000, 16_384), can_be_counted=False),
            20_000,
            "m 28",
        ),
    ],
    ids=["a batch longer than one context", "a prompt that compresses", "an image"],
)
async def test_a_long_looking_prompt_does_not_hide_the_output_of_many_choices(
    call: FakeCall, quota: int, sent: str
) -> None:
    script = counting(b"1900") if call.can_be_counted and call.choices == 128 else STREAM
    asking = replace(call, output_limit=1000)
    async with bench_of([script], principal=key(quota), context_tokens=2048) as bench:
        await bench.run(asking)
        assert bench.bodies[0][-1] == sent


async def test_one_choice_shares_its_context_with_its_prompt() -> None:
    call = FakeCall(output_limit=1000, prompt=PromptSize(1900, 1900))
    async with bench_of([STREAM], principal=key(2048), context_tokens=2048) as bench:
        await bench.run(call)
        assert bench.bodies == [["m None"]]


@pytest.mark.parametrize("choices", [1, 3])
async def test_no_bound_exceeds_the_context(choices: int) -> None:
    call = FakeCall(output_limit=None, choices=choices)
    for quota in (100, 1000, 1022, 1023, 3067, 3078, 3079, 5000):
        async with bench_of([STREAM], principal=key(quota), context_tokens=1024) as bench:
            await bench.run(call)
            bound = bench.bodies[0][0].removeprefix("m ")
            assert bound == "None" or int(bound) < 1024


# The exact count

VAGUE = FakeCall(prompt=PromptSize(estimate=10, ceiling=200))


def counting(count: bytes, *, status: int = 200) -> Script:
    return (Receive(), Send(whole(count, status=status)), *STREAM)


async def test_far_from_the_quota_nobody_counts() -> None:
    async with bench_of([STREAM], principal=key(301)) as bench:
        await bench.run(VAGUE)
        assert bench.bodies == [["m None"]]


async def test_without_a_quota_nobody_counts() -> None:
    async with bench_of([STREAM], principal=key(None)) as bench:
        await bench.run(VAGUE)
        assert bench.bodies == [["m None"]]


async def test_near_the_quota_the_upstream_counts_the_prompt() -> None:
    async with bench_of([counting(b"30")], principal=key(100)) as bench:
        await bench.run(VAGUE)
        assert [request.path for request in bench.upstreams[0].requests] == [
            "/tokenize",
            "/v1/chat/completions",
        ]
        assert bench.bodies == [["count m", "m 70"]]


async def test_a_prompt_of_known_length_is_not_counted() -> None:
    async with bench_of([STREAM], principal=key(50)) as bench:
        await bench.run(FakeCall())
        assert bench.bodies == [["m 40"]]


@pytest.mark.parametrize("script", [counting(b"x"), counting(b"no", status=404)])
async def test_where_counting_fails_the_ceiling_is_reserved(script: Script) -> None:
    async with bench_of([script], principal=key(250)) as bench:
        bench.pool.upstreams[0].breaker = CircuitBreaker(BreakerConfig(), clock=FakeClock())
        await bench.run(VAGUE)
        assert bench.bodies == [["count m", "m 50"]]


async def test_a_prompt_that_cannot_be_counted_takes_its_ceiling() -> None:
    call = FakeCall(prompt=PromptSize(estimate=10, ceiling=200), can_be_counted=False)
    async with bench_of([STREAM], principal=key(250)) as bench:
        await bench.run(call)
        assert bench.bodies == [["m 50"]]


async def test_a_slow_tokenizer_does_not_hold_up_the_call() -> None:
    hasty = DispatchConfig(count_timeout_seconds=0.05)
    async with bench_of([(Receive(), Hang()), STREAM], principal=key(250), config=hasty) as bench:
        await bench.run(VAGUE)
        assert bench.bodies == [["count m", "m 50"]]
        assert bench.breaker(0) is BreakerState.CLOSED


async def test_the_count_takes_a_place_in_flight() -> None:
    async with bench_of([(Receive(), Hang())], principal=key(100)) as bench:
        task = asyncio.create_task(bench.run(VAGUE))
        await bench.upstreams[0].sees_requests(1)
        assert bench.gate.in_flight == 1
        task.cancel()
        await asyncio.wait([task])


async def test_a_full_gateway_counts_nothing() -> None:
    async with bench_of([STREAM], principal=key(100)) as bench, AsyncExitStack() as places:
        for _ in range(8):
            await places.enter_async_context(bench.gate.admit("other", ("m", Operation.CHAT)))
        exchange = await bench.fails(VAGUE, Overloaded)
        assert bench.bodies == [[]]
        assert not exchange.was_counted


@pytest.mark.parametrize(("estimate", "is_counted"), [(320, True), (321, False)])
async def test_a_prompt_far_beyond_what_remains_is_refused_by_its_guess(
    estimate: int, is_counted: bool
) -> None:
    call = FakeCall(prompt=PromptSize(estimate, ceiling=4000))
    async with bench_of([counting(b"300")], principal=key(20)) as bench:
        exchange = await bench.fails(call, QuotaExceeded)
        assert bench.bodies == [["count m"] if is_counted else []]
        assert exchange.was_counted is is_counted


async def test_with_nothing_left_nobody_counts() -> None:
    async with bench_of([STREAM], principal=key(0)) as bench:
        await bench.fails(VAGUE, QuotaExceeded)
        assert bench.bodies == [[]]


async def test_another_upstream_counts_where_the_first_cannot() -> None:
    dead: Script = (Receive(), Close())
    async with bench_of([dead], [counting(b"30")], principal=key(100)) as bench:
        await bench.run(VAGUE)
        assert bench.bodies == [["count m"], ["count m", "m 70"]]
