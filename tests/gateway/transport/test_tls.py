"""An upstream behind TLS, with a certificate of its own authority."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import UpstreamTruncated, UpstreamUnavailable
from tests.fakes.upstream import OK, STREAM_HEAD, chunk, whole
from tests.gateway.transport.calls import ask, client_of, next_read, send

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl command to make a certificate"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of 127.0.0.1 in one file."""
    made = tmp_path_factory.mktemp("tls") / "upstream.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=upstream"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(made), "-out", str(made.with_suffix(".crt"))]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    with made.open("ab") as both:
        both.write(made.with_suffix(".crt").read_bytes())
    return made


@asynccontextmanager
async def served(certificate: Path, answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(64 * 1024):
            writer.write(answer)
            if b"connection: close" in answer:
                break
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def ended_at_once(certificate: Path, last: bytes) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A stream whose last bytes and whose end leave in one write, once the event is set."""
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64 * 1024)
        writer.write(STREAM_HEAD)
        await ends.wait()
        writer.write(last)
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", ends


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))


@pytest.mark.usefixtures("trusted")
async def test_calls_go_through_tls_and_keep_the_connection(certificate: Path) -> None:
    async with served(certificate, OK) as url, client_of(url) as client:
        for _ in range(3):
            assert (await ask(client)).body == b'{"ok":true}'
        assert client.open_connections == 1


@pytest.mark.usefixtures("trusted")
async def test_a_large_answer_through_tls_is_whole(certificate: Path) -> None:
    body = bytes(range(256)) * 8000
    async with served(certificate, whole(body)) as url, client_of(url) as client:
        assert (await ask(client)).body == body


@pytest.mark.usefixtures("trusted")
async def test_an_answer_cut_behind_tls_is_a_truncation(certificate: Path) -> None:
    cut = whole(b"cut", headers="connection: close\r\n")[:-1]
    async with served(certificate, cut) as url, client_of(url) as client:
        with pytest.raises(UpstreamTruncated):
            await ask(client)


@pytest.mark.usefixtures("trusted")
async def test_the_last_read_is_told_of_although_the_cut_comes_in_the_same_tick(
    certificate: Path,
) -> None:
    async with (
        ended_at_once(certificate, chunk(b"the terminator")) as (url, ends),
        client_of(url) as client,
        asyncio.timeout(5),
    ):
        answer = await send(client)
        delivery = asyncio.create_task(next_read(answer))
        await asyncio.sleep(0)
        ends.set()
        assert await delivery == b"the terminator"
        with pytest.raises(UpstreamTruncated):
            await next_read(answer)
        answer.close()


async def test_an_upstream_nobody_vouches_for_is_not_called(certificate: Path) -> None:
    async with served(certificate, OK) as url, client_of(url) as client:
        with pytest.raises(UpstreamUnavailable):
            await ask(client)
        assert client.open_connections == 0
