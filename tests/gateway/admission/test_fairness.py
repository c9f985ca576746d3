"""What keys may expect of each other at a full gate, and calls to one model of those to another."""

import asyncio

import pytest

from gateway.admission import AdmissionConfig, AdmissionGate, Line
from gateway.admission.place import Place, Rooms, Verdict
from gateway.errors import Overloaded
from gateway.exchange import Operation
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.asyncio

CHAT: Line = ("m", Operation.CHAT)
OTHER: Line = ("n", Operation.CHAT)


class Slots:
    """Rooms by the line: what is left of each, none where nothing is said."""

    is_bounded = True

    def __init__(self, **left: int) -> None:
        self.left = left

    def has_room(self, line: Line, *, promised: int) -> bool:
        return self.left.get(line[0], 0) > promised


def gate_of(
    *, max_in_flight: int | None = 4, max_queued: int = 8, rooms: Rooms | None = None
) -> AdmissionGate:
    config = AdmissionConfig(max_in_flight, max_queued, queue_timeout_seconds=60.0)
    return AdmissionGate(config, clock=FakeClock(), rooms=rooms)


def calls(gate: AdmissionGate, key: str, count: int, line: Line = CHAT) -> list[Place]:
    """So many calls of a key, those that wait."""
    places = [gate.take(key, line) for _ in range(count)]
    return [place for place in places if place is not None]


def is_admitted(place: Place) -> bool:
    return place.verdict.done() and place.verdict.result() is Verdict.ADMITTED


def admitted(*places: Place) -> int:
    return sum(map(is_admitted, places))


async def test_a_quiet_key_gets_the_next_place_however_many_calls_a_greedy_one_has() -> None:
    gate = gate_of(max_queued=100)
    greedy = calls(gate, "greedy", 50)
    (quiet,) = calls(gate, "quiet", 1)
    gate.give_back("greedy", CHAT)
    assert is_admitted(quiet)
    assert admitted(*greedy) == 0


async def test_with_a_single_place_keys_take_turns() -> None:
    gate = gate_of(max_in_flight=1, max_queued=100)
    greedy = calls(gate, "greedy", 9)
    quiet = calls(gate, "quiet", 2)
    holder, order = "greedy", []
    for _ in range(6):
        before = {place for place in (*greedy, *quiet) if is_admitted(place)}
        gate.give_back(holder, CHAT)
        (next_one,) = {place for place in (*greedy, *quiet) if is_admitted(place)} - before
        holder = next_one.key
        order.append(holder)
    assert order == ["greedy", "quiet", "greedy", "quiet", "greedy", "greedy"]


async def test_places_are_shared_evenly_by_keys_that_want_them_all() -> None:
    gate = gate_of(max_in_flight=8, max_queued=100)
    waiting = {"a": calls(gate, "a", 40), "b": calls(gate, "b", 20), "c": calls(gate, "c", 20)}
    for _ in range(8):
        gate.give_back("a", CHAT)
    assert {key: admitted(*places) for key, places in waiting.items()} == {"a": 2, "b": 3, "c": 3}


async def test_what_a_modest_key_leaves_goes_to_those_who_want_more() -> None:
    gate = gate_of(max_in_flight=8, max_queued=100)
    waiting = {"a": calls(gate, "a", 40), "b": calls(gate, "b", 20), "c": calls(gate, "c", 1)}
    for _ in range(8):
        gate.give_back("a", CHAT)
    assert {key: admitted(*places) for key, places in waiting.items()} == {"a": 3, "b": 4, "c": 1}


async def test_within_a_key_it_is_first_come_first_served() -> None:
    gate = gate_of(max_in_flight=1)
    places = calls(gate, "k", 4)
    for served in range(1, 4):
        gate.give_back("k", CHAT)
        assert [is_admitted(p) for p in places] == [True] * served + [False] * (3 - served)


async def test_a_key_that_is_alone_may_fill_the_queue() -> None:
    gate = gate_of(max_in_flight=2, max_queued=6)
    assert len(calls(gate, "k", 8)) == 6


async def test_beyond_its_share_a_key_leaves_twice_as_much_of_the_queue_as_it_takes() -> None:
    gate = gate_of(max_in_flight=2, max_queued=6)
    calls(gate, "quiet", 1)
    calls(gate, "greedy", 4)
    with pytest.raises(Overloaded, match=r"its share of the queue: .* 3 are waiting"):
        gate.take("greedy", CHAT)
    assert len(calls(gate, "quiet", 2)) == 2


async def test_within_its_share_a_key_may_take_all_that_is_left_of_the_queue() -> None:
    gate = gate_of(max_in_flight=6, max_queued=6)
    calls(gate, "greedy", 9)
    assert len(calls(gate, "modest", 3)) == 3


async def test_in_a_full_queue_the_newest_of_the_greediest_gives_way() -> None:
    gate = gate_of(max_in_flight=2, max_queued=3)
    greedy = calls(gate, "greedy", 5)
    (quiet,) = calls(gate, "quiet", 1)
    gave_way = [p.verdict.done() and p.verdict.result() is Verdict.GAVE_WAY for p in greedy]
    assert gave_way == [False, False, True]
    assert not quiet.verdict.done()
    assert gate.queued == 3


async def test_who_gives_way_is_told_so_and_when_to_come_back() -> None:
    gate = gate_of(max_in_flight=1, max_queued=1)
    (greedy,) = calls(gate, "greedy", 2)
    waiting = asyncio.create_task(gate.wait(greedy))
    await asyncio.sleep(0)
    calls(gate, "quiet", 1)
    with pytest.raises(Overloaded, match="gave way to keys with fewer calls: 1 requests") as gone:
        await waiting
    assert gone.value.retry_after_seconds == 1.0


