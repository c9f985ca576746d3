"""Bodies on their way are bounded one by one and all together."""

import asyncio

import pytest

from gateway.edge.asgi import Message, Scope
from gateway.edge.body import BodyMemory, read_json_body
from gateway.errors import ClientDisconnected, Overloaded, RequestTooLarge

SCOPE: Scope = {"type": "http", "headers": []}


class Sender:
    """A client that sends these parts; with None it leaves, and behind the last it waits."""

    def __init__(self, *parts: bytes | None, is_whole: bool = False) -> None:
        self._parts = list(parts)
        self._is_whole = is_whole

    async def receive(self) -> Message:
        if not self._parts:
            await asyncio.Event().wait()
        part = self._parts.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        more_body = bool(self._parts) or not self._is_whole
        return {"type": "http.request", "body": part, "more_body": more_body}


async def read(sender: Sender, memory: BodyMemory) -> bytes:
    return await read_json_body(SCOPE, sender.receive, limit_bytes=10, memory=memory)


async def test_bodies_that_do_not_end_leave_no_room_for_another() -> None:
    memory = BodyMemory(max_bytes=20)
    slow = [asyncio.create_task(read(Sender(b"1234567890"), memory)) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(Overloaded):
        await read(Sender(b"1", b"2", is_whole=True), memory)
    assert await read(Sender(b"one piece", is_whole=True), memory) == b"one piece"

    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert await read(Sender(b"1", b"2", is_whole=True), memory) == b"12"
    assert memory.held_bytes == 0


@pytest.mark.parametrize(
    ("parts", "fault"),
    [((b"123456", b"123456"), RequestTooLarge), ((b"1", None), ClientDisconnected)],
)
async def test_a_body_that_comes_to_nothing_gives_its_room_back(
    parts: tuple[bytes | None, ...], fault: type[Exception]
) -> None:
    memory = BodyMemory(max_bytes=20)

    with pytest.raises(fault):
        await read(Sender(*parts), memory)

    assert memory.held_bytes == 0
