"""What the Makefile started: run with a record of the pid, show status, stop, clean.

Standard library only: it runs before there is an environment. A record names the process by pid
and start time, so that a pid which the system has given to somebody else meanwhile is never taken
for ours.
"""

import os
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

if not __package__:
    # Started by its path: `scripts` is a package of the root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.supervision.duration import duration
from scripts.supervision.ending import end
from scripts.supervision.kernel import start_time
from scripts.supervision.probe import look
from scripts.supervision.record import (
    RUN_DIRECTORY,
    STATE_FILE,
    WATCHDOG,
    Phase,
    Record,
    Standing,
    living,
    records,
    standings,
)
from scripts.supervision.services import SERVICES, port_of, url_of
from scripts.supervision.settings import gateway_stop_seconds

PROBE_SECONDS = 2.0
LEAVE_SECONDS = 3.0
MADE_HERE = (
    ".venv",
    ".vllm-cpu",
    ".run",
    ".bench",
    ".tools",
    ".triton_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".import_linter_cache",
    ".hypothesis",
    "*.egg-info",
)


def run(name: str, command: list[str], *, port: int, supervised: bool = False) -> None:
    """Record this process, then become the command: the pid stays the same."""
    RUN_DIRECTORY.mkdir(exist_ok=True)
    own = Record(name, os.getpid(), start_time(os.getpid()), port, supervised)
    earlier = living().get(name)
    if earlier and earlier.pid != own.pid:
        sys.exit(f"{name} runs already (pid {earlier.pid}); `make stop` ends it")
    own.write()
    try:
        os.execvp(command[0], command)
    except OSError as fault:
        own.path.unlink()
        sys.exit(f"{name}: cannot run {command[0]}: {fault.strerror}")


def status() -> None:
    """A line for each process, and for what should run and does not."""
    alive = living()
    told = standings()
    missing = {name for name in told if name not in alive}
    if WATCHDOG not in alive:
        # Without a watchdog nothing is about to start; what stayed down is still worth telling.
        missing = {name for name in missing if told[name].phase == Phase.DOWN}
    if not alive and not missing:
        print("Nothing runs that `make` started here.")
        return
    print(f"{'NAME':<13} {'PID':<8} {'PORT':<6} {'UP':<8} {'RESTARTS':<9} HEALTH")
    for name in sorted({*alive, *missing}, key=lambda name: (name != WATCHDOG, name)):
        record, standing = alive.get(name), told.get(name)
        pid = record.pid if record else "-"
        port = (record.port if record else standing.port if standing else 0) or "-"
        up = duration(record.uptime_seconds) if record else "-"
        restarts = standing.restarts if standing else "-"
        print(f"{name:<13} {pid:<8} {port:<6} {up:<8} {restarts:<9} {health(record, standing)}")
    if WATCHDOG not in alive and any(record.supervised for record in alive.values()):
        print("Their watchdog is gone; `make up` brings it back and takes them over.")


def health(record: Record | None, standing: Standing | None) -> str:
    """Healthy or the reason, by a look at it now; of what does not run, what the watchdog says."""
    if record is None:
        return f"{standing.phase}: {standing.reason}" if standing else ""
    if record.name == WATCHDOG:
        return f"keeps {', '.join(standings())}"
    url = url_of(record.name, record.port) + SERVICES[record.name].path
    return look(url, timeout_seconds=PROBE_SECONDS).reason or "healthy"


def stop(names: list[str]) -> None:
    """The watchdog first, or it would start again what ends; then the gateway, then the rest.

    The gateway goes before vLLM: what it still answers needs the vLLM behind it.
    """
    watchdog = living().get(WATCHDOG)
    if watchdog and not names:
        leave(watchdog)
    elif watchdog:
        print(f"the watchdog (pid {watchdog.pid}) will start again what it keeps")
    # Only now: until it left, the watchdog may have started something anew.
    mine = [record for record in records() if not names or record.name in names]
    gateways = [record for record in mine if record.name == "gateway"]
    if any(record.is_alive for record in gateways):
        print("the gateway ends first; running answers may take DRAIN_SECONDS", flush=True)
    end_all(gateways)
    end_all([record for record in mine if record.name not in ("gateway", WATCHDOG)])
    if not names:
        STATE_FILE.unlink(missing_ok=True)


def leave(watchdog: Record) -> None:
    """End the watchdog alone; it needs nothing of its own written down, so killing it is safe."""
    print(f"stopping the watchdog (pid {watchdog.pid})", flush=True)
    watchdog.identity.send(signal.SIGQUIT)
    deadline = time.monotonic() + LEAVE_SECONDS
    while watchdog.is_alive and time.monotonic() < deadline:
        time.sleep(0.05)
    if watchdog.is_alive:
        watchdog.identity.send(signal.SIGKILL)
    watchdog.path.unlink(missing_ok=True)


def end_all(mine: list[Record]) -> None:
    """All of them at once, each with the patience that the gateway's drain needs."""
    for record in mine:
        if record.is_alive:
            say(f"stopping {record.name} (pid {record.pid})")
    patience_seconds = gateway_stop_seconds()
    how = partial(end, patience_seconds=patience_seconds, say=say, hurry=Event())
    with ThreadPoolExecutor() as pool:
        list(pool.map(how, mine))


def say(line: str) -> None:
    print(line, flush=True)


def clean() -> None:
    """Remove what the Makefile made, but never from under something that runs."""
    alive = list(living())
    if alive:
        sys.exit(f"{', '.join(alive)} runs from here: `make stop` first")
    for pattern in MADE_HERE:
        for path in Path().glob(pattern):
            shutil.rmtree(path)


def main() -> None:
    match sys.argv[1:]:
        case ["run", "--supervised", name, port, "--", *command] if command and name in SERVICES:
            run(name, command, port=int(port), supervised=True)
        case ["run", name, "--", *command] if command and name in SERVICES:
            run(name, command, port=port_of(name, command))
        case ["status"]:
            status()
        case ["stop", *names]:
            stop(names)
        case ["clean"]:
            clean()
        case _:
            sys.exit("usage: processes.py run NAME -- COMMAND... | status | stop [NAME...] | clean")


if __name__ == "__main__":
    main()
