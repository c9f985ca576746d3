"""`make gateway-cluster`: everything starts, is one, and leaves nothing behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from tests.harness.gateway import free_port
from tests.harness.programs import installed

ROOT = Path(__file__).parents[2]


async def test_a_cluster_starts_shows_one_set_of_books_and_ends_with_all_it_started() -> None:
    installed("redis-server", package="redis-server")
    installed("nginx", package="nginx-light")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.cluster", "--port", str(free_port())),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            said = await process.stdout.readuntil(b"running until")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 5
        assert said.count(b'"requests": 1,') >= 2  # Each gateway knows of the one call.
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.stdout.read()
            code = await process.wait()
    assert code == 0
    assert not [child for child in children if child.is_running()]
