"""ScriptedUpstream: a server on a real socket that does to each connection what a test wrote down.

A script is a list of steps. The first connection plays the first script, the next one the
second, and the last script serves all that follow. A script starts over at its end, so
`[Receive(), Send(OK)]` is a server that keeps its connections alive. GET /health and GET
/v1/models are answered on the side and start no script: the fake can stand behind a gateway.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self


def whole(
    body: bytes = b"{}",
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: str = "",
) -> bytes:
    """An answer of known length. `headers` are whole lines, each with its line break."""
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: {content_type}\r\n{headers}"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n" % len(data) + data + b"\r\n"


def event_stream(*events: bytes) -> bytes:
    """A whole answer whose events are a chunk each."""
    return STREAM_HEAD + b"".join(map(chunk, events)) + LAST_CHUNK


OK = whole(b'{"ok":true}')


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came: `raw_head` ends with the empty line, header names are lower case."""

    raw_head: bytes
    body: bytes

    @property
    def line(self) -> str:
        return self.raw_head.split(b"\r\n", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.raw_head.decode().split("\r\n")[1:-2]
        return [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]


class Step(Protocol):
    """One thing an upstream does to a connection. Raises ConnectionEnded where it ends it."""

    async def play(self, connection: "Connection") -> None: ...


class ConnectionEnded(Exception):
    """Either side closed the connection."""


@dataclass(frozen=True, slots=True)
class Receive:
    """Read one request, body and all."""

    async def play(self, connection: "Connection") -> None:
        connection.record(await connection.receive())


@dataclass(frozen=True, slots=True)
class ReceiveHead:
    """Read the head of a request and leave its body in the socket."""

    async def play(self, connection: "Connection") -> None:
        connection.record(Request(await connection.receive_head(), b""))


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes; waits while the other side does not read."""

    data: bytes

    async def play(self, connection: "Connection") -> None:
        await connection.send(self.data)


@dataclass(frozen=True, slots=True)
class Drip:
    """Write these bytes `size` at a time, each piece arriving as a read of its own."""

    data: bytes
    size: int = 1

    async def play(self, connection: "Connection") -> None:
        for start in range(0, len(self.data), self.size):
            await connection.send(self.data[start : start + self.size])
            await let_it_be_read()


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until an event is set, or for some seconds."""

    until: asyncio.Event | float

    async def play(self, connection: "Connection") -> None:
        if isinstance(self.until, asyncio.Event):
            await self.until.wait()
        else:
            await asyncio.sleep(self.until)


@dataclass(frozen=True, slots=True)
class Close:
    """Close in good order: FIN, unless unread bytes turn it into a reset."""

    async def play(self, connection: "Connection") -> None:
        raise ConnectionEnded


@dataclass(frozen=True, slots=True)
class Reset:
    """Close by RST."""

    async def play(self, connection: "Connection") -> None:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionEnded


@dataclass(frozen=True, slots=True)
class CloseHalf:
    """Send no more, FIN, and go on listening."""

    async def play(self, connection: "Connection") -> None:
        connection.socket.shutdown(socket.SHUT_WR)


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more, and wait for the other side to close."""

    async def play(self, connection: "Connection") -> None:
        while await connection.read_more():
            pass


Script = Sequence[Step]
KEEP_ALIVE: Script = (Receive(), Send(OK))


async def let_it_be_read() -> None:
    """Give the other side of the same loop the turns it needs to read what was sent."""
    for _ in range(3):
        await asyncio.sleep(0)


@dataclass(slots=True)
class Connection:
    """One accepted connection. `has_ended` is set once it is closed, by whomever."""

    upstream: "ScriptedUpstream"
    socket: socket.socket
    loop: asyncio.AbstractEventLoop
    sent_bytes: int = 0
    unread: bytes = b""
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        try:
            await self._play()
        except (ConnectionEnded, OSError):
            pass
        finally:
            self.socket.close()
            self.has_ended.set()

    def record(self, request: Request) -> None:
        self.upstream.requests.append(request)

    async def receive(self) -> Request:
        head = await self.receive_head()
        length = dict(Request(head, b"").headers).get("content-length", "0")
        while len(self.unread) < int(length):
            await self.read_more()
        body, self.unread = self.unread[: int(length)], self.unread[int(length) :]
        return Request(head, body)

    async def receive_head(self) -> bytes:
        while b"\r\n\r\n" not in self.unread:
            await self.read_more()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def read_more(self) -> bytes:
        data = await self.loop.sock_recv(self.socket, 64 * 1024)
        if not data:
            raise ConnectionEnded
        self.unread += data
        return data

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), 64 * 1024):
            piece = data[start : start + 64 * 1024]
            await self.loop.sock_sendall(self.socket, piece)
            self.sent_bytes += len(piece)

    async def _play(self) -> None:
        if isinstance(self.upstream.next_script()[0], Receive):
            await self._answer_probes()
        self.upstream.connections.append(self)
        script = self.upstream.take_script()
        while True:
            for step in script:
                await step.play(self)

    async def _answer_probes(self) -> None:
        """Until the first request that is no probe, which is left for the script to receive."""
        while True:
            request = await self.receive()
            answer = self.upstream.probe_answers.get(request.line.rpartition(" ")[0])
            if answer is None:
                self.unread = request.raw_head + request.body + self.unread
                return
            await self.send(answer)


class ScriptedUpstream:
    """Serves from enter to exit. `requests` and `connections` leave out the probes.

    `listing` is what GET /v1/models names: model to context length in tokens.
    """

    def __init__(
        self,
        *scripts: Script,
        listing: dict[str, int] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._scripts = list(scripts or (KEEP_ALIVE,))
        self._host = host
        self._played = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        models = [
            {"id": name, "object": "model", "max_model_len": tokens}
            for name, tokens in (listing or {"m": 4096}).items()
        ]
        self.probe_answers = {
            "GET /health": whole(b"", content_type="text/plain"),
            "GET /v1/models": whole(json.dumps({"object": "list", "data": models}).encode()),
            "GET /v1/messages": whole(status=404),
        }

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = socket.create_server((self._host, 0), family=family)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.vanish()

    async def vanish(self) -> None:
        """Close every connection, and leave the port to others."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def sees_end(self, number: int = 0, *, within_seconds: float = 1.0) -> None:
        """Wait until this connection is closed. Raises TimeoutError if it stays open."""
        async with asyncio.timeout(within_seconds):
            await self.connections[number].has_ended.wait()

    async def sees_requests(self, count: int, *, within_seconds: float = 2.0) -> None:
        """Wait until so many requests have come. Raises TimeoutError if they do not."""
        async with asyncio.timeout(within_seconds):
            while len(self.requests) < count:
                await asyncio.sleep(0.001)

    def play(self, *scripts: Script) -> None:
        """From the next connection on these scripts, the last one for all that follow."""
        self._scripts = list(scripts)
        self._played = 0

    def next_script(self) -> Script:
        return self._scripts[min(self._played, len(self._scripts) - 1)]

    def take_script(self) -> Script:
        script = self.next_script()
        self._played += 1
        return script

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self._listener)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(Connection(self, accepted, loop).serve())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
