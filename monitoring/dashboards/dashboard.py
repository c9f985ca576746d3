"""A whole dashboard as Grafana's v1 JSON: the form that can be provisioned from files.

Schema version 39 is what Grafana 10.4 wrote; every later one migrates it while loading.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from monitoring.dashboards.layout import Row, arranged
from monitoring.dashboards.queries import Source
from monitoring.dashboards.values import Json
from monitoring.dashboards.variables import Variable

SCHEMA_VERSION: Final = 39
TAG: Final = "vllm-gateway"
TRACED_SERVICE: Final = "vllm-gateway"


@dataclass(frozen=True, slots=True)
class Alerts:
    """Firing alerts drawn into every graph of a dashboard; `names` is a regular expression."""

    names: str

    def json(self) -> Json:
        expr = (
            'max by (alertname, severity) (ALERTS{alertstate="firing",'
            f'severity=~"critical|warning",alertname=~"{self.names}"}})'
        )
        return {
            "name": "Alerts",
            "datasource": Source.METRICS.json(),
            "enable": True,
            "hide": False,
            "iconColor": "red",
            "expr": expr,
            "step": "30s",
            "titleFormat": "{{alertname}}",
            "tagKeys": "severity",
            "useValueForTime": False,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Dashboard:
    """What is shown under one fixed `uid`; alerts and runbook link to it by that name."""

    uid: str
    title: str
    about: str
    variables: Sequence[Variable]
    alerts: Alerts
    rows: Sequence[Row]
    since: str = "now-1h"

    def json(self) -> Json:
        return {
            "id": None,
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "timezone": "browser",
            "fiscalYearStartMonth": 0,
            # One crosshair in all graphs: what happened together is seen together.
            "graphTooltip": 1,
            "liveNow": False,
            "refresh": "10s",
            "time": {"from": self.since, "to": "now"},
            "timepicker": {},
            "links": list(_links()),
            "annotations": {"list": [self.alerts.json()]},
            "templating": {"list": [variable.json() for variable in self.variables]},
            "panels": list(arranged(self.rows)),
        }


def _links() -> Iterator[Json]:
    yield {
        "title": "Dashboards",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other dashboards, same time and model",
        "url": "",
    }
    yield _explore("Logs", "loki", {"expr": '{service_name="gateway"}', "queryType": "range"})
    yield _explore("Traces", "jaeger", {"service": TRACED_SERVICE, "queryType": "search"})


def _explore(title: str, source: str, query: Json) -> Json:
    """A link to Explore; the data source by its provisioned uid, for not every dashboard has a
    variable for it."""
    asked: Json = {"refId": "A", "datasource": {"type": source, "uid": source}, **query}
    pane: Json = {
        "datasource": source,
        "queries": [asked],
        "range": {"from": "now-1h", "to": "now"},
    }
    panes = quote(json.dumps({"a": pane}, separators=(",", ":")))
    return {
        "title": title,
        "type": "link",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": False,
        "targetBlank": True,
        "icon": "doc",
        "tooltip": f"{title} of the gateway in Explore",
        "url": f"/explore?schemaVersion=1&orgId=1&panes={panes}",
    }
