"""The dashboards' JSON is what their code says, complete, and asks only for what exists."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from monitoring.dashboards.__main__ import differences, write
from monitoring.dashboards.catalogue import DASHBOARDS
from monitoring.dashboards.layout import GRID_WIDTH, Row, arranged
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit
from tests.harness.dashboards import FOLDER, UIDS, dashboard, panels, questions
from tests.monitoring.golden import EXPOSED, REMOVED_FROM_VLLM, recorded

RUNBOOK = Path("monitoring/RUNBOOK.md")

every_dashboard = pytest.mark.parametrize("uid", UIDS)


def _targets(uid: str) -> list[dict[str, Any]]:
    return [target for panel in panels(dashboard(uid)) for target in panel["targets"]]


def test_the_committed_json_is_what_the_code_says() -> None:
    assert differences(FOLDER) == [], "run make dashboards"


def test_the_check_passes_on_what_is_committed() -> None:
    command = (sys.executable, "-m", "monitoring.dashboards", "--check")

    assert subprocess.run(command, check=False, timeout=30).returncode == 0


def test_the_check_names_every_file_that_was_changed_removed_or_added(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "gpus.json").write_text("{}")
    (tmp_path / "vllm-engine.json").unlink()
    (tmp_path / "drawn-by-hand.json").write_text("{}")

    assert differences(tmp_path) == ["drawn-by-hand.json", "gpus.json", "vllm-engine.json"]


def test_the_dashboards_have_the_uids_that_alerts_link_to() -> None:
    assert tuple(each.uid for each in DASHBOARDS) == UIDS


@every_dashboard
def test_a_dashboard_can_be_provisioned_from_its_file(uid: str) -> None:
    board = dashboard(uid)

    assert board["uid"] == uid
    assert board["id"] is None
    assert board["schemaVersion"] == 39
    assert "__inputs" not in board
    assert "apiVersion" not in board, "that would be the v2 form, which files cannot carry"


@every_dashboard
def test_a_dashboard_links_to_the_others(uid: str) -> None:
    board = dashboard(uid)
    links = [link for link in board["links"] if link["type"] == "dashboards"]

    assert links
    assert set(links[0]["tags"]) <= set(board["tags"])
    assert links[0]["keepTime"]
    assert links[0]["includeVars"]


@every_dashboard
def test_panels_have_numbers_and_titles_of_their_own(uid: str) -> None:
    board = dashboard(uid)
    numbers = [panel["id"] for panel in board["panels"]]
    # One question may be asked of two pictures: as a tile and as its course.
    titles = Counter((panel["type"], panel["title"]) for panel in panels(board))

    assert len(set(numbers)) == len(numbers)
    assert [title for title, times in titles.items() if times > 1] == []


@every_dashboard
def test_panels_fill_the_grid_and_never_overlap(uid: str) -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in dashboard(uid)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= GRID_WIDTH
        columns, lines = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        taken.update((x, y) for x in columns for y in lines)

    bottom = 1 + max(y for _, y in taken)
    assert max(taken.values()) == 1
    assert len(taken) == GRID_WIDTH * bottom, "a hole: the panels of a line differ in height"


def test_the_layout_starts_a_new_line_where_a_panel_would_not_fit() -> None:
    query = Metric("up")
    wide, narrow = (
        Graph(title="?", shows="", when_bad="", queries=(query,), unit=Unit.NUMBER, width=width)
        for width in (16, 12)
    )

    places = [panel["gridPos"] for panel in arranged((Row("r", (wide, narrow, narrow)),))]

    assert places == [
        {"h": 1, "w": 24, "x": 0, "y": 0},
        {"h": 8, "w": 16, "x": 0, "y": 1},
        {"h": 8, "w": 12, "x": 0, "y": 9},
        {"h": 8, "w": 12, "x": 12, "y": 9},
    ]


@every_dashboard
def test_every_target_asks_a_data_source_that_can_be_chosen(uid: str) -> None:
    board = dashboard(uid)
    choices = {
        f"${{{each['name']}}}": each["query"]
        for each in board["templating"]["list"]
        if each["type"] == "datasource"
    }
    for panel in panels(board):
        refs = [target["refId"] for target in panel["targets"]]
        assert refs, panel["title"]
        assert len(set(refs)) == len(refs)
        for asked in (panel, *panel["targets"]):
            assert choices[asked["datasource"]["uid"]] == asked["datasource"]["type"]


@every_dashboard
def test_every_target_to_prometheus_and_loki_has_a_query(uid: str) -> None:
    for target in _targets(uid):
        if target["datasource"]["type"] in ("prometheus", "loki"):
            assert target["expr"].strip()


@every_dashboard
def test_every_variable_in_a_query_is_one_of_the_dashboards_own(uid: str) -> None:
    board = dashboard(uid)
    known = {each["name"] for each in board["templating"]["list"]}

    for target in _targets(uid):
        used = set(re.findall(r"\$(\w+)", target.get("expr", "")))
        assert used - {"__rate_interval", "__range", "1"} <= known, target["expr"]


@every_dashboard
def test_rates_follow_the_scrape_interval(uid: str) -> None:
    for target in _targets(uid):
        expr = target.get("expr", "")
        assert "$__interval" not in expr, "a zoomed-in $__interval holds less than two scrapes"
        assert "irate(" not in expr


@every_dashboard
def test_every_panel_has_a_unit_and_a_word_for_no_data(uid: str) -> None:
    for panel in panels(dashboard(uid)):
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]
        assert defaults["thresholds"]["steps"][0]["value"] is None


@every_dashboard
def test_every_title_is_a_question_or_a_claim(uid: str) -> None:
    for panel in panels(dashboard(uid)):
        title = panel["title"]
        is_question = title.partition(" (")[0].endswith("?")
        assert is_question or len(title.split()) >= 4, f"{title!r} is a label, not a claim"


@every_dashboard
def test_every_title_fits_its_panel_on_a_laptop(uid: str) -> None:
    """1,440 pixels in 24 columns, titles of about 7 pixels a letter; Grafana cuts the rest off."""
    for panel in panels(dashboard(uid)):
        room = panel["gridPos"]["w"] * 1440 / 24 - 16
        assert len(panel["title"]) * 7.2 <= room, panel["title"]


@every_dashboard
def test_every_description_says_what_it_shows_and_what_to_do(uid: str) -> None:
    for panel in panels(dashboard(uid)):
        shown, _, cure = panel["description"].partition("**When it looks bad:**")
        assert len(shown) > 25, panel["title"]
        assert len(cure) > 25, panel["title"]


@every_dashboard
def test_every_runbook_section_named_is_there(uid: str) -> None:
    headings = set(re.findall(r"^## (\w+)", RUNBOOK.read_text(), re.MULTILINE))
    for panel in panels(dashboard(uid)):
        _, _, sections = panel["description"].partition("RUNBOOK.md): ")
        assert set(re.findall(r"`(\w+)`", sections)) <= headings, panel["title"]


@every_dashboard
def test_every_metric_asked_for_is_exposed_or_recorded(uid: str) -> None:
    known = EXPOSED | recorded()
    for question in questions(uid):
        assert question.metrics, question
        assert question.metrics <= known, f"{question.metrics - known} in {question}"


@every_dashboard
def test_no_name_that_vllm_has_dropped_is_asked_for(uid: str) -> None:
    text = (FOLDER / f"{uid}.json").read_text()

    assert [name for name in REMOVED_FROM_VLLM if name in text] == []


@every_dashboard
def test_every_division_guards_against_an_idle_system(uid: str) -> None:
    for question in questions(uid):
        for divisor in re.findall(r" / (.{0,8})", question.expr):
            is_guarded = divisor.startswith(("(", "on ", "sum", "group"))
            assert is_guarded or re.match(r"[\d.]", divisor), question


def test_the_seconds_of_vllm_are_shown_as_seconds() -> None:
    for panel in panels(dashboard("vllm-engine")):
        if any("_seconds" in target["expr"] for target in panel["targets"]):
            assert panel["fieldConfig"]["defaults"]["unit"] == "s", panel["title"]


def test_first_tokens_lead_from_the_graph_to_their_traces() -> None:
    title = "First tokens come within 2.5 s"
    [panel] = [each for each in panels(dashboard("gateway-overview")) if each["title"] == title]

    assert all(target["exemplar"] for target in panel["targets"])
