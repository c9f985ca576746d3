"""What a call reserves: the bound on its output, and the exact count of its prompt."""

import pytest

from gateway.breaker import BreakerConfig, BreakerState, CircuitBreaker
from gateway.dispatch import DispatchConfig
from gateway.errors import (
    QuotaExceeded,
)
from gateway.exchange import (
    PromptSize,
)
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


async def test_with_nothing_left_nobody_counts() -> None:
    async with bench_of([STREAM], principal=key(0)) as bench:
        await bench.fails(VAGUE, QuotaExceeded)
        assert bench.bodies == [[]]


async def test_another_upstream_counts_where_the_first_cannot() -> None:
    dead: Script = (Receive(), Close())
    async with bench_of([dead], [counting(b"30")], principal=key(100)) as bench:
        await bench.run(VAGUE)
        assert bench.bodies == [["count m"], ["count m", "m 70"]]
