"""`make monitoring`, `make monitoring-down` and `make monitoring-native`, as processes."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from scripts.stack.alertlog import AlertLog
from scripts.stack.ports import holder
from tests.harness.gateway import free_port
from tests.harness.programs import unpacked

SCRIPT = Path("scripts/monitoring.py").resolve()
PROCESSES = Path("scripts/processes.py").resolve()
SECONDS = 30.0
# A `docker` that writes down what it was asked and says yes, but for one question.
STAND_IN = """#!/bin/sh
echo "$@" >> {log}
case "$*" in "{no}"*) exit 1 ;; esac
case "$*" in "ps -q"*) echo "{running}" ;; esac
exit 0
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of what the script reads, so that nothing is written into the checkout."""
    shutil.copytree("monitoring", tmp_path / "monitoring", ignore=shutil.ignore_patterns(".env"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def stand_in(home: Path, *, refuses: str = "nothing", running: str = "") -> None:
    program = home / "bin/docker"
    program.write_text(STAND_IN.format(log=home / "asked", no=refuses, running=running))
    program.chmod(0o755)


async def run(home: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code, and what was said on either stream."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), *arguments),
        cwd=home,
        env={"PATH": str(home / "bin"), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(SECONDS):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_without_docker_it_says_so_and_names_the_other_way(home: Path) -> None:
    code, said = await run(home, "up")
    assert code == 1
    assert "there is no `docker` on this machine" in said
    assert "make monitoring-native" in said


@pytest.mark.parametrize(
    ("refuses", "reason"),
    [("compose version", "compose plugin is not installed"), ("info", "daemon does not answer")],
)
async def test_what_is_missing_of_docker_is_named(home: Path, refuses: str, reason: str) -> None:
    stand_in(home, refuses=refuses)
    code, said = await run(home, "up")
    assert code == 1
    assert reason in said


async def test_a_taken_port_is_told_with_its_holder_before_anything_starts(home: Path) -> None:
    stand_in(home)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        code, said = await run(home, "up", PROMETHEUS_PORT=port)
    assert code == 1
    assert f"{port}" in said
    assert f"(pid {os.getpid()})" in said
    assert "compose --project-directory" not in (home / "asked").read_text()


def test_a_holder_with_a_name_that_is_no_text_is_told_all_the_same() -> None:
    named = "open('/proc/self/comm', 'wb').write(b'caf\\xe9\\x1b[2J')"
    listening = "import socket; s = socket.create_server(('127.0.0.1', 0))"
    program = f"{named}; {listening}; print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen(
        (sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        port = int(process.stdout.readline())
        said = holder(port)
        process.stdin.close()
    assert said == f"caf\N{REPLACEMENT CHARACTER}?[2J (pid {process.pid})"


async def test_up_makes_a_password_once_keeps_it_private_and_never_prints_it(home: Path) -> None:
    stand_in(home, running="a container of ours")
    code, said = await run(home, "up")
    kept = (home / "monitoring/.env").read_text()
    password = kept.partition("=")[2].strip()

    assert code == 0
    assert "monitoring/.env" in said
    assert len(password) >= 32
    assert password not in said + (home / "asked").read_text()
    assert stat.S_IMODE((home / "monitoring/.env").stat().st_mode) == 0o600
    await run(home, "up")
    assert (home / "monitoring/.env").read_text() == kept


async def test_up_waits_for_health_and_a_part_that_stays_ill_is_a_failure(home: Path) -> None:
    stand_in(home, running="a container of ours")
    await run(home, "up")
    assert "up -d --remove-orphans --wait" in (home / "asked").read_text()

    compose = "compose --project-directory monitoring -f monitoring/compose.yaml up"
    stand_in(home, refuses=compose, running="a container of ours")
    code, said = await run(home, "up")
    assert code == 1
    assert "Not every part became healthy" in said


async def test_a_second_up_lets_changed_rules_and_receivers_count(home: Path) -> None:
    stand_in(home, running="a container of ours")
    await run(home, "up")
    assert (home / "asked").read_text().endswith("kill --signal HUP prometheus alertmanager\n")


async def test_down_keeps_the_volumes(home: Path) -> None:
    stand_in(home)
    code, _ = await run(home, "down")
    asked = (home / "asked").read_text().splitlines()
    assert code == 0
    assert asked[-1].endswith("compose.yaml down")


async def test_targets_follow_the_settings(home: Path) -> None:
    stand_in(home, running="a container of ours")
    await run(
        home,
        "up",
        METRICS_PORT="8099",
        VLLM_URL="http://127.0.0.1:8000, https://gpu.example.org/v",
        MONITORING_TARGET_HOST="host.docker.internal",
    )
    folder = home / "monitoring/prometheus/targets"

    assert _targets(folder / "gateway.json") == [("host.docker.internal:8099", {})]
    elsewhere = {"__scheme__": "https", "__metrics_path__": "/v/metrics"}
    assert _targets(folder / "vllm.json") == [
        ("host.docker.internal:8000", {}),
        ("gpu.example.org:443", elsewhere),
    ]
    assert {labels["job"] for _, labels in _targets(folder / "stack.json")} == {
        *("prometheus", "alertmanager", "loki", "jaeger", "alloy")
    }


async def test_an_operators_receiver_wins(home: Path) -> None:
    stand_in(home, running="a container of ours")
    folder = home / "monitoring/alertmanager"
    assert "shown only" in (await run(home, "up"))[1]
    (folder / "webhook_url").write_text("http://127.0.0.1:9/secret-path\n")
    said = (await run(home, "up"))[1]
    assert "posted to the URL" in said
    assert "secret-path" not in said
    (folder / "own.yml").write_text("route: {receiver: me}\n")
    assert "own.yml" in (await run(home, "up"))[1]


async def test_native_without_a_prometheus_says_how_to_get_one(home: Path) -> None:
    (home / "bin/apt-get").symlink_to(sys.executable)
    code, said = await run(home, "native")
    if code == 0 or "taken by" in said:
        pytest.skip("there is a prometheus in a system folder here")
    assert "apt-get install prometheus" in said
    assert "monitoring.py fetch" in said


async def test_native_runs_the_same_rules_until_make_stop(home: Path) -> None:
    (home / "bin/prometheus").symlink_to(unpacked("prometheus", package="prometheus"))
    alertmanager = unpacked("prometheus-alertmanager", package="prometheus-alertmanager")
    (home / "bin/prometheus-alertmanager").symlink_to(alertmanager)
    port = free_port()
    native = asyncio.create_task(run(home, "native", PROMETHEUS_PORT=str(port)))
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        await _until_ready(client, native)
        groups = (await client.get("/api/v1/rules")).json()["data"]["groups"]
    names = {rule["name"] for group in groups for rule in group["rules"]}
    assert {"Watchdog", "TargetDown", "GpuLost", "KeyNearQuota"} <= names

    assert "healthy" in await _processes(home, "status")
    await _processes(home, "stop", "prometheus")
    code, said = await native
    assert code == 0
    assert url in said
    assert "Alertmanager" in said


async def test_native_ends_with_the_terminal_and_leaves_nobody_behind(home: Path) -> None:
    (home / "bin/prometheus").symlink_to(unpacked("prometheus", package="prometheus"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), "native"),
        cwd=home,
        env={"PATH": str(home / "bin"), "PROMETHEUS_PORT": str(free_port())},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    async with asyncio.timeout(SECONDS):
        while "Ctrl-C" not in (await process.stdout.readline()).decode():
            pass
        while "prometheus" not in await _processes(home, "status"):
            await asyncio.sleep(0.05)
        os.killpg(process.pid, signal.SIGHUP)
        await process.wait()

    assert await _processes(home, "status") == "Nothing runs that `make` started here.\n"


async def test_native_tells_which_alerts_begin_and_which_are_over() -> None:
    firing: list[dict[str, object]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"data": {"alerts": firing}}).encode()
        writer.write(b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    def fires(name: str, severity: str, *, state: str = "firing") -> None:
        labels = {"alertname": name, "severity": severity}
        told = {"summary": "so it is", "runbook": f"RUNBOOK.md#{name.lower()}"}
        firing.append({"labels": labels, "state": state, "annotations": told})

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        alerts = AlertLog(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        fires("Watchdog", "none")
        fires("GpuLost", "critical")
        fires("TargetDown", "critical", state="pending")
        firing.append({"labels": {"alertname": "Own"}, "state": "firing", "annotations": {}})
        began, own = await asyncio.to_thread(alerts.changes)
        nothing_new = await asyncio.to_thread(alerts.changes)
        firing.clear()
        over, own_over = await asyncio.to_thread(alerts.changes)

    assert began.endswith("critical  GpuLost: so it is (RUNBOOK.md#gpulost)")
    assert nothing_new == []
    assert over.endswith("over      GpuLost: so it is")
    # A rule of the operator's own, that says no more than its name.
    assert own.endswith("fires     Own")
    assert own_over.endswith("over      Own")


async def _until_ready(client: httpx2.AsyncClient, native: asyncio.Task[tuple[int, str]]) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            assert not native.done(), native.result()
            try:
                if (await client.get("/-/ready")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.1)


async def _processes(home: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROCESSES), *arguments),
        cwd=home,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        said, _ = await process.communicate()
    return said.decode()


def _targets(path: Path) -> list[tuple[str, dict[str, str]]]:
    groups = json.loads(path.read_text())
    return [(address, group["labels"]) for group in groups for address in group["targets"]]
