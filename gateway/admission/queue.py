"""FairQueue: who waits, whose turn it is, and who gives way when there is no room to wait.

Whose turn: the key with the fewest calls running of what is waited for; of those with equally many,
the one that was served longest ago; within a key, first come first served. So places are shared
evenly between the keys that want them (max-min fairness, as of Hadoop's fair scheduler), and a key
that asks for little gets it at the next place that becomes free, however many calls another one has
open.

Who gives way: the newest call of the key that has most, running and waiting. It is the one whose
turn would come last.
"""

from collections import OrderedDict
from collections.abc import Callable

from gateway.admission.place import Line, Place
from gateway.admission.ranking import Rank, Ranking

Places = OrderedDict[Place, None]
"""In the order of arrival; whoever leaves may stand anywhere."""


class _Party:
    """All that one key has waiting. `turn` is lower for whom was served longer ago."""

    __slots__ = ("places", "turn")

    def __init__(self, turn: int) -> None:
        self.places: Places = OrderedDict()
        self.turn = turn


class _Queue:
    """One line: the keys that wait in it by whose turn it is, and their calls."""

    __slots__ = ("parties", "size", "turns")

    def __init__(self) -> None:
        self.parties: dict[str, Places] = {}
        self.size = 0
        self.turns = Ranking()


class FairQueue:
    """Decides and remembers; waits for nothing. `running` tells how many calls of a key run,
    `running_in` how many of those in the places that a line is for: tell `moved` whenever that has
    changed.

    `size` is how many wait. A call costs O(log keys + lines), and a key or a line takes memory only
    while it waits.
    """

    def __init__(
        self, *, running: Callable[[str], int], running_in: Callable[[str, Line], int]
    ) -> None:
        self._running = running
        self._running_in = running_in
        self._parties: dict[str, _Party] = {}
        self._lines: dict[Line, _Queue] = {}
        self._greed = Ranking()
        self.size = 0
        self._turn = 0

    def waits_in(self, line: Line) -> int:
        queue = self._lines.get(line)
        return queue.size if queue else 0

    def waits_of(self, key: str) -> int:
        party = self._parties.get(key)
        return len(party.places) if party else 0

    def turns_before(self, key: str, line: Line) -> int:
        """At most so many of a line are served before one more call of this key would be, as long
        as its keys have equally many running and nobody else comes."""
        queue = self._lines.get(line)
        if queue is None:
            return 0
        own = len(queue.parties.get(key, ()))
        others = len(queue.turns) - (1 if own else 0)
        return min(queue.size, own + others * (own + 1))

    def add(self, place: Place) -> None:
        key, line = place.key, place.line
        party = self._parties.get(key)
        if party is None:
            party = self._parties[key] = _Party(self._next_turn())
        queue = self._lines.get(line)
        if queue is None:
            queue = self._lines[line] = _Queue()
        party.places[place] = None
        queue.parties.setdefault(key, OrderedDict())[place] = None
        queue.size += 1
        self.size += 1
        self._rank(key, party)

    def remove(self, place: Place) -> bool:
        """Take a call out wherever it stands; False if it does not wait any more."""
        key, line = place.key, place.line
        party = self._parties.get(key)
        if party is None or place not in party.places:
            return False
        del party.places[place]
        self.size -= 1
        queue = self._lines[line]
        queue.size -= 1
        mine = queue.parties[key]
        del mine[place]
        if not mine:
            del queue.parties[key]
            queue.turns.drop(key)
        if not queue.size:
            del self._lines[line]
        if party.places:
            self._rank(key, party)
        else:
            del self._parties[key]
            self._greed.drop(key)
        return True

    def moved(self, key: str) -> None:
        """The key has another number of calls running."""
        party = self._parties.get(key)
        if party is not None:
            self._rank(key, party)

    def take_next(self, has_room: Callable[[Line], bool]) -> Place | None:
        """Take out the call whose turn it is among the lines that have room."""
        best: tuple[Rank, str, Line] | None = None
        for line, queue in self._lines.items():
            first = queue.turns.first()
            if first is not None and (best is None or first[0] < best[0]) and has_room(line):
                best = (*first, line)
        if best is None:
            return None
        _, key, line = best
        place = next(iter(self._lines[line].parties[key]))
        self._parties[key].turn = self._next_turn()
        self.remove(place)
        return place

    def take_greediest(self, *, beyond: int) -> Place | None:
        """Take out the newest call of the key that has most, if that is more than `beyond`."""
        first = self._greed.first()
        if first is None or -first[0][0] <= beyond:
            return None
        place = next(reversed(self._parties[first[1]].places))
        self.remove(place)
        return place

    def calls_of(self, key: str) -> int:
        """How many calls of this key there are, running and waiting."""
        return self._running(key) + self.waits_of(key)

    def _rank(self, key: str, party: _Party) -> None:
        newest = next(reversed(party.places))
        self._greed.put(key, (-self._running(key) - len(party.places), -newest.number))
        for line, queue in self._lines.items():
            if key in queue.parties:
                queue.turns.put(key, (self._running_in(key, line), party.turn))

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn
