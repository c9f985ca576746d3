"""One connection for one request, of which a caller may read as much as it likes, or leave."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

_RESET: Final = struct.pack("ii", 1, 0)


class Talk:
    """Use as `async with Talk(port) as talk:`; leaving the block drops the connection.

    `status` is 0 until the head of an answer has come, `is_whole` tells whether its end has.
    """

    def __init__(self, port: int, *, receive_buffer_bytes: int | None = None) -> None:
        self._port = port
        self._receive_buffer_bytes = receive_buffer_bytes
        self.status = 0
        self.is_whole = False

    async def __aenter__(self) -> Self:
        connection = socket.socket()
        if self._receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
            self._reader, self._writer = await asyncio.open_connection(
                sock=connection, limit=self._receive_buffer_bytes or 2**16
            )
        except BaseException:
            connection.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0)

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            return  # What it has refused already the gateway need not read; the answer may be here.

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. It ends early where the connection does: see `is_whole`."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            self.status = int(head.split(b" ", 2)[1])
            lowered = head.lower()
            if b"transfer-encoding: chunked" in lowered:
                async for piece in self._chunks():
                    yield piece
                return
            left = int(lowered.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
            while left:
                piece = await self._reader.read(min(left, 2**16))
                if not piece:
                    return
                left -= len(piece)
                yield piece
            self.is_whole = True
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            piece = await self._reader.readexactly(size + 2)
            if not size:
                self.is_whole = True
                return
            yield piece[:-2]

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def silence(self) -> None:
        """Say nothing more; returns when the gateway closes the connection."""
        try:
            while await self._reader.read(2**16):
                pass
        except ConnectionError:
            return

    def reset(self) -> None:
        """Leave as a process does that is killed."""
        peer = self._writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()
