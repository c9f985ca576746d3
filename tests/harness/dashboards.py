"""The committed dashboards, and their questions as Grafana would put them to a real Prometheus."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.harness.prometheus import PrometheusProcess, QueryRefused, Sample, Series

FOLDER: Final = Path("monitoring/grafana/dashboards")
UIDS: Final = ("gateway-overview", "gateway-keys", "vllm-engine", "gpus")
# What Grafana fills in by itself, for scrapes every half second and a test of one minute.
INTERVALS: Final = {"__rate_interval": "30s", "__range": "60s", "__interval": "1s"}
ALL: Final = ".*"
SCRAPES_APART_SECONDS: Final = 0.5


_KEYWORDS: Final = frozenset({"or", "and", "unless", "bool", "sum", "min", "max", "count", "avg"})


@dataclass(frozen=True, slots=True)
class Question:
    """One query of one panel with every variable filled in."""

    panel: str
    ref: str
    expr: str

    @property
    def metrics(self) -> set[str]:
        return metric_names(self.expr)

    def __str__(self) -> str:
        return f"{self.panel} [{self.ref}]: {self.expr}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus said: now, and over the time shown; or its refusal."""

    question: Question
    now: Sequence[Sample] = ()
    course: Sequence[Series] = ()
    refusal: str = ""

    @property
    def is_empty(self) -> bool:
        return not self.now or not self.course

    @property
    def has_nan(self) -> bool:
        values = [sample.value for sample in self.now]
        values += [value for series in self.course for _, value in series.points]
        return any(math.isnan(value) for value in values)


def dashboard(uid: str) -> dict[str, Any]:
    """The committed JSON."""
    read: dict[str, Any] = json.loads((FOLDER / f"{uid}.json").read_text())
    return read


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All panels but the headings of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def questions(uid: str) -> Iterator[Question]:
    """Every question to Prometheus, those of annotations and of variables' values included."""
    board = dashboard(uid)
    for panel in panels(board):
        for target in panel["targets"]:
            if target["datasource"]["type"] == "prometheus":
                yield Question(panel["title"], target["refId"], filled(target["expr"], board))
    for note in board["annotations"]["list"]:
        yield Question(f"annotation {note['name']}", "-", filled(note["expr"], board))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            values = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert values, variable["definition"]
            metric, label = values.groups()
            asked = f"count by ({label}) ({metric})"
            yield Question(f"variable {variable['name']}", "-", asked)


def filled(expr: str, board: Mapping[str, Any]) -> str:
    """The query with Grafana's own intervals and with All chosen for each variable."""
    chosen = {variable["name"]: ALL for variable in board["templating"]["list"]}
    known = INTERVALS | chosen
    # What is no variable stays as it is: the $1 of label_replace.
    return re.sub(r"\$(\w+)", lambda found: known.get(found[1], found[0]), expr)


async def answers(
    prometheus: PrometheusProcess, uid: str, *, last_seconds: float = 60
) -> list[Answer]:
    """Every question of a dashboard, asked for now and over a range."""
    return [await _asked(prometheus, each, last_seconds) for each in questions(uid)]


async def _asked(prometheus: PrometheusProcess, question: Question, last_seconds: float) -> Answer:
    try:
        now = await prometheus.query(question.expr)
        course = await prometheus.query_range(question.expr, last_seconds=last_seconds)
    except QueryRefused as refusal:
        return Answer(question, refusal=str(refusal))
    return Answer(question, now, course)


def refused(given: Iterable[Answer]) -> list[str]:
    """What Prometheus could not parse or evaluate, in its words."""
    return [answer.refusal for answer in given if answer.refusal]


def not_numbers(given: Iterable[Answer]) -> list[str]:
    """Questions whose answer holds a NaN, which a panel would show."""
    return [str(answer.question) for answer in given if answer.has_nan]


def silent(given: Iterable[Answer], *, excused: Iterable[str]) -> list[str]:
    """Questions without an answer that ask for none of the excused metrics."""
    empty = [answer.question for answer in given if answer.is_empty]
    return [str(each) for each in empty if not each.metrics & set(excused)]


async def scraped_anew(prometheus: PrometheusProcess) -> None:
    """Waits until every target was scraped at least twice since now."""
    stamps = await prometheus.query("max(timestamp(up))")

    async def twice() -> bool:
        oldest = await prometheus.query("min(timestamp(up))")
        return oldest[0].value > stamps[0].value + 2 * SCRAPES_APART_SECONDS

    await prometheus.wait_until(twice)


async def names_in(prometheus: PrometheusProcess) -> frozenset[str]:
    """The names of all metrics and rules that Prometheus has; histograms by their base name."""
    found = await prometheus.query('count by (__name__) ({__name__!=""})')
    return frozenset(base_name(sample.labels["__name__"]) for sample in found)


def metric_names(expr: str) -> set[str]:
    """The names of metrics and recording rules in a query; a histogram's by its base name."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    words = re.findall(r"(?<![\w.:$])([A-Za-z_:][\w:]*)(?!\w)(?!\s*\()", bare)
    return {base_name(word) for word in words} - _KEYWORDS


def base_name(name: str) -> str:
    """A histogram's name for any of its series. A name that merely ends like one is kept."""
    return re.sub(r"_(bucket|sum|count)$", "", name)
