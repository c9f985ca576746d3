"""The vLLM engine, put together."""

from typing import Final

from monitoring.dashboards.dashboard import Alerts, Dashboard
from monitoring.dashboards.engine.glance import GLANCE
from monitoring.dashboards.engine.latency import LATENCY
from monitoring.dashboards.engine.scheduler import CACHE, SCHEDULER
from monitoring.dashboards.engine.workload import WORKLOAD
from monitoring.dashboards.variables import ENGINE as WHICH
from monitoring.dashboards.variables import METRICS, SERVED_MODEL

ENGINE: Final = Dashboard(
    uid="vllm-engine",
    title="vLLM engine",
    about="Where vLLM spends its time and what it runs out of first.",
    variables=(METRICS, WHICH, SERVED_MODEL),
    alerts=Alerts("Vllm.*|InterTokenLatencyHigh|TargetDown"),
    rows=(GLANCE, LATENCY, SCHEDULER, CACHE, WORKLOAD),
)
