"""Runs the simulator from the command line until it is told to stop."""

import asyncio
import errno
import os
import signal
import sys

from scripts.simulator.config import SimulatorConfig, from_arguments
from scripts.simulator.simulator import Simulator

try:
    from uvloop import run
except ImportError:
    from asyncio import run  # type: ignore[assignment]  # uvloop's takes one argument more


def main() -> None:
    """Exit 0 on SIGTERM and SIGINT, 2 on a bad argument, 1 without its port or when told to die."""
    config = from_arguments(sys.argv[1:], os.environ)
    try:
        run(serve(config))
    except OSError as fault:
        if fault.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        sys.exit(
            f"simulator: port {config.port} cannot be had ({os.strerror(fault.errno)}): stop what "
            "uses it, or take another: SIM_PORT=8001 make sim (and VLLM_URL=http://127.0.0.1:8001 "
            "for the gateway)"
        )


async def serve(config: SimulatorConfig) -> None:
    """Serve until a signal comes."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Simulator(config, die=_exit_at_once) as simulator:
        models = ", ".join(config.all_models)
        print(f"simulator serving {models} on {simulator.url}", flush=True)
        await stopped.wait()


def _exit_at_once() -> None:
    os._exit(1)


if __name__ == "__main__":
    main()
