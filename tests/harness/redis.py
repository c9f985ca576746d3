"""A real Redis under test: a process of its own on a port of its own."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.harness.gateway import free_port
from tests.harness.programs import installed

START_SECONDS = 10.0


class RedisProcess:
    """redis-server between `with` and its end.

    It writes nothing to disk unless `is_durable`, so that `kill` and `start` empty it. Starting
    blocks for a few dozen milliseconds.
    """

    def __init__(self, *, folder: Path, is_durable: bool = False) -> None:
        self._binary = installed("redis-server", package="redis-server")
        self._folder = folder
        self._is_durable = is_durable
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start, or start again after `kill`."""
        with (self._folder / f"redis-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binary,
                    *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
                    *("--save", "", "--appendonly", "yes" if self._is_durable else "no"),
                    *("--appenddirname", f"redis-{self.port}", "--appendfsync", "always"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9; harmless where it is dead already."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=START_SECONDS)

    def stop(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def client(self) -> "redis.Redis":
        """A client that blocks; use it in `with`."""
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)

    def calls(self) -> dict[str, int]:
        """How often each command was called so far, by Redis' own count; those that scripts call
        included, as it counts them."""
        with self.client() as client:
            stats: Any = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()}

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
