"""A whole gateway process under test: real sockets, real signals, a database of its own."""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

START_SECONDS = 20.0
STOP_SECONDS = 15.0
LOG_SECONDS = 5.0
MODULE = "gateway"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class GatewayProcess:
    """`python -m gateway serve` between `async with` and its end.

        async with GatewayProcess(folder=tmp_path, VLLM_URL=sim.url) as gateway:
            answer = await gateway.client.post("/v1/chat/completions", json=...)

    Settings are given as the environment variables they are. Nothing is inherited but PATH.
    Entering waits until /health answers, and with `until_ready` until /ready does. `under` are
    options of the interpreter that run the gateway within something else.
    """

    def __init__(
        self,
        *,
        folder: Path,
        until_ready: bool = True,
        key: str = "",
        under: Sequence[str] = (),
        **settings: str,
    ) -> None:
        self.folder = folder
        self.key = key or "sk-test-" + secrets.token_urlsafe(24)
        self.port = free_port()
        self.log_path = folder / f"gateway-{self.port}.log"
        self.settings = {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_API_KEYS": f"test={self.key}",
            "DATABASE_PATH": str(folder / "gateway.db"),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "DEBUG",
            **settings,
        }
        self.port = int(self.settings["GATEWAY_PORT"])
        self._until_ready = until_ready
        self._under = tuple(under)
        self._process: asyncio.subprocess.Process | None = None
        self.client = self.client_with(self.key)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def database(self) -> Path:
        return Path(self.settings["DATABASE_PATH"])

    def client_with(self, key: str | None, **options: Any) -> httpx2.AsyncClient:
        """A client with that key; close it, or leave it to the end of the test."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx2.AsyncClient(
            base_url=self.url, headers=headers, timeout=30, trust_env=False, **options
        )

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
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if kind is not None:
            sys.stdout.write(self.log_path.read_text()[-20_000:])

    async def start(self) -> None:
        """Start, or start again after an end; the database stays."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._under,
                "-m",
                MODULE,
                "serve",
                env={"PATH": os.environ["PATH"], **self.settings},
                stdout=log,
                stderr=log,
            )
        path = "/ready" if self._until_ready else "/health"
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers(path):
                if self._process.returncode is not None:
                    raise RuntimeError(f"the gateway ended: {self.log_path.read_text()}")
                await asyncio.sleep(0.05)

    async def _answers(self, path: str) -> bool:
        try:
            return (await self.client.get(path)).status_code == 200
        except httpx2.TransportError:
            return False

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    async def ended(self, *, within_seconds: float = STOP_SECONDS) -> int:
        """The exit code."""
        async with asyncio.timeout(within_seconds):
            return await self._running.wait()

    def log_lines(self) -> list[dict[str, Any]]:
        """Every JSON line of the log so far."""
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    async def logged(self, **fields: Any) -> list[dict[str, Any]]:
        """The lines that have these fields, once there is one; the log is written in batches."""
        async with asyncio.timeout(LOG_SECONDS):
            while True:
                lines = [line for line in self.log_lines() if fields.items() <= line.items()]
                if lines:
                    return lines
                await asyncio.sleep(0.02)

    async def usage(self, **query: Any) -> dict[str, Any]:
        answer = await self.client.get("/v1/usage", params=query)
        answer.raise_for_status()
        report: dict[str, Any] = answer.json()
        return report

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of one metric whose labels include these; 0 if there is none."""
        text = (await self.client.get("/metrics")).text
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        total = 0.0
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(pair in sample for pair in wanted):
                total += float(value)
        return total

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the gateway was not started")
        return self._process


def chat(content: str = "hello", **fields: Any) -> dict[str, Any]:
    """A chat request to the simulator's model."""
    return {
        "model": "sim-model",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 8,
        **fields,
    }
