"""A client that sends exactly these bytes, and reads whole HTTP/1.1 answers."""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson

PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer as it came; header names in lower case."""

    status: int
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's envelope."""
        error: dict[str, Any] = orjson.loads(self.body)["error"]
        return error


class RawClient:
    """One connection.

    async with RawClient(gateway.port) as raw:
        await raw.send(b"GET /health HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
        answer = await raw.answer()
    """

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    async def send(self, *parts: bytes) -> None:
        try:
            self.writer.write(b"".join(parts))
            await self.writer.drain()
        except ConnectionError:
            return  # The gateway need not read on what it has refused already.

    async def answer(self, *, method: str = "GET", within: float = PATIENCE_SECONDS) -> RawAnswer:
        """The next whole answer. Raises EOFError if the connection ends before or within it."""
        async with asyncio.timeout(within):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head[:-4].decode("latin-1").split("\r\n")
            headers = tuple(
                (name.lower(), value.strip())
                for name, _, value in (line.partition(":") for line in lines)
            )
            version, status = status_line.split(" ")[:2]
            body = await self._body(int(status), method, dict(headers))
        return RawAnswer(int(status), version, headers, body)

    async def rest(self, *, within: float = PATIENCE_SECONDS) -> bytes:
        """All that still comes until the connection is closed; TimeoutError if it is not."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def is_silent(self, *, seconds: float) -> bool:
        """Whether nothing comes for so long, not even an end."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    async def _body(self, status: int, method: str, headers: dict[str, str]) -> bytes:
        if status < 200 or status == 204 or method == "HEAD":
            return b""
        if headers.get("transfer-encoding") == "chunked":
            return await self._chunks()
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        return await self.reader.read()

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            body += (await self.reader.readexactly(size + 2))[:size]
            if size == 0:
                return body


def request(
    method: str,
    path: str,
    *fields: bytes,
    key: str | None = None,
    body: bytes | None = None,
    host: bytes | None = b"host: gateway",
) -> bytes:
    """A well-formed request; `fields` are whole header lines without their end."""
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), *fields]
    if host is not None:
        lines.append(host)
    if key is not None:
        lines.append(b"authorization: Bearer " + key.encode())
    if body is not None:
        lines += [b"content-type: application/json", b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")
