"""The watchdog's decisions and readings, one by one."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from threading import Event, Timer

import pytest

from scripts.supervision.duration import duration
from scripts.supervision.ending import end, end_leftovers
from scripts.supervision.kernel import Identity, catches, family, start_time
from scripts.supervision.probe import sum_of
from scripts.supervision.process import RunningProcess
from scripts.supervision.record import Record, standings, write_standings
from scripts.supervision.report import Report
from scripts.supervision.restarts import RestartPolicy, Restarts

POLICY = RestartPolicy(backoff_seconds=1, backoff_max_seconds=8, restarts_max=5, stable_seconds=60)
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here", flush=True)
time.sleep(60)
"""
# Ends at the second SIGTERM, as the gateway does in the midst of its drain.
SLOW = """
import signal, sys, time
def ask(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGTERM, ask)
print("here", flush=True)
time.sleep(60)
"""
# As vLLM's engine and workers: one in the session, one in a group of its own, both stubborn.
PARENT = f"""
import subprocess, sys, time
STUBBORN = {STUBBORN!r}
for group in (None, 0):
    child = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, process_group=group
    )
    child.stdout.readline()
print("here", flush=True)
time.sleep(60)
"""


def test_restarts_are_spaced_out_and_spread_and_come_to_an_end() -> None:
    restarts = Restarts(POLICY, random=Random(7))

    delays = [restarts.next_delay() for _ in range(7)]

    *given, last, after = delays
    assert (last, after) == (None, None)
    assert restarts.total == 5
    for delay, middle in zip(given, (1, 2, 4, 8, 8), strict=True):
        assert delay is not None
        assert 0.8 * middle <= delay <= 1.2 * middle
        assert delay != middle


def test_program_that_ran_well_begins_anew() -> None:
    restarts = Restarts(POLICY, random=Random(7))
    for _ in range(5):
        restarts.next_delay()

    restarts.stable()

    assert (restarts.next_delay() or 0) < 1.3
    assert restarts.total == 6


def test_metric_is_summed_over_the_series_that_have_the_labels() -> None:
    text = 'up{a="1",b="x"} 2.0\nup{a="1",b="y"} 3.0\nup{a="2"} 9\nup_too 7\n'

    assert sum_of(text, "up", a="1") == 5
    assert sum_of(text, "up_too") == 7
    assert sum_of(text, "down") is None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0s"), (59, "59s"), (60, "1m"), (7300, "2h"), (200_000, "2d")]
)
def test_uptime_is_shown_in_its_largest_unit(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_status_line_stays_below_the_events_of_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal()
    report = Report(terminal, tmp_path / "watchdog.log")

    report.show("sim up 3h")
    report.say("sim: exit 1")

    clear = "\r\x1b[K"
    shown = terminal.getvalue()
    assert shown.startswith(f"{clear}sim up 3h{clear}")
    assert shown.endswith(" sim: exit 1\nsim up 3h")


def test_without_a_terminal_there_are_events_alone(tmp_path: Path) -> None:
    pipe = io.StringIO()
    report = Report(pipe, tmp_path / "watchdog.log")

    report.show("sim up 3h")
    report.say("sim: exit 1")

    assert pipe.getvalue().endswith(" sim: exit 1\n")
    assert pipe.getvalue() == (tmp_path / "watchdog.log").read_text()


def test_terminal_that_is_closed_takes_no_event_from_the_log(tmp_path: Path) -> None:
    terminal = Terminal()
    report = Report(terminal, tmp_path / "watchdog.log")
    terminal.close()

    report.say("one")
    report.say("two")

    assert len((tmp_path / "watchdog.log").read_text().splitlines()) == 2


class Terminal(io.StringIO):
    """Claims to be one."""

    def isatty(self) -> bool:
        return True


def test_standings_survive_their_watchdog_and_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert standings() == {}
    Path(".run").mkdir()
    Path(".run/watchdog.state").write_text('{"gateway": {"pha')

    assert standings() == {}
    write_standings({})
    assert standings() == {}


def test_whole_family_is_ended_also_who_does_not_heed_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    with session(PARENT) as record:
        kin = family(record.pid)
        started = time.monotonic()
        end(record, patience_seconds=5, say=told.append, hurry=Event())

    assert len(kin) == 2
    assert not any(process.is_alive for process in kin)
    assert any("left processes behind" in line for line in told)
    assert time.monotonic() - started < 8
    assert not record.path.exists()


def test_what_a_crash_left_behind_is_found_in_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with session(PARENT.replace("(None, 0)", "(None,)").replace("SIG_IGN", "SIG_DFL")) as record:
        (orphan,) = family(record.pid)
        os.kill(record.pid, signal.SIGKILL)
        until_gone(record.identity)
        end_leftovers(record, (), lambda _: None)

        assert not orphan.is_alive


def test_second_order_of_the_operator_cuts_the_patience_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hurry = Event()
    with session(SLOW) as record:
        Timer(0.3, hurry.set).start()
        started = time.monotonic()
        end(record, patience_seconds=60, say=lambda _: None, hurry=hurry)

    assert 0.3 <= time.monotonic() - started < 3


def test_reused_pid_is_nobody_of_ours() -> None:
    somebody = Identity(os.getpid(), "12345")

    somebody.send(signal.SIGKILL)

    assert not somebody.is_alive
    assert not Identity(os.getpid(), "").is_alive
    assert Identity(os.getpid(), start_time(os.getpid())).is_alive


async def test_signal_is_kept_from_a_program_that_would_die_of_it(tmp_path: Path) -> None:
    deaf = "import time; print('here', flush=True); time.sleep(60)"
    heeding = f"import signal; signal.signal(signal.SIGUSR1, lambda *_: exit(5)); {deaf}"
    for program, is_heard in ((deaf, False), (heeding, True)):
        with session(program, folder=tmp_path) as record:
            process = RunningProcess(record)
            assert catches(record.pid, signal.SIGUSR1) is is_heard
            assert process.send(signal.SIGUSR1) is is_heard
            if is_heard:
                # Its exit code is for its parent alone; that it ended is seen by the handle.
                assert await asyncio.wait_for(process.ended(), 5) is None
            process.let_go()


@contextmanager
def session(program: str, *, folder: Path = Path()) -> Iterator[Record]:
    """A supervised program in a session of its own, ready when it has printed a line."""
    process = subprocess.Popen(
        (sys.executable, "-c", program),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    with process.stdout:
        process.stdout.readline()
    record = Record("vllm", process.pid, start_time(process.pid), 1, supervised=True)
    run = folder / ".run"
    run.mkdir(exist_ok=True)
    (run / "vllm.json").write_text(json.dumps(asdict(record)))
    try:
        yield record
    finally:
        for member in family(process.pid):
            member.send(signal.SIGKILL)
        process.kill()
        process.wait()


def until_gone(process: Identity) -> None:
    deadline = time.monotonic() + 5
    while process.is_alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not process.is_alive
