"""Records what a real vLLM answers, byte for byte, into the JSON files beside this one.

Run it from the repository root: `python3 -m tests.transcripts.record`. It starts the servers that
it needs by `scripts/vllm_cpu.py`, one after the other, and takes two to three minutes.
"""

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.transcripts import cases
from tests.transcripts.cases import Case

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPT = ROOT / "scripts" / "vllm_cpu.py"
LOG = ROOT / ".vllm-cpu" / "recording.log"
HOST = "127.0.0.1"
SECONDS_BEFORE_DEATH = 0.15
ANSWER_TIMEOUT_SECONDS = 60.0
EXIT_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running vLLM: where it listens and which process it is."""

    port: int
    pid: int
    version: str


def main() -> None:
    """Record every case, each on the server that it needs."""
    with vllm() as server:
        record_all(server, cases.ON_TINY)
        (HERE / "vllm_metrics.txt").write_bytes(
            exchange(server, Case("metrics", "/metrics", method="GET")).body
        )
    with vllm("--", "--enable-prompt-tokens-details") as server:
        record_all(server, cases.WITH_PROMPT_DETAILS)
    with vllm(VLLM_API_KEY=cases.API_KEY) as server:
        record_all(server, cases.WITH_API_KEY)
    with vllm("--embed") as server:
        record_all(server, cases.EMBEDDINGS)
    # By default the server leaves a moment after its engine; this keeps it so that it can be asked.
    with vllm(VLLM_KEEP_ALIVE_ON_ENGINE_DEATH="1") as server:
        exchange(server, cases.CHAT[0])  # the first answer takes seconds; the others begin at once
        record_death(server, cases.DYING)
        record_all(server, cases.AFTER_DEATH)


def record_all(server: Server, recorded: list[Case]) -> None:
    """Send the cases one after the other and keep the answers."""
    for case in recorded:
        write(case, server, exchange(server, case))


def record_death(server: Server, dying: list[Case]) -> None:
    """Kill the engine with SIGKILL while it answers all cases, and keep what each client got."""
    with ThreadPoolExecutor(len(dying)) as clients:
        answers = [clients.submit(exchange, server, case) for case in dying]
        time.sleep(SECONDS_BEFORE_DEATH)
        os.kill(engine_of(server.pid), signal.SIGKILL)
    for case, answer in zip(dying, answers, strict=True):
        write(case, server, answer.result())


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `cut` when the connection closed before the body's announced end."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool


def exchange(server: Server, case: Case) -> Answer:
    """Send one request on a connection of its own and read the whole answer.

    The transfer coding is taken off the body, nothing else.
    """
    connection = http.client.HTTPConnection(HOST, server.port, timeout=ANSWER_TIMEOUT_SECONDS)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json"} if case.body is not None else {}
        connection.request(case.method, case.path, encoded(case.body), headers | case.headers)
        response = connection.getresponse()
        try:
            body, cut = response.read(), False
        except http.client.IncompleteRead as error:
            body, cut = error.partial, True
    received = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, received, body, cut)


def encoded(body: Any) -> bytes | None:
    """Return the bytes to send for a case's body."""
    match body:
        case None | bytes():
            return body
        case str():
            return body.encode()
    return json.dumps(body).encode()


def write(case: Case, server: Server, answer: Answer) -> None:
    """Write one transcript; `README.md` beside this file says how to read it back."""
    transcript = {
        "name": case.name,
        "vllm_version": server.version,
        "request": {
            "method": case.method,
            "path": case.path,
            "headers": case.headers,
            **described(case.body),
        },
        "status": answer.status,
        "headers": answer.headers,
        "cut": answer.cut,
        **readable(answer.body),
    }
    text = json.dumps(transcript, indent=1, ensure_ascii=False)
    (HERE / f"{case.name}.json").write_text(text + "\n", encoding="utf-8")
    sys.stderr.write(f"{case.name}: {answer.status}, {len(answer.body)} bytes\n")


def described(body: Any) -> dict[str, Any]:
    """Return the sent body as JSON where it is that, else as it stood."""
    match body:
        case None:
            return {}
        case str() | bytes():
            return readable(encoded(body) or b"")
    return {"body": body}


def readable(body: bytes) -> dict[str, Any]:
    """Return the body as lines which joined by line feeds give its bytes, or in base64."""
    try:
        return {"body_lines": body.decode("utf-8").split("\n")}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode("ascii")}


@contextlib.contextmanager
def vllm(*arguments: str, **environment: str) -> Iterator[Server]:
    """Run a server on a free port for the block, and wait until it is gone."""
    port = free_port()
    command = [sys.executable, str(SCRIPT), "serve", "--port", str(port), *arguments]
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log
        )
    try:
        subprocess.run([sys.executable, str(SCRIPT), "wait", "--port", str(port)], check=True)
        yield Server(port, process.pid, version_at(port))
    finally:
        process.terminate()
        process.wait(EXIT_TIMEOUT_SECONDS)


def version_at(port: int) -> str:
    """Ask the server for its version, which needs no key."""
    answer = exchange(Server(port, 0, ""), Case("version", "/version", method="GET"))
    return str(json.loads(answer.body)["version"])


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def engine_of(pid: int) -> int:
    """Return the process id of the server's EngineCore, its child."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(
        int(child)
        for child in children
        if b"EngineCore" in Path(f"/proc/{child}/cmdline").read_bytes()
    )


if __name__ == "__main__":
    main()
