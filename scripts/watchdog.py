"""`make up`: keeps vLLM, the gateway and the GPU exporter running, and outlives its own death.

    python scripts/watchdog.py                      # a real vLLM on the GPUs
    python scripts/watchdog.py --vllm=sim --exporter=2

SIGTERM and SIGINT end everything, the gateway first; SIGQUIT ends the watchdog alone. The programs
run in sessions of their own: a new watchdog takes them over. Settings: WATCHDOG_* in
config/.env.example. Exit status: 0; 1 if a program stayed down or another watchdog runs; 78 if
the settings cannot be used.
"""

import argparse
import asyncio
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if not __package__:
    # Started by its path: `scripts` is a package of the root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.supervision.kernel import start_time
from scripts.supervision.programs import LOGS, Program, contradictions, programs
from scripts.supervision.record import RUN_DIRECTORY, WATCHDOG, Record, records
from scripts.supervision.report import Report
from scripts.supervision.settings import SettingsFault, read_settings
from scripts.supervision.supervisor import Supervisor

EXIT_CONFIGURATION = 78
LOCK = RUN_DIRECTORY / "watchdog.lock"


class Refused(Exception):
    """Something runs that must end first; the message says what."""


def main() -> int:
    options = arguments()
    try:
        settings = read_settings(options)
        chosen = programs(settings)
    except SettingsFault as fault:
        print(f"watchdog: {fault}", file=sys.stderr)
        return EXIT_CONFIGURATION
    try:
        with alone():
            earlier = taken_over(chosen)
            report = Report(sys.stdout, LOGS / "watchdog.log")
            report.say(f"watchdog (pid {os.getpid()}) keeps {', '.join(p.name for p in chosen)}")
            for line in contradictions(chosen):
                report.say(f"note: {line}")
            supervisor = Supervisor(chosen, settings, earlier=earlier, report=report)
            return asyncio.run(supervisor.run())
    except Refused as fault:
        print(f"watchdog: {fault}", file=sys.stderr)
        return 1


def arguments() -> dict[str, str]:
    """The options that were given, by the names of their variables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm", default="", help="gpu, cpu, sim or none (WATCHDOG_VLLM)")
    parser.add_argument(
        "--exporter", default="", help="on, off or GPUs to simulate (WATCHDOG_EXPORTER)"
    )
    given = parser.parse_args()
    return {"WATCHDOG_VLLM": given.vllm, "WATCHDOG_EXPORTER": given.exporter}


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock that the kernel gives back however we end. Raises Refused."""
    RUN_DIRECTORY.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            running = {record.name: record.pid for record in records()}
            raise Refused(
                f"another one runs here (pid {running.get(WATCHDOG, 'unknown')}); "
                "`make status` shows it, `make stop` ends it and its programs"
            ) from None
        own = Record(WATCHDOG, os.getpid(), start_time(os.getpid()), 0)
        own.write()
        try:
            yield
        finally:
            own.path.unlink(missing_ok=True)


def taken_over(chosen: list[Program]) -> dict[str, Record]:
    """The records of an earlier watchdog's programs, dead ones too. Raises Refused.

    What `make gateway` and its like started belongs to a terminal: it is not ours to keep.
    """
    ports = {program.name: program.port for program in chosen}
    found = {record.name: record for record in records() if record.name != WATCHDOG}
    for record in found.values():
        if not record.is_alive:
            continue
        if not record.supervised and record.name in ports:
            raise Refused(
                f"{record.name} runs already (pid {record.pid}), not under a watchdog: "
                "`make stop` first"
            )
        if record.supervised and ports.get(record.name) != record.port:
            raise Refused(
                f"{record.name} runs at port {record.port} from an earlier `make up` with other "
                "settings: `make stop` first"
            )
    return {name: record for name, record in found.items() if record.supervised}


if __name__ == "__main__":
    sys.exit(main())
