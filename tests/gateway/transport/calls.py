"""A client of a scripted upstream, and one call through it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Protocol

from gateway.exchange import UpstreamAnswer
from gateway.transport.client import UpstreamClient
from gateway.transport.config import TransportConfig
from tests.fakes.upstream import Script, ScriptedUpstream

PATH = "/v1/chat/completions"
BODY = b'{"model":"m"}'
LIMIT_BYTES = 64 * 1024 * 1024


def client_of(url: str, config: TransportConfig | None = None) -> UpstreamClient:
    return UpstreamClient(url=url, api_key="upstream-secret", config=config or TransportConfig())


@asynccontextmanager
async def talking(
    *scripts: Script, config: TransportConfig | None = None
) -> AsyncIterator[tuple[UpstreamClient, ScriptedUpstream]]:
    """An upstream playing these scripts, and a client of it."""
    async with ScriptedUpstream(*scripts) as upstream, client_of(upstream.url, config) as client:
        yield client, upstream


async def send(
    client: UpstreamClient,
    *,
    body: bytes = BODY,
    headers: Sequence[tuple[bytes, bytes]] = (),
    is_stream: bool = True,
) -> UpstreamAnswer:
    return await client.send(PATH, body, list(headers), is_stream=is_stream)


class Delivers(Protocol):
    """What is read by `deliver`: an answer, or the connection that it comes over."""

    async def deliver(self, take: Callable[[bytes], bool]) -> bool: ...


async def next_read(answer: Delivers) -> bytes:
    """All that has arrived since the last read, at least one byte; b"" at the end."""
    reads: list[bytes] = []

    def take_one(read: bytes) -> bool:
        reads.append(read)
        return False

    was_stopped = await answer.deliver(take_one)
    assert was_stopped == bool(reads)
    return b"".join(reads)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole answer, read and closed."""

    status: int
    body: bytes


async def ask(client: UpstreamClient, *, body: bytes = BODY, is_stream: bool = True) -> Whole:
    """One call to its end. Raises what the client raises."""
    with closing(await send(client, body=body, is_stream=is_stream)) as answer:
        return Whole(answer.status, await answer.read(limit_bytes=LIMIT_BYTES))
