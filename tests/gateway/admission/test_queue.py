"""The fair queue against the same rules written as plainly as can be, on any history."""

from asyncio import AbstractEventLoop, Future, new_event_loop
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.place import Line, Place
from gateway.admission.queue import FairQueue
from gateway.admission.ranking import Ranking
from gateway.exchange import Operation

LINES: tuple[Line, ...] = (("m", Operation.CHAT), ("n", Operation.CHAT))
KEYS = ("a", "b", "c", "d")


@dataclass
class PlainQueue:
    """The rules of FairQueue by looking at everybody, every time."""

    running: Counter[tuple[str, Line]]
    waiting: list[Place] = field(default_factory=list)
    turns: dict[str, int] = field(default_factory=dict)
    turn: int = 0

    def add(self, place: Place) -> None:
        if not self._of(place.key):
            self._serve(place.key)
        self.waiting.append(place)

    def take_next(self, has_room: Callable[[Line], bool]) -> Place | None:
        able = [place for place in self.waiting if has_room(place.line)]
        best = min(
            able,
            key=lambda p: (
                self.running[p.key, p.line],
                self.turns[p.key],
                LINES.index(p.line),
                p.number,
            ),
            default=None,
        )
        if best is not None:
            self.waiting.remove(best)
            self._serve(best.key)
        return best

    def take_greediest(self, beyond: int) -> Place | None:
        best = max(self.waiting, key=lambda p: (self.calls_of(p.key), p.number), default=None)
        if best is None or self.calls_of(best.key) <= beyond:
            return None
        self.waiting.remove(best)
        return best

    def calls_of(self, key: str) -> int:
        return sum(self.running[key, line] for line in LINES) + len(self._of(key))

    def _of(self, key: str) -> list[Place]:
        return [place for place in self.waiting if place.key == key]

    def _serve(self, key: str) -> None:
        self.turn += 1
        self.turns[key] = self.turn


@pytest.fixture(scope="module")
def loop() -> Iterator[AbstractEventLoop]:
    loop = new_event_loop()
    yield loop
    loop.close()


KEY = st.sampled_from(KEYS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEY, st.sampled_from(LINES)),
        st.tuples(st.just("start"), KEY, st.sampled_from(LINES)),
        st.tuples(st.just("end"), KEY, st.sampled_from(LINES)),
        st.tuples(st.just("leave"), st.integers(0, 50)),
        st.tuples(st.just("next"), st.sets(st.sampled_from(LINES))),
        st.tuples(st.just("greediest"), st.integers(0, 4)),
    ),
    max_size=120,
)


@given(steps=STEPS)
@settings(max_examples=300, deadline=None)
def test_the_queue_decides_as_its_rules_say(steps: list[tuple], loop: AbstractEventLoop) -> None:  # type: ignore[type-arg]
    running: Counter[tuple[str, Line]] = Counter()
    plain = PlainQueue(running)
    queue = FairQueue(
        running=lambda key: sum(running[key, line] for line in LINES),
        running_in=lambda key, line: running[key, line],
    )
    for number, (step, *told) in enumerate(steps):
        match step:
            case "add":
                place = Place(told[0], told[1], number, Future(loop=loop))
                plain.add(place)
                queue.add(place)
            case "start":
                running[told[0], told[1]] += 1
                queue.moved(told[0])
            case "end":
                running[told[0], told[1]] = max(0, running[told[0], told[1]] - 1)
                queue.moved(told[0])
            case "leave" if plain.waiting:
                place = plain.waiting.pop(told[0] % len(plain.waiting))
                assert queue.remove(place)
                assert not queue.remove(place)
            case "next":
                expected = plain.take_next(lambda line, open_=told[0]: line in open_)  # type: ignore[misc]
                found = queue.take_next(lambda line, open_=told[0]: line in open_)  # type: ignore[misc]
                # The same key at two lines has its turn once; which line goes first is free.
                assert (found and found.key) == (expected and expected.key)
                if found is not expected:
                    assert found is not None
                    assert expected is not None
                    plain.waiting.remove(found)
                    plain.waiting.append(expected)
                    plain.waiting.sort(key=lambda p: p.number)
            case "greediest":
                assert queue.take_greediest(beyond=told[0]) is plain.take_greediest(told[0])
        assert queue.size == len(plain.waiting)
        for line in LINES:
            assert queue.waits_in(line) == sum(p.line == line for p in plain.waiting)
        for key in KEYS:
            assert queue.calls_of(key) == plain.calls_of(key)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(-3, 3)), max_size=300))
@settings(deadline=None)
def test_a_ranking_has_the_lowest_at_hand_and_stays_small(
    changes: list[tuple[str, int | None]],
) -> None:
    ranking, plain = Ranking(), dict[str, int]()
    for name, rank in changes:
        if rank is None:
            ranking.drop(name)
            plain.pop(name, None)
        else:
            ranking.put(name, (rank, ord(name)))
            plain[name] = rank
        lowest = min(((rank, ord(name)), name) for name, rank in plain.items()) if plain else None
        assert ranking.first() == lowest
        assert len(ranking) == len(plain)
        assert len(ranking._heap) <= 2 * len(plain) + 33
