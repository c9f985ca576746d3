"""A run against what was promised."""

import pytest

from tests.benchmarks.goals import State, Verdict, verdicts
from tests.benchmarks.results import Results
from tests.benchmarks.runs import PEER, whole_run
from tests.benchmarks.targets import DIRECT, GATEWAY, NGINX


def verdict_on(results: Results, beginning: str) -> Verdict:
    return next(each for each in verdicts(results) if each.title.startswith(beginning))


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert {each.state for each in verdicts(Results())} == {State.UNKNOWN}


@pytest.mark.parametrize(
    ("ours", "state"), [(99.0, State.MISSED), (100.0, State.REACHED), (150.0, State.REACHED)]
)
def test_requests_a_second_are_held_against_vllm_routers(ours: float, state: State) -> None:
    results = whole_run()
    results.rounds["plain"][PEER] = [{"requests_per_second": 100.0}]
    results.rounds["plain"][GATEWAY] = [{"requests_per_second": ours}]

    found = verdict_on(results, "requests/s of vllm-router's")

    assert found.state is state
    assert found.found == f"{ours / 100:.2f}"


def test_streamed_events_are_held_against_nginx() -> None:
    results = whole_run()
    results.rounds["burst"][NGINX] = [{"events_per_second": 100.0}]
    results.rounds["burst"][GATEWAY] = [{"events_per_second": 99.0}]

    assert verdict_on(results, "streamed events/s").state is State.MISSED


@pytest.mark.parametrize(
    ("number", "beginning", "ours", "state"),
    [
        ("ttft_p50_ms", "added TTFT p50", 5.19, State.REACHED),
        ("ttft_p50_ms", "added TTFT p50", 5.21, State.MISSED),
        ("ttft_p99_ms", "added TTFT p99", 5.9, State.REACHED),
        ("ttft_p99_ms", "added TTFT p99", 6.1, State.MISSED),
    ],
)
def test_latency_is_what_is_added_to_the_direct_connection(
    number: str, beginning: str, ours: float, state: State
) -> None:
    results = whole_run()
    results.rounds["paced"][DIRECT] = [{number: 5.0}]
    results.rounds["paced"][GATEWAY] = [{number: ours}]

    assert verdict_on(results, beginning).state is state


@pytest.mark.parametrize(
    ("measure", "number", "ours", "state"),
    [
        ("memory", "bytes_per_stream", 19_999.0, State.REACHED),
        ("memory", "bytes_per_stream", 20_000.0, State.MISSED),
        ("drift", "growth_bytes", 999_999.0, State.REACHED),
        ("drift", "growth_bytes", 1_000_000.0, State.MISSED),
        ("drift", "growth_bytes", -4096.0, State.REACHED),
    ],
)
def test_memory_has_a_limit(measure: str, number: str, ours: float, state: State) -> None:
    results = whole_run()
    results.rounds[measure][GATEWAY] = [{number: ours}]

    beginning = {"memory": "memory per open stream", "drift": "growth over"}[measure]
    assert verdict_on(results, beginning).state is state


def test_a_hundred_thousand_keys_may_cost_a_tenth() -> None:
    results = whole_run()
    results.rounds["keys"]["10"] = [{"requests_per_second": 1000.0}] * 3
    results.rounds["keys"]["100,000"] = [
        {"requests_per_second": value} for value in (901.0, 100.0, 950.0)
    ]
    assert verdict_on(results, "requests/s with 100,000 keys").state is State.REACHED

    results.rounds["keys"]["100,000"][0]["requests_per_second"] = 899.0
    assert verdict_on(results, "requests/s with 100,000 keys").state is State.MISSED
