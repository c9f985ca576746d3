"""`make gateway-cluster`: several gateways, the Redis they share, and nginx in front, to try it."""

import argparse
import asyncio
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from scripts.demo import (
    DemoFailed,
    child,
    console,
    free_port,
    is_free,
    show_call,
    show_usage,
    simulator_command,
)
from scripts.supervision.services import SERVICES, port_of

PROXY = Path(__file__).parents[1] / "config" / "nginx" / "proxy.conf"
PLACES = "/usr/sbin:/usr/local/sbin:/usr/local/bin"
READY_SECONDS = 40.0
WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said; `workers` is for each gateway."""

    gateways: int
    workers: int
    port: int
    vllm_url: str | None


def main() -> None:
    try:
        asyncio.run(cluster(options()))
    except DemoFailed as fault:
        sys.exit(f"cluster: {fault}")


def options() -> Options:
    parser = argparse.ArgumentParser(prog="make gateway-cluster ARGS=...")
    parser.add_argument("--gateways", type=int, default=2, help="how many (2)")
    parser.add_argument("--workers", type=int, default=1, help="WORKERS of each (1)")
    usual = SERVICES["cluster"].usual_port
    parser.add_argument("--port", type=int, default=port_of("cluster"), help=f"nginx's ({usual})")
    parser.add_argument("--vllm-url", help="a vLLM that runs; a simulator if left out")
    said = parser.parse_args()
    if said.gateways < 1 or said.workers < 1:
        parser.error("--gateways and --workers are at least 1")
    return Options(said.gateways, said.workers, said.port, said.vllm_url)


async def cluster(chosen: Options) -> None:
    """Start all, show that they are one, wait for the end, leave nothing behind."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    redis, nginx = program("redis-server", "redis-server"), program("nginx", "nginx-light")
    if not is_free(chosen.port):
        raise DemoFailed(f"port {chosen.port} is taken: stop what uses it, or CLUSTER_PORT=8091")
    with home() as folder:
        async with AsyncExitStack() as held:
            log = folder / "log"
            redis_port = free_port()
            at_redis = ("--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder))
            children = {
                "Redis": await held.enter_async_context(
                    child(log, [redis, *at_redis, "--save", "", "--appendonly", "yes"], {})
                )
            }
            vllm_url = chosen.vllm_url
            if vllm_url is None:
                vllm_port = free_port()
                vllm_url = f"http://127.0.0.1:{vllm_port}"
                children["simulator"] = await held.enter_async_context(
                    child(log, simulator_command(vllm_port), {})
                )
            key = "sk-cluster-" + secrets.token_urlsafe(24)
            (folder / "env").touch()  # An empty file, or config/.env would be read.
            command = [sys.executable, "-m", "gateway", "--env-file", str(folder / "env"), "serve"]
            ports = [free_port() for _ in range(chosen.gateways)]
            settings = gateway_settings(chosen, key, vllm_url=vllm_url, redis_port=redis_port)
            for place, port in enumerate(ports, start=1):
                own = settings | {"GATEWAY_PORT": str(port)}
                children[f"gateway {place}"] = await held.enter_async_context(
                    child(log, command, own)
                )
            conf = write_site(folder, port=chosen.port, gateways=ports)
            children["nginx"] = await held.enter_async_context(
                child(
                    log, [nginx, "-e", str(folder / "error.log"), "-p", str(folder), "-c", conf], {}
                )
            )
            await show(chosen, ports, key, redis_port, children, log, stopped)
            await until_over(children, log, stopped)
            console.print("\nStopping: the gateways drain.")


def gateway_settings(
    chosen: Options, key: str, *, vllm_url: str, redis_port: int
) -> dict[str, str]:
    return {
        "GATEWAY_API_KEYS": f"cluster={key}",
        "VLLM_URL": vllm_url,
        "UPSTREAMS_FILE": "off",
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "WORKERS": str(chosen.workers),
        "TRUSTED_PROXIES": "127.0.0.1",
        "LOG_FORMAT": "json",
    }


@contextmanager
def home() -> Iterator[Path]:
    """A folder of its own, which nginx's workers may enter whoever they are."""
    with tempfile.TemporaryDirectory(prefix="gateway-cluster-") as place:
        yield Path(place)


def program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=PLACES)
    if found is None:
        raise DemoFailed(f"{name} is not installed: apt-get install {package}")
    return found


