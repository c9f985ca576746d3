"""The gateway overview, put together."""

from typing import Final

from monitoring.dashboards.dashboard import Alerts, Dashboard
from monitoring.dashboards.overview.errors import ERRORS
from monitoring.dashboards.overview.evidence import EVIDENCE
from monitoring.dashboards.overview.glance import GLANCE
from monitoring.dashboards.overview.latency import LATENCY
from monitoring.dashboards.overview.objectives import OBJECTIVES
from monitoring.dashboards.overview.saturation import SATURATION
from monitoring.dashboards.overview.traffic import TRAFFIC
from monitoring.dashboards.variables import GATEWAY, LOGS, METRICS, MODEL, TRACES, UPSTREAM

OVERVIEW: Final = Dashboard(
    uid="gateway-overview",
    title="Gateway overview",
    about="Is the service well? Traffic, errors, latency, saturation and objectives.",
    variables=(METRICS, LOGS, TRACES, GATEWAY, MODEL, UPSTREAM),
    alerts=Alerts(
        "Gateway.*|Circuit.*|Upstream.*|TargetDown|InterTokenLatencyHigh|AuthFailureSpike"
    ),
    rows=(GLANCE, TRAFFIC, LATENCY, ERRORS, SATURATION, OBJECTIVES, EVIDENCE),
)
