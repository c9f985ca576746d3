"""What the Makefile started: run with a record of the pid, show status, stop, clean.

Standard library only: it runs before there is an environment. A record names the process by pid
and start time, so that a pid which the system has given to somebody else meanwhile is never taken
for ours.
"""

import json
import os
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

RUN_DIRECTORY = Path(".run")
DRAIN_SECONDS = 30.0
BEYOND_DRAIN_SECONDS = 15.0
KILL_SECONDS = 5.0
PROBE_SECONDS = 2.0
# Where each target listens when nobody says otherwise, and what tells that it is well.
SERVICES = {
    "gateway": ("GATEWAY_PORT", 8080, "/ready"),
    "vllm": ("VLLM_PORT", 8000, "/health"),
    "vllm-cpu": ("VLLM_PORT", 8000, "/health"),
    "sim": ("SIM_PORT", 8000, "/health"),
    "gpu-exporter": ("GPU_EXPORTER_PORT", 9101, "/health"),
    "prometheus": ("PROMETHEUS_PORT", 9090, "/-/ready"),
}
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


@dataclass(frozen=True)
class Record:
    """One process: `started` is the kernel's start time in clock ticks since boot."""

    name: str
    pid: int
    started: str
    port: int

    @property
    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started

    @property
    def path(self) -> Path:
        return RUN_DIRECTORY / f"{self.name}.json"


def start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat, or empty when there is no such process (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def records() -> list[Record]:
    found = []
    for path in sorted(RUN_DIRECTORY.glob("*.json")):
        try:
            found.append(Record(**json.loads(path.read_text())))
        except (ValueError, TypeError):
            path.unlink()
    return found


def run(name: str, command: list[str]) -> None:
    """Record this process, then become the command: the pid stays the same."""
    RUN_DIRECTORY.mkdir(exist_ok=True)
    for record in records():
        if record.name == name and record.is_alive:
            sys.exit(f"{name} runs already (pid {record.pid}); `make stop` ends it")
    record = Record(name, os.getpid(), start_time(os.getpid()), port_of(name, command))
    record.path.write_text(json.dumps(vars(record)))
    try:
        os.execvp(command[0], command)
    except OSError as fault:
        record.path.unlink()
        sys.exit(f"{name}: cannot run {command[0]}: {fault.strerror}")


def port_of(name: str, command: list[str]) -> int:
    """The port the command says, else the one in the environment or config/.env, else the usual."""
    variable, usual, _ = SERVICES[name]
    if "--port" in command[:-1]:
        return int(command[command.index("--port") + 1])
    text = setting(variable)
    return int(text) if text.isdigit() else usual


def setting(variable: str) -> str:
    return os.environ.get(variable) or from_env_file(variable)


def from_env_file(variable: str) -> str:
    try:
        lines = Path("config/.env").read_text().splitlines()
    except OSError:
        return ""
    values = [line.partition("=")[2].strip() for line in lines if line.startswith(f"{variable}=")]
    return values[-1].strip("'\"") if values else ""


def status() -> None:
    alive = [record for record in records() if record.is_alive]
    if not alive:
        print("Nothing runs that `make` started here.")
        return
    for record in alive:
        print(f"{record.name:<10} pid {record.pid:<8} port {record.port:<6} {health(record)}")


def health(record: Record) -> str:
    url = f"http://{host_of(record)}:{record.port}{SERVICES[record.name][2]}"
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS):
            return "healthy"
    except urllib.error.HTTPError as answer:
        return f"not ready ({answer.code}): {reasons(answer.read())}"
    except OSError:
        return "does not answer"


def host_of(record: Record) -> str:
    """Where to ask: GATEWAY_HOST for the gateway, loopback for "every interface"."""
    host = setting("GATEWAY_HOST") if record.name == "gateway" else ""
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def reasons(body: bytes) -> str:
    try:
        return "; ".join(json.loads(body)["reasons"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def stop(names: list[str]) -> None:
    """The gateway first: what it still answers needs the vLLM behind it. Then the rest."""
    mine = [record for record in records() if not names or record.name in names]
    gateways = [record for record in mine if record.name == "gateway"]
    if any(record.is_alive for record in gateways):
        print("the gateway ends first; running answers may take DRAIN_SECONDS")
    end(gateways)
    end([record for record in mine if record.name != "gateway"])


def end(mine: list[Record]) -> None:
    """SIGTERM, then SIGKILL to what is still there after a drain."""
    for record in mine:
        if record.is_alive:
            print(f"stopping {record.name} (pid {record.pid})", flush=True)
            os.kill(record.pid, signal.SIGTERM)
    for record in mine:
        if not ends_within(record, stop_seconds()):
            print(f"{record.name} (pid {record.pid}) did not end: killing it", flush=True)
            os.kill(record.pid, signal.SIGKILL)
            ends_within(record, KILL_SECONDS)
        record.path.unlink(missing_ok=True)


def stop_seconds() -> float:
    """Longer than the gateway's drain, whatever it is set to."""
    try:
        drain_seconds = float(setting("DRAIN_SECONDS") or DRAIN_SECONDS)
    except ValueError:
        drain_seconds = DRAIN_SECONDS
    return drain_seconds + BEYOND_DRAIN_SECONDS


def clean() -> None:
    """Remove what the Makefile made, but never from under something that runs."""
    alive = [record.name for record in records() if record.is_alive]
    if alive:
        sys.exit(f"{', '.join(alive)} runs from here: `make stop` first")
    for pattern in MADE_HERE:
        for path in Path().glob(pattern):
            shutil.rmtree(path)


def ends_within(record: Record, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while record.is_alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def main() -> None:
    match sys.argv[1:]:
        case ["run", name, "--", *command] if command and name in SERVICES:
            run(name, command)
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
