"""The README's tables are written from a run."""

from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks.markdown import (
    BEGIN,
    END,
    README,
    NoPlace,
    missing,
    placed,
    rendered,
    update_readme,
)
from tests.benchmarks.results import Results
from tests.benchmarks.runs import PEER, whole_run
from tests.benchmarks.targets import DIRECT, GATEWAY, NGINX


def row(text: str, beginning: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {beginning}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_target_has_a_column_and_a_peer_its_version() -> None:
    assert row(rendered(whole_run()), "On one core") == [
        "On one core, medians of 1 rounds",
        "direct",
        "nginx",
        "vllm-router 0.1.17",
        "gateway",
        "gateway / nginx",
    ]


def test_a_row_has_the_medians_and_the_ratio() -> None:
    results = whole_run()
    for target, value in {DIRECT: 80_000, NGINX: 70_000, PEER: 27_000, GATEWAY: 35_000}.items():
        results.rounds["plain"][target] = [{"requests_per_second": value}]

    assert row(rendered(results), "whole answers")[1:] == [
        "80,000",
        "70,000",
        "27,000",
        "35,000",
        "0.50",
    ]


def test_wrong_answers_mark_their_figure_and_are_explained() -> None:
    results = whole_run()
    results.blame("plain", PEER, Counter({"status 500": 3}))

    text = rendered(results)

    assert row(text, "whole answers")[3] == "1 !"
    assert row(text, "streams at full speed")[3] == "1"
    assert "A figure with ! had wrong or missing answers." in text


def test_the_smallest_size_is_what_growth_is_held_against() -> None:
    results = whole_run()
    for size, value in {"10": 1000.0, "100,000": 950.0}.items():
        results.rounds["keys"][size][0]["requests_per_second"] = value

    text = rendered(results)

    assert row(text, "10 keys")[1:3] == ["1,000", "1.00"]
    assert row(text, "100,000 keys")[1:3] == ["950", "0.95"]
    assert row(text, "1 upstream ")[1] == "9"


def test_date_versions_and_what_was_left_out_stand_below() -> None:
    results = whole_run()
    results.left_out["litellm"] = "no answer in 90 s"
    results.rounds["plain"][PEER][0]["rewritten"] = 1.0

    text = rendered(results)

    assert "Measured on 2026-11-29: nginx 1.22." in text
    assert "Left out, as it could not be measured: litellm." in text
    assert "byte by byte but for vllm-router" in text


def test_a_part_is_placed_between_the_markers_and_replaces_what_was_there() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    once = placed(text, "new\n")

    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert placed(once, "newer\n") == once.replace("new", "newer")


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}"])
def test_without_both_markers_there_is_no_place(text: str) -> None:
    with pytest.raises(NoPlace):
        placed(text, "new\n")


def test_the_readme_has_a_place() -> None:
    assert placed(README.read_text(), "new\n")


def test_half_a_run_is_not_for_the_readme(tmp_path: Path) -> None:
    results = Results(rounds={"plain": whole_run().rounds["plain"]})

    assert "keys" in missing(results)
    with pytest.raises(NoPlace, match="keys"):
        update_readme(results)


def test_a_whole_run_lacks_nothing() -> None:
    assert missing(whole_run()) == []
