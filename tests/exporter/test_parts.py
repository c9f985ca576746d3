"""The small parts: freshness, inventory, back-off, messages, the log, the simulated load."""

import io
import json
import math
from itertools import pairwise

import pytest

from exporter import messages
from exporter.backoff import Backoff
from exporter.chronicle import Chronicle
from exporter.families import ENERGY, FAMILIES, POWER_DRAW, THROTTLE_SECONDS, Kind
from exporter.faults import FaultBoard
from exporter.health import Health
from exporter.inventory import Inventory
from exporter.logs import Log
from exporter.simulated.gpu import SimulatedGpu
from exporter.simulated.load import Load
from exporter.snapshot import Device, DeviceReading, Fault, Reading, Sample, XidEvent
from exporter.source import SimulatedFault, Trouble
from exporter.xids import XidBook
from tests.fakes.clock import FakeClock

FRESH_SECONDS = 9.0


def reading(*gpus: tuple[str, int], faults: tuple[Fault, ...] = ()) -> Reading:
    devices = tuple(
        DeviceReading(Device(uuid, index, "H200", "1B:00.0"), (Sample(POWER_DRAW, 1.0),))
        for uuid, index in gpus
    )
    return Reading("580", "13.0", devices, faults)


def test_a_reading_is_shown_while_it_is_fresh() -> None:
    clock = FakeClock()
    health = Health(clock=clock, fresh_seconds=FRESH_SECONDS)
    health.succeeded(reading(("a", 0)), duration_seconds=0.1)

    clock.advance(FRESH_SECONDS)
    shown = health.reading
    clock.advance(0.1)

    assert shown is not None
    assert health.reading is None
    assert health.last_success_seconds == clock.now().timestamp() - FRESH_SECONDS - 0.1


def test_a_failure_takes_the_reading_away_at_once() -> None:
    health = Health(clock=FakeClock(), fresh_seconds=FRESH_SECONDS)
    health.succeeded(reading(("a", 0)), duration_seconds=0.1)

    health.failed(call="collect", error="deadline")

    assert health.reading is None
    assert not health.is_success


def test_a_driver_that_is_not_there_is_known_to_have_no_gpus() -> None:
    clock = FakeClock()
    health = Health(clock=clock, fresh_seconds=FRESH_SECONDS)
    health.succeeded(reading(("a", 0)), duration_seconds=0.1)

    health.unavailable(call="nvmlInit", error="DriverNotLoaded")
    clock.advance(10 * FRESH_SECONDS)

    assert health.reading is not None
    assert health.reading.devices == ()
    assert not health.is_success
    assert not health.is_available


def test_what_a_card_does_not_have_is_no_error() -> None:
    health = Health(clock=FakeClock(), fresh_seconds=FRESH_SECONDS)
    absent = Fault("nvmlDeviceGetFanSpeed", "NotSupported", "a", is_absence=True)
    failed = Fault("nvmlDeviceGetPowerUsage", "Unknown", "a")

    health.succeeded(reading(("a", 0), faults=(absent, failed)), duration_seconds=0.1)

    assert health.errors == {("nvmlDeviceGetPowerUsage", "Unknown"): 1}


def test_a_gpu_keeps_the_index_it_was_first_seen_with() -> None:
    inventory = Inventory(expected_count=None)
    inventory.learn(reading(("a", 0), ("b", 1)))

    inventory.learn(moved_up := reading(("b", 0)))

    assert inventory.label_of("b") == "1"
    assert inventory.misses(moved_up)
    assert inventory.expected_count == 2


def test_a_gpu_that_was_never_seen_is_missed_by_number() -> None:
    assert Inventory(expected_count=2).misses(reading(("a", 0)))
    assert not Inventory(expected_count=1).misses(reading(("a", 0)))


def test_a_backoff_doubles_up_to_its_longest_and_starts_over_after_a_success() -> None:
    backoff = Backoff()

    waits = [backoff.next_seconds() for _ in range(7)]
    backoff.reset()

    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.next_seconds() == 1


def test_xids_are_counted_by_gpu_and_number() -> None:
    book = XidBook()
    for uuid, xid, at_seconds in (("a", 79, 1.0), ("a", 79, 5.0), ("b", 79, 2.0), ("a", 48, 3.0)):
        book.add(XidEvent(uuid, xid, at_seconds))

    counts = {(entry.uuid, entry.xid): (entry.count, entry.last_seconds) for entry in book}
    assert counts == {("a", 79): (2, 5.0), ("b", 79): (1, 2.0), ("a", 48): (1, 3.0)}


