"""A whole box under test: simulators, gateway, exporter, and the Prometheus that watches them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED
from tests.harness.gateway import GatewayProcess
from tests.harness.prometheus import PrometheusProcess, quick_config
from tests.monitoring.plant import Program

RULES: Final = Path("monitoring/prometheus/rules")
# Slow enough that streams are seen under way, quick enough for a test.
PACE: Final = SimulatorConfig(
    ttft_seconds=0.02, inter_token_seconds=0.005, output_tokens=60, max_num_seqs=4
)
SETTINGS: Final[dict[str, Any]] = {
    **UNLIMITED,
    "MAX_IN_FLIGHT": "8",
    "MAX_QUEUED": "8",
    "QUEUE_TIMEOUT_SECONDS": "2",
    # Every request is sampled, so that metrics carry exemplars; nobody listens for the spans.
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
}


@dataclass(frozen=True, slots=True)
class Box:
    """What runs; the second simulator is the one that gets the faults."""

    gateway: GatewayProcess
    simulators: tuple[Simulator, Simulator]
    exporter: Program
    prometheus: PrometheusProcess


@asynccontextmanager
async def running_box(folder: Path) -> AsyncIterator[Box]:
    """Entering waits until every target was scraped."""
    async with (
        Simulator(PACE) as first,
        Simulator(PACE) as second,
        GatewayProcess(folder=folder, VLLM_URL=f"{first.url},{second.url}", **SETTINGS) as gateway,
        Program("exporter", "--simulate", "3", log=folder / "exporter.log") as exporter,
    ):
        jobs = {
            "gateway": [f"127.0.0.1:{gateway.port}"],
            "vllm": [f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"],
            "gpu-exporter": [f"127.0.0.1:{exporter.port}"],
        }
        async with PrometheusProcess(
            folder=folder, config=quick_config(list(jobs)), rules=RULES, targets=jobs
        ) as prometheus:
            await prometheus.until_scraped()
            yield Box(gateway, (first, second), exporter, prometheus)
