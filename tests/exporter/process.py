"""A whole exporter process under test: real HTTP, real signals, a real worker."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from tests.harness.exposition import text_families
from tests.harness.gateway import free_port

START_SECONDS = 15.0
STOP_SECONDS = 10.0
PATIENCE_SECONDS = 10.0


class Scrape:
    """What one scrape said."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [sample for family in text_families(text) for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self._samples}

    def values(self, name: str, /, **labels: str) -> list[float]:
        return [
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def value(self, name: str, /, **labels: str) -> float | None:
        """The one sample with these labels; None if there is none."""
        found = self.values(name, **labels)
        if len(found) > 1:
            raise AssertionError(f"{name}{labels} is not one series but {len(found)}")
        return found[0] if found else None

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self._samples if sample.name == name]

    def seconds_after(self, other: "Scrape") -> float:
        """Between the collections that the two show."""
        name = "gpu_exporter_last_success_timestamp_seconds"
        return (self.value(name) or 0) - (other.value(name) or 0)

    def telemetry_of(self, gpu: str) -> set[str]:
        """Names of what the GPU itself said, apart from what is known about it."""
        about = {"gpu_up", "gpu_info", "gpu_xid_errors_total", "gpu_xid_last_timestamp_seconds"}
        return {
            sample.name
            for sample in self._samples
            if sample.labels.get("gpu") == gpu and sample.name not in about
        }


class ExporterProcess:
    """`python -m exporter` between `async with` and its end; settings are its environment."""

    def __init__(self, *arguments: str, folder: Path, **environ: str) -> None:
        self.port = free_port()
        self.log_path = folder / f"exporter-{self.port}.log"
        # A developer's own config/.env has no say here.
        env_file = folder / "empty.env"
        env_file.touch()
        self._arguments = (*arguments, "--env-file", str(env_file))
        self._environ = {
            "PATH": os.environ["PATH"],
            "GPU_EXPORTER_PORT": str(self.port),
            "GPU_EXPORTER_INTERVAL_SECONDS": "0.2",
            "GPU_EXPORTER_TIMEOUT_SECONDS": "1",
            "LOG_FORMAT": "json",
            **environ,
        }
        url = f"http://127.0.0.1:{self.port}"
        self.client = httpx2.AsyncClient(base_url=url, timeout=5, trust_env=False)
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():
                assert self._running.returncode is None, self.log_path.read_text()
                await asyncio.sleep(0.02)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.client.aclose()
        if self._running.returncode is None:
            self._running.terminate()
            await self.ended()
        if kind is not None:
            sys.stdout.write(self.log_path.read_text()[-20_000:])

    async def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "exporter",
                *self._arguments,
                env=self._environ,
                stdout=log,
                stderr=log,
            )

    async def ended(self, *, within_seconds: float = STOP_SECONDS) -> int:
        """The exit code."""
        async with asyncio.timeout(within_seconds):
            return await self._running.wait()

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    async def scrape(self) -> Scrape:
        answer = await self.client.get("/metrics")
        assert answer.status_code == 200
        return Scrape(answer.text)

    async def until(
        self, holds: Callable[[Scrape], object], *, within_seconds: float = PATIENCE_SECONDS
    ) -> Scrape:
        """The first scrape of which that holds."""
        async with asyncio.timeout(within_seconds):
            while not holds(scrape := await self.scrape()):
                await asyncio.sleep(0.05)
        return scrape

    def workers(self) -> list[int]:
        """Pids of its children."""
        pid = self._running.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def log_lines(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def _answers(self) -> bool:
        try:
            return (await self.client.get("/health")).status_code == 200
        except httpx2.TransportError:
            return False

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self.process is None:
            raise RuntimeError("the exporter was not started")
        return self.process


def is_healthy(scrape: Scrape) -> bool:
    return scrape.value("gpu_exporter_last_collect_success") == 1


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
