"""What the limiters promise: bursts, waits, refunds, and bounded memory."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import RateLimit
from gateway.ratelimit import (
    UNKNOWN_NETWORK,
    UNLIMITED,
    ConcurrencyLimiter,
    MemoryRateLimiter,
    RateLimiter,
    client_network,
    parse_rate_limits,
)
from tests.fakes.clock import FakeClock

PER_MINUTE = (RateLimit(600, 60.0),)
PER_SECOND_AND_MINUTE = (RateLimit(10, 1.0), RateLimit(30, 60.0))

some_limit = st.builds(
    RateLimit,
    amount=st.integers(1, 300),
    window_seconds=st.sampled_from([0.3, 1.0, 7.0, 60.0, 86_400.0]),
)
some_uptime = st.sampled_from([0.0, 12.345678901, 1e5, 1e7 + 1 / 3])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def limiter(clock: FakeClock) -> MemoryRateLimiter:
    return MemoryRateLimiter(clock=clock)


def allowed_at_once(limiter: RateLimiter, limits: tuple[RateLimit, ...], key: str = "a") -> int:
    allowed = 0
    while limiter.hit(key, limits).allowed:
        allowed += 1
    return allowed


def test_a_burst_of_the_whole_amount_is_allowed_and_not_one_more(
    limiter: MemoryRateLimiter,
) -> None:
    assert allowed_at_once(limiter, PER_MINUTE) == 600


def test_an_allowed_hit_tells_what_is_left(limiter: MemoryRateLimiter) -> None:
    decision = limiter.hit("a", PER_MINUTE)
    assert decision.allowed
    assert (decision.limit, decision.remaining) == (600, 599)
    assert decision.reset_after_seconds == pytest.approx(0.1)
    assert decision.retry_after_seconds == 0.0


def test_a_refused_hit_tells_when_the_next_one_is_allowed(limiter: MemoryRateLimiter) -> None:
    allowed_at_once(limiter, PER_MINUTE)
    decision = limiter.hit("a", PER_MINUTE)
    assert not decision.allowed
    assert (decision.limit, decision.remaining) == (600, 0)
    assert decision.reset_after_seconds == pytest.approx(60.0)
    assert decision.retry_after_seconds == pytest.approx(0.1, abs=1e-5)


def test_one_hit_comes_back_at_a_time(limiter: MemoryRateLimiter, clock: FakeClock) -> None:
    allowed_at_once(limiter, PER_MINUTE)
    clock.advance(0.35)
    assert allowed_at_once(limiter, PER_MINUTE) == 3


def test_refused_hits_cost_nothing(limiter: MemoryRateLimiter, clock: FakeClock) -> None:
    allowed_at_once(limiter, PER_MINUTE)
    for _ in range(1000):
        limiter.hit("a", PER_MINUTE)
    clock.advance(60.0)
    assert allowed_at_once(limiter, PER_MINUTE) == 600


def test_keys_do_not_share_a_window(limiter: MemoryRateLimiter) -> None:
    allowed_at_once(limiter, PER_MINUTE, key="a")
    assert limiter.hit("b", PER_MINUTE).remaining == 599


def test_no_limits_allow_everything(limiter: MemoryRateLimiter) -> None:
    assert limiter.hit("a", ()) == UNLIMITED
    limiter.refund("a", ())
    assert len(limiter) == 0


def test_the_tightest_of_several_windows_is_reported(
    limiter: MemoryRateLimiter, clock: FakeClock
) -> None:
    assert limiter.hit("a", PER_SECOND_AND_MINUTE).limit == 10
    for _ in range(24):
        clock.advance(0.2)
        decision = limiter.hit("a", PER_SECOND_AND_MINUTE)
    assert (decision.limit, decision.remaining) == (30, 7)


def test_what_one_window_refuses_the_others_do_not_count(limiter: MemoryRateLimiter) -> None:
    for _ in range(1000):
        limiter.hit("a", PER_SECOND_AND_MINUTE)
    assert limiter.hit("a", PER_SECOND_AND_MINUTE[1:]).remaining == 30 - 10 - 1


def test_the_longest_wait_of_several_windows_is_reported(
    limiter: MemoryRateLimiter, clock: FakeClock
) -> None:
    limits = (RateLimit(1, 60.0), RateLimit(1, 1.0))
    limiter.hit("a", limits)
    decision = limiter.hit("a", limits)
    assert decision.retry_after_seconds == pytest.approx(60.0, abs=1e-5)
    clock.advance(decision.retry_after_seconds)
    assert limiter.hit("a", limits).allowed


def test_a_changed_limit_starts_afresh_and_an_equal_one_goes_on(
    limiter: MemoryRateLimiter,
) -> None:
    allowed_at_once(limiter, PER_MINUTE)
    assert not limiter.hit("a", (RateLimit(600, 60.0),)).allowed
    assert limiter.hit("a", (RateLimit(700, 60.0),)).allowed


def test_a_refund_lets_one_more_hit_pass(limiter: MemoryRateLimiter) -> None:
    allowed_at_once(limiter, PER_MINUTE)
    limiter.refund("a", PER_MINUTE)
    assert allowed_at_once(limiter, PER_MINUTE) == 1


def test_a_refund_never_lifts_a_key_above_its_amount(limiter: MemoryRateLimiter) -> None:
    limiter.refund("a", PER_MINUTE)
    limiter.hit("a", PER_MINUTE)
    for _ in range(5):
        limiter.refund("a", PER_MINUTE)
    assert allowed_at_once(limiter, PER_MINUTE) == 600


@given(limit=some_limit, uptime_seconds=some_uptime)
def test_no_burst_exceeds_the_amount(limit: RateLimit, uptime_seconds: float) -> None:
    limiter = MemoryRateLimiter(clock=FakeClock(monotonic=uptime_seconds))
    assert allowed_at_once(limiter, (limit,)) == limit.amount


@given(
    limit=some_limit,
    uptime_seconds=some_uptime,
    pauses=st.lists(st.floats(0.0, 2.0), max_size=60),
)
def test_any_stretch_allows_the_amount_and_what_flows_back(
    limit: RateLimit, uptime_seconds: float, pauses: list[float]
) -> None:
    clock = FakeClock(monotonic=uptime_seconds)
    limiter = MemoryRateLimiter(clock=clock)
    allowed = allowed_at_once(limiter, (limit,))
    for windows in pauses:
        clock.advance(windows * limit.window_seconds / limit.amount)
        allowed += limiter.hit("a", (limit,)).allowed
    elapsed_seconds = clock.monotonic() - uptime_seconds
    flown_back = elapsed_seconds / limit.window_seconds * limit.amount
    assert allowed <= limit.amount + flown_back + 1e-3


@given(
    limits=st.lists(some_limit, min_size=1, max_size=3, unique=True).map(tuple),
    uptime_seconds=some_uptime,
)
def test_the_wait_told_is_enough(limits: tuple[RateLimit, ...], uptime_seconds: float) -> None:
    clock = FakeClock(monotonic=uptime_seconds)
    limiter = MemoryRateLimiter(clock=clock)
    allowed_at_once(limiter, limits)
    wait_seconds = limiter.hit("a", limits).retry_after_seconds

    clock.advance(wait_seconds)
    assert limiter.hit("a", limits).allowed


@given(limit=some_limit, uptime_seconds=some_uptime)
def test_the_wait_told_is_not_longer_than_it_need_be(
    limit: RateLimit, uptime_seconds: float
) -> None:
    clock = FakeClock(monotonic=uptime_seconds)
    limiter = MemoryRateLimiter(clock=clock)
    allowed_at_once(limiter, (limit,))
    clock.advance(limiter.hit("a", (limit,)).retry_after_seconds * 0.99)
    assert not limiter.hit("a", (limit,)).allowed


@given(
    limits=st.lists(some_limit, min_size=1, max_size=3, unique=True).map(tuple),
    hits=st.lists(st.floats(0.0, 30.0), max_size=30),
)
def test_a_refund_restores_exactly_what_the_hit_took(
    limits: tuple[RateLimit, ...], hits: list[float]
) -> None:
    clock = FakeClock()
    undisturbed = MemoryRateLimiter(clock=clock)
    refunded = MemoryRateLimiter(clock=clock)
    for pause_seconds in hits:
        clock.advance(pause_seconds)
        if refunded.hit("a", limits).allowed:
            refunded.refund("a", limits)
        assert refunded.hit("a", limits) == undisturbed.hit("a", limits)


def test_memory_is_bounded_however_many_addresses_come(clock: FakeClock) -> None:
    limiter = MemoryRateLimiter(clock=clock, max_keys=10_000)
    tracemalloc.start()
    try:
        for number in range(100_000):
            limiter.hit(
                client_network(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"), PER_MINUTE
            )
        held_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(limiter) == 10_000
    assert held_bytes < 8_000_000


def test_the_least_recently_used_key_is_forgotten_first(clock: FakeClock) -> None:
    limiter = MemoryRateLimiter(clock=clock, max_keys=3)
    limits = (RateLimit(2, 60.0),)
    for key in "abc":
        allowed_at_once(limiter, limits, key)
    assert not limiter.hit("a", limits).allowed
    limiter.hit("d", limits)
    assert not limiter.hit("a", limits).allowed
    assert limiter.hit("b", limits).remaining == 1


def test_a_flood_is_forgotten_as_fast_as_it_came(clock: FakeClock) -> None:
    limiter = MemoryRateLimiter(clock=clock)
    for number in range(1000):
        limiter.hit(f"flood-{number}", PER_MINUTE)
    clock.advance(60.0)
    for number in range(1000):
        limiter.hit(f"later-{number}", PER_MINUTE)
    assert len(limiter) == 1000


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("600/minute", (RateLimit(600, 60.0),)),
        ("10/second;600/minute", (RateLimit(10, 1.0), RateLimit(600, 60.0))),
        ("100 per 5 minutes", (RateLimit(100, 300.0),)),
        ("5/hour;5/hour", (RateLimit(5, 3600.0),)),
        ("off", ()),
        (" OFF ", ()),
    ],
)
def test_limits_are_read_in_the_usual_notation(text: str, limits: tuple[RateLimit, ...]) -> None:
    assert parse_rate_limits(text) == limits


@pytest.mark.parametrize(
    "text", ["", "many", "600", "600/", "600/fortnight", "600/minute;", "-1/second", "9" * 9000]
)
def test_what_is_no_limit_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate limit: write it like 600/minute"):
        parse_rate_limits(text)


def test_a_stored_limit_of_zero_refuses_and_leaves_other_windows_alone() -> None:
    limiter = MemoryRateLimiter(clock=FakeClock())
    nothing, some = RateLimit(0, 60.0), RateLimit(1, 1.0)

    alone, beside = limiter.hit("a", (nothing,)), limiter.hit("a", (some, nothing))
    limiter.refund("a", (nothing,))

    assert not alone.allowed
    assert alone.retry_after_seconds == beside.retry_after_seconds == 60.0
    assert limiter.hit("a", (some,)).allowed
    assert len(limiter) == 1


def test_a_limit_that_refuses_everything_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="would refuse every request"):
        parse_rate_limits("10/second;0/minute")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", UNKNOWN_NETWORK),
        ("/run/gateway.sock", UNKNOWN_NETWORK),
        ("203.0.113.09", UNKNOWN_NETWORK),
        ("203.0.113.9:443", UNKNOWN_NETWORK),
        ("9" * 100_000, UNKNOWN_NETWORK),
    ],
)
def test_an_address_is_counted_under_its_network(address: str, network: str) -> None:
    assert client_network(address) == network


def test_concurrent_requests_stop_at_the_limit() -> None:
    running = ConcurrencyLimiter()
    assert [running.acquire("a", 2) for _ in range(3)] == [True, True, False]
    assert running.acquire("b", 2)
    running.release("a")
    assert running.acquire("a", 2)


def test_a_key_without_a_limit_is_counted_all_the_same() -> None:
    running = ConcurrencyLimiter()
    assert all(running.acquire("a", None) for _ in range(5))
    assert running.running("a") == 5
    assert not running.acquire("a", 5)


def test_only_keys_with_running_requests_are_remembered() -> None:
    running = ConcurrencyLimiter()
    for number in range(1000):
        assert running.acquire(f"key-{number}", 1)
        assert not running.acquire(f"key-{number}", 1)
        running.release(f"key-{number}")
    assert len(running) == 0


def test_a_place_never_taken_cannot_be_given_back() -> None:
    running = ConcurrencyLimiter()
    with pytest.raises(KeyError):
        running.release("a")
