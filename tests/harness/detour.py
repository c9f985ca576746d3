"""Detour: a way to Redis on which questions are held back until a later connection was first."""

import asyncio
from types import TracebackType
from typing import Self

ARRIVAL_SECONDS = 10.0


class _Passage:
    """One connection through the detour."""

    def __init__(self, client: asyncio.StreamWriter, redis: asyncio.StreamWriter) -> None:
        self.client = client
        self.redis = redis
        self.held = b""
        self.has_held = asyncio.Event()
        self.is_read = asyncio.Event()


class Detour:
    """Passes bytes on between gateways and the Redis at `port`, until told otherwise.

    async with Detour(redis.port) as way, shared_ledger(way.url, clock) as ledger:
        way.hold_back(RESERVE.digest)  # from the first read with these bytes on
        ...
        await way.until_held()
        way.cut()  # the client sees its connection end, and makes another
        ...
        await way.deliver()  # only now Redis is asked; returns when it has done it all
    """

    def __init__(self, port: int) -> None:
        self._redis_port = port
        self._passages: list[_Passage] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted: bytes | None = None
        self._late: _Passage | None = None
        self._has_late = asyncio.Event()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for passage in self._passages:
            passage.client.transport.abort()
            passage.redis.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ARRIVAL_SECONDS)

    def hold_back(self, wanted: bytes) -> None:
        """What the next connection that sends these bytes sends from there on stays here."""
        self._wanted = wanted

    async def until_held(self) -> None:
        async with asyncio.timeout(ARRIVAL_SECONDS):
            await self._has_late.wait()

    def cut(self) -> None:
        """End the connection that is held back, as its client sees it; to Redis it lives on."""
        assert self._late is not None
        self._late.client.transport.abort()

    async def deliver(self) -> None:
        """Redis gets all that was held back, and has done it when this returns."""
        assert self._late is not None
        self._late.redis.write(self._late.held)
        self._late.redis.write_eof()
        async with asyncio.timeout(ARRIVAL_SECONDS):
            await self._late.is_read.wait()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._redis_port)
        passage = _Passage(writer, to_redis)
        self._passages.append(passage)
        back = asyncio.create_task(self._back(from_redis, passage))
        self._tasks.add(back)
        try:
            while part := await reader.read(65536):
                self._forth(part, passage)
        except ConnectionError:
            pass
        finally:
            if passage is not self._late:
                to_redis.close()

    def _forth(self, part: bytes, passage: _Passage) -> None:
        if self._wanted is not None and self._wanted in part:
            self._wanted, self._late = None, passage
            self._has_late.set()
        if passage is self._late:
            passage.held += part
        else:
            passage.redis.write(part)

    async def _back(self, reader: asyncio.StreamReader, passage: _Passage) -> None:
        """Read what Redis answers, to the end, whether anybody still listens or not."""
        try:
            while part := await reader.read(65536):
                if not passage.client.is_closing():
                    passage.client.write(part)
        except ConnectionError:
            pass
        finally:
            passage.is_read.set()
            passage.client.close()
