"""What is measured: no proxy, nginx as a plain proxy, and this gateway with everything on."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

from tests.benchmarks.nginx import configuration, find_nginx
from tests.benchmarks.processes import Child, TargetFailed, child

DIRECT: Final = "direct"
NGINX: Final = "nginx"
GATEWAY: Final = "gateway"
TARGETS: Final = (DIRECT, NGINX, GATEWAY)

KEY: Final = secrets.token_urlsafe(32)
_START_SECONDS: Final = 20.0
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Target:
    """Somewhere to send the load. `child` is None for the upstream itself."""

    name: str
    port: int
    child: Child | None = None

    def cpu_seconds(self) -> float:
        return self.child.cpu_seconds() if self.child else 0.0

    def rss_bytes(self) -> int:
        return self.child.rss_bytes() if self.child else 0


@asynccontextmanager
async def open_targets(
    names: list[str], *, upstream_port: int, folder: Path, core: int | None
) -> AsyncIterator[list[Target]]:
    """Start what was asked for. Raises TargetFailed."""
    async with AsyncExitStack() as opened:
        targets = []
        for name in names:
            home = folder / name
            home.mkdir()
            target = Target(DIRECT, upstream_port)
            if name == NGINX:
                target = await opened.enter_async_context(_nginx(upstream_port, home, core))
            elif name == GATEWAY:
                target = await opened.enter_async_context(open_gateway(upstream_port, home, core))
            targets.append(target)
        yield targets


@asynccontextmanager
async def open_gateway(
    upstream_port: int,
    home: Path,
    core: int | None,
    *,
    under: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Target]:
    """The gateway as a child, started by the interpreter with the options in `under`."""
    port = _free_port()
    env = _gateway_environment(port=port, upstream_port=upstream_port, folder=home)
    env |= settings or {}
    command = [sys.executable, *under, "-m", "gateway", "serve"]
    with child(command, env=env, cwd=home, core=core) as process:
        await _answering(process, port, "/ready")
        yield Target(GATEWAY, port, process)


@asynccontextmanager
async def _nginx(upstream_port: int, home: Path, core: int | None) -> AsyncIterator[Target]:
    binary = find_nginx()
    if binary is None:
        raise TargetFailed("nginx is not installed: python -m tests.benchmarks.nginx")
    port = _free_port()
    config = home / "nginx.conf"
    config.write_text(configuration(port=port, upstream_port=upstream_port, folder=home))
    command = [binary, "-e", "stderr", "-c", str(config)]
    with child(command, env=os.environ, cwd=home, core=core) as process:
        await _answering(process, port, "/health")
        yield Target(NGINX, port, process)


def _gateway_environment(*, port: int, upstream_port: int, folder: Path) -> dict[str, str]:
    """Every feature on; limits computed for each request and never reached."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(_ROOT),
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_API_KEYS": f"bench={KEY}",
        "VLLM_URL": f"http://127.0.0.1:{upstream_port}",
        "DATABASE_PATH": str(folder / "gateway.db"),
        "RATE_LIMIT_PER_IP": "100000000/minute",
        "RATE_LIMIT_PER_KEY": "100000000/minute",
        "MAX_CONCURRENT_PER_KEY": "off",
        "MAX_IN_FLIGHT": "off",
        "DAILY_TOKEN_QUOTA": "1000000000000",
        "LOG_FORMAT": "json",
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def _answering(process: Child, port: int, path: str) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS), httpx2.AsyncClient(trust_env=False) as client:
            while not await _is_answered(client, f"http://127.0.0.1:{port}{path}"):
                if not process.is_running:
                    raise TargetFailed(f"it ended at once:\n{process.last_words()}")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TargetFailed(f"no answer in {_START_SECONDS:g} s: {process.last_words()}") from None


async def _is_answered(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx2.HTTPError:
        return False
