"""The programs of `make up`: how each is started, asked for its health, and ended."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from scripts.supervision.engine import Engine, NoEngine, VllmEngine, vllm_sample
from scripts.supervision.environment import setting
from scripts.supervision.services import LOOPBACK, SERVICES, environment_without, port_of, url_of
from scripts.supervision.settings import SettingsFault, WatchdogSettings, gateway_stop_seconds

SCRIPTS = Path(__file__).resolve().parents[1]
LOGS = Path("logs")
GPU_MARKS = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version"))
NO_CHOICE = """\
no NVIDIA GPU was found, so say which vLLM to run behind the gateway:
  make up ARGS=--vllm=sim     a simulator that answers nonsense at once
  make up ARGS=--vllm=cpu     a real vLLM on the CPU with a tiny random model
  make up ARGS=--vllm=none    none: it runs elsewhere (VLLM_URL)
  make up ARGS=--vllm=gpu     a real vLLM on GPUs all the same
or set WATCHDOG_VLLM in config/.env"""


@dataclass(frozen=True, slots=True)
class Program:
    """What the watchdog keeps running.

    `output` takes stdout and stderr. `own_log` is written by the program itself, which opens it
    anew at SIGHUP; then `output` has only what goes wrong beside it. `alive_path` failing is a
    reason to restart, `ready_path` is for people.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    output: Path
    own_log: Path | None
    alive_path: str
    ready_path: str
    stop_seconds: float
    engine: Engine

    @property
    def url(self) -> str:
        return url_of(self.name, self.port)

    @property
    def log(self) -> Path:
        """What a person reads first."""
        return self.own_log or self.output


def programs(settings: WatchdogSettings) -> list[Program]:
    """In the order they are started. Raises SettingsFault.

    The gateway does not wait for vLLM: it starts without one, says so on /ready, and serves keys
    and usage in the minutes in which a model is loaded.
    """
    chosen = [_gateway()]
    vllm = settings.vllm or _found_vllm()
    if vllm != "none":
        chosen.insert(0, _vllm(vllm, settings))
    if settings.exporter != "off":
        chosen.append(_exporter(settings))
    return chosen


def contradictions(chosen: list[Program]) -> list[str]:
    """What an operator should know about programs that do not fit together."""
    urls = _vllm_urls()
    ports = {urlsplit(url.strip()).port or 80 for url in urls.split(",")}
    return [
        f"{program.name} listens on port {program.port}, which VLLM_URL={urls} does not name: "
        f"set VLLM_URL=http://{LOOPBACK}:{program.port}"
        for program in chosen
        if program.name in _VLLM_NAMES.values() and program.port not in ports
    ]


def _found_vllm() -> str:
    if shutil.which("nvidia-smi") or any(mark.exists() for mark in GPU_MARKS):
        return "gpu"
    raise SettingsFault(NO_CHOICE)


def _gateway() -> Program:
    own_log = Path(setting("LOG_FILE") or LOGS / "gateway.log").absolute()
    return Program(
        name="gateway",
        command=(sys.executable, "-m", "gateway", "serve"),
        environment=environment_without() | {"LOG_FILE": str(own_log)},
        port=port_of("gateway"),
        output=LOGS / "gateway.err",
        own_log=own_log,
        alive_path="/health",
        ready_path="/ready",
        stop_seconds=gateway_stop_seconds(),
        engine=NoEngine(),
    )


_VLLM_NAMES = {"gpu": "vllm", "cpu": "vllm-cpu", "sim": "sim"}


def _vllm(choice: str, settings: WatchdogSettings) -> Program:
    name = _VLLM_NAMES[choice]
    port = port_of(name)
    commands = {
        "gpu": (str(SCRIPTS / "launch_vllm.sh"),),
        "cpu": (sys.executable, str(SCRIPTS / "vllm_cpu.py"), "serve", "--port", str(port)),
        "sim": (sys.executable, "-m", "scripts.simulator", "--port", str(port)),
    }
    # vLLM itself reads VLLM_PORT as the base of its internal ports; launch_vllm.sh knows that.
    environment = environment_without() if choice == "gpu" else environment_without("VLLM_PORT")
    sample = partial(
        vllm_sample,
        vllm=url_of(name, port),
        gateway_metrics=_gateway_metrics(),
        upstreams=_upstream_names(port),
    )
    return Program(
        name=name,
        command=commands[choice],
        environment=environment,
        port=port,
        output=LOGS / f"{name}.log",
        own_log=None,
        alive_path="/health",
        ready_path="/health",
        stop_seconds=settings.patience.stop_seconds,
        engine=VllmEngine(sample),
    )


def _upstream_names(port: int) -> tuple[str, ...]:
    """What the gateway calls the vLLM at this port of ours in its metrics: VLLM_URL's host part."""
    urls = (urlsplit(url.strip()) for url in _vllm_urls().split(","))
    local = (LOOPBACK, "localhost", "::1")
    return tuple(
        f"{url.netloc}{url.path.rstrip('/')}"
        for url in urls
        if url.hostname in local and url.port == port
    )


def _vllm_urls() -> str:
    return setting("VLLM_URL") or f"http://{LOOPBACK}:8000"


def _gateway_metrics() -> str:
    port = setting("METRICS_PORT")
    return url_of("gateway", int(port) if port.isdecimal() else port_of("gateway")) + "/metrics"


def _exporter(settings: WatchdogSettings) -> Program:
    simulated = () if settings.exporter == "on" else ("--simulate", settings.exporter)
    path = SERVICES["gpu-exporter"].path
    return Program(
        name="gpu-exporter",
        command=(sys.executable, "-m", "exporter", *simulated),
        environment=environment_without(),
        port=port_of("gpu-exporter"),
        output=LOGS / "gpu-exporter.log",
        own_log=None,
        alive_path=path,
        ready_path=path,
        stop_seconds=settings.patience.stop_seconds,
        engine=NoEngine(),
    )