async def test_nobody_gives_way_to_a_key_that_would_have_as_much() -> None:
    gate = gate_of(max_in_flight=2, max_queued=2)
    waiting = [place for key in ("a", "b", "a", "b") for place in calls(gate, key, 1)]
    for key in ("a", "b"):
        with pytest.raises(Overloaded, match="The gateway is full"):
            gate.take(key, CHAT)
    assert not any(place.verdict.done() for place in waiting)


async def test_a_full_queue_ends_up_shared_evenly() -> None:
    gate = gate_of(max_in_flight=6, max_queued=6)
    calls(gate, "a", 12)
    others = [place for key in ("b", "c", "d") for place in calls(gate, key, 2)]
    assert not any(place.verdict.done() for place in others)
    with pytest.raises(Overloaded):
        gate.take("a", CHAT)


async def test_a_full_model_makes_its_calls_wait_and_nobody_elses() -> None:
    gate = gate_of(rooms=Slots(m=0, n=5))
    (waiting,) = calls(gate, "k", 1)
    assert calls(gate, "k", 1, OTHER) == []
    gate.give_back("k", CHAT)
    assert not waiting.verdict.done()


async def test_a_slot_that_becomes_free_is_given_to_who_waits_for_it() -> None:
    rooms = Slots(m=0, n=5)
    gate = gate_of(rooms=rooms)
    first, second = calls(gate, "k", 2)
    calls(gate, "k", 1, OTHER)
    rooms.left["m"] = 1
    gate.give_back("k", CHAT)
    assert (is_admitted(first), is_admitted(second)) == (True, False)


async def test_a_slot_is_promised_once() -> None:
    rooms = Slots(m=0, n=5)
    gate = gate_of(rooms=rooms)
    calls(gate, "k", 3)
    calls(gate, "k", 2, OTHER)
    rooms.left["m"] = 1
    gate.give_back("k", CHAT)
    gate.give_back("k", CHAT)
    newcomer = gate.take("k", CHAT)
    assert newcomer is not None
    assert (gate.in_flight, gate.queued) == (1, 3)


async def test_a_promise_is_kept_when_the_call_goes_on() -> None:
    rooms = Slots(m=0, n=5)
    gate = gate_of(rooms=rooms)
    (waiting,) = calls(gate, "k", 1)
    going_on = asyncio.create_task(gate.wait(waiting))
    calls(gate, "k", 1, OTHER)
    rooms.left["m"] = 1
    gate.give_back("k", CHAT)
    await going_on
    assert gate.take("k", CHAT) is None


async def test_room_that_came_by_itself_is_found_by_the_next_call() -> None:
    rooms = Slots(m=0)
    gate = gate_of(rooms=rooms)
    (first,) = calls(gate, "k", 1)
    rooms.left["m"] = 2
    (second,) = calls(gate, "k", 1)
    assert (is_admitted(first), is_admitted(second)) == (True, True)


async def test_without_a_bound_on_all_calls_a_full_model_still_has_a_queue() -> None:
    gate = gate_of(max_in_flight=None, max_queued=2, rooms=Slots(m=0, n=100))
    calls(gate, "k", 50, OTHER)
    calls(gate, "k", 2)
    with pytest.raises(Overloaded, match=r"Every replica .*MAX_IN_FLIGHT=off"):
        gate.take("k", CHAT)
    assert calls(gate, "k", 1, OTHER) == []


async def test_keys_that_are_gone_leave_nothing_behind() -> None:
    gate = gate_of(max_in_flight=1, max_queued=2)
    calls(gate, "first", 1)
    holder = "first"
    for number in range(500):
        (place,) = calls(gate, f"key-{number}", 1)
        gate.give_back(holder, CHAT)
        assert is_admitted(place)
        holder = place.key
        gate._promised -= 1  # As the task that waits for it would.
    gate.give_back(holder, CHAT)
    assert (gate._running, gate._running_at) == ({}, {})
    assert (gate._queue._parties, gate._queue._lines) == ({}, {})
    assert len(gate._queue._greed._heap) < 100


async def test_a_slot_is_promised_once_whatever_it_is_to_be_used_for() -> None:
    rooms = Slots(m=0, n=5)
    gate = gate_of(rooms=rooms)
    chat, message = *calls(gate, "k", 1), *calls(gate, "k", 1, ("m", Operation.MESSAGES))
    calls(gate, "k", 1, OTHER)
    rooms.left["m"] = 1
    gate.give_back("k", CHAT)
    assert (is_admitted(chat), is_admitted(message)) == (True, False)


async def test_what_a_promise_held_back_is_given_when_it_is_kept() -> None:
    rooms = Slots(m=0, n=5)
    gate = gate_of(rooms=rooms)
    first, second = calls(gate, "k", 2)
    going_on = asyncio.create_task(gate.wait(first))
    calls(gate, "k", 1, OTHER)
    rooms.left["m"] = 1
    gate.give_back("k", CHAT)
    rooms.left["m"] = 2
    await going_on
    rooms.left["m"] = 1  # It has leased one.
    await asyncio.sleep(0)
    assert is_admitted(second)


async def test_what_a_key_runs_at_one_model_costs_it_nothing_at_another() -> None:
    rooms = Slots(m=0, n=100)
    gate = gate_of(max_in_flight=100, rooms=rooms)
    calls(gate, "both", 30, OTHER)
    turns = [
        *calls(gate, "both", 1),
        *calls(gate, "one", 1),
        *calls(gate, "both", 1),
        *calls(gate, "one", 1),
    ]
    for served in range(1, 5):
        rooms.left["m"] += 1
        gate.give_back("both", OTHER)
        assert admitted(*turns) == served
        assert admitted(*turns[:served]) == served
