"""Ranking: names by a rank that keeps changing, the lowest at hand."""

from heapq import heapify, heappop, heappush

Rank = tuple[int, int]

_STALE_AT_LEAST = 32


class Ranking:
    """A heap whose outdated entries are passed over when they come up.

    A change costs O(log n): what it leaves behind is swept out once that is most of the heap.
    """

    __slots__ = ("_heap", "_ranks")

    def __init__(self) -> None:
        self._ranks: dict[str, Rank] = {}
        self._heap: list[tuple[Rank, str]] = []

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, name: str) -> bool:
        return name in self._ranks

    def put(self, name: str, rank: Rank) -> None:
        """Rank a name, be it new here or not."""
        if self._ranks.get(name) == rank:
            return
        self._ranks[name] = rank
        heappush(self._heap, (rank, name))
        if len(self._heap) > 2 * len(self._ranks) + _STALE_AT_LEAST:
            self._heap = [(rank, name) for name, rank in self._ranks.items()]
            heapify(self._heap)

    def drop(self, name: str) -> None:
        self._ranks.pop(name, None)
        if not self._ranks:
            self._heap.clear()

    def first(self) -> tuple[Rank, str] | None:
        """The name of the lowest rank, and that rank."""
        heap = self._heap
        while heap and self._ranks.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0] if heap else None
