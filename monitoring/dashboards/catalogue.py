"""All dashboards, in the order in which an operator reads them."""

from typing import Final

from monitoring.dashboards.dashboard import Dashboard
from monitoring.dashboards.engine.page import ENGINE
from monitoring.dashboards.gpus.page import GPUS
from monitoring.dashboards.keys.page import KEYS
from monitoring.dashboards.overview.page import OVERVIEW

DASHBOARDS: Final[tuple[Dashboard, ...]] = (OVERVIEW, KEYS, ENGINE, GPUS)
