"""What a panel asks its data source; the source itself is always a variable."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from monitoring.dashboards.values import Json


class Source(Enum):
    """A data source variable of the dashboards, by name and kind."""

    METRICS = ("datasource", "prometheus")
    LOGS = ("logs", "loki")
    TRACES = ("traces", "jaeger")

    def json(self) -> Json:
        name, kind = self.value
        return {"type": kind, "uid": f"${{{name}}}"}


class Query(Protocol):
    """One question to one data source."""

    @property
    def source(self) -> Source: ...

    def json(self, ref: str) -> Json:
        """The target as Grafana stores it; `ref` is its letter within the panel."""


class Shape(Enum):
    """How Grafana lays out what Prometheus answers."""

    SERIES = "time_series"
    TABLE = "table"
    HEATMAP = "heatmap"


@dataclass(frozen=True, slots=True)
class Metric:
    """PromQL. `legend` may hold {{labels}}."""

    expr: str
    legend: str = ""
    shape: Shape = Shape.SERIES
    is_instant: bool = False
    has_exemplars: bool = False

    @property
    def source(self) -> Source:
        return Source.METRICS

    def json(self, ref: str) -> Json:
        return {
            "refId": ref,
            "datasource": self.source.json(),
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "format": self.shape.value,
            "instant": self.is_instant,
            "range": not self.is_instant,
            "exemplar": self.has_exemplars,
            "editorMode": "code",
        }


@dataclass(frozen=True, slots=True)
class LogLines:
    """LogQL that selects lines, newest first."""

    expr: str
    most: int = 200

    @property
    def source(self) -> Source:
        return Source.LOGS

    def json(self, ref: str) -> Json:
        return {
            "refId": ref,
            "datasource": self.source.json(),
            "expr": self.expr,
            "queryType": "range",
            "maxLines": self.most,
            "editorMode": "code",
        }


@dataclass(frozen=True, slots=True)
class SlowTraces:
    """The latest traces of a service that took at least so long, by Jaeger's own search."""

    service: str
    least: str
    most: int = 20

    @property
    def source(self) -> Source:
        return Source.TRACES

    def json(self, ref: str) -> Json:
        return {
            "refId": ref,
            "datasource": self.source.json(),
            "queryType": "search",
            "service": self.service,
            "minDuration": self.least,
            "limit": self.most,
        }
