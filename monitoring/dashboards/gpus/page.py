"""The GPUs, put together."""

from typing import Final

from monitoring.dashboards.dashboard import Alerts, Dashboard
from monitoring.dashboards.gpus.balance import BALANCE
from monitoring.dashboards.gpus.glance import GLANCE
from monitoring.dashboards.gpus.health import EXPORTER, HEALTH
from monitoring.dashboards.gpus.links import LINKS
from monitoring.dashboards.gpus.power import POWER
from monitoring.dashboards.gpus.work import WORK
from monitoring.dashboards.variables import GPU, HOST, METRICS

GPUS: Final = Dashboard(
    uid="gpus",
    title="GPUs",
    about="Are all GPUs there, at full speed, cool, and sharing the work fairly?",
    variables=(METRICS, HOST, GPU),
    alerts=Alerts("Gpu.*|TargetDown"),
    rows=(GLANCE, WORK, POWER, BALANCE, LINKS, HEALTH, EXPORTER),
)
