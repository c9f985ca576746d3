"""`make status` and `make stop`: every process shown, ended in order, and nobody else's touched."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from scripts.supervision.kernel import start_time
from tests.harness.gateway import free_port
from tests.scripts.watched import PROCESSES, ROOT, Watched

SLEEP = (sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)")

# A watchdog that is told to leave in the moment in which it starts a program anew.
RESTARTING = f"""
import signal, subprocess, sys
def leave(*_):
    command = ("python3", {str(PROCESSES)!r}, "run", "sim", "--", *{SLEEP!r})
    subprocess.Popen(command, stdout=subprocess.PIPE).stdout.readline()
    sys.exit()
signal.signal(signal.SIGQUIT, leave)
print("here", flush=True)
signal.pause()
"""


async def command(folder: Path, *arguments: str, **settings: str) -> str:
    """What `processes.py` prints in that folder, as under a Python without our environment."""
    process = await asyncio.create_subprocess_exec(
        *("python3", str(PROCESSES), *arguments),
        cwd=folder,
        env={"PATH": os.environ["PATH"], **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return out.decode()


async def started(folder: Path, name: str, *program: str, **settings: str) -> int:
    """The pid of a recorded program that has printed its first line."""
    process = await asyncio.create_subprocess_exec(
        *("python3", str(PROCESSES), "run", name, "--", *program),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **settings},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    async with asyncio.timeout(10):
        await process.stdout.readline()
    return process.pid


def recorded(folder: Path, name: str) -> dict[str, object]:
    record: dict[str, object] = json.loads((folder / f".run/{name}.json").read_text())
    return record


async def test_process_keeps_the_pid_that_was_recorded_for_it(tmp_path: Path) -> None:
    pid = await started(tmp_path, "prometheus", *SLEEP, PROMETHEUS_PORT="19999")

    assert recorded(tmp_path, "prometheus")["pid"] == pid
    status = await command(tmp_path, "status")
    assert f"prometheus    {pid:<8} 19999" in status
    assert status.rstrip().endswith("does not answer")
    assert await command(tmp_path, "stop") == f"stopping prometheus (pid {pid})\n"
    assert await command(tmp_path, "status") == "Nothing runs that `make` started here.\n"


async def test_same_program_is_not_started_twice(tmp_path: Path) -> None:
    pid = await started(tmp_path, "prometheus", *SLEEP)

    said = await command(tmp_path, "run", "prometheus", "--", *SLEEP)

    assert said == f"prometheus runs already (pid {pid}); `make stop` ends it\n"
    await command(tmp_path, "stop")


async def test_healthy_program_is_shown_with_its_port_and_uptime(tmp_path: Path) -> None:
    port = free_port()
    simulator = (sys.executable, "-m", "scripts.simulator", "--port", str(port))
    pid = await started(tmp_path, "sim", *simulator)
    header, row = (await command(tmp_path, "status")).splitlines()
    await command(tmp_path, "stop", "sim")

    assert header.split() == ["NAME", "PID", "PORT", "UP", "RESTARTS", "HEALTH"]
    name, shown_pid, shown_port, up, restarts, health = row.split()
    assert (name, shown_pid, shown_port) == ("sim", str(pid), str(port))
    assert (restarts, health) == ("-", "healthy")
    assert up.endswith("s")


async def test_pid_of_somebody_else_is_neither_shown_nor_ended(tmp_path: Path) -> None:
    bystander = await asyncio.create_subprocess_exec(*SLEEP, stdout=asyncio.subprocess.DEVNULL)
    (tmp_path / ".run").mkdir()
    stale = {"name": "sim", "pid": bystander.pid, "started": "1", "port": 8000}
    (tmp_path / ".run/sim.json").write_text(json.dumps(stale))

    assert "Nothing runs" in await command(tmp_path, "status")
    await command(tmp_path, "stop")

    assert bystander.returncode is None
    assert not (tmp_path / ".run/sim.json").exists()
    bystander.kill()
    await bystander.wait()


async def test_stop_ends_the_watchdog_first_then_the_gateway_then_the_rest(tmp_path: Path) -> None:
    async with Watched(tmp_path, SIM_TTFT="1") as up:
        await up.ready()
        prometheus = await started(tmp_path, "prometheus", *SLEEP)
        answering = asyncio.create_task(up.chat())
        await up.running(1)
        pids = {name: up.pid(name) for name in ("watchdog", "gateway", "sim")}
        said = await up.command("stop")
        answer = await answering
        after = await up.command("status")

    assert said.splitlines() == [
        f"stopping the watchdog (pid {pids['watchdog']})",
        "the gateway ends first; running answers may take DRAIN_SECONDS",
        f"stopping gateway (pid {pids['gateway']})",
        f"stopping prometheus (pid {prometheus})",
        f"stopping sim (pid {pids['sim']})",
    ]
    assert answer.status_code == 200
    assert "starting it again" not in up.log
    assert after == "Nothing runs that `make` started here.\n"
    assert not list((tmp_path / ".run").glob("*.json"))


async def test_stop_finds_what_the_watchdog_started_last(tmp_path: Path) -> None:
    watchdog = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RESTARTING), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert watchdog.stdout
    await watchdog.stdout.readline()
    (tmp_path / ".run").mkdir()
    own = {"name": "watchdog", "pid": watchdog.pid, "started": start_time(watchdog.pid), "port": 0}
    (tmp_path / ".run/watchdog.json").write_text(json.dumps(own))

    said = await command(tmp_path, "stop")

    assert "stopping sim" in said
    assert await command(tmp_path, "status") == "Nothing runs that `make` started here.\n"
    await watchdog.wait()


async def test_stop_of_one_program_is_a_restart_under_the_watchdog(tmp_path: Path) -> None:
    async with Watched(tmp_path) as up:
        await up.ready()
        gone = up.pid("sim")
        said = await up.command("stop", "sim")
        await up.said("sim is up", times=2)

        assert f"the watchdog (pid {up.pid('watchdog')}) will start again what it keeps" in said
        assert up.pid("sim") != gone


async def test_watchdog_that_does_not_react_is_killed(tmp_path: Path) -> None:
    async with Watched(tmp_path, "--vllm=sim", "--exporter=off") as up:
        await up.said("sim is up")
        os.kill(up.watchdog.pid, signal.SIGSTOP)
        started_at = time.monotonic()
        said = await up.command("stop")

        assert f"stopping sim (pid {up.pid('sim') or ''}" in said
        assert time.monotonic() - started_at < 20
        assert await up.watchdog.wait() == -signal.SIGKILL


async def test_nothing_is_cleaned_from_under_a_running_program(tmp_path: Path) -> None:
    await started(tmp_path, "prometheus", *SLEEP)
    (tmp_path / ".bench").mkdir()

    assert await command(tmp_path, "clean") == "prometheus runs from here: `make stop` first\n"
    await command(tmp_path, "stop")
    assert await command(tmp_path, "clean") == ""
    assert list(tmp_path.iterdir()) == []
