"""Carries exchanges to one server over kept-alive connections; ends those that take too long."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final

from scripts.loadtest.connection import Connection
from scripts.loadtest.exchange import Exchange
from scripts.loadtest.failure import FailureKind

_SWEEP_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    is_tls: bool


class Caller:
    """Owns the connections. Every exchange handed to it ends exactly once, with `on_end`."""

    def __init__(self, address: Address, *, connect_timeout_seconds: float) -> None:
        self._address = address
        self._connect_timeout_seconds = connect_timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._tls = ssl.create_default_context() if address.is_tls else None
        self._idle: list[Connection] = []
        # In the order of their deadlines, because all have the same patience.
        self._active: dict[Exchange, Connection | None] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    @property
    def in_flight(self) -> int:
        return len(self._active)

    def call(self, exchange: Exchange) -> None:
        """Send it over an idle connection, or over a new one; never waits for another's end."""
        self._active[exchange] = None
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                self._active[exchange] = connection
                connection.ask(exchange)
                return
        self._connect_for(exchange)

    def ended(self, connection: Connection, exchange: Exchange) -> None:
        """See Owner."""
        if connection.is_usable:
            self._idle.append(connection)
        self._settle(exchange)

    def went_stale(self, exchange: Exchange) -> None:
        """See Owner."""
        if exchange in self._active:
            self._active[exchange] = None
            self._connect_for(exchange)

    def close(self) -> Iterator[Exchange]:
        """Cut everything; gives the exchanges that were still under way, none of them ended."""
        self._sweeper.cancel()
        for task in self._connecting:
            task.cancel()
        unfinished = list(self._active.items())
        self._active.clear()
        for exchange, connection in unfinished:
            if connection is not None:
                connection.give_up(exchange)
            yield exchange
        for idle in self._idle:
            idle.abort()

    def _connect_for(self, exchange: Exchange) -> None:
        task = self._loop.create_task(self._connect(exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self),
                    self._address.host,
                    self._address.port,
                    ssl=self._tls,
                )
        except OSError as error:  # TimeoutError and TLS errors are among them.
            self._fail(exchange, FailureKind.CONNECT, _reason(error))
            return
        if exchange not in self._active:
            self._idle.append(connection)
        elif connection.is_usable:
            self._active[exchange] = connection
            connection.ask(exchange)
        else:
            self._fail(exchange, FailureKind.CLOSED, "the connection ended before the request")

    def _fail(self, exchange: Exchange, kind: FailureKind, message: str) -> None:
        exchange.fail(kind, message)
        exchange.ended_at = monotonic()
        self._settle(exchange)

    def _settle(self, exchange: Exchange) -> None:
        if exchange in self._active:
            del self._active[exchange]
            exchange.on_end(exchange)

    def _sweep(self) -> None:
        now = monotonic()
        late = []
        for exchange in self._active:
            if exchange.deadline > now:
                break
            late.append(exchange)
        for exchange in late:
            connection = self._active[exchange]
            if connection is not None:
                connection.give_up(exchange)
            self._fail(exchange, FailureKind.TIMEOUT, "no complete answer in time")
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return os.strerror(error.errno) if error.errno else str(error)[:200]
