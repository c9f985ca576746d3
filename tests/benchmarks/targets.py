"""What is measured: no proxy, a plain nginx, peers, and this gateway with everything on."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2

from tests.benchmarks import shapes
from tests.benchmarks.nginx import configuration, find_nginx
from tests.benchmarks.peers.catalogue import PEERS
from tests.benchmarks.peers.peer import Peer, Slot
from tests.benchmarks.processes import Child, TargetFailed, child

DIRECT: Final = "direct"
NGINX: Final = "nginx"
GATEWAY: Final = "gateway"
# Ours come first and last, so that the table reads from the limit over the others to this one.
TARGETS: Final = (DIRECT, NGINX, *PEERS, GATEWAY)

# Some peers insist on this beginning of a key.
KEY: Final = f"sk-{secrets.token_urlsafe(32)}"
_START_SECONDS: Final = 20.0
_PEER_START_SECONDS: Final = 90.0
_TRIAL_SECONDS: Final = 30.0
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Target:
    """Somewhere to send the load. `child` is None for the upstream itself.

    `headers` are what a request needs besides its key. Of a peer the meaning of an answer has to
    be right, of the others each byte.
    """

    name: str
    port: int
    child: Child | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_peer: bool = False

    def cpu_seconds(self) -> float:
        return self.child.cpu_seconds() if self.child else 0.0

    def rss_bytes(self) -> int:
        return self.child.rss_bytes() if self.child else 0

    async def rest(self) -> None:
        """Until it has ended what it was asked for."""
        if self.child:
            await self.child.rest()


@dataclass(frozen=True, slots=True)
class Opened:
    """What runs, and why a peer does not."""

    targets: list[Target]
    left_out: dict[str, str]


@asynccontextmanager
async def open_targets(
    names: list[str], *, upstream_port: int, folder: Path, core: int | None
) -> AsyncIterator[Opened]:
    """Start what was asked for. Raises TargetFailed, but not for peers: they are left out."""
    async with AsyncExitStack() as stack:
        opened = Opened([], {})
        for name in names:
            home = folder / name
            home.mkdir()
            if name == DIRECT:
                opened.targets.append(Target(DIRECT, upstream_port))
            elif name == NGINX:
                target = await stack.enter_async_context(_nginx(upstream_port, home, core))
                opened.targets.append(target)
            elif name == GATEWAY:
                target = await stack.enter_async_context(open_gateway(upstream_port, home, core))
                opened.targets.append(target)
            else:
                await _join(PEERS[name], stack, opened, upstream_port, home, core)
        yield opened


async def _join(
    peer: Peer,
    stack: AsyncExitStack,
    opened: Opened,
    upstream_port: int,
    home: Path,
    core: int | None,
) -> None:
    try:
        target = await stack.enter_async_context(_peer(peer, upstream_port, home, core))
    except TargetFailed as fault:
        opened.left_out[peer.name] = str(fault)
    else:
        opened.targets.append(target)


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


@asynccontextmanager
async def _peer(
    peer: Peer, upstream_port: int, home: Path, core: int | None
) -> AsyncIterator[Target]:
    slot = Slot(_free_port(), _free_port(), upstream_port, KEY, home)
    launch = peer.launch(slot)
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), **launch.environment}
    with child(launch.command, env=env, cwd=home, core=core, is_ours=False) as process:
        await _answering(process, slot.port, launch.ready_path, seconds=_PEER_START_SECONDS)
        await _try(slot.port, launch.headers)
        yield Target(peer.name, slot.port, process, launch.headers, is_peer=True)


async def _try(port: int, headers: Mapping[str, str]) -> None:
    """One whole answer and one stream: what fails alone need not be measured."""
    asked = {"model": shapes.MODEL, "messages": [{"role": "user", "content": "Are you there?"}]}
    auth = {"authorization": f"Bearer {KEY}", **headers}
    url = f"http://127.0.0.1:{port}{shapes.CHAT_PATH}"
    async with httpx2.AsyncClient(trust_env=False, timeout=_TRIAL_SECONDS) as client:
        for is_stream in (False, True):
            try:
                answer = await client.post(url, json=asked | {"stream": is_stream}, headers=auth)
            except httpx2.HTTPError as error:
                raise TargetFailed(f"no answer on trial: {error!r}") from None
            if answer.status_code != 200:
                kind = "a stream" if is_stream else "a whole answer"
                words = answer.text[:300]
                raise TargetFailed(f"asked for {kind} it said {answer.status_code}: {words}")


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


async def _answering(
    process: Child, port: int, path: str, *, seconds: float = _START_SECONDS
) -> None:
    try:
        async with asyncio.timeout(seconds), httpx2.AsyncClient(trust_env=False) as client:
            while not await _is_answered(client, f"http://127.0.0.1:{port}{path}"):
                if not process.is_running:
                    raise TargetFailed(f"it ended at once:\n{process.last_words()}")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TargetFailed(f"no answer in {seconds:g} s: {process.last_words()}") from None


async def _is_answered(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx2.HTTPError:
        return False
