"""Callers of a gateway under test: those who stay, those who leave, and whom they ask."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess

READ_SECONDS = 10.0
_LINGER_NOTHING = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Fronted:
    """A gateway process and the simulator behind it."""

    gateway: GatewayProcess
    simulator: Simulator

    @property
    def generated_tokens(self) -> int:
        """Prompt and output tokens by the simulator's own books."""
        state = self.simulator.state
        return state.prompt_tokens_total + state.generation_tokens_total

    def paths(self) -> list[str]:
        """The paths of every POST that reached the simulator."""
        return [r.path for r in self.simulator.requests if r.method == "POST"]

    def bodies(self, path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
        """The bodies that reached one path of the simulator."""
        return [r.json() for r in self.simulator.requests if r.path == path]


@asynccontextmanager
async def fronted(
    folder: Path, *, pace: SimulatorConfig | None = None, **settings: str
) -> AsyncIterator[Fronted]:
    """A gateway without request limits in front of a simulator of its own."""
    async with (
        Simulator(pace or SimulatorConfig()) as simulator,
        GatewayProcess(folder=folder, VLLM_URL=simulator.url, **(UNLIMITED | settings)) as gateway,
    ):
        yield Fronted(gateway, simulator)


UNLIMITED: dict[str, Any] = {
    "RATE_LIMIT_PER_IP": "off",
    "RATE_LIMIT_PER_KEY": "off",
    "MAX_CONCURRENT_PER_KEY": "off",
}


class Departure(Enum):
    """How a client goes: an orderly FIN, or a RST as of a process that was killed."""

    FIN = "fin"
    RST = "rst"


class RawCall:
    """One POST over a socket of its own, which a test may cut at any moment.

    Use as `async with RawCall(gateway, body) as call:`; leaving the block closes the socket.
    """

    def __init__(
        self,
        gateway: GatewayProcess,
        body: dict[str, Any] | bytes,
        *,
        path: str = "/v1/chat/completions",
        request_id: str = "raw",
        receive_buffer_bytes: int | None = None,
        key: str = "",
    ) -> None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        key = key or gateway.key
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n"
            f"x-request-id: {request_id}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(payload)}\r\n\r\n"
        ).encode()
        self._payload = payload
        self._port = gateway.port
        self._receive_buffer_bytes = receive_buffer_bytes
        self.received = b""

    async def __aenter__(self) -> Self:
        connection = socket.socket()
        if self._receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
        self._reader, self._writer = await asyncio.open_connection(sock=connection, limit=4096)
        self._writer.write(self._head + self._payload)
        await self._writer.drain()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0)

    async def read_until(self, wanted: bytes) -> bytes:
        """All that was received so far, once it holds `wanted`."""
        return await self.read_times(wanted, 1)

    async def read_times(self, wanted: bytes, times: int) -> bytes:
        """All that was received so far, once it holds `wanted` so many times."""
        async with asyncio.timeout(READ_SECONDS):
            while self.received.count(wanted) < times:
                part = await self._reader.read(65536)
                assert part, f"the answer ended without {wanted!r}: {self.received[-500:]!r}"
                self.received += part
        return self.received

    async def read_to_end(self) -> bytes:
        """All of it, until the gateway closes the connection."""
        async with asyncio.timeout(READ_SECONDS):
            while part := await self._reader.read(65536):
                self.received += part
        return self.received

    def leave(self, departure: Departure) -> None:
        if departure is Departure.FIN:
            self._writer.write_eof()
            return
        peer = self._writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
        self._writer.transport.abort()


def events(stream: bytes) -> list[dict[str, Any]]:
    """The JSON events of a stream, its terminator left out."""
    blocks = [block for block in stream.split(b"\n\n") if block.startswith(b"data: {")]
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


def dechunked(answer: bytes) -> bytes:
    """The body of a raw chunked answer, as far as it goes."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size or b"0", 16)
        parts.append(rest[:length])
        rest = rest[length + 2 :]
    return b"".join(parts)


async def until(claim: Callable[[], bool], *, within_seconds: float = 5.0) -> float:
    """Wait until the claim holds, and tell how long that took; it must in time."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not claim():
        assert loop.time() - started < within_seconds, "the claim did not come true in time"
        await asyncio.sleep(0.005)
    return loop.time() - started


async def settled(gateway: GatewayProcess, *, within_seconds: float = 5.0) -> dict[str, Any]:
    """The usage report once nothing is in flight and nothing reserved."""
    async with asyncio.timeout(within_seconds):
        while True:
            is_idle = await gateway.metric("gateway_calls_in_flight") == 0
            report = await gateway.usage()
            if is_idle and not report["reserved_tokens"]:
                return report
            await asyncio.sleep(0.02)
