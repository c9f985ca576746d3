"""The watchdog keeps real programs running: starts, restarts, gives up, ends in order."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.scripts.watched import PROCESSES, Watched


async def test_programs_are_started_shown_and_ended_in_order(tmp_path: Path) -> None:
    async with Watched(tmp_path, "--vllm=sim", "--exporter=2", SIM_TTFT="1.5") as up:
        await up.ready()
        await up.said("gpu-exporter is up")
        status = await up.command("status")
        answering = asyncio.create_task(up.chat())
        await up.running(1)
        up.watchdog.send_signal(signal.SIGTERM)
        code, _ = await up.ended()
        answer = await answering
        after = await up.command("status")

    rows = {row.split()[0]: row for row in status.splitlines()}
    assert list(rows) == ["NAME", "watchdog", "gateway", "gpu-exporter", "sim"]
    assert all(rows[name].endswith("healthy") for name in ("gateway", "gpu-exporter", "sim"))
    assert rows["watchdog"].endswith("keeps sim, gateway, gpu-exporter")
    assert f" {up.gateway_port} " in rows["gateway"]
    # The request that ran when the end was ordered got its answer, from a vLLM that still lived.
    assert answer.status_code == 200
    ends = [up.log.index(f"stopping {name}") for name in ("gateway", "sim", "gpu-exporter")]
    assert min(ends) == ends[0]
    assert code == 0
    assert after == "Nothing runs that `make` started here.\n"


async def test_killed_gateway_is_back_and_the_rest_is_left_alone(tmp_path: Path) -> None:
    async with Watched(tmp_path) as up:
        await up.ready()
        simulator = up.pid("sim")
        gone = up.kill("gateway")
        await up.ready(times=2)
        status = await up.command("status")
        answer = await up.chat()

        assert up.pid("gateway") not in (0, gone)
        assert up.pid("sim") == simulator
        assert "gateway: it was ended by signal 9; starting it again in 0.1 s" in up.log
        gateway = next(row for row in status.splitlines() if row.startswith("gateway"))
        assert gateway.split()[4] == "1"
        assert answer.status_code == 200


async def test_program_that_cannot_live_stays_down_after_its_restarts(tmp_path: Path) -> None:
    with socket.socket() as squatter:
        up = Watched(tmp_path, WATCHDOG_RESTARTS_MAX="2")
        squatter.bind(("127.0.0.1", up.sim_port))
        async with up:
            await up.said("sim STAYS DOWN: exit 1, after 2 restarts in a row; see logs/sim.log")
            await up.said("gateway is up")
            status = await up.command("status")
            up.watchdog.send_signal(signal.SIGTERM)
            code, _ = await up.ended()
            after = await up.command("status")

    assert up.log.count("sim: exit 1; starting it again") == 2
    assert f"port {up.sim_port} cannot be had" in up.log
    for shown in (status, after):
        row = next(row for row in shown.splitlines() if row.startswith("sim"))
        assert "down: exit 1, after 2 restarts in a row" in row
    assert "gateway " in status
    assert code == 1


async def test_configuration_error_is_not_tried_again(tmp_path: Path) -> None:
    options = ("--vllm=none", "--exporter=off")
    async with Watched(tmp_path, *options, DAILY_TOKEN_QUOTA="plenty") as up:
        code, _ = await up.ended()

    assert code == 1
    assert "gateway STAYS DOWN: exit 78: its settings cannot be used" in up.log
    assert "DAILY_TOKEN_QUOTA=plenty" in up.log
    assert "starting it again" not in up.log


async def test_second_watchdog_is_refused(tmp_path: Path) -> None:
    async with Watched(tmp_path) as up:
        await up.ready()
        first = up.watchdog.pid
        await up.start()
        code, said = await up.ended()

        assert code == 1
        assert f"another one runs here (pid {first})" in said
        assert up.pid("watchdog") == first
        assert (await up.chat()).status_code == 200


async def test_program_of_another_terminal_is_not_taken_over(tmp_path: Path) -> None:
    up = Watched(tmp_path)
    simulate = (sys.executable, "-m", "scripts.simulator", "--port", str(up.sim_port))
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROCESSES), "run", "sim", "--", *simulate),
        cwd=tmp_path,
        env=up.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout
    await other.stdout.readline()
    async with up:
        code, said = await up.ended()

    assert code == 1
    assert f"sim runs already (pid {other.pid}), not under a watchdog: `make stop` first" in said
    # Leaving the block stopped it, as the cure says.
    assert await other.wait() == 0


async def test_signals_for_the_gateway_are_passed_on(tmp_path: Path) -> None:
    async with Watched(tmp_path, "--vllm=none", "--exporter=off") as up:
        await up.said("gateway is up")
        gateway, log = up.pid("gateway"), tmp_path / "logs" / "gateway.log"
        for number, effect in (
            (signal.SIGUSR1, "log level changed"),
            (signal.SIGHUP, "log file reopened"),
        ):
            up.watchdog.send_signal(number)
            await up.said(f"{number.name} sent to the gateway")
            async with asyncio.timeout(5):
                while effect not in log.read_text():
                    await asyncio.sleep(0.02)

        assert up.pid("gateway") == gateway


@pytest.mark.parametrize(
    ("option", "setting", "cure"),
    [
        ("--vllm=tpu", {}, "WATCHDOG_VLLM=tpu: must be one of gpu, cpu, sim, none"),
        ("--exporter=maybe", {}, "must be on, off, or how many GPUs to simulate"),
        (
            "--vllm=sim",
            {"WATCHDOG_STALL_SECONDS": "soon"},
            "WATCHDOG_STALL_SECONDS=soon: must be a number of seconds above 0",
        ),
    ],
)
async def test_setting_that_cannot_be_read_is_named(
    tmp_path: Path, option: str, setting: dict[str, str], cure: str
) -> None:
    async with Watched(tmp_path, option, **setting) as up:
        code, said = await up.ended()

    assert code == 78
    assert cure in said
