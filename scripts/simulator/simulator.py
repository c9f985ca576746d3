"""The whole simulator as one thing to start and stop, in a test or from the command line."""

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Self

from scripts.simulator.application import Application
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.control import Control, SimulatorState, snapshot
from scripts.simulator.engine import Engine
from scripts.simulator.faults import Fault, FaultBoard
from scripts.simulator.outages import Outages
from scripts.simulator.server import Request, Server

_BACKLOG = 4096


class Simulator:
    """Serves on a real socket of the running loop between `async with` and its end.

        async with Simulator(SimulatorConfig(output_tokens=5)) as simulator:
            simulator.url         # http://127.0.0.1:<port>
            simulator.state       # counters, a snapshot
            simulator.requests    # what was received, newest last

    `die` is what the fault of that name does: by default it drops the listener and every
    connection, as a process that exits would.
    """

    def __init__(
        self, config: SimulatorConfig | None = None, *, die: Callable[[], None] | None = None
    ) -> None:
        self._config = config or SimulatorConfig()
        self._die = die or self.vanish
        self._listener: asyncio.Server | None = None
        self._port = self._config.port

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        random = Random(self._config.seed)
        self._application = Application(
            config=self._config,
            engine=Engine(config=self._config, loop=loop, random=random),
            board=FaultBoard(random=random),
            outages=Outages(die=self._die),
        )
        self._server = Server(
            handler=self._application,
            loop=loop,
            keep_alive_seconds=self._config.keep_alive_seconds,
        )
        Control(application=self._application, connections=self._server.connections)
        self._listener = await loop.create_server(
            self._server.connection, self._config.host, self._config.port, backlog=_BACKLOG
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        self._server.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.vanish()
        # One turn of the loop, so that every connection learns that it is lost.
        await asyncio.sleep(0)

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """The root, without a path or a trailing slash."""
        return f"http://{self._config.host}:{self._port}"

    @property
    def state(self) -> SimulatorState:
        """Counters and loads at this moment."""
        return snapshot(self._application, connections=len(self._server.connections))

    @property
    def requests(self) -> deque[Request]:
        """The requests received last, the oldest first; bounded."""
        return self._application.requests

    @property
    def config(self) -> SimulatorConfig:
        return self._application.config

    def configure(self, config: SimulatorConfig) -> None:
        """Change the pace, the limits or the shapes while running."""
        self._application.configure(config)

    def arm(self, fault: Fault) -> None:
        """Let this fault befall requests from now on."""
        self._application.board.arm(fault)
        self._application.board_changed()

    def disarm(self) -> None:
        """No more faults."""
        self._application.board.disarm()
        self._application.board_changed()

    def vanish(self) -> None:
        """Stop listening and drop every connection at once."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._server.stop()
