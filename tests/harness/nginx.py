"""A real nginx with the site file of config/nginx in front of a gateway, and curl to ask it."""

import asyncio
import json
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.gateway import free_port
from tests.harness.programs import installed

FILES = Path(__file__).parents[2] / "config" / "nginx"
NAME = "llm.example.com"
START_SECONDS = 10.0
CURL_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Fetched:
    """One answer as curl saw it; header names in lower case."""

    status: int
    http_version: str
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's envelope."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class NginxProcess:
    """nginx between `async with` and its end: the files as they are, but for the marked places,
    ports, and folders. Its certificate is its own."""

    def __init__(self, *, folder: Path, gateway_port: int, **replaced: str) -> None:
        self._binary = installed("nginx", package="nginx-light")
        self._curl = installed("curl", package="curl")
        self._openssl = installed("openssl", package="openssl")
        self.port, self.plain_port = free_port(), free_port()
        self.folder = folder
        self.access_log = folder / "access.log"
        self.certificate = folder / "fullchain.pem"
        self._gateway_port = gateway_port
        self._replaced = replaced
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._write_certificate()
        self._write_files()
        with (self.folder / "nginx.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._binary,
                "-e", str(self.folder / "error.log"),
                "-p", str(self.folder),
                "-c", str(self.folder / "nginx.conf"),
                stdout=log,
                stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(START_SECONDS):
            while not self._listens():
                assert self._process.returncode is None, self.told()
                await asyncio.sleep(0.02)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    def told(self) -> str:
        """What nginx said at its start, and its error log."""
        files = (self.folder / "nginx.log", self.folder / "error.log")
        return "".join(file.read_text() for file in files if file.exists())

    def lines(self) -> list[dict[str, Any]]:
        """The access log; a line that is no JSON is an error."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]

    def url(self, path: str) -> str:
        return f"https://{NAME}:{self.port}{path}"

    async def fetch(self, path: str, *arguments: str, url: str | None = None) -> Fetched:
        """One request by curl over HTTP/2, where the server speaks it."""
        process = await asyncio.create_subprocess_exec(
            *self._command("--include", *arguments, url or self.url(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        return _parsed(out)

    @asynccontextmanager
    async def stream(self, path: str, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
        """A body as it comes. Leaving the block kills curl, as a client that goes away."""
        process = await asyncio.create_subprocess_exec(
            *self._command("--no-buffer", *arguments, self.url(path)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            # What curl had written already, so that the pipe is closed in good order.
            await process.stdout.read()

    async def shakes_hands(self, version: str) -> bool:
        """Whether it speaks this TLS version, in openssl's words, to whoever takes any cipher."""
        process = await asyncio.create_subprocess_exec(
            self._openssl, "s_client", f"-{version}", "-cipher", "ALL:@SECLEVEL=0",
            "-servername", NAME, "-connect", f"127.0.0.1:{self.port}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait() == 0

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return (
            self._curl, "--silent", "--show-error", "--noproxy", "*", "--path-as-is",
            "--max-time", str(CURL_SECONDS), "--cacert", str(self.certificate),
            "--resolve", f"{NAME}:{self.port}:127.0.0.1",
            "--resolve", f"{NAME}:{self.plain_port}:127.0.0.1", *arguments,
        )  # fmt: skip

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _write_certificate(self) -> None:
        subprocess.run(
            (
                self._openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
                "-addext", f"subjectAltName=DNS:{NAME}",
                "-keyout", str(self.folder / "privkey.pem"), "-out", str(self.certificate),
            ),
            check=True,
            capture_output=True,
        )  # fmt: skip

    def _write_files(self) -> None:
        places = {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "127.0.0.1:8080": f"127.0.0.1:{self._gateway_port}",
            "/etc/ssl/vllm-gateway": str(self.folder),
            "/etc/nginx/vllm-gateway": str(self.folder),
            "/var/log/nginx/vllm-gateway.log": str(self.access_log),
            **self._replaced,
        }
        for name in ("gateway.conf", "proxy.conf", "errors.conf"):
            text = (FILES / name).read_text()
            text = re.sub(r"^\s*listen \[::\].*$", "", text, flags=re.MULTILINE)
            for place, value in places.items():
                text = text.replace(place, value)
            (self.folder / name).write_text(text)
        (self.folder / "nginx.conf").write_text(_main(self.folder))


def _main(folder: Path) -> str:
    """What a distribution's nginx.conf is around the site file."""
    # Workers of a root master are somebody else, whom pytest's folders do not let in.
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n".join(f"    {kind}_temp_path {folder}/{kind};" for kind in kinds)
    return f"""
{user}
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    gzip on;
    default_type application/octet-stream;
{folders}
    include {folder}/gateway.conf;
}}
"""


def _parsed(answer: bytes) -> Fetched:
    head, _, body = answer.partition(b"\r\n\r\n")
    while b" 100" in head.split(b"\r\n")[0]:
        head, _, body = body.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status = first.split(" ")[:2]
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Fetched(int(status), version, headers, body)
