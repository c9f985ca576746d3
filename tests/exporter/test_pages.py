"""Who may set faults in a simulation, and what a fault may be."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from exporter.exposition import Exposition
from exporter.faults import FaultBoard
from exporter.health import Health
from exporter.inventory import Inventory
from exporter.pages import FaultControl, pages
from exporter.source import Trouble
from exporter.xids import XidBook
from tests.fakes.clock import FakeClock

LOST = {"gpu": 1, "kind": "lost"}


@pytest.fixture
def changes() -> list[None]:
    return []


@pytest.fixture
def board() -> FaultBoard:
    return FaultBoard(monotonic=lambda: 0.0)


def application(board: FaultBoard, changes: list[None]) -> Any:
    health = Health(clock=FakeClock(), fresh_seconds=9)
    inventory = Inventory(expected_count=None)
    exposition = Exposition(health=health, inventory=inventory, xids=XidBook(), version="0")
    control = FaultControl(board, gpus=2, on_change=lambda: changes.append(None))
    return pages(exposition, control=control)


@pytest.fixture
async def client(board: FaultBoard, changes: list[None]) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(application(board, changes))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


async def test_a_fault_lasts_until_all_are_taken_back(
    client: httpx2.AsyncClient, board: FaultBoard, changes: list[None]
) -> None:
    posted = await client.post("/sim/faults", json=LOST)
    lasting = board.active
    deleted = await client.delete("/sim/faults")

    assert posted.json() == {"faults": [LOST]}
    assert [(fault.gpu, fault.kind) for fault in lasting] == [(1, Trouble.LOST)]
    assert deleted.json() == {"faults": []}
    assert len(changes) == 2


@pytest.mark.parametrize(
    "body",
    [
        [],
        "lost",
        {},
        {"gpu": 2, "kind": "lost"},
        {"gpu": -1, "kind": "lost"},
        {"gpu": True, "kind": "lost"},
        {"gpu": "GPU-1", "kind": "lost"},
        {"gpu": 0, "kind": "fire"},
        {"gpu": 0, "kind": ["lost"]},
        {"gpu": 0, "kind": "xid"},
        {"gpu": 0, "kind": "xid", "xid": "79"},
        {"gpu": 0, "kind": "lost", "xid": 79},
        {"gpu": 0, "kind": "lost", "for": 5},
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(
    client: httpx2.AsyncClient, board: FaultBoard, body: object
) -> None:
    answer = await client.post("/sim/faults", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert board.for_delivery() == ()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json", "origin": "https://evil.example"}, 403),
        ({"content-type": "application/json", "host": "evil.example"}, 403),
    ],
)
async def test_a_page_in_a_browser_cannot_set_one(
    client: httpx2.AsyncClient, board: FaultBoard, headers: dict[str, str], status: int
) -> None:
    body = b'{"gpu": 1, "kind": "lost"}'
    answer = await client.post("/sim/faults", content=body, headers=headers)

    assert answer.status_code == status
    assert board.active == ()


async def test_another_machine_cannot_set_one(board: FaultBoard) -> None:
    transport = httpx2.ASGITransport(application(board, []), client=("192.0.2.7", 4242))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.post("/sim/faults", json=LOST)

    assert answer.status_code == 403
    assert board.active == ()


async def test_a_body_without_end_is_refused(client: httpx2.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post("/sim/faults", content=b" " * 5000, headers=headers)

    assert answer.status_code == 413


async def test_metrics_are_served_before_anything_was_collected(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert "gpu_exporter_last_collect_success 0.0" in answer.text
    assert "gpu_up{" not in answer.text
