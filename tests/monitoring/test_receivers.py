"""Who hears of an alert, and what a greater trouble mutes: a real Alertmanager and its amtool."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.harness.gateway import free_port
from tests.harness.programs import installed

FOLDER = Path("monitoring/alertmanager")
START_SECONDS = 20.0
VLLM = {"job": "vllm", "instance": "gpu1:8000"}


@asynccontextmanager
async def running(config: str, folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """An Alertmanager of this configuration and a client at its root."""
    # Its templates lie where the package puts them.
    program = installed("prometheus-alertmanager", package="prometheus-alertmanager")
    port = free_port()
    (folder / "alertmanager.yml").write_text(config)
    log = (folder / "alertmanager.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        stdout=log,
        stderr=log,
    )
    log.close()
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
            async with asyncio.timeout(START_SECONDS):
                while not await _is_ready(client):
                    await asyncio.sleep(0.05)
            yield client
    finally:
        process.terminate()
        await process.wait()


async def _is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/-/ready")).status_code == 200
    except httpx2.TransportError:
        return False


async def muted(client: httpx2.AsyncClient, *fired: Mapping[str, str]) -> set[str]:
    """Which of these alerts nobody hears of once all of them have come."""
    answer = await client.post("/api/v2/alerts", json=[{"labels": dict(one)} for one in fired])
    answer.raise_for_status()
    async with asyncio.timeout(START_SECONDS):
        while True:
            known = (await client.get("/api/v2/alerts")).json()
            states = {row["labels"]["alertname"]: row["status"] for row in known}
            if len(known) == len(fired) and all(
                s["state"] != "unprocessed" for s in states.values()
            ):
                return {name for name, status in states.items() if status["inhibitedBy"]}
            await asyncio.sleep(0.1)


def alert(name: str, severity: str = "warning", **labels: str) -> dict[str, str]:
    return {"alertname": name, "severity": severity, **labels}


async def test_a_dead_vllm_mutes_the_alerts_about_its_engine_only(tmp_path: Path) -> None:
    config = (FOLDER / "alertmanager.yml").read_text()
    async with running(config, tmp_path) as client:
        silent = await muted(
            client,
            alert("TargetDown", "critical", **VLLM),
            alert("VllmStalled", "critical", **VLLM, model_name="m"),
            alert("VllmEngineErrors", "critical", job="vllm", instance="gpu2:8000", model_name="m"),
            alert("CircuitBreakerOpen", "critical", job="gateway", instance="g:8080"),
        )
    assert silent == {"VllmStalled"}


async def test_a_dead_gateway_mutes_what_follows_from_it_and_no_other_replica(
    tmp_path: Path,
) -> None:
    config = (FOLDER / "alertmanager.yml").read_text()
    async with running(config, tmp_path) as client:
        silent = await muted(
            client,
            alert("TargetDown", "critical", job="gateway", instance="g1:8080"),
            alert("GatewayErrorBudgetBurnFast", "critical", job="gateway"),
            alert("UpstreamUnhealthy", job="gateway", instance="g1:8080", upstream="gpu1:8000"),
            alert("QuotaFlushStale", job="gateway", instance="g2:8080"),
            alert("GatewayEventLoopLag", job="gateway", instance="g2:8080"),
        )
    assert silent == {"GatewayErrorBudgetBurnFast", "UpstreamUnhealthy"}


async def test_a_silent_redis_is_told_once_by_each_gateway(tmp_path: Path) -> None:
    here = {"job": "gateway", "instance": "g1:8080"}
    config = (FOLDER / "alertmanager.yml").read_text()
    async with running(config, tmp_path) as client:
        silent = await muted(
            client,
            alert("RedisSilent", "critical", **here),
            alert("RedisSlow", **here),
            alert("QuotaFlushStale", **here),
            alert("KeyStoreFailing", job="gateway", instance="g2:8080"),
        )
    assert silent == {"RedisSlow", "QuotaFlushStale"}


async def test_a_lost_gpu_mutes_heat_and_imbalance_of_its_machine(tmp_path: Path) -> None:
    here = {"job": "gpu-exporter", "instance": "gpu1:9101"}
    config = (FOLDER / "alertmanager.yml").read_text()
    async with running(config, tmp_path) as client:
        silent = await muted(
            client,
            alert("GpuLost", "critical", **here, gpu="1"),
            alert("GpuImbalance", **here),
            alert("GpuThermalThrottling", **here, gpu="0"),
            alert("GpuMemoryErrors", "critical", **here, gpu="0"),
        )
    assert silent == {"GpuImbalance", "GpuThermalThrottling"}


async def test_a_page_is_posted_to_the_operators_url(tmp_path: Path) -> None:
    posted: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1]) if length else 0)
        posted.put_nowait(json.loads(body))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    sink = await asyncio.start_server(receive, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{sink.sockets[0].getsockname()[1]}/hook"
    async with sink, running(_posting_to(url, quickly=True), tmp_path) as client:
        await muted(client, alert("TargetDown", "critical", **VLLM), alert("Watchdog", "none"))
        async with asyncio.timeout(START_SECONDS):
            message = await posted.get()
    assert [one["labels"]["alertname"] for one in message["alerts"]] == ["TargetDown"]
    assert posted.empty()


@pytest.mark.parametrize(
    ("severity", "receiver"),
    [("critical", "page"), ("warning", "notice"), ("info", "notice"), ("none", "nobody")],
)
def test_a_severity_goes_to(severity: str, receiver: str, tmp_path: Path) -> None:
    for config in ((FOLDER / "alertmanager.yml").read_text(), _posting_to("http://127.0.0.1:9/")):
        (tmp_path / "a.yml").write_text(config)
        amtool = installed("amtool", package="prometheus-alertmanager")
        command = (amtool, "config", "routes", "test", f"--config.file={tmp_path / 'a.yml'}")
        done = subprocess.run(
            (*command, f"severity={severity}"),
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert done.stdout.strip() == receiver


def test_both_configurations_have_the_same_routes_and_the_same_muting() -> None:
    quiet, posting = (
        yaml.safe_load((FOLDER / name).read_text()) for name in ("alertmanager.yml", "webhook.yml")
    )
    assert quiet["route"] == posting["route"]
    assert quiet["inhibit_rules"] == posting["inhibit_rules"]
    assert [r["name"] for r in quiet["receivers"]] == [r["name"] for r in posting["receivers"]]


def test_what_mutes_and_what_is_muted_are_alerts_that_exist() -> None:
    files = Path("monitoring/prometheus/rules").glob("*.yml")
    text = "\n".join(path.read_text() for path in files)
    known = set(re.findall(r"- alert: (\w+)", text))
    for rule in yaml.safe_load((FOLDER / "alertmanager.yml").read_text())["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            if found := re.fullmatch(r'alertname=~?"(.+)"', matcher):
                for part in found[1].split("|"):
                    assert any(re.fullmatch(part, name) for name in known), part


def _posting_to(url: str, *, quickly: bool = False) -> str:
    """webhook.yml with the URL itself: Debian's Alertmanager does not know url_file."""
    text = (FOLDER / "webhook.yml").read_text()
    text = text.replace("url_file: /etc/alertmanager/webhook_url", f"url: {url}")
    return re.sub(r"group_wait: \w+", "group_wait: 100ms", text) if quickly else text
