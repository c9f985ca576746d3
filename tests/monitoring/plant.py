"""A small plant to break: gateway, simulator and GPU exporter as processes, load, a Prometheus."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx2

from tests.harness.gateway import GatewayProcess, chat, free_port
from tests.harness.prometheus import PrometheusProcess
from tests.monitoring.timescale import faster_config, faster_rules

MONITORING = Path("monitoring/prometheus")
START_SECONDS = 20.0
# Thirty times faster than a clock on the wall, seen four times a second.
FACTOR = 30
INTERVAL = "250ms"
CALLERS = 16
PAUSE_SECONDS = 0.4
PAUSE_AFTER_ERROR_SECONDS = 5.0
# Nothing may join or leave for a minute of the fast clock.
LOOKS = 20
POLL_SECONDS = 60 / FACTOR / LOOKS


class Program:
    """`python -m ...` with a port and /health, between `async with` and its end."""

    def __init__(self, *arguments: str, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = (sys.executable, "-m", *arguments, "--port", str(self.port))
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.client = httpx2.AsyncClient(base_url=self.url, timeout=5, trust_env=False)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.client.aclose()
        await self.kill()

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env={"PATH": os.environ["PATH"]}, stdout=log, stderr=log
            )
        async with asyncio.timeout(START_SECONDS):
            while not await self._is_healthy():
                if self._process.returncode is not None:
                    raise RuntimeError(f"{self._command} ended: {self._log.read_text()[-3000:]}")
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """As the kernel would when memory runs out."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _is_healthy(self) -> bool:
        try:
            return (await self.client.get("/health")).status_code == 200
        except httpx2.TransportError:
            return False


@dataclass(frozen=True, slots=True)
class Plant:
    """Everything that runs; the rules are the shipped ones, `FACTOR` times faster."""

    gateway: GatewayProcess
    simulator: Program
    exporter: Program
    prometheus: PrometheusProcess

    async def until_firing(self, *names: str, within_seconds: float = 30.0) -> None:
        """Wait until exactly these alerts fire, the Watchdog aside, and a while longer."""
        expected = {"Watchdog", *names}

        async def as_expected() -> bool:
            firing = await self.prometheus.firing()
            assert firing <= expected, f"{firing - expected} must not fire"
            return firing == expected

        await self.prometheus.wait_until(as_expected, within_seconds=within_seconds)
        for _ in range(LOOKS):
            await asyncio.sleep(POLL_SECONDS)
            assert await self.prometheus.firing() == expected

    async def until_quiet(self, *, within_seconds: float = 30.0) -> None:
        """Wait until only the Watchdog fires."""

        async def quiet() -> bool:
            return await self.prometheus.firing() == {"Watchdog"}

        await self.prometheus.wait_until(quiet, within_seconds=within_seconds)


@asynccontextmanager
async def running_plant(folder: Path) -> AsyncIterator[Plant]:
    """A plant under load whose Prometheus sees all of it."""
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(
            Program(
                *("scripts.simulator", "--ttft", "0.02", "--inter-token", "0.005"),
                log=folder / "simulator.log",
            )
        )
        exporter = await stack.enter_async_context(
            Program("exporter", "--simulate", "2", log=folder / "exporter.log")
        )
        gateway = await stack.enter_async_context(
            GatewayProcess(
                folder=folder,
                VLLM_URL=simulator.url,
                RATE_LIMIT_PER_KEY="off",
                RATE_LIMIT_PER_IP="off",
                DAILY_TOKEN_QUOTA="off",
                HEALTH_INTERVAL_SECONDS="1",
                LOG_LEVEL="WARNING",
            )
        )
        prometheus = await stack.enter_async_context(
            PrometheusProcess(
                folder=folder,
                config=faster_config(
                    (MONITORING / "prometheus.yml").read_text(), interval=INTERVAL
                ),
                rules=_faster(MONITORING / "rules", folder / "rules"),
                targets={
                    "gateway": [f"127.0.0.1:{gateway.port}"],
                    "vllm": [f"127.0.0.1:{simulator.port}"],
                    "gpu-exporter": [f"127.0.0.1:{exporter.port}"],
                },
            )
        )
        load = asyncio.gather(*(_calls(gateway) for _ in range(CALLERS)))
        try:
            await prometheus.until_scraped()
            yield Plant(gateway, simulator, exporter, prometheus)
        finally:
            load.cancel()
            with suppress(asyncio.CancelledError):
                await load


def _faster(rules: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in rules.glob("*.yml"):
        (folder / file.name).write_text(faster_rules(file.read_text(), factor=FACTOR))
    return folder


async def _calls(gateway: GatewayProcess) -> None:
    """One caller: stream after stream, with the patience of an SDK after a failure."""
    async with gateway.client_with(gateway.key) as client:
        client.timeout = httpx2.Timeout(60)
        while True:
            try:
                answer = await client.post("/v1/chat/completions", json=chat(stream=True))
                pause = PAUSE_SECONDS if answer.status_code == 200 else PAUSE_AFTER_ERROR_SECONDS
            except httpx2.TransportError:
                pause = PAUSE_AFTER_ERROR_SECONDS
            await asyncio.sleep(pause)
