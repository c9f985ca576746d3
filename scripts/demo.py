"""`make demo`: gateway and simulator side by side, one streamed call, and how to go on."""

import asyncio
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
from rich.console import Console

START_SECONDS = 30.0
STOP_SECONDS = 10.0
console = Console(highlight=False)


def main() -> None:
    try:
        asyncio.run(demo())
    except DemoFailed as fault:
        sys.exit(f"demo: {fault}")


class DemoFailed(Exception):
    """Something the demo needs is not there; the message says what to do."""


async def demo() -> None:
    """Start both, show one call, wait for Ctrl-C, leave nothing behind."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    port = chosen_port()
    if not is_free(port):
        raise DemoFailed(f"port {port} is taken: stop what uses it, or GATEWAY_PORT=8081 make demo")
    async with AsyncExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="gateway-demo-")))
        vllm_port = 8000 if is_free(8000) else free_port()
        key = "sk-demo-" + secrets.token_urlsafe(24)
        log = folder / "log"
        simulator = child(log, simulator_command(vllm_port), {})
        settings = gateway_settings(port=port, vllm_port=vllm_port, key=key, folder=folder)
        # An empty file, or config/.env would be read.
        (folder / "env").touch()
        command = [sys.executable, "-m", "gateway", "--env-file", str(folder / "env"), "serve"]
        children = [
            await held.enter_async_context(simulator),
            await held.enter_async_context(child(log, command, settings)),
        ]
        client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {key}"},
            timeout=START_SECONDS,
            trust_env=False,
        )
        await held.enter_async_context(client)
        try:
            await until_ready(client, children, log, stopped)
            if not stopped.is_set():
                await show_call(client)
                await show_usage(client)
        except httpx2.HTTPError as fault:
            raise DemoFailed(f"{fault!r}; the log says:\n{log.read_text()}") from fault
        if not stopped.is_set():
            show_how_to_go_on(port, vllm_port, key)
        await stopped.wait()
        console.print("\nStopping.")


def chosen_port() -> int:
    text = os.environ.get("GATEWAY_PORT") or "8080"
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise DemoFailed(f"GATEWAY_PORT={text} is no port: write a number from 1 to 65535")
    return int(text)


def simulator_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "scripts.simulator", "--port", str(port)]
    return [*command, "--ttft", "0.2", "--inter-token", "0.03"]


def gateway_settings(*, port: int, vllm_port: int, key: str, folder: Path) -> dict[str, str]:
    return {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_API_KEYS": f"demo={key}",
        "VLLM_URL": f"http://127.0.0.1:{vllm_port}",
        "VLLM_API_KEY": "",
        "MODEL_NAME": "",
        "DATABASE_PATH": str(folder / "gateway.db"),
        "LOG_FORMAT": "json",
    }


@asynccontextmanager
async def child(
    log: Path, command: list[str], settings: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of ours, ended on leaving; its output is needed only when something fails.

    It has these settings and no others: what the operator set is meant for a real gateway.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={"PATH": os.environ.get("PATH", os.defpath), **settings},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def until_ready(
    client: httpx2.AsyncClient,
    children: list[asyncio.subprocess.Process],
    log: Path,
    stopped: asyncio.Event,
) -> None:
    """Return when the gateway is ready, or when Ctrl-C says that nobody waits any more."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while not (stopped.is_set() or await is_ready(client)):
                if any(process.returncode is not None for process in children):
                    raise DemoFailed(f"it could not start; the log says:\n{log.read_text()}")
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise DemoFailed(f"nothing became ready; the log says:\n{log.read_text()}") from None


async def is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/ready")).status_code == 200
    except httpx2.TransportError:
        return False


async def show_call(client: httpx2.AsyncClient) -> None:
    console.print("\n[bold]POST /v1/chat/completions[/] (streamed)")
    request = {
        "model": "sim-model",
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": 24,
        "stream": True,
    }
    async with client.stream("POST", "/v1/chat/completions", json=request) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            console.print(text_of(line), end="", markup=False)
    console.print()


def text_of(line: str) -> str:
    """The text in one line of an event stream."""
    data = line.removeprefix("data: ")
    if data in (line, "[DONE]"):
        return ""
    choices = httpx2.Response(200, text=data).json()["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""


async def show_usage(client: httpx2.AsyncClient) -> None:
    console.print("\n[bold]GET /v1/usage[/]")
    console.print_json((await client.get("/v1/usage")).text)


def show_how_to_go_on(port: int, vllm_port: int, key: str) -> None:
    url = f"http://127.0.0.1:{port}/v1"
    console.print("\n[bold]Go on with curl[/]")
    console.print(
        f"curl {url}/chat/completions -H 'Authorization: Bearer {key}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"model": "sim-model", "messages": [{"role": "user", "content": "Hello"}]}\'',
        soft_wrap=True,
        markup=False,
    )
    console.print("\n[bold]or Python[/] (pip install openai)")
    console.print(
        "from openai import OpenAI\n"
        f'client = OpenAI(base_url="{url}", api_key="{key}")\n'
        'answer = client.chat.completions.create(model="sim-model", '
        'messages=[{"role": "user", "content": "Hello"}])\n'
        "print(answer.choices[0].message.content)",
        soft_wrap=True,
        markup=False,
    )
    show_what_else(port, vllm_port, key)
    console.print("\nRunning until Ctrl-C.")


def show_what_else(port: int, vllm_port: int, key: str) -> None:
    """Load on it, a look at it, and trouble for it; with the ports that are not the usual ones."""
    gateway = "" if port == 8080 else f"GATEWAY_PORT={port} "
    vllm = "" if vllm_port == 8000 else f"VLLM_URL=http://127.0.0.1:{vllm_port} "
    console.print("\n[bold]or in another terminal[/]")
    console.print(
        f"API_KEY={key} {gateway}CONCURRENCY=8 DURATION=30 make loadtest\n"
        f"{gateway}{vllm}make monitoring-native\n"
        f'curl -d \'{{"kind": "error500", "count": 5}}\' http://127.0.0.1:{vllm_port}/sim/faults\n'
        f"http://127.0.0.1:{port}/dashboard in a browser, with the key above",
        soft_wrap=True,
        markup=False,
    )


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
