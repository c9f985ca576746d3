"""A GatewayProtocol on a real socket, before an application of the test's own."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

from gateway.edge.asgi import ASGIApp
from gateway.protocol.connection import GatewayProtocol
from gateway.protocol.limits import ServerConfig

LIMITS = ServerConfig(
    header_timeout_seconds=0.4,
    body_timeout_seconds=0.4,
    write_timeout_seconds=0.4,
    keepalive_seconds=1,
)
SWEEP_SECONDS = 0.05
PATIENCE_SECONDS = 10.0


class Peer:
    """A client that sends and reads bytes."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._raw, data)

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to the mark, it included."""
        heard = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while mark not in heard:
                data = await self._loop.sock_recv(self._raw, 65536)
                assert data, f"closed after {heard!r}"
                heard += data
        return heard

    async def read_to_end(self) -> bytes:
        """Everything until the other side closes or resets."""
        heard = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            with suppress(ConnectionError):
                while data := await self._loop.sock_recv(self._raw, 65536):
                    heard += data
        return heard


class Server:
    """What serves: its connections, its tasks and a port."""

    def __init__(self, port: int, state: Any) -> None:
        self.port = port
        self.connections: set[GatewayProtocol] = state.connections
        self.tasks: set[asyncio.Task[None]] = state.tasks

    @asynccontextmanager
    async def connected(self, *, receive_buffer: int | None = None) -> AsyncIterator[Peer]:
        with socket.socket() as raw:
            if receive_buffer is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.port))
            yield Peer(raw)

    async def until_nobody_is_left(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.connections or self.tasks:
                await asyncio.sleep(SWEEP_SECONDS)


@asynccontextmanager
async def serving(app: ASGIApp, limits: ServerConfig = LIMITS) -> AsyncIterator[Server]:
    """Sweeps as the gateway's server does, only more often."""

    class Bounded(GatewayProtocol):
        __slots__ = ()

    Bounded.limits = limits
    loop = asyncio.get_running_loop()
    config = SimpleNamespace(loaded_app=app)
    state = SimpleNamespace(connections=set(), tasks=set())
    # Little room in the kernel, so that what is not read soon stays here.
    raw = socket.create_server(("127.0.0.1", 0))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listener = await loop.create_server(lambda: Bounded(config, state), sock=raw)

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for connection in list(state.connections):
                connection.sweep(loop.time())

    sweeper = loop.create_task(sweep())
    try:
        yield Server(listener.sockets[0].getsockname()[1], state)
    finally:
        sweeper.cancel()
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
