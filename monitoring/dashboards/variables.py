"""What an operator can choose at the top of a dashboard.

`model` means the same everywhere and travels along the links between the dashboards. Instances
do not: the address of a gateway matches no vLLM, so each kind of target has a name of its own.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from monitoring.dashboards.queries import Source
from monitoring.dashboards.values import Json


class Variable(Protocol):
    """One choice."""

    def json(self) -> Json: ...


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """Which data source of a kind; Grafana's default unless told otherwise."""

    source: Source
    label: str

    def json(self) -> Json:
        name, kind = self.source.value
        return {
            "name": name,
            "label": self.label,
            "type": "datasource",
            "query": kind,
            "regex": "",
            "refresh": 1,
            "multi": False,
            "includeAll": False,
            "hide": 0,
            "skipUrlSync": False,
            "options": [],
            "current": {},
        }


@dataclass(frozen=True, slots=True)
class LabelChoice:
    """Any of a label's values as `metric` knows them; all of them at first."""

    name: str
    label: str
    metric: str
    of: str

    def json(self) -> Json:
        values = f"label_values({self.metric}, {self.of})"
        return {
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": Source.METRICS.json(),
            "definition": values,
            "query": {"qryType": 1, "query": values, "refId": "PrometheusVariableQuery"},
            "regex": "",
            # Asked again whenever the time range changes, so that what is gone can be looked up.
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            # Also what carries no such label at all: a request refused before its model was read.
            "allValue": ".*",
            "hide": 0,
            "skipUrlSync": False,
            "options": [],
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


METRICS: Final = SourceChoice(Source.METRICS, "Metrics")
LOGS: Final = SourceChoice(Source.LOGS, "Logs")
TRACES: Final = SourceChoice(Source.TRACES, "Traces")

GATEWAY: Final = LabelChoice("gateway", "Gateway", "gateway_build_info", "instance")
MODEL: Final = LabelChoice("model", "Model", "gateway_requests_total", "model")
UPSTREAM: Final = LabelChoice("upstream", "Upstream", "gateway_upstream_healthy", "upstream")
KEY: Final = LabelChoice("key", "Key", "gateway_key_requests_total", "key")
ENGINE: Final = LabelChoice("vllm", "vLLM", "vllm:num_requests_running", "instance")
SERVED_MODEL: Final = LabelChoice("model", "Model", "vllm:num_requests_running", "model_name")
HOST: Final = LabelChoice("host", "Host", "gpu_exporter_build_info", "instance")
GPU: Final = LabelChoice("gpu", "GPU", "gpu_up", "gpu")