def write_site(folder: Path, *, port: int, gateways: list[int]) -> str:
    """config/nginx/proxy.conf as it says for several gateways, without TLS, on loopback."""
    proxy = PROXY.read_text()
    for plain in (r"^proxy_next_upstream error;$", r"^proxy_request_buffering off;$"):
        proxy = re.sub(plain, "", proxy, flags=re.MULTILINE)
    proxy = re.sub(r"^# (proxy_next_|proxy_request_|client_body_)", r"\1", proxy, flags=re.M)
    servers = "\n".join(
        f"        server 127.0.0.1:{each} max_fails=1 fail_timeout=1s;" for each in gateways
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n".join(f"    {kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(f"""
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
{folders}
    upstream gateways {{
{servers}
        keepalive 64;
        keepalive_timeout 60s;
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 33554432;
        location / {{
            proxy_pass http://gateways;
{proxy}
        }}
    }}
}}
""")
    return str(folder / "nginx.conf")


async def show(
    chosen: Options,
    ports: list[int],
    key: str,
    redis_port: int,
    children: dict[str, asyncio.subprocess.Process],
    log: Path,
    stopped: asyncio.Event,
) -> None:
    """One call through nginx, and what each gateway says of it."""
    headers = {"authorization": f"Bearer {key}"}
    front = f"http://127.0.0.1:{chosen.port}"
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    for url in (*urls, front):
        async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            await until_ready(client, children, log, stopped)
            if stopped.is_set():
                return
            if url == front and chosen.vllm_url is None:
                await show_call(client)
    for number, url in enumerate(urls, start=1):
        async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            console.print(f"\n[bold]Gateway {number} says[/]")
            await show_usage(client)
    console.print("\n[bold]Try it[/]")
    pids = {name: process.pid for name, process in children.items()}
    first = pids["gateway 1"]
    console.print(
        f"API_KEY={key} GATEWAY_PORT={chosen.port} CONCURRENCY=8 DURATION=30 make loadtest\n"
        f"REDIS_URL=redis://127.0.0.1:{redis_port}/0 .venv/bin/gateway keys create --name me\n"
        f"REDIS_URL=redis://127.0.0.1:{redis_port}/0 .venv/bin/gateway usage\n"
        f"kill -9 {first}      # the other gateway goes on; its reservations come back after 15 s\n"
        f"kill -STOP {pids['Redis']}; sleep 5; kill -CONT {pids['Redis']}   # a Redis that hangs\n"
        f"tail -f {log}",
        soft_wrap=True,
        markup=False,
    )
    console.print(f"\nnginx on {front}; running until Ctrl-C or `make stop`.")


async def until_ready(
    client: httpx2.AsyncClient,
    children: dict[str, asyncio.subprocess.Process],
    log: Path,
    stopped: asyncio.Event,
) -> None:
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not (stopped.is_set() or await is_ready(client)):
                if dead := ended(children):
                    raise DemoFailed(f"{', '.join(dead)} ended; the log says:\n{log.read_text()}")
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise DemoFailed(f"{client.base_url} is not ready:\n{log.read_text()}") from None


async def is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/ready")).status_code == 200
    except httpx2.TransportError:
        return False


async def until_over(
    children: dict[str, asyncio.subprocess.Process], log: Path, stopped: asyncio.Event
) -> None:
    """Until Ctrl-C. What ends meanwhile is told once: killing it is what a cluster is for."""
    told: set[str] = set()
    while not stopped.is_set():
        for name in ended(children) - told:
            told.add(name)
            console.print(f"{name} ended ({children[name].returncode})", markup=False)
        if ended(children) == children.keys():
            raise DemoFailed(f"nothing runs any more; the log says:\n{log.read_text()}")
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                await stopped.wait()
        except TimeoutError:
            continue


def ended(children: dict[str, asyncio.subprocess.Process]) -> set[str]:
    return {name for name, process in children.items() if process.returncode is not None}


if __name__ == "__main__":
    main()
