"""The stack without Docker: a Prometheus of this machine, and its Alertmanager if there is one."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts import processes
from scripts.stack import receiver
from scripts.stack.alertlog import AlertLog
from scripts.stack.ports import holder, is_taken
from scripts.stack.targets import write_targets
from scripts.supervision.environment import setting

TOOLS = Path(".tools")
PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", str(TOOLS / "usr/bin"))
HOME = Path("monitoring/prometheus")
STORAGE = Path("data/prometheus")
ALERTMANAGER_PORT = 9093
STOP_SECONDS = 10
FETCH_SECONDS = 300
LOOK_SECONDS = 5
EXIT_INTERRUPTED = 130
# At a closed terminal's SIGHUP both programs would only read their configuration again.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PAGES = Path("/usr/share/prometheus/web")
FETCH = "python3 scripts/monitoring.py fetch"


def run() -> None:
    """Run in the foreground until a signal or `make stop` ends it; exits with its status."""
    prometheus = found("prometheus") or _offered()
    port = int(setting("PROMETHEUS_PORT") or 9090)
    if is_taken(port):
        sys.exit(f"Port {port} is taken by {holder(port)}: stop it, or set PROMETHEUS_PORT.")

    for number in ENDING:
        # Not the default, which would leave behind what has been started by then.
        signal.signal(number, lambda *_: sys.exit(EXIT_INTERRUPTED))
    with alertmanager_running() as parts:
        write_targets(HOME / "targets", parts={"prometheus": f"127.0.0.1:{port}", **parts})
        STORAGE.mkdir(parents=True, exist_ok=True)
        command = (
            str(Path(prometheus).absolute()),
            f"--config.file={HOME / 'prometheus.yml'}",
            f"--storage.tsdb.path={STORAGE}",
            "--storage.tsdb.retention.time=15d",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        )
        url = f"http://127.0.0.1:{port}"
        print(f"Prometheus     {url}   {_pages(prometheus)}")
        print("Ctrl-C or `make stop` ends it; what it stored stays in data/prometheus.", flush=True)
        recorded = (sys.executable, processes.__file__, "run", "prometheus", "--", *command)
        child = subprocess.Popen(recorded)
        for number in ENDING:
            signal.signal(number, lambda *_: child.terminate())
        status = _told_of_alerts(child, AlertLog(url))
    sys.exit(max(status, 0))


def fetch() -> None:
    """Debian's packages, unpacked into .tools/ without root."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        sys.exit("This needs Debian's apt-get and dpkg; otherwise put a `prometheus` on the PATH.")
    TOOLS.mkdir(exist_ok=True)
    for package in ("prometheus", "prometheus-alertmanager"):
        try:
            subprocess.run(
                ("apt-get", "download", package), cwd=TOOLS, check=True, timeout=FETCH_SECONDS
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            sys.exit(f"{package} could not be downloaded; `apt-get update` may help (as root).")
        for archive in TOOLS.glob(f"{package}_*.deb"):
            subprocess.run(("dpkg", "-x", str(archive), str(TOOLS)), check=True)
            archive.unlink()
    print("Prometheus and Alertmanager are in .tools/usr/bin.")


def found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(PLACES))


def _told_of_alerts(child: subprocess.Popen[bytes], alerts: AlertLog) -> int:
    """The exit code of `child`; until then alerts are told as they come and go."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(LOOK_SECONDS)
        for line in alerts.changes():
            print(line, flush=True)


def _pages(program: str) -> str:
    """Debian's Prometheus has its pages outside of itself, where only its package puts them."""
    if TOOLS in Path(program).parents and not PAGES.exists():
        return "without pages, which need the installed package; its API and rules work"
    return "with its alerts, targets and queries"


def _offered() -> str:
    """A Prometheus that is fetched now if the operator says yes; else says how to get one."""
    if shutil.which("apt-get") is None:
        sys.exit("There is no `prometheus` here: install it (https://prometheus.io/download/).")
    if sys.stdin.isatty():
        question = "No `prometheus` here. Unpack Debian's into .tools/, without root? [y/N] "
        if input(question).strip().lower() in ("y", "yes"):
            fetch()
    if program := found("prometheus"):
        return program
    sys.exit(
        "There is no `prometheus` on this machine. As root: apt-get install prometheus\n"
        f"Without root: {FETCH}"
    )


@contextlib.contextmanager
def alertmanager_running() -> Iterator[dict[str, str]]:
    """Its address by job name while it runs; nothing where there is none or its port is taken."""
    program = found("prometheus-alertmanager") or found("alertmanager")
    if program is None:
        print(
            "Alertmanager   none on this machine: alerts are shown by Prometheus, nobody is called"
        )
        yield {}
        return
    if is_taken(ALERTMANAGER_PORT):
        print(f"Alertmanager   not started: port 9093 is taken by {holder(ALERTMANAGER_PORT)}")
        yield {}
        return
    config = receiver.chosen()
    storage = Path("data/alertmanager")
    storage.mkdir(parents=True, exist_ok=True)
    command = (
        program,
        f"--config.file={receiver.rendered(config, into=Path('.run/alertmanager.yml'))}",
        f"--storage.path={storage}",
        f"--web.listen-address=127.0.0.1:{ALERTMANAGER_PORT}",
        "--cluster.listen-address=",
        "--log.level=warn",
    )
    child = subprocess.Popen(command)
    print(f"Alertmanager   http://127.0.0.1:9093   alerts are {receiver.described(config)}")
    try:
        yield {"alertmanager": f"127.0.0.1:{ALERTMANAGER_PORT}"}
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
