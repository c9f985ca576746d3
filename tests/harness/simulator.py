"""The simulator as a process of its own: it can be killed, and started again at the same place."""

import asyncio
import os
import sys
from types import TracebackType
from typing import Any, Self

import httpx2

from tests.harness.gateway import free_port

START_SECONDS = 20.0


class SimulatorProcess:
    """`python -m scripts.simulator` with these arguments between `async with` and its end.

    What it counts (`state`) begins anew with every start.
    """

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = arguments

    async def __aenter__(self) -> Self:
        self._client = httpx2.AsyncClient(base_url=self.url, timeout=10, trust_env=False)
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()
        await self.kill()

    async def start(self) -> None:
        """Start, or start again after `kill`; returns once it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scripts.simulator", "--port", str(self.port)),
            *self._arguments,
            env={"PATH": os.environ["PATH"]},
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """SIGKILL: every connection is reset."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def state(self) -> dict[str, Any]:
        """What it counted since its start."""
        state: dict[str, Any] = (await self._client.get("/sim/state")).raise_for_status().json()
        return state

    async def arm(self, kind: str, **fields: Any) -> None:
        """Let a fault befall it, with the fields of scripts.simulator.faults.Fault."""
        body = {"kind": kind, **fields}
        (await self._client.post("/sim/faults", json=body)).raise_for_status()

    async def disarm(self) -> None:
        """No more faults."""
        (await self._client.delete("/sim/faults")).raise_for_status()

    async def _answers(self) -> bool:
        try:
            return (await self._client.get("/health")).status_code == 200
        except httpx2.TransportError:
            return False
