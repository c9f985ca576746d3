"""`--simulate 2`: what it shows, what it suffers on request, and who may ask."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exporter.families import FAMILIES
from tests.exporter.process import ExporterProcess, Scrape, is_healthy, is_running
from tests.harness.exposition import openmetrics_families
from tests.harness.programs import unpacked

ONLY_ON_REQUEST = {"gpu_process_memory_bytes"}
ONLY_UNDER_MIG = {"gpu_mig_memory_used_bytes", "gpu_mig_memory_total_bytes"}


def power(scrape: Scrape) -> list[float]:
    return scrape.values("gpu_power_draw_watts")


async def test_it_starts_within_a_second_and_shows_everything_an_h200_tells(
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    async with ExporterProcess("--simulate", "2", folder=tmp_path) as exporter:
        scrape = await exporter.until(is_healthy)
        took = time.monotonic() - began

    expected = {family.name for family in FAMILIES} - ONLY_ON_REQUEST - ONLY_UNDER_MIG
    assert expected <= scrape.telemetry_of("0")
    assert scrape.telemetry_of("0") == scrape.telemetry_of("1")
    assert took < 3.0, "about half a second on an idle machine"


async def test_promtool_finds_the_exposition_clean(tmp_path: Path) -> None:
    promtool = unpacked("promtool", package="prometheus")
    async with ExporterProcess("--simulate", "2", folder=tmp_path) as exporter:
        await exporter.client.post("/sim/faults", json={"gpu": 1, "kind": "xid", "xid": 79})
        scrape = await exporter.until(lambda s: s.values("gpu_xid_errors_total"))
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        openmetrics = await exporter.client.get("/metrics", headers=accept)

    lint = subprocess.run(
        [promtool, "check", "metrics"],
        input=scrape.text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (lint.stdout + lint.stderr).strip() == ""
    assert openmetrics_families(openmetrics.text)


async def test_a_lost_gpu_leaves_the_other_and_comes_back(tmp_path: Path) -> None:
    async with ExporterProcess("--simulate", "2", folder=tmp_path) as exporter:
        await exporter.until(is_healthy)
        answer = await exporter.client.post("/sim/faults", json={"gpu": 1, "kind": "lost"})
        lost = await exporter.until(lambda s: s.value("gpu_up", gpu="1") == 0)
        # Not only in the worker that saw it go: NVML lists it no more.
        await exporter.until(
            lambda s: (s.value("gpu_exporter_nvml_reinitializations_total") or 0) >= 1
        )
        still = await exporter.until(lambda s: s.value("gpu_up", gpu="0") == 1)
        await exporter.client.delete("/sim/faults")
        back = await exporter.until(lambda s: s.values("gpu_up") == [1, 1])

    assert answer.json() == {"faults": [{"gpu": 1, "kind": "lost"}]}
    assert lost.telemetry_of("1") == set()
    assert still.value("gpu_up", gpu="1") == 0
    assert len(power(back)) == 2


async def test_a_slow_gpu_shows_in_power_and_clock_and_not_in_utilisation(tmp_path: Path) -> None:
    async with ExporterProcess("--simulate", "2", folder=tmp_path) as exporter:
        even = await exporter.until(is_healthy)
        await exporter.client.post("/sim/faults", json={"gpu": 1, "kind": "slow"})
        uneven = await exporter.until(lambda s: spread(s) > 0.3)

    assert spread(even) < 0.1
    clocks = [uneven.value("gpu_clock_hertz", gpu=gpu, clock="sm") or 0 for gpu in ("0", "1")]
    assert clocks[1] < 0.85 * clocks[0]
    assert min(uneven.values("gpu_utilization_ratio")) > 0.9


async def test_a_hot_gpu_throttles(tmp_path: Path) -> None:
    reason = {"gpu": "0", "reason": "hw_thermal"}
    async with ExporterProcess("--simulate", "2", folder=tmp_path) as exporter:
        await exporter.until(is_healthy)
        await exporter.client.post("/sim/faults", json={"gpu": 0, "kind": "thermal"})
        hot = await exporter.until(
            lambda s: (s.value("gpu_throttle_seconds_total", **reason) or 0) > 0
        )

    assert hot.value("gpu_throttle_active", **reason) == 1
    assert (hot.value("gpu_temperature_margin_celsius", gpu="0") or 0) < 10
    assert hot.value("gpu_throttle_active", gpu="1", reason="hw_thermal") == 0


async def test_a_hang_takes_telemetry_away_until_it_is_over_and_counters_go_on(
    tmp_path: Path,
) -> None:
    async with ExporterProcess(
        "--simulate", "2", folder=tmp_path, GPU_EXPORTER_TIMEOUT_SECONDS="0.4"
    ) as exporter:
        before = await exporter.until(is_healthy)
        await exporter.client.post("/sim/faults", json={"gpu": 0, "kind": "hang"})
        hung = await exporter.until(lambda s: s.value("gpu_exporter_last_collect_success") == 0)
        await exporter.client.delete("/sim/faults")
        after = await exporter.until(is_healthy)

    assert hung.telemetry_of("0") == set()
    assert hung.value("gpu_exporter_errors_total", call="collect", error="deadline") == 1
    joules = [scrape.value("gpu_energy_joules_total", gpu="0") or 0 for scrape in (before, after)]
    assert joules[0] < joules[1]


async def test_xids_are_counted_each_time(tmp_path: Path) -> None:
    fault = {"gpu": 0, "kind": "xid", "xid": 48}
    async with ExporterProcess("--simulate", "2", folder=tmp_path) as exporter:
        await exporter.until(is_healthy)
        for _ in range(2):
            await exporter.client.post("/sim/faults", json=fault)
        scrape = await exporter.until(
            lambda s: s.value("gpu_xid_errors_total", gpu="0", xid="48") == 2
        )

    assert scrape.value("gpu_up", gpu="0") == 1


async def test_a_real_exporter_has_no_faults_to_set(tmp_path: Path) -> None:
    async with ExporterProcess(folder=tmp_path, LD_LIBRARY_PATH=str(tmp_path)) as exporter:
        answer = await exporter.client.post("/sim/faults", json={"gpu": 0, "kind": "lost"})

    assert answer.status_code == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once_and_its_worker_too(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with ExporterProcess("--simulate", "1", folder=tmp_path) as exporter:
        await exporter.until(is_healthy)
        workers = exporter.workers()
        began = time.monotonic()
        exporter.signal(number)
        code = await exporter.ended()

    assert code == 0
    assert time.monotonic() - began < 2.0
    assert len(workers) == 1
    assert not any(is_running(pid) for pid in workers)


async def test_a_port_in_use_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    async with ExporterProcess("--simulate", "1", folder=tmp_path) as exporter:
        command = [sys.executable, "-m", "exporter", "--port", str(exporter.port)]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    assert second.returncode == 78
    assert (
        f"GPU_EXPORTER_PORT={exporter.port}: cannot listen there (Address already in use);"
        in second.stderr
    )


def spread(scrape: Scrape) -> float:
    values = power(scrape)
    return (max(values) - min(values)) / max(values) if values else 0.0
