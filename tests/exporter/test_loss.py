"""GPUs that go, drivers that hang or are not there, and what the exporter says meanwhile."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.exporter.process import ExporterProcess, Scrape, is_healthy, is_running
from tests.exporter.stub import StubDriver

TWO_INTERVALS = 0.39


def up(scrape: Scrape) -> dict[str, float | None]:
    return {gpu: scrape.value("gpu_up", gpu=gpu) for gpu in ("0", "1")}


async def test_a_lost_gpu_turns_down_and_its_telemetry_disappears(
    driver: StubDriver, tmp_path: Path
) -> None:
    async with ExporterProcess(folder=tmp_path, **driver.environ) as exporter:
        await exporter.until(is_healthy)
        driver.set(lost=0)
        scrape = await exporter.until(lambda s: s.value("gpu_up", gpu="0") == 0)

    assert scrape.telemetry_of("0") == set()
    assert scrape.value("gpu_power_draw_watts", gpu="1") == 627.5
    assert scrape.value("gpu_exporter_devices_visible") == 1
    assert scrape.value("gpu_exporter_devices_expected") == 2
    assert len(scrape.labels("gpu_info")) == 2, "what it is stays known"


async def test_a_gpu_that_comes_back_is_found_by_initialising_anew(
    driver: StubDriver, tmp_path: Path
) -> None:
    async with ExporterProcess(folder=tmp_path, **driver.environ) as exporter:
        await exporter.until(is_healthy)
        driver.set(gone=0, count=1)
        driver.set(lost=0)
        lost = await exporter.until(
            lambda s: (s.value("gpu_exporter_nvml_reinitializations_total") or 0) > 0
        )
        moved_up = await exporter.until(lambda s: s.seconds_after(lost) > TWO_INTERVALS)
        driver.set(gone=None, count=None, lost=None)
        back = await exporter.until(lambda s: up(s) == {"0": 1, "1": 1})
        events = [line["event"] for line in exporter.log_lines()]

    assert up(lost) == {"0": 0, "1": 1}
    assert moved_up.labels("gpu_power_draw_watts") == [{"gpu": "1", "uuid": "GPU-stub-1"}]
    assert back.value("gpu_power_draw_watts", gpu="0", uuid="GPU-stub-0") == 627.5
    assert events.count("GPU is lost") == 1
    assert events.count("GPU is back") == 1


async def test_a_gpu_that_answers_nothing_is_down(driver: StubDriver, tmp_path: Path) -> None:
    async with ExporterProcess(folder=tmp_path, **driver.environ) as exporter:
        await exporter.until(is_healthy)
        driver.set(mute=1)
        scrape = await exporter.until(lambda s: up(s) == {"0": 1, "1": 0})

    assert scrape.telemetry_of("1") == set()


async def test_fewer_gpus_than_expected_are_told_from_the_start(
    driver: StubDriver, tmp_path: Path
) -> None:
    driver.set(unreachable=1)
    options = {"GPU_EXPECTED_COUNT": "2", **driver.environ}
    async with ExporterProcess(folder=tmp_path, **options) as exporter:
        scrape = await exporter.until(is_healthy)

    assert scrape.value("gpu_exporter_devices_visible") == 1
    assert scrape.value("gpu_exporter_devices_expected") == 2
    error = {"call": "nvmlDeviceGetHandleByIndex", "error": "GpuIsLost"}
    assert scrape.value("gpu_exporter_errors_total", **error)


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "Uninitialized"), (9, "DriverNotLoaded"), (18, "LibRmVersionMismatch")],
)
async def test_a_driver_that_goes_away_is_initialised_anew(
    driver: StubDriver, tmp_path: Path, code: int, name: str
) -> None:
    async with ExporterProcess(folder=tmp_path, **driver.environ) as exporter:
        await exporter.until(is_healthy)
        driver.set(broken=code)
        broken = await exporter.until(lambda s: s.value("gpu_exporter_nvml_available") == 0)
        driver.set(broken=None)
        healed = await exporter.until(is_healthy)
        told = [line for line in exporter.log_lines() if line["event"] == "no GPU metrics"]

    assert broken.telemetry_of("0") == set()
    assert up(broken) == {"0": 0, "1": 0}
    assert broken.value("gpu_exporter_devices_visible") == 0
    assert broken.value("gpu_exporter_last_collect_success") == 0
    assert [(line["error"], bool(line["cure"])) for line in told] == [(name, True)]
    assert healed.value("gpu_power_draw_watts", gpu="0") == 627.5
    assert (healed.value("gpu_exporter_nvml_reinitializations_total") or 0) >= 1


async def test_a_driver_that_hangs_stops_neither_metrics_nor_xids(
    driver: StubDriver, tmp_path: Path
) -> None:
    async with ExporterProcess(folder=tmp_path, **driver.environ) as exporter:
        await exporter.until(is_healthy)
        driver.set(hang=1)
        driver.report_xid(79, gpu=1)
        slowest, began = 0.0, time.monotonic()
        async with asyncio.timeout(10):
            while is_healthy(hung := await exporter.scrape()):
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.02)
                began = time.monotonic()
        driver.set(hang=None)
        healed = await exporter.until(is_healthy)
        told = [line for line in exporter.log_lines() if line["event"] == "no GPU metrics"]

    assert slowest < 0.5
    assert hung.telemetry_of("0") == hung.telemetry_of("1") == set()
    assert hung.values("gpu_up") == [], "nobody knows"
    assert hung.value("gpu_exporter_errors_total", call="collect", error="deadline") == 1
    assert hung.value("gpu_xid_errors_total", gpu="1", xid="79") == 1
    assert "on GPU-stub-1" in told[0]["cure"]
    assert up(healed) == {"0": 1, "1": 1}


async def test_sigterm_ends_at_once_while_a_collection_hangs(
    driver: StubDriver, tmp_path: Path
) -> None:
    options = {"GPU_EXPORTER_TIMEOUT_SECONDS": "60", **driver.environ}
    async with ExporterProcess(folder=tmp_path, **options) as exporter:
        await exporter.until(is_healthy)
        driver.set(hang=0)
        await driver.hangs()
        began = time.monotonic()
        exporter.signal(signal.SIGTERM)
        code = await exporter.ended()

    assert code == 0
    assert time.monotonic() - began < 2.0


async def test_a_worker_that_hangs_does_not_outlive_an_exporter_that_was_killed(
    driver: StubDriver, tmp_path: Path
) -> None:
    options = {"GPU_EXPORTER_TIMEOUT_SECONDS": "60", **driver.environ}
    async with ExporterProcess(folder=tmp_path, **options) as exporter:
        await exporter.until(is_healthy)
        driver.set(hang=0)
        await driver.hangs()
        (worker,) = exporter.workers()
        exporter.signal(signal.SIGKILL)
        await exporter.ended()
        async with asyncio.timeout(5):
            while is_running(worker):
                await asyncio.sleep(0.02)


async def test_xid_counts_survive_a_new_worker(driver: StubDriver, tmp_path: Path) -> None:
    async with ExporterProcess(folder=tmp_path, **driver.environ) as exporter:
        await exporter.until(is_healthy)
        driver.report_xid(94, gpu=1)
        await exporter.until(lambda s: s.value("gpu_xid_errors_total", gpu="1", xid="94") == 1)
        driver.set(broken=1)
        await exporter.until(lambda s: s.value("gpu_exporter_nvml_available") == 0)
        driver.set(broken=None)
        healed = await exporter.until(is_healthy)
        driver.report_xid(94, gpu=1)
        scrape = await exporter.until(
            lambda s: s.value("gpu_xid_errors_total", gpu="1", xid="94") == 2
        )

    assert healed.value("gpu_xid_errors_total", gpu="1", xid="94", uuid="GPU-stub-1") == 1
    last = scrape.value("gpu_xid_last_timestamp_seconds", gpu="1", xid="94")
    assert last == pytest.approx(time.time(), abs=30)


async def test_without_a_driver_it_serves_and_says_so_once(tmp_path: Path) -> None:
    async with ExporterProcess(folder=tmp_path, LD_LIBRARY_PATH=str(tmp_path)) as exporter:
        scrape = await exporter.until(lambda s: s.values("gpu_exporter_errors_total"))
        await exporter.until(
            lambda s: (s.value("gpu_exporter_nvml_reinitializations_total") or 0) >= 1
        )
        told = [line for line in exporter.log_lines() if line["event"] == "no GPU metrics"]

    assert scrape.value("gpu_exporter_nvml_available") == 0
    assert scrape.value("gpu_exporter_last_collect_success") == 0
    assert scrape.value("gpu_exporter_devices_visible") == 0
    assert scrape.value("gpu_exporter_devices_expected") == 0, "nothing to alarm about"
    assert len(told) == 1
    assert "--simulate" in told[0]["cure"]


async def test_a_required_gpu_that_is_missing_ends_it_with_the_reason(tmp_path: Path) -> None:
    exporter = ExporterProcess("--require-gpu", folder=tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    await exporter.start()

    assert await exporter.ended() == 1
    await exporter.client.aclose()
    assert "LibraryNotFound" in exporter.log_path.read_text()
    assert "--require-gpu" in exporter.log_path.read_text()
