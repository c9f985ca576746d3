"""Metrics by key: a bounded number of names, the rest as one sum, nothing of keys that are gone."""

from collections.abc import Iterable

from gateway.exchange import Exchange, Outcome, Principal, TokenUsage
from gateway.telemetry.keys import KeyStanding
from gateway.telemetry.metrics import Metrics, MetricsConfig
from tests.gateway.telemetry.exchanges import exchange, series, stream


def metrics_of(keys_max: int = 2, *standings: KeyStanding) -> Metrics:
    made = Metrics(MetricsConfig(keys_max=keys_max))
    made.watch_keys(lambda: standings)
    return made


def idle(*names: str) -> Iterable[KeyStanding]:
    return [KeyStanding(name, used=0, reserved=0, limit=10) for name in names]


def call_of(name: str) -> Exchange:
    return stream(principal=Principal(name, name), usage=TokenUsage(3, 4))


async def test_a_key_is_counted_by_its_name() -> None:
    metrics = metrics_of(2, *idle("ann"))
    metrics.count(call_of("ann"), Outcome.OK, 0.1)
    refused = exchange(status=429, limit="quota", principal=Principal("i", "ann"))
    metrics.count(refused, Outcome.REJECTED, 0.1)

    assert await series(metrics, "gateway_key_requests_total") == {
        '{key="ann",outcome="ok"}': 1,
        '{key="ann",outcome="rejected"}': 1,
    }
    assert await series(metrics, "gateway_key_tokens_total") == {
        '{key="ann",type="input"}': 3,
        '{key="ann",type="output"}': 4,
    }
    assert await series(metrics, "gateway_key_refusals_total") == {'{key="ann",limit="quota"}': 1}


async def test_nobody_is_counted_who_has_no_key() -> None:
    metrics = metrics_of()

    metrics.count(exchange(status=401, error_code="invalid_api_key"), Outcome.CLIENT_ERROR, 0.1)

    assert await series(metrics, "gateway_key_requests_total") == {}


async def test_beyond_the_bound_all_are_one() -> None:
    names = [f"key {number}" for number in range(50)]
    metrics = metrics_of(2, *idle(*names))
    for name in names:
        metrics.count(call_of(name), Outcome.OK, 0.1)

    assert await series(metrics, "gateway_key_requests_total") == {
        '{key="key 0",outcome="ok"}': 1,
        '{key="key 1",outcome="ok"}': 1,
        '{key="other",outcome="ok"}': 48,
    }
    assert len(await series(metrics, "gateway_key_tokens_total")) == 6


async def test_a_key_that_is_valid_no_more_leaves_its_place_to_another() -> None:
    here = [*idle("ann", "ben")]
    metrics = Metrics(MetricsConfig(keys_max=2))
    metrics.watch_keys(lambda: here)
    for name in ("ann", "ben", "cat"):
        metrics.count(call_of(name), Outcome.OK, 0.1)
    here[:] = idle("ben", "cat")

    await series(metrics, "gateway_key_requests_total")
    metrics.count(call_of("cat"), Outcome.OK, 0.1)

    assert await series(metrics, "gateway_key_requests_total") == {
        '{key="ben",outcome="ok"}': 1,
        '{key="other",outcome="ok"}': 1,
        '{key="cat",outcome="ok"}': 1,
    }


async def test_a_key_may_be_named_like_the_rest() -> None:
    metrics = metrics_of(1, *idle("other", "ann"))
    for name in ("other", "ann", "ben"):
        metrics.count(call_of(name), Outcome.OK, 0.1)

    assert await series(metrics, "gateway_key_requests_total") == {
        '{key="other",outcome="ok"}': 2,
        '{key="ann",outcome="ok"}': 1,
    }


async def test_the_quota_of_each_key_is_shown_and_no_limit_where_there_is_none() -> None:
    metrics = metrics_of(2, KeyStanding("ann", 5, 2, 100), KeyStanding("free", 7, 0, None))

    assert await series(metrics, "gateway_quota_used_tokens") == {
        '{key="ann"}': 5,
        '{key="free"}': 7,
    }
    assert await series(metrics, "gateway_quota_limit_tokens") == {'{key="ann"}': 100}
    assert await series(metrics, "gateway_quota_reserved_tokens") == {
        '{key="ann"}': 2,
        '{key="free"}': 0,
    }


async def test_while_there_are_too_many_keys_a_place_is_for_those_in_use() -> None:
    standings = [*idle("a", "b", "c"), KeyStanding("d", 5, 1, 10), KeyStanding("e", 6, 0, 10)]
    metrics = metrics_of(2, *standings)

    assert await series(metrics, "gateway_quota_used_tokens") == {
        '{key="other"}': 0,
        '{key="d"}': 5,
        '{key="e"}': 6,
    }
    assert (await series(metrics, "gateway_quota_limit_tokens"))['{key="other"}'] == 30


async def test_keys_under_one_label_have_a_limit_only_if_each_has() -> None:
    metrics = metrics_of(1, KeyStanding("a", 1, 0, 10), KeyStanding("b", 2, 0, 10),
                         KeyStanding("c", 3, 0, None))  # fmt: skip

    assert (await series(metrics, "gateway_quota_used_tokens"))['{key="other"}'] == 5
    assert '{key="other"}' not in await series(metrics, "gateway_quota_limit_tokens")
