"""XidBook: what XIDs each GPU reported since the exporter started."""

from collections.abc import Iterator
from dataclasses import dataclass

from exporter.snapshot import XidEvent


@dataclass(frozen=True, slots=True)
class XidCount:
    """How often a GPU reported an XID, and when last (seconds since the epoch)."""

    uuid: str
    xid: int
    count: int
    last_seconds: float


class XidBook:
    """Counts that outlive the worker that heard them; bounded by what a driver can say."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], XidCount] = {}

    def add(self, event: XidEvent) -> None:
        key = (event.uuid, event.xid)
        before = self._counts.get(key)
        count = before.count + 1 if before else 1
        self._counts[key] = XidCount(event.uuid, event.xid, count, event.at_seconds)

    def __iter__(self) -> Iterator[XidCount]:
        return iter(self._counts.values())
