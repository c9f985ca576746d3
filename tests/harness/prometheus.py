"""A real Prometheus under test: Debian's, on a free port, with a storage of its own."""

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx2

from tests.harness.gateway import free_port
from tests.harness.programs import unpacked

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.1
# One gateway, engine and exporter, seen often enough for a test that lasts seconds.
QUICK_INTERVAL: Final = "500ms"

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an instant query and its value; NaN and infinities are values too."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a range query: (seconds since the epoch, value) pairs."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that is pending or firing now."""

    name: str
    state: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class QueryRefused(Exception):
    """Prometheus did not answer a query: its status and its own words."""


def quick_config(jobs: Sequence[str], *, interval: str = QUICK_INTERVAL) -> str:
    """A configuration that scrapes these jobs, whose targets `PrometheusProcess` is told.

    Rules are read from rules/*.yml beside it, if the process was given any.
    """
    scrapes = "".join(
        f"  - job_name: {job}\n    file_sd_configs: [{{files: [targets/{job}.json]}}]\n"
        for job in jobs
    )
    every = f"  scrape_interval: {interval}\n  scrape_timeout: {interval}\n"
    return (
        f"global:\n{every}  evaluation_interval: {interval}\n"
        f"rule_files: [rules/*.yml]\nscrape_configs:\n{scrapes}"
    )


class PrometheusProcess:
    """A Prometheus between `async with` and its end.

        jobs = {"gateway": [f"127.0.0.1:{gateway.port}"]}
        async with PrometheusProcess(folder=tmp_path, config=quick_config(list(jobs)), targets=jobs,
                                     rules=Path("monitoring/prometheus/rules")) as prometheus:
            await prometheus.until_scraped()
            samples = await prometheus.query("up")

    `config` is the text of prometheus.yml. `rules` is a folder whose *.yml are laid at rules/
    beside it. `targets` become targets/JOB.json beside it, for file_sd_configs. Entering waits
    until it is ready. Skips the test where Debian's package cannot be had.
    """

    def __init__(
        self,
        *,
        folder: Path,
        config: str,
        rules: Path | None = None,
        targets: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._program = unpacked("prometheus", package="prometheus")
        self._home = folder / f"prometheus-{self.port}"
        self._log = self._home / "prometheus.log"
        self._process: asyncio.subprocess.Process | None = None
        self._client = httpx2.AsyncClient(base_url=self.url, timeout=10, trust_env=False)
        (self._home / "targets").mkdir(parents=True)
        (self._home / "rules").mkdir()
        (self._home / "prometheus.yml").write_text(config)
        for rule_file in sorted(rules.glob("*.yml")) if rules else ():
            shutil.copy(rule_file, self._home / "rules")
        for job, addresses in (targets or {}).items():
            self.scrape(job, addresses)

    def scrape(self, job: str, addresses: Sequence[str], **labels: str) -> None:
        """Give a job these targets, host:port each; a running Prometheus takes them up at once."""
        groups = [{"targets": list(addresses), "labels": labels}]
        written = self._home / "targets" / f".{job}.new"
        written.write_text(json.dumps(groups))
        written.rename(self._home / "targets" / f"{job}.json")

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                f"--config.file={self._home / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._home / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--web.enable-lifecycle",
                "--enable-feature=exemplar-storage",
                stdout=log,
                stderr=log,
            )
        try:
            await self.wait_until(self._is_ready, within_seconds=START_SECONDS)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def query(self, expression: str) -> list[Sample]:
        """An instant query now. A scalar comes as one sample without labels.

        Raises QueryRefused where Prometheus cannot parse or evaluate it.
        """
        data = await self._ask("/api/v1/query", query=expression)
        if data["resultType"] in ("scalar", "string"):
            return [Sample(labels={}, value=float(data["result"][1]))]
        return [
            Sample(labels=row["metric"], value=float((row.get("value") or row["values"][-1])[1]))
            for row in data["result"]
        ]

    async def query_range(
        self, expression: str, *, last_seconds: float, step_seconds: float = 1.0
    ) -> list[Series]:
        """The same expression over the time until now."""
        now = time.time()
        data = await self._ask(
            "/api/v1/query_range",
            query=expression,
            start=str(now - last_seconds),
            end=str(now),
            step=str(step_seconds),
        )
        return [
            Series(labels=row["metric"], points=[(at, float(text)) for at, text in row["values"]])
            for row in data["result"]
        ]

    async def exemplars(self, expression: str, *, last_seconds: float = 300) -> list[Any]:
        """Series that match and the exemplars stored with them, as the API words them."""
        now = time.time()
        found: list[Any] = await self._ask(
            "/api/v1/query_exemplars",
            query=expression,
            start=str(now - last_seconds),
            end=str(now),
        )
        return found

    async def alerts(self) -> list[Alert]:
        """What is pending or firing now."""
        data = await self._ask("/api/v1/alerts")
        return [
            Alert(
                name=row["labels"]["alertname"],
                state=row["state"],
                labels=row["labels"],
                annotations=row["annotations"],
            )
            for row in data["alerts"]
        ]

    async def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return {alert.name for alert in await self.alerts() if alert.state == "firing"}

    async def targets(self) -> list[Any]:
        """The active targets, as the API words them (`labels`, `health`, `lastError`)."""
        data = await self._ask("/api/v1/targets", state="active")
        found: list[Any] = data["activeTargets"]
        return found

    async def rules(self) -> list[Any]:
        """Every rule of every group, as the API words them (`name`, `type`, `health`)."""
        data = await self._ask("/api/v1/rules")
        return [rule for group in data["groups"] for rule in group["rules"]]

    async def until_scraped(self, *, within_seconds: float = 20.0) -> None:
        """Wait until there are targets and every one of them is up."""

        async def all_up() -> bool:
            targets = await self.targets()
            return bool(targets) and all(target["health"] == "up" for target in targets)

        await self.wait_until(all_up, within_seconds=within_seconds)

    async def wait_until(
        self, look: Callable[[], Awaitable[Seen]], *, within_seconds: float = 20.0
    ) -> Seen:
        """What `look` returns once that is true; TimeoutError tells what it returned last."""
        deadline = time.monotonic() + within_seconds
        while not (seen := await look()):
            if self._running.returncode is not None:
                raise RuntimeError(f"Prometheus ended: {self._log.read_text()[-5000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"still {seen!r} after {within_seconds} s")
            await asyncio.sleep(POLL_SECONDS)
        return seen

    async def _ask(self, path: str, **query: str) -> Any:
        answer = (await self._client.get(path, params=query)).json()
        if answer["status"] != "success":
            raise QueryRefused(f"{answer['errorType']}: {answer['error']} in {query}")
        return answer["data"]

    async def _is_ready(self) -> bool:
        try:
            return (await self._client.get("/-/ready")).status_code == 200
        except httpx2.TransportError:
            return False

    async def _stop(self) -> None:
        await self._client.aclose()
        if self._running.returncode is not None:
            return
        self._running.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._running.wait()
        except TimeoutError:
            self._running.kill()
            await self._running.wait()

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("Prometheus was not started")
        return self._process
