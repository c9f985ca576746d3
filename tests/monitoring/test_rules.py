"""The rules are valid, proven both ways, about metrics that exist; each alert has its runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.programs import unpacked
from tests.monitoring.golden import EXPOSED
from tests.monitoring.timescale import faster_config, faster_rules, seconds

HOME = Path("monitoring/prometheus")
RUNBOOK = Path("monitoring/RUNBOOK.md")
RULE_FILES = sorted((HOME / "rules").glob("*.yml"))
UNIT_TESTS = sorted((HOME / "tests").glob("*.yml"))
SEVERITIES = {"critical", "warning", "info", "none"}
# What Prometheus and Alertmanager say about themselves, and the name of vLLM before 0.9.2.
OF_THE_STACK = {
    "prometheus_rule_evaluation_failures_total",
    "prometheus_notifications_errors_total",
    "alertmanager_notifications_failed_total",
    "vllm:gpu_cache_usage_perc",
}
# Each alert must say these things at night.
RUNBOOK_POINTS = ("Means", "Users notice", "Look first", "Mend", "May be ignored")
_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
# Strings, label lists, durations and the labels of aggregations hold no metric's name.
_NOT_METRICS = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without|ignoring|group_left)\s*\([^)]*\)'
)
_LANGUAGE = {"and", "or", "unless", "bool"}
_SERIES_OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
_FUNCTION = re.compile(r"\b[a-z_]+(?=\s*\()")


def rules() -> list[dict[str, Any]]:
    files = (yaml.safe_load(path.read_text()) for path in RULE_FILES)
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: str) -> str:
    """Its output; fails the test with it where promtool finds a fault."""
    command = (unpacked("promtool", package="prometheus"), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_no_fault_in_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULE_FILES))


def test_promtool_finds_no_fault_in_the_configuration() -> None:
    promtool("check", "config", str(HOME / "prometheus.yml"))


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_promtool_proves(path: Path) -> None:
    promtool("test", "rules", str(path))


def test_every_alert_is_proven_to_fire_and_not_to_fire() -> None:
    fires, stays_quiet = set[str](), set[str]()
    for path in UNIT_TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            claimed = case["name"].partition(":")[0]
            for check in case.get("promql_expr_test", ()):
                fired = f'alertname="{claimed}"' in str(check["exp_samples"])
                (fires if fired else stays_quiet).add(claimed)

    names = {rule["alert"] for rule in alerts()}
    assert names - fires == set()
    # Which is always there.
    assert names - stays_quiet == {"Watchdog"}


def metrics_of(expression: str) -> set[str]:
    """The names of series in it; those of a histogram without what tells its series apart."""
    bare = _FUNCTION.sub(" ", _NOT_METRICS.sub(" ", expression))
    names = set(_WORD.findall(bare)) - _LANGUAGE
    return {name if name in EXPOSED else _SERIES_OF_A_HISTOGRAM.sub("", name) for name in names}


def test_every_metric_in_a_rule_is_one_that_somebody_exposes() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = set[str]().union(*(metrics_of(rule["expr"]) for rule in rules()))
    assert "gateway_requests_total" in used
    assert used - EXPOSED - recorded - OF_THE_STACK == set()


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']}")
def test_an_alert_says_how_bad_it_is_and_where_to_look(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    dashboards = {path.stem for path in Path("monitoring/grafana/dashboards").glob("*.json")}
    assert rule["labels"]["severity"] in SEVERITIES
    assert notes["runbook"] == f"{RUNBOOK}#{rule['alert'].lower()}"
    assert notes["dashboard"] in dashboards
    assert notes["summary"] != notes["description"]


def test_every_alert_has_a_runbook_section_and_every_section_an_alert() -> None:
    sections = set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE))
    assert sections == {rule["alert"] for rule in alerts()}


def test_every_runbook_section_makes_all_its_points() -> None:
    for section in RUNBOOK.read_text().split("\n## ")[1:]:
        points = re.findall(r"^- \*\*(.+?)\.\*\*", section, re.MULTILINE)
        assert tuple(points) == RUNBOOK_POINTS, section.partition("\n")[0]


def test_links_inside_the_runbook_lead_somewhere() -> None:
    text = RUNBOOK.read_text()
    anchors = {name.lower() for name in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_a_faster_clock_changes_only_ranges_and_holding_times() -> None:
    text = """
groups:
  - name: g
    rules:
      - alert: A
        expr: rate(a:ratio_rate5m[1h30m]) > 60 and b offset 5m > 1
        for: 10m
        labels: {window: 1h}
"""
    (rule,) = yaml.safe_load(faster_rules(text, factor=60))["groups"][0]["rules"]
    assert rule == {
        "alert": "A",
        "expr": "rate(a:ratio_rate5m[90000ms]) > 60 and b offset 5m > 1",
        "for": "10000ms",
        "labels": {"window": "1h"},
    }
    assert seconds("1h30m") == 5400


def test_a_faster_configuration_keeps_jobs_and_files() -> None:
    text = (HOME / "prometheus.yml").read_text()
    slow, fast = yaml.safe_load(text), yaml.safe_load(faster_config(text, interval="1s"))
    assert fast["global"]["evaluation_interval"] == "1s"
    assert [job["job_name"] for job in fast["scrape_configs"]] == [
        job["job_name"] for job in slow["scrape_configs"]
    ]
    assert fast["rule_files"] == slow["rule_files"]
