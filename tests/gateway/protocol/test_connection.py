"""A connection's requests in order, and what bounds a client that misbehaves between them."""

import asyncio
from collections.abc import Callable

from gateway.edge.asgi import Message, Receive, Scope, Send
from tests.gateway.protocol.serving import PATIENCE_SECONDS, Server, serving

HOST = b"host: a\r\n"
PIECE = b"x" * 65536


class Application:
    """Answers by the path, and remembers what it was asked and what the heads said."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.faults: list[Exception] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        self.asked.append(path)
        self.headers.append(scope["headers"])
        if scope["method"] == "POST" and not await self._has_read(receive):
            await send(_whole(b"bad", status=400))
        elif path == "/refused":
            await send(_whole(b"no", (b"connection", b"close"), status=503))
        elif path == "/cut":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        elif path == "/large":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(40):
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            await send({"type": "http.response.body", "body": b"END", "more_body": False})
        elif path == "/middling":
            await send(_whole(PIECE[:40_000]))  # Below the mark at which writing is paused.
        elif path == "/known":
            await send({"type": "http.response.start", "status": 304, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif path == "/cancelled":
            await send(_whole(b"ok"))
            raise asyncio.CancelledError
        else:
            if path == "/slow":
                await asyncio.sleep(1.0)
            await send(_whole(path.encode()))

    async def _has_read(self, receive: Receive) -> bool:
        try:
            while (await receive())["more_body"]:
                pass
        except Exception as fault:
            self.faults.append(fault)
            return False
        return True


def _whole(body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> Message:
    length = (b"content-length", b"%d" % len(body))
    start = {"type": "http.response.start", "status": status, "headers": [length, *headers]}
    return {**start, "body": body}


def get(path: str, version: str = "1.1", more: bytes = b"") -> bytes:
    return f"GET {path} HTTP/{version}\r\n".encode() + HOST + more + b"\r\n"


def post(path: str) -> bytes:
    """A head whose body comes in chunks."""
    return f"POST {path} HTTP/1.1\r\n".encode() + HOST + b"transfer-encoding: chunked\r\n\r\n"


async def test_requests_are_answered_in_their_order() -> None:
    app = Application()
    async with serving(app) as server, server.connected() as peer:
        await peer.send(get("/slow") + get("/b") + get("/c"))
        heard = await peer.read_until(b"/c")

    assert app.asked == ["/slow", "/b", "/c"]
    assert [
        heard.index(body) for body in (b"\r\n\r\n/slow", b"\r\n\r\n/b", b"\r\n\r\n/c")
    ] == sorted(heard.index(body) for body in (b"\r\n\r\n/slow", b"\r\n\r\n/b", b"\r\n\r\n/c"))


async def test_nothing_follows_the_head_of_an_answer_that_can_have_no_body() -> None:
    async with serving(Application()) as server, server.connected() as peer:
        await peer.send(get("/known") + get("/a"))
        heard = await peer.read_until(b"/a")
    assert b"transfer-encoding" not in heard
    assert heard.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_what_stands_behind_an_answer_that_closes_is_never_begun() -> None:
    for first in (get("/refused"), get("/cut"), get("/a", "1.0", b"connection: keep-alive\r\n")):
        app = Application()
        async with serving(app) as server, server.connected() as peer:
            await peer.send(first + get("/b"))
            heard = await peer.read_to_end()

        assert len(app.asked) == 1, first
        assert b"/b" not in heard


async def test_a_large_last_answer_is_not_followed_by_another() -> None:
    keep = b"connection: keep-alive\r\n"
    app = Application()
    async with serving(app) as server, server.connected(receive_buffer=4096) as peer:
        await peer.send(get("/large", "1.0", keep) + get("/b", "1.0", keep))
        await asyncio.sleep(0.1)
        heard = await peer.read_to_end()

    assert app.asked == ["/large"]
    assert heard.endswith(b"END")


async def test_a_trailer_is_no_header() -> None:
    app = Application()
    async with serving(app) as server, server.connected() as peer:
        trailer = b"x-forwarded-for: 6.6.6.6\r\nauthorization: Bearer other\r\n"
        await peer.send(post("/p") + b"2\r\n{}\r\n0\r\n" + trailer + b"\r\n")
        await peer.read_until(b"/p")

    assert [name for name, _ in app.headers[0]] == [b"host", b"transfer-encoding"]


async def test_trailers_without_end_are_refused() -> None:
    app = Application()
    async with serving(app) as server, server.connected() as peer:
        await peer.send(post("/p") + b"2\r\n{}\r\n0\r\n")
        await _until(lambda: bool(app.asked))
        for _ in range(5):
            await peer.send(b"x-a: " + b"y" * 16_000 + b"\r\n")
        heard = await peer.read_to_end()
        await server.until_nobody_is_left()

    assert heard.startswith(b"HTTP/1.1 400 ")
    assert "larger than" in str(app.faults[0])


async def test_a_reader_that_leaves_less_than_the_buffer_unread_is_dropped_too() -> None:
    async with serving(Application()) as server, server.connected(receive_buffer=4096) as peer:
        await peer.send(get("/middling"))
        await _until(lambda: any(_unread_bytes(server)))
        await server.until_nobody_is_left()


def _unread_bytes(server: Server) -> list[int]:
    """What the gateway holds of its answers, by connection."""
    return [c.transport.get_write_buffer_size() for c in server.connections]


async def _until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not claim():
            await asyncio.sleep(0.01)


async def test_deadlines_rest_while_a_former_answer_keeps_us_from_reading() -> None:
    app = Application()
    async with serving(app) as server, server.connected() as peer:
        # The slow answer lasts longer than a head and a body may take to come.
        await peer.send(get("/slow") + post("/b") + b"2\r\n")
        await asyncio.sleep(0.2)
        await peer.send(b"{}\r\n0\r\n\r\n")
        heard = await peer.read_until(b"/b")

    assert app.asked == ["/slow", "/b"]
    assert heard.count(b"HTTP/1.1 200 ") == 2


async def test_a_connection_whose_task_has_ended_is_closed() -> None:
    async with serving(Application()) as server, server.connected() as peer:
        await peer.send(get("/cancelled"))
        heard = await peer.read_to_end()
        await server.until_nobody_is_left()

    assert heard.endswith(b"ok")


async def test_an_idle_connection_is_closed_and_leaves_no_task() -> None:
    async with serving(Application()) as server, server.connected() as peer:
        await peer.send(get("/a"))
        heard = await peer.read_to_end()
        await server.until_nobody_is_left()

    assert heard.endswith(b"/a")
