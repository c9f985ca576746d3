"""The hot path's upstream client: kept-alive connections to one upstream, and its deadlines."""

import asyncio
import errno
import math
import ssl
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from gateway.errors import Overloaded, UpstreamFailed, UpstreamUnreachable
from gateway.exchange import JSON_TYPE, UpstreamAnswer
from gateway.transport.config import TransportConfig
from gateway.transport.connection import StaleConnection, UpstreamConnection

SWEEP_SECONDS = 0.1
_LINE = b": ".join
# Ours, of this process or this machine: no upstream is to blame.
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def _nothing() -> None:
    return


class _Answer:
    """UpstreamAnswer over a connection that goes back to its client's pool."""

    __slots__ = (
        "_client",
        "_connection",
        "_is_open",
        "_retry_after",
        "content_type",
        "deliver",
        "read",
        "status",
    )

    def __init__(self, connection: UpstreamConnection, client: "UpstreamClient") -> None:
        self._connection = connection
        self._client = client
        self._is_open = True
        headers = connection.take_headers()
        self.status = connection.status
        self.content_type = headers.get(b"content-type", b"")
        self._retry_after = headers.get(b"retry-after")
        self.deliver = connection.deliver
        self.read = connection.read

    @property
    def retry_after_seconds(self) -> float | None:
        value = self._retry_after
        try:
            seconds = float(value) if value is not None else None
        except ValueError:
            return None  # An HTTP date: rare from an inference server, and safe to ignore.
        return seconds if seconds is not None and 0 <= seconds < math.inf else None

    def take_unread(self) -> bytes:
        return self._connection.take_unread() if self._is_open else b""

    def see_out(self) -> None:
        if self._is_open:
            self._is_open = False
            self.deliver, self.read = _deliver_after_close, _read_after_close
            self._connection.see_out(self._client.take_back)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            # The connection may soon carry somebody else's answer.
            self.deliver, self.read = _deliver_after_close, _read_after_close
            self._client.take_back(self._connection)


async def _deliver_after_close(take: Callable[[bytes], bool]) -> bool:
    raise _closed()


async def _read_after_close(*, limit_bytes: int) -> bytes:
    raise _closed()


def _closed() -> UpstreamFailed:
    return UpstreamFailed("The upstream's answer was closed before it was read.")


class UpstreamClient:
    """Calls to one upstream. Opened and closed as an async context manager.

    `url` is http(s)://host[:port][/prefix]; paths are constants of ours, so nothing a client
    sends can change where a request goes. `api_key` is the upstream's own.
    """

    def __init__(self, *, url: str, api_key: str | None, config: TransportConfig) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/")
        self._config = config
        self._fixed_headers = _fixed_headers(parts.netloc.rpartition("@")[2], api_key)
        self._heads: dict[str, bytes] = {}
        self._idle: deque[UpstreamConnection] = deque()
        self._connections: set[UpstreamConnection] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.create_task(self._sweep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # The loop closes the sockets in its next turn.

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def send(
        self,
        path: str,
        body: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        is_stream: bool,
        content_type: bytes = JSON_TYPE,
        on_sent: Callable[[], None] = _nothing,
    ) -> UpstreamAnswer:
        """POST a body to one of our constant paths; returns when the head has arrived. `on_sent`
        is told when there is a connection, and so the upstream may have the request.

        Raises UpstreamUnreachable when no connection can be made (Overloaded where that is for
        want of a descriptor of ours), UpstreamFailed and UpstreamTimeout otherwise. A kept-alive
        connection that turns out closed before any byte of the answer is replaced once, unseen:
        vLLM closes idle ones after 5 s.
        """
        request = self._request(path, len(body), [(b"content-type", content_type), *headers])
        connection = self._take_idle()
        if connection is not None:
            on_sent()
            try:
                await connection.exchange(request, body, is_stream=is_stream)
                return _Answer(connection, self)
            except StaleConnection:
                pass
        connection = await self._connect()
        on_sent()
        await connection.exchange(request, body, is_stream=is_stream)
        return _Answer(connection, self)

    def take_back(self, connection: UpstreamConnection) -> None:
        """An answer was closed: keep its connection if it is clean."""
        if connection.release():
            self._idle.append(connection)
            if len(self._idle) > self._config.max_idle_connections:
                self._idle.popleft().abort()

    def _request(self, path: str, length: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        head = self._heads.get(path)
        if head is None:
            target = (self._prefix + path).encode("ascii")
            head = self._heads[path] = b"POST " + target + b" HTTP/1.1\r\n" + self._fixed_headers
        extra = b"\r\n".join(map(_LINE, headers))
        _require_lines(extra, len(headers) - 1)
        return b"%b%b\r\ncontent-length: %d\r\n\r\n" % (head, extra, length)

    def _take_idle(self) -> UpstreamConnection | None:
        # The most recently used first: the others can grow old and be closed.
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.deadline > self._loop.time():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> UpstreamConnection:
        try:
            async with asyncio.timeout(self._config.connect_timeout_seconds):
                _, connection = await self._loop.create_connection(
                    self._new_connection, self._host, self._port, ssl=self._tls
                )
        except TimeoutError:
            seconds = self._config.connect_timeout_seconds
            raise UpstreamUnreachable(
                f"The upstream took no connection within {seconds:g} s (CONNECT_TIMEOUT_SECONDS).",
                retry_after_seconds=1.0,
            ) from None
        except OSError as cause:
            if cause.errno in _NO_DESCRIPTORS:
                raise Overloaded(
                    "The gateway has no file descriptor left for an upstream; the operator must "
                    "raise its limit (ulimit -n).",
                    code="descriptors_exhausted",
                    retry_after_seconds=1.0,
                ) from cause
            raise UpstreamUnreachable(
                "No connection to the upstream can be made.", retry_after_seconds=1.0
            ) from cause
        if not connection.is_closed:
            self._connections.add(connection)
        return connection

    def _new_connection(self) -> UpstreamConnection:
        return UpstreamConnection(self._config, loop=self._loop, on_closed=self._forget)

    def _forget(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            # A process that stood still reads first what came meanwhile: that was our silence.
            await asyncio.sleep(0)
            now = self._loop.time()
            for connection in [c for c in self._connections if c.next_deadline <= now]:
                try:
                    connection.expire(now)
                except Exception:
                    connection.abort()  # Whatever it was, the others keep their deadlines.


def _fixed_headers(host: str, api_key: str | None) -> bytes:
    lines = [
        b"host: " + host.encode("ascii"),
        b"accept-encoding: identity",
        b"user-agent: vllm-gateway",
    ]
    if api_key:
        lines.append(b"authorization: Bearer " + api_key.encode("ascii"))
    block = b"".join(line + b"\r\n" for line in lines)
    _require_lines(block, len(lines))
    return block


def _require_lines(block: bytes, expected: int) -> None:
    """A line break in a value would be another header, or another request."""
    if block.count(b"\n") != expected or block.count(b"\r") != expected:
        raise ValueError("a header for the upstream contains a line break")
