"""A real vLLM on the CPU with the tiny random model, as a process under test."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import psutil

START_SECONDS = 240.0
STOP_SECONDS = 30.0


class VllmProcess:
    """`scripts/vllm_cpu.py serve` between `async with` and its end; entering waits for /health.

    `engine_pid` is the EngineCore, whose death vLLM reports to every running request.
    """

    def __init__(self, *, port: int, log: Path, arguments: tuple[str, ...] = ()) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = (
            sys.executable, "scripts/vllm_cpu.py", "serve", "--port", str(port), *arguments,
        )  # fmt: skip
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=dict(os.environ), stdout=log, stderr=log, start_new_session=True
            )
        async with asyncio.timeout(START_SECONDS):
            while not await self._is_healthy():
                if self._process.returncode is not None:
                    raise RuntimeError(f"vLLM ended: {self._log.read_text()[-5000:]}")
                await asyncio.sleep(0.5)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._running
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    @property
    def engine_pid(self) -> int:
        children = psutil.Process(self._running.pid).children(recursive=True)
        return next(child.pid for child in children if "EngineCore" in " ".join(child.cmdline()))

    async def kill(self) -> None:
        """End it at once with everything that belongs to it, as the kernel may."""
        os.killpg(self._running.pid, signal.SIGKILL)
        await self._running.wait()

    async def metric(self, name: str) -> float:
        """The sum of one of vLLM's own metrics over all its labels."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"{self.url}/metrics")).text
        lines = (line.rpartition(" ") for line in text.splitlines())
        return sum(float(value) for sample, _, value in lines if sample.partition("{")[0] == name)

    async def tokens(self) -> tuple[int, int]:
        """Prompt and generation tokens since its start, as vLLM counts them."""
        prompt = await self.metric("vllm:prompt_tokens_total")
        return int(prompt), int(await self.metric("vllm:generation_tokens_total"))

    async def _is_healthy(self) -> bool:
        try:
            async with httpx2.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{self.url}/health")).status_code == 200
        except httpx2.TransportError:
            return False

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("vLLM was not started")
        return self._process
