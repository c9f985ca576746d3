"""`make up` under test: a watchdog in a folder of its own, with real programs below it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from tests.harness.gateway import chat, free_port

ROOT = Path.cwd()
WATCHDOG = ROOT / "scripts" / "watchdog.py"
PROCESSES = ROOT / "scripts" / "processes.py"
KEY = "sk-test-0123456789abcdef01234567"
WAIT_SECONDS = 15.0
# As patient as a test can be.
HASTY = {
    "WATCHDOG_POLL_SECONDS": "0.2",
    "WATCHDOG_BACKOFF_SECONDS": "0.1",
    "WATCHDOG_BACKOFF_MAX_SECONDS": "0.4",
    "WATCHDOG_STOP_SECONDS": "5",
    "HEALTH_INTERVAL_SECONDS": "0.5",
    "DRAIN_SECONDS": "10",
}


class Watched:
    """A watchdog between `async with` and its end, which `processes.py stop` sees to.

    Everything is relative to `folder`: .run/, logs/ and the gateway's database.
    """

    def __init__(self, folder: Path, *options: str, **settings: str) -> None:
        self.folder = folder
        self.options = options or ("--vllm=sim", "--exporter=off")
        self.gateway_port = free_port()
        self.sim_port = free_port()
        self.exporter_port = free_port()
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "GATEWAY_PORT": str(self.gateway_port),
            "GATEWAY_API_KEYS": f"test={KEY}",
            "SIM_PORT": str(self.sim_port),
            "GPU_EXPORTER_PORT": str(self.exporter_port),
            "VLLM_URL": f"http://127.0.0.1:{self.sim_port}",
            "RATE_LIMIT_PER_IP": "off",
            "RATE_LIMIT_PER_KEY": "off",
            **HASTY,
            **settings,
        }
        self.client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{self.gateway_port}",
            headers={"authorization": f"Bearer {KEY}"},
            trust_env=False,
            timeout=20,
        )
        self.sim = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{self.sim_port}", trust_env=False, timeout=5
        )
        self._watchdogs: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.client.aclose()
        await self.sim.aclose()
        await self.command("stop")
        for process in self._watchdogs:
            await process.wait()
        if kind is not None:
            for log in sorted((self.folder / "logs").glob("*")):
                sys.stdout.write(f"--- {log.name}\n{log.read_text()[-4000:]}\n")

    async def start(self) -> asyncio.subprocess.Process:
        """A watchdog, the first or the next one."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(WATCHDOG), *self.options),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._watchdogs.append(process)
        return process

    @property
    def watchdog(self) -> asyncio.subprocess.Process:
        return self._watchdogs[-1]

    async def ended(self) -> tuple[int, str]:
        """The watchdog's exit status and what it said on stderr."""
        async with asyncio.timeout(WAIT_SECONDS):
            _, said = await self.watchdog.communicate()
        return self.watchdog.returncode or 0, said.decode()

    async def command(self, *arguments: str) -> str:
        """What `processes.py` prints; no environment of ours, as in another terminal."""
        process = await asyncio.create_subprocess_exec(
            *("python3", str(PROCESSES), *arguments),
            cwd=self.folder,
            env={name: self.environment[name] for name in ("PATH", "DRAIN_SECONDS")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return out.decode()

    def pid(self, name: str) -> int:
        """As recorded; 0 if there is no record."""
        try:
            recorded: dict[str, Any] = json.loads((self.folder / f".run/{name}.json").read_text())
        except OSError:
            return 0
        return int(recorded["pid"])

    def kill(self, name: str) -> int:
        """SIGKILL; returns the pid that is no more."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    @property
    def log(self) -> str:
        path = self.folder / "logs" / "watchdog.log"
        return path.read_text() if path.exists() else ""

    async def said(self, text: str, *, times: int = 1) -> None:
        """Wait until the watchdog's log holds this text so many times."""
        async with asyncio.timeout(WAIT_SECONDS):
            while self.log.count(text) < times:
                await asyncio.sleep(0.02)

    async def running(self, count: int) -> None:
        """Wait until the simulator has so many requests in its engine."""
        async with asyncio.timeout(WAIT_SECONDS):
            while (await self.sim.get("/sim/state")).json()["running"] != count:
                await asyncio.sleep(0.02)

    async def ready(self, *, times: int = 1) -> None:
        """Wait until the watchdog has seen the gateway become ready."""
        await self.said("gateway is ready", times=times)

    async def chat(self, **fields: Any) -> httpx2.Response:
        return await self.client.post("/v1/chat/completions", json=chat(**fields))
