"""The command line, and the only reader of the environment."""

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from dotenv import dotenv_values

import exporter
from exporter.app import Exporter, Mode, NoGpu
from exporter.logs import Log
from exporter.settings import TABLE, ConfigurationError, Settings

ENV_FILE = Path("config/.env")
EXIT_NO_GPU = 1  # restarting may help: the driver may be there by then
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: restarting will not help
EXIT_INTERRUPTED = 130
SIMULATED_MAX = 16
BACKLOG = 128


def main() -> int:
    options = _command_line().parse_args()
    if options.env_file is not None and not options.env_file.is_file():
        return _refuse([f"--env-file {options.env_file}: there is no such file"])
    env_file = options.env_file or ENV_FILE
    try:
        listed = dotenv_values(env_file)
    except OSError as cause:
        cure = "let this user read it, or start elsewhere"
        return _refuse([f"{env_file}: cannot be read ({cause.strerror}); {cure}"])
    for name, value in listed.items():
        if value is not None:
            os.environ.setdefault(name, value)
    said = {"GPU_EXPORTER_HOST": options.host, "GPU_EXPORTER_PORT": options.port}
    environ = os.environ | {name: value for name, value in said.items() if value is not None}
    try:
        settings = Settings.from_env(environ)
    except ConfigurationError as error:
        return _refuse(error.faults)
    mode = Mode(simulated_gpus=options.simulate, requires_gpu=options.require_gpu)
    return _serve(settings, mode)


def _serve(settings: Settings, mode: Mode) -> int:
    log = Log(level=settings.log_level, form=settings.log_format)
    for warning in settings.warnings:
        log.warning("settings", what=warning)
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as cause:
        where = f"GPU_EXPORTER_HOST={settings.host} GPU_EXPORTER_PORT={settings.port}"
        # Python adds the address in brackets, which stands there already.
        reason = (cause.strerror or str(cause)).partition(" (")[0]
        cure = "stop what uses the port, or choose another"
        return _refuse([f"{where}: cannot listen there ({reason}); {cure}"])
    host, port = listener.getsockname()[:2]
    about = {"version": exporter.__version__, "host": host, "port": port, "pid": os.getpid()}
    log.info("GPU exporter is starting", simulated=mode.simulated_gpus, **about)
    try:
        asyncio.run(Exporter(settings, mode, log=log).run(listener))
    except NoGpu as fault:
        log.error("cannot start", fault=str(fault))  # noqa: TRY400  a trace tells nothing more
        return EXIT_NO_GPU
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    log.info("GPU exporter has ended")
    return 0


def _command_line() -> argparse.ArgumentParser:
    line = argparse.ArgumentParser(
        prog="python -m exporter",
        description="GPU metrics for Prometheus. Settings: the environment, then config/.env.",
        epilog="Settings: " + ", ".join(setting.name for setting in TABLE),
    )
    line.add_argument("--host", help="address to listen on (GPU_EXPORTER_HOST)")
    line.add_argument("--port", help="port to listen on (GPU_EXPORTER_PORT)")
    line.add_argument(
        "--simulate",
        metavar="N",
        type=int,
        choices=range(1, SIMULATED_MAX + 1),
        default=0,
        help=f"show N simulated H200s instead of real GPUs (1 to {SIMULATED_MAX})",
    )
    line.add_argument(
        "--require-gpu", action="store_true", help="end with exit code 1 if no GPU is found"
    )
    line.add_argument(
        "--env-file", type=Path, help="settings file; variables already set win over it"
    )
    line.add_argument("--version", action="version", version=exporter.__version__)
    return line


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _refuse(faults: Iterable[str]) -> int:
    told = list(faults)
    with contextlib.suppress(BrokenPipeError):
        print(f"{len(told)} fault(s) in the configuration:", file=sys.stderr)  # noqa: T201
        for fault in told:
            print(f"  {fault}", file=sys.stderr)  # noqa: T201  no log yet: they may be its settings
    return EXIT_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
