"""The panels of a dashboard. Each says what it shows and what to do when it looks bad."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import ClassVar

from monitoring.dashboards.queries import Query
from monitoring.dashboards.scales import NEUTRAL, Colour, Thresholds, Unit, Word
from monitoring.dashboards.values import Json


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What all panels share; a subclass is one of Grafana's visualisations.

    `title` is a question or a claim. `runbook` names alerts whose sections of
    monitoring/RUNBOOK.md help. `empty` stands where there is no data, which is no fault.
    """

    kind: ClassVar[str]

    title: str
    shows: str
    when_bad: str
    queries: Sequence[Query]
    unit: Unit
    runbook: Sequence[str] = ()
    thresholds: Thresholds = NEUTRAL
    words: Sequence[Word] = ()
    least: float | None = None
    most: float | None = None
    empty: str = "No traffic"
    width: int = 8
    height: int = 8

    @property
    def description(self) -> str:
        parts = [self.shows, f"**When it looks bad:** {self.when_bad}"]
        if self.runbook:
            sections = ", ".join(f"`{name}`" for name in self.runbook)
            parts.append(f"Runbook (monitoring/RUNBOOK.md): {sections}")
        return "\n\n".join(parts)

    def json(self, number: int, x: int, y: int) -> Json:
        """The panel as Grafana stores it, at its place on a grid 24 wide."""
        letters = ascii_uppercase[: len(self.queries)]
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "datasource": self.queries[0].source.json(),
            "targets": [
                query.json(letter) for query, letter in zip(self.queries, letters, strict=True)
            ],
            "fieldConfig": {"defaults": self._defaults(), "overrides": self.overrides()},
            "options": self.options(),
            "transformations": self.transformations(),
        }

    def options(self) -> Json:
        """What the visualisation itself can be told."""
        return {}

    def custom(self) -> Json:
        """What the visualisation can be told per field."""
        return {}

    def colour(self) -> Json:
        return {"mode": "thresholds"}

    def overrides(self) -> list[Json]:
        return []

    def transformations(self) -> list[Json]:
        return []

    def _defaults(self) -> Json:
        bounds = {"min": self.least, "max": self.most}
        return {
            "unit": self.unit.value,
            "noValue": self.empty,
            "color": self.colour(),
            "thresholds": self.thresholds.json(),
            "mappings": [word.json(index) for index, word in enumerate(self.words)],
            "custom": self.custom(),
            **{name: bound for name, bound in bounds.items() if bound is not None},
        }


@dataclass(frozen=True, kw_only=True)
class Graph(Panel):
    """Lines over time; thresholds are drawn as lines too."""

    kind = "timeseries"
    least: float | None = 0
    is_stacked: bool = False
    # Labels of series drawn dashed and red: a limit that the others must stay below.
    ceilings: Sequence[str] = ()

    def colour(self) -> Json:
        return {"mode": "palette-classic"}

    def custom(self) -> Json:
        has_bounds = bool(self.thresholds.bounds)
        return {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if self.is_stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if has_bounds else "off"},
        }

    def options(self) -> Json:
        return {
            "legend": {
                "showLegend": True,
                "displayMode": "list",
                "placement": "bottom",
                "calcs": ["lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }

    def overrides(self) -> list[Json]:
        dashed: Json = {"fill": "dash", "dash": [8, 6]}
        red: Json = {"mode": "fixed", "fixedColor": Colour.BAD.value}
        return [
            {
                "matcher": {"id": "byName", "options": name},
                "properties": [
                    {"id": "custom.lineStyle", "value": dashed},
                    {"id": "custom.fillOpacity", "value": 0},
                    {"id": "custom.stacking", "value": {"mode": "none", "group": "limit"}},
                    {"id": "color", "value": red},
                ],
            }
            for name in self.ceilings
        ]


@dataclass(frozen=True, kw_only=True)
class Tile(Panel):
    """One number, large, with its recent course behind it."""

    kind = "stat"
    width: int = 4
    height: int = 4
    has_course: bool = True

    def options(self) -> Json:
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area" if self.has_course else "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
        }


@dataclass(frozen=True, kw_only=True)
class Bars(Panel):
    """One horizontal bar per series, for now."""

    kind = "bargauge"
    least: float | None = 0

    def options(self) -> Json:
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": True,
            "valueMode": "color",
            "sizing": "auto",
            "minVizHeight": 16,
            "minVizWidth": 8,
        }


@dataclass(frozen=True, kw_only=True)
class Timeline(Panel):
    """A lane per series, coloured by its state."""

    kind = "state-timeline"

    def custom(self) -> Json:
        return {"lineWidth": 0, "fillOpacity": 75}

    def options(self) -> Json:
        return {
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.85,
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "single", "sort": "none"},
        }


@dataclass(frozen=True, kw_only=True)
class Heatmap(Panel):
    """How often each bucket of a histogram was hit, over time."""

    kind = "heatmap"

    def options(self) -> Json:
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "reverse": False},
            "filterValues": {"le": 1e-9},
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "legend": {"show": False},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "unit": self.unit.value, "reverse": False},
        }


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Log lines, newest first."""

    kind = "logs"
    unit: Unit = Unit.TEXT
    width: int = 24

    def options(self) -> Json:
        return {
            "showTime": True,
            "showLabels": False,
            "showCommonLabels": False,
            "wrapLogMessage": True,
            "prettifyLogMessage": False,
            "enableLogDetails": True,
            "dedupStrategy": "none",
            "sortOrder": "Descending",
        }
