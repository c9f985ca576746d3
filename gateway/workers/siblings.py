"""Siblings: whoever of several workers is scraped answers for all of them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gateway.telemetry.merging import merged
from gateway.workers.team import Team

ASK_SECONDS = 2.0
_PAGE_BYTES_MAX = 64 * 1024 * 1024

Render = Callable[[str], Awaitable[tuple[bytes, bytes]]]


class Siblings:
    """The metrics of all workers on one page, each sample with the label `worker`.

    Each worker serves its own page to the others, on a socket in `folder`, which nobody else may
    enter. One that does not answer in time is missing from the page and shown as
    `gateway_worker_up` 0.
    """

    def __init__(self, team: Team, *, own: Render) -> None:
        self._number = team.number
        self._count = team.count
        self._folder = team.folder
        self._own = own
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Siblings":
        path = self._path(self._number)
        path.unlink(missing_ok=True)  # Of a worker that was killed.
        self._server = await asyncio.start_unix_server(self._serve, path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._path(self._number).unlink(missing_ok=True)

    async def render(self, accept: str) -> tuple[bytes, bytes]:
        """The exposition and its content type."""
        body, content_type = await self._own(accept)
        numbers = [n for n in range(1, self._count + 1) if n != self._number]
        others = await asyncio.gather(*(self._page(number, accept) for number in numbers))
        found = {self._number: body, **dict(zip(numbers, others, strict=True))}
        return await merged(dict(sorted(found.items()))), content_type

    async def _page(self, number: int, accept: str) -> bytes | None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path(number))
                try:
                    writer.write(accept.encode("latin-1", "replace") + b"\n")
                    return await reader.read(_PAGE_BYTES_MAX) or None
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(ASK_SECONDS):
                accept = (await reader.readline()).decode("latin-1").strip()
                body, _ = await self._own(accept)
                writer.write(body)
                await writer.drain()
        writer.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.sock"
