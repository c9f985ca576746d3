"""Logs are turned over under a writer that never stops, and no line is lost, torn or doubled."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.supervision.rotation import (
    LogLimits,
    is_full,
    turn_over_by_name,
    turn_over_in_place,
)
from tests.scripts.watched import Watched

LINES = 60_000
LIMITS = LogLimits(size_bytes=200_000, files=50)
WRITER = """
import sys, time
for number in range(int(sys.argv[1])):
    sys.stdout.write(f"{number} " + "x" * (number % 97) + "\\n")
    sys.stdout.flush()
    if number % 500 == 0:
        time.sleep(0.005)
"""
# Opens its log anew at SIGHUP, as the gateway does.
REOPENER = """
import signal, sys, time
log = open(sys.argv[2], "a")
def reopen(*_):
    global due
    due = True
due = False
signal.signal(signal.SIGHUP, reopen)
for number in range(int(sys.argv[1])):
    if due:
        due = False
        log.close()
        log = open(sys.argv[2], "a")
    log.write(f"{number} " + "x" * (number % 97) + "\\n")
    log.flush()
    if number % 500 == 0:
        time.sleep(0.005)
"""


def test_turning_over_in_place_loses_no_line(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    with writing(log, (WRITER, str(LINES))) as writer:
        while writer.poll() is None:
            if is_full(log, LIMITS):
                turn_over_in_place(log, LIMITS)
            time.sleep(0.001)

    assert (tmp_path / "vllm.log.3").exists()
    if not cuts_exactly(tmp_path):
        pytest.skip("this file system cannot cut a file's head off: copy and truncate it is")
    assert numbers(log) == list(range(LINES))


def test_turning_over_by_name_loses_no_line(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    log.touch()
    with writing(tmp_path / "out", (REOPENER, str(LINES), str(log))) as writer:
        turned = 0
        while writer.poll() is None:
            if is_full(log, LIMITS):
                turn_over_by_name(log, LIMITS, reopen=lambda: writer.send_signal(1))
                turned += 1
            time.sleep(0.001)

    assert turned > 1
    assert numbers(log) == list(range(LINES))


def test_old_logs_are_kept_up_to_their_number(tmp_path: Path) -> None:
    log, limits = tmp_path / "sim.log", LogLimits(size_bytes=10, files=2)
    for text in ("first", "second", "third"):
        log.write_text(f"{text} line\n")
        turn_over_in_place(log, limits)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "sim.log",
        "sim.log.1",
        "sim.log.2",
    ]
    assert (tmp_path / "sim.log.1").read_text() == "third line\n"
    assert (tmp_path / "sim.log.2").read_text() == "second line\n"
    assert log.read_text() == ""


def test_full_disk_costs_no_old_log(tmp_path: Path) -> None:
    log = tmp_path / "sim.log"
    log.write_text("new line\n")
    (tmp_path / "sim.log.1").write_text("old line\n")
    # What stands in the way of the copy fails like a full disk.
    (tmp_path / "sim.log.new").mkdir()

    for _ in range(3):
        with pytest.raises(OSError, match="directory"):
            turn_over_in_place(log, LogLimits(size_bytes=1, files=2))

    assert (log.read_text(), (tmp_path / "sim.log.1").read_text()) == ("new line\n", "old line\n")


async def test_watchdog_turns_over_the_gateways_log_and_keeps_every_line(tmp_path: Path) -> None:
    limits = {"WATCHDOG_LOG_BYTES": "8000", "WATCHDOG_LOG_FILES": "200"}
    async with Watched(tmp_path, **limits) as up:
        await up.ready()
        sent = [f"request-{number:03}-mark" for number in range(120)]
        for request_id in sent:
            answer = await up.client.post(
                "/v1/completions",
                headers={"x-request-id": request_id},
                json={"model": "sim-model", "prompt": "hello", "max_tokens": 2},
            )
            assert answer.status_code == 200

    logs = [path for path in (tmp_path / "logs").iterdir() if path.name.startswith("gateway.")]
    text = "".join(path.read_text() for path in logs)
    assert any(path.name.endswith(".1") for path in logs)
    assert [text.count(f'"{request_id}"') for request_id in sent] == [1] * len(sent)


@contextmanager
def writing(output: Path, program: tuple[str, ...]) -> Iterator["subprocess.Popen[bytes]"]:
    """A program whose output is appended to a file."""
    with output.open("ab") as stream:
        process = subprocess.Popen((sys.executable, "-c", *program), stdout=stream)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def numbers(log: Path) -> list[int]:
    """The numbers at the beginning of all lines, of the old files first."""
    count = len(list(log.parent.glob(f"{log.name}.*")))
    files = [log.with_name(f"{log.name}.{number}") for number in range(count, 0, -1)]
    there = [path for path in (*files, log) if path.exists()]
    lines = [line for path in there for line in path.read_text().splitlines()]
    return [int(line.split()[0]) for line in lines if line.strip()]


def cuts_exactly(folder: Path) -> bool:
    """Whether the head of a file can be cut off here: its tail stays then."""
    probe = folder / "probe"
    probe.write_bytes(b"x" * 100_001)
    turn_over_in_place(probe, LIMITS)
    return probe.stat().st_size > 0
