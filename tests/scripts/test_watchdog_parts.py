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
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from threading import Event, Timer

import pytest

from scripts.supervision.duration import duration
from scripts.supervision.ending import end, end_leftovers
from scripts.supervision.engine import NoEngine
from scripts.supervision.kernel import Identity, catches, family, start_time
from scripts.supervision.probe import Health, look, sum_of
from scripts.supervision.process import RunningProcess, start
from scripts.supervision.programs import Program
from scripts.supervision.record import Record, living, records, standings, write_standings
from scripts.supervision.report import Report
from scripts.supervision.restarts import RestartPolicy, Restarts

POLICY = RestartPolicy(backoff_seconds=1, backoff_max_seconds=8, restarts_max=5, stable_seconds=60)
# Beyond what any kernel gives away.
NO_PID = 2**22 + 1
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


def not_ready(reason: str) -> Health:
    return Health(False, f"not ready (503): {reason}")


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
    ("answer", "health"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", Health(True, "")),
        (b'HTTP/1.1 503 No\r\n\r\n{"reasons":["draining"]}', not_ready("draining")),
        (b"HTTP/1.1 503 No\r\ncontent-length: 99\r\n\r\n{", not_ready("no reason given")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", Health(False, "does not answer")),
        (b"SSH-2.0\r\n\r\n", Health(False, "does not answer")),
    ],
)
async def test_any_answer_is_a_verdict_also_one_that_breaks_off(
    answer: bytes, health: Health
) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asyncio.to_thread(look, f"http://127.0.0.1:{port}/ready") == health


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


def test_family_of_who_has_the_pid_now_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with session(PARENT) as stranger:
        stale = replace(stranger, started="12345")
        stale.write()
        end_leftovers(stale, (), lambda _: None)

        assert all(member.is_alive for member in family(stranger.pid))
        assert len(family(stranger.pid)) == 2


def test_record_of_a_successor_outlives_the_end_of_its_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with session(SLOW) as successor:
        predecessor = replace(successor, pid=NO_PID, started="12345")
        end(predecessor, patience_seconds=1, say=lambda _: None, hurry=Event())

        assert records() == [successor]


async def test_program_is_on_record_from_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = start(
        Program(
            name="sim",
            command=("sleep", "60"),
            environment={"PATH": os.environ["PATH"]},
            port=1,
            output=tmp_path / "sim.log",
            own_log=None,
            alive_path="/",
            ready_path="/",
            stop_seconds=1,
            engine=NoEngine(),
        )
    )

    assert living() == {"sim": process.record}
    process.record.identity.send(signal.SIGKILL)
    await asyncio.wait_for(process.ended(), 5)


def test_name_that_is_no_text_hides_nobody(tmp_path: Path) -> None:
    odd = r"import ctypes; ctypes.CDLL(None).prctl(15, b'caf\xe9 )', 0, 0, 0)"
    with session(f"{odd}\n{SLOW}", folder=tmp_path) as record:
        assert Identity(record.pid, record.started) in family(os.getpid())
        assert not catches(record.pid, signal.SIGUSR1)


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


def test_program_may_have_any_name(tmp_path: Path) -> None:
    named = "open('/proc/self/comm', 'wb').write(b'caf\\xe9 ) S 1'); print('here', flush=True)"
    with session(f"{named}; import time; time.sleep(60)", folder=tmp_path) as record:
        assert Identity(record.pid, record.started).is_alive
        assert record.pid in {member.pid for member in family(os.getpid())}
        assert not catches(record.pid, signal.SIGUSR1)


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
