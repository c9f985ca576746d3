"""Dialler: makes connections to Redis that are ready to be asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import hiredis
from redis.asyncio.connection import Connection, ConnectionPool
from redis.exceptions import RedisError

from gateway.shared.config import RedisConfig
from gateway.shared.script import Script

CONNECT_SECONDS = 2.0

Part = bytes | str | int | float


class Dialler:
    """Greets, and makes the scripts known."""

    def __init__(self, config: RedisConfig, *, scripts: tuple[Script, ...]) -> None:
        self._scripts = scripts
        self._pool = ConnectionPool.from_url(
            config.url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_SECONDS,
            client_name="vllm-gateway",
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """Raises RedisError, OSError and TimeoutError."""
        connection: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # theirs
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]  # theirs
                # Who is loading its file, or wants a password, says so here.
                loads = [(b"SCRIPT", b"LOAD", script.text) for script in self._scripts]
                for command in ((b"PING",), *loads):
                    await connection.send_packed_command(packed(command), False)
                    await connection.read_response(disable_decoding=True)
            yield connection
        finally:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


def packed(command: tuple[Part, ...]) -> bytes:
    """A command as it goes over the wire."""
    octets: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # it takes any length
    return octets
