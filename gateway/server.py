"""uvicorn, made gentle at the end: signals drain, a second one ends, and the exit code is 0."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import FrameType
from typing import Any, Protocol

import uvicorn

from gateway.protocol.connection import GatewayProtocol
from gateway.protocol.limits import ServerConfig

SWEEP_TICKS = 3  # uvicorn ticks ten times a second
SHUTDOWN_SECONDS = 1
BACKLOG = 2048
# Python's default of 700 new containers makes a collection every few dozen requests.
GARBAGE_THRESHOLDS = (20_000, 50, 100)


class Ending(Enum):
    """How a run of the server ended."""

    ORDERLY = "orderly"
    NOT_STARTED = "not started"
    TROUBLED = "troubled"


class PortUnavailable(Exception):
    """The listening socket cannot be had; the message names the variable and the cure."""


@dataclass(frozen=True, slots=True)
class Side:
    """A second application on a port of its own."""

    app: Any
    listener: socket.socket


class Drainable(Protocol):
    """What the server asks of the application at the end; see edge/lifecycle.py."""

    @property
    def is_draining(self) -> bool: ...
    @property
    def running(self) -> int: ...
    def begin_drain(self) -> None: ...
    async def cut(self) -> None: ...


class GatewayServer(uvicorn.Server):
    """Serves until a signal, then drains.

    First SIGTERM or SIGINT: readiness is withdrawn, new work refused, running calls get
    `drain_seconds`; what is left then ends with an error event. A second signal does that
    at once; a worker waits for its supervisor's SIGQUIT instead, because a service manager sends
    it a SIGTERM too. Either way the application's parts are closed, so that nothing counted is
    lost.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        protocol: type[GatewayProtocol],
        application: Drainable,
        drain_seconds: float,
        side: Side | None,
        is_supervised: bool,
    ) -> None:
        super().__init__(config)
        self._is_supervised = is_supervised
        self._side = side
        self._protocol = protocol
        self._application = application
        self._drain_seconds = drain_seconds
        self._signals = 0
        self._drain_until = 0.0

    async def main_loop(self) -> None:
        """What lives until the end need not be searched for garbage again and again."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        await super().main_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._side is not None:
            config = uvicorn.Config(self._side.app, **_options(self._protocol))
            config.load()
            server = await asyncio.get_running_loop().create_server(
                partial(self._protocol, config=config, server_state=self.server_state),
                sock=self._side.listener,
            )
            self.servers.append(server)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._is_supervised:
            self._signals = 2 if sig == signal.SIGQUIT else max(self._signals, 1)
        else:
            self._signals += 1

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises the signal anew when it is done; an orderly end is an exit code of 0."""
        handled = [signal.SIGINT, signal.SIGTERM]
        if self._is_supervised:
            handled.append(signal.SIGQUIT)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        # A process that stood still reads first what came meanwhile: that was our silence.
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        if counter % SWEEP_TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, GatewayProtocol):
                    connection.sweep(now)
        if self._signals and not self._application.is_draining:
            self._application.begin_drain()
            self._drain_until = now + self._drain_seconds
        if self._signals:
            is_over = self._application.running == 0 or now >= self._drain_until
            self.should_exit = is_over or self._signals > 1
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            await self._application.cut()
        await super().shutdown(sockets)


def use_all_descriptors() -> None:
    """Raise the soft limit of open files to the hard one, as Go's runtime does: the usual 1024 is
    a courtesy to programs that call select(), and a few hundred streams use it up."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listen(host: str, port: int, *, variable: str, shares_port: bool = False) -> socket.socket:
    """The listening socket of the port that `variable` sets, or one of several on it.

    Raises PortUnavailable; of several, only for who does not share it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, reuse_port=shares_port
        )
    except OSError as cause:
        # Python adds the address in brackets, which stands there already.
        reason = (cause.strerror or str(cause)).partition(" (")[0]
        raise PortUnavailable(
            f"GATEWAY_HOST={host} {variable}={port}: cannot listen there ({reason}). "
            "Stop what uses the port, or choose another."
        ) from cause


def serve(
    app: Any,
    *,
    application: Drainable,
    config: ServerConfig,
    listener: socket.socket,
    side: Side | None = None,
    on_refusal: Callable[[int], None],
    is_supervised: bool = False,
) -> Ending:
    """Run until the end. `on_refusal` hears the status of what was refused as no valid HTTP."""

    class BoundedProtocol(GatewayProtocol):
        __slots__ = ()
        limits = config
        on_refused = staticmethod(on_refusal)

    server = GatewayServer(
        uvicorn.Config(
            app,
            lifespan="on",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            **_options(BoundedProtocol),
        ),
        protocol=BoundedProtocol,
        application=application,
        drain_seconds=config.drain_seconds,
        side=side,
        is_supervised=is_supervised,
    )
    # What uvicorn says at lower levels, the application says better or the client is told;
    # a fault of the lifespan among it.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    try:
        server.run(sockets=[listener])
    except SystemExit:
        return Ending.NOT_STARTED
    if not server.started:
        return Ending.NOT_STARTED
    ended_badly = server.lifespan.shutdown_failed or server.lifespan.error_occurred
    return Ending.TROUBLED if ended_badly else Ending.ORDERLY


def _options(protocol: type[asyncio.Protocol]) -> dict[str, Any]:
    return {
        "http": protocol,
        "interface": "asgi3",
        "loop": "uvloop",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
    }