def test_a_reading_arrives_as_it_was_sent() -> None:
    faults = (Fault("nvmlDeviceGetPowerUsage", "Unknown", "a"), Fault("x", "y", is_absence=True))
    sent = reading(("a", 0), ("b", 1), faults=faults)

    kind, body = messages.parsed(messages.line(messages.READING, messages.reading_out(sent)))

    assert kind == messages.READING
    assert messages.reading_in(body) == sent


def test_a_fault_arrives_as_it_was_sent() -> None:
    sent = (SimulatedFault(1, Trouble.SLOW, began_seconds=5.0), SimulatedFault(0, Trouble.XID, 79))

    _, body = messages.parsed(messages.line(messages.COLLECT, messages.faults_out(sent)))

    assert messages.faults_in(body) == sent


def test_an_xid_is_delivered_once_and_a_lasting_fault_each_time() -> None:
    board = FaultBoard(monotonic=lambda: 1.0)
    board.set(gpu=0, kind=Trouble.XID, xid=79)
    board.set(gpu=1, kind=Trouble.LOST, xid=0)
    board.set(gpu=1, kind=Trouble.LOST, xid=0)

    first, second = board.for_delivery(), board.for_delivery()

    assert [fault.kind for fault in first] == [Trouble.LOST, Trouble.XID]
    assert [fault.kind for fault in second] == [Trouble.LOST]


def test_the_log_tells_a_thing_once_until_it_changes() -> None:
    stream = io.StringIO()
    chronicle = Chronicle(log=Log(level="INFO", form="json", stream=stream))
    failed = Fault("nvmlDeviceGetPowerUsage", "Unknown", "a")

    for _ in range(3):
        chronicle.collected(reading(("a", 0), faults=(failed,)), known=["a"])
    chronicle.collected(reading(("a", 0)), known=["a"])
    chronicle.collected(reading(("a", 0), faults=(failed,)), known=["a"])
    chronicle.failed(call="collect", error="deadline", cure="wait")
    chronicle.failed(call="collect", error="deadline", cure="wait")
    chronicle.collected(reading(), known=["a"])

    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == [
        "GPU is back",
        "call failed",
        "call failed",
        "no GPU metrics",
        "collecting again",
        "GPU is lost",
    ]


def test_no_value_can_forge_a_line_of_the_log() -> None:
    stream = io.StringIO()
    Log(level="INFO", form="json", stream=stream).info("GPU found", name="H200\n{}")

    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["name"] == "H200\n{}"


@pytest.mark.parametrize("gpu", [0, 1])
def test_the_simulated_load_stays_between_idle_and_full(gpu: int) -> None:
    load = Load(gpu=gpu)
    values = [load.at(float(second)) for second in range(2000)]

    assert 0.2 < min(values) < 0.4 < 0.85 < max(values) < 1.0


def test_gpus_that_share_a_model_are_loaded_alike() -> None:
    first, second = Load(gpu=0), Load(gpu=1)

    assert max(abs(first.at(t) - second.at(t)) for t in map(float, range(500))) < 0.03


def test_the_integral_of_the_load_is_exact() -> None:
    load = Load(gpu=1)
    steps = 100_000
    numeric = math.fsum(load.at(300.0 * step / steps) for step in range(steps)) * 300.0 / steps

    assert load.until(300.0) == pytest.approx(numeric, rel=1e-4)


def test_simulated_counters_never_go_back_whatever_the_gpu_suffers() -> None:
    gpu = SimulatedGpu(0, since_seconds=100.0)
    counters = [family for family in FAMILIES if family.kind is Kind.COUNTER]
    told: list[dict[object, float]] = []
    for now in range(100, 400):
        began, ended = 150.0, 200.0 if now >= 200 else math.inf
        faults = [
            SimulatedFault(0, kind, began_seconds=began, ended_seconds=ended)
            for kind in (Trouble.SLOW, Trouble.THERMAL)
            if now >= began
        ]
        samples = gpu.samples(faults, now=float(now))
        told.append({(s.family, s.labels): s.value for s in samples if s.family in counters})

    assert all(after[key] >= before[key] for before, after in pairwise(told) for key in before)
    hot = {now: values[THROTTLE_SECONDS, ("hw_thermal",)] for now, values in enumerate(told, 100)}
    assert (hot[149], hot[399]) == (0.0, 50.0)
    assert told[-1][ENERGY, ()] > told[0][ENERGY, ()]


def test_every_family_is_named_in_base_units_and_once() -> None:
    names = [family.name for family in FAMILIES]

    assert len(set(names)) == len(names)
    assert all(name.startswith("gpu_") for name in names)
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
