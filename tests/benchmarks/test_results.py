"""What the rounds of a run come to."""

from collections import Counter

import pytest

from tests.benchmarks.results import LINES, Results
from tests.benchmarks.runs import PEER, whole_run
from tests.benchmarks.targets import DIRECT, GATEWAY, NGINX


def results_of(number: str, **rounds: list[float]) -> Results:
    results = Results()
    for target, values in rounds.items():
        for value in values:
            results.add("paced", target, {number: value})
    return results


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # Somebody else took half of the machine in the second round: of both.
    results = results_of("events_per_second", gateway=[50, 25, 60], nginx=[100, 50, 100])

    assert results.ratio("paced", "events_per_second", GATEWAY, NGINX) == 0.5


def test_what_is_added_is_the_median_of_the_rounds_differences() -> None:
    line = next(line for line in LINES if (line.measure, line.number) == ("paced", "ttft_p50_ms"))
    results = results_of("ttft_p50_ms", gateway=[1.5, 9.5, 1.7], direct=[1.0, 9.0, 1.0])

    assert results.shown(line, GATEWAY) == pytest.approx(0.5)
    assert results.shown(line, DIRECT) == 1.0


def test_a_round_without_the_number_counts_for_nothing() -> None:
    results = results_of("ttft_p50_ms", gateway=[3.0])
    results.add("paced", "litellm", {})

    assert results.median("paced", "litellm", "ttft_p50_ms") is None
    assert results.ratio("paced", "ttft_p50_ms", "litellm", GATEWAY) is None


def test_targets_stand_from_the_limit_over_the_peers_to_ours() -> None:
    assert whole_run().targets() == [DIRECT, NGINX, PEER, GATEWAY]


def test_only_our_own_wrong_answers_are_our_fault() -> None:
    results = whole_run()
    results.blame("plain", PEER, Counter({"status 500": 3}))
    results.left_out["litellm"] = "no answer in 90 s"
    assert not results.is_ours_at_fault

    results.blame("plain", GATEWAY, Counter({"status 500": 1}))
    assert results.is_ours_at_fault


def test_a_comparison_that_did_not_happen_is_our_fault() -> None:
    results = whole_run()
    results.left_out["keys"] = "it ended at once"

    assert results.is_ours_at_fault


def test_blame_adds_up_and_leaves_nothing_to_blame_twice() -> None:
    results, seen = Results(), Counter({"status 500": 2})
    results.blame("plain", GATEWAY, seen)
    results.blame("plain", GATEWAY, seen)
    results.blame("plain", GATEWAY, Counter({"status 500": 1}))

    assert results.faults == {"plain": {GATEWAY: {"status 500": 3}}}


def test_rewritten_are_those_that_sent_other_bytes() -> None:
    results = whole_run()
    results.rounds["plain"][PEER][0]["rewritten"] = 1.0

    assert results.rewritten() == [PEER]


def test_other_programs_are_told_of_from_a_twentieth_of_a_core() -> None:
    results = whole_run()
    results.rounds["plain"][NGINX][0] |= {"others_core": 0.04, "stolen_core": 0.0}
    assert results.disturbances() == []

    results.rounds["plain"][GATEWAY][0] |= {"others_core": 0.31, "stolen_core": 0.0}
    assert results.disturbances() == [
        "disturbed: in plain other programs had up to 31% of a core, and the hypervisor withheld "
        "up to 0%"
    ]


def test_a_target_that_did_not_use_its_core_was_not_the_limit() -> None:
    results = whole_run()
    results.rounds["plain"][NGINX][0]["target_core"] = 0.4
    results.rounds["plain"][GATEWAY][0]["target_core"] = 0.99
    results.rounds["plain"][PEER][0]["target_core"] = 0.99

    assert next(words for words in results.limits() if words.startswith("plain")).startswith(
        "plain: not the whole core was used by nginx 40%;"
    )


def test_json_and_back_is_the_same_run() -> None:
    results = whole_run()
    results.blame("plain", PEER, Counter({"status 500": 3}))
    results.left_out["litellm"] = "no answer in 90 s"

    assert Results.from_json(results.as_json({})) == results
