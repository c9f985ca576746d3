"""Readings through the real pynvml, from a driver that tests own, in a real exporter process."""

from pathlib import Path

import pytest

from tests.exporter.process import ExporterProcess, Scrape, is_healthy
from tests.exporter.stub import StubDriver

GPU = {"gpu": "0", "uuid": "GPU-stub-0"}
TWO_INTERVALS = 0.39


async def scraped(driver: StubDriver, folder: Path, **environ: str) -> Scrape:
    """What an exporter says of a driver once it collected twice: GPM compares two samples."""
    async with ExporterProcess(folder=folder, **driver.environ, **environ) as exporter:
        first = await exporter.until(is_healthy)
        return await exporter.until(lambda scrape: scrape.seconds_after(first) > 0)


VALUES: dict[str, list[tuple[dict[str, str], float]]] = {
    "gpu_up": [({}, 1)],
    "gpu_utilization_ratio": [({}, 0.97)],
    "gpu_memory_bandwidth_utilization_ratio": [({}, 0.07)],
    "gpu_memory_total_bytes": [({}, 150754820096)],
    "gpu_memory_used_bytes": [({}, 75377410048)],
    "gpu_memory_free_bytes": [({}, 75377410048 - 671088640)],
    "gpu_memory_reserved_bytes": [({}, 671088640)],
    "gpu_temperature_celsius": [({"sensor": "core"}, 52), ({"sensor": "memory"}, 61)],
    "gpu_temperature_margin_celsius": [({}, 35)],
    "gpu_power_draw_watts": [({}, 627.5)],
    "gpu_power_limit_watts": [({}, 700)],
    "gpu_energy_joules_total": [({}, 123456.789)],
    "gpu_clock_hertz": [({"clock": "sm"}, 1.98e9), ({"clock": "memory"}, 3.201e9)],
    "gpu_clock_max_hertz": [({"clock": "graphics"}, 1.98e9), ({"clock": "video"}, 1.98e9)],
    "gpu_throttle_active": [
        ({"reason": "hw_thermal"}, 1),
        ({"reason": "sw_power_cap"}, 1),
        ({"reason": "gpu_idle"}, 0),
    ],
    "gpu_throttle_seconds_total": [
        ({"reason": "sw_power_cap"}, 2.5),
        ({"reason": "hw_thermal"}, 1.5),
    ],
    "gpu_ecc_errors_total": [
        ({"type": "corrected", "counter": "aggregate"}, 2),
        ({"type": "uncorrected", "counter": "aggregate"}, 12),
    ],
    "gpu_ecc_errors_volatile": [({"type": "corrected"}, 1), ({"type": "uncorrected"}, 11)],
    "gpu_remapped_rows": [({"type": "correctable"}, 3), ({"type": "uncorrectable"}, 1)],
    "gpu_remapped_rows_pending": [({}, 1)],
    "gpu_remapped_rows_failure": [({}, 0)],
    "gpu_recovery_action": [({}, 0)],
    "gpu_pcie_link_generation": [({"state": "current"}, 4), ({"state": "max"}, 5)],
    "gpu_pcie_link_width": [({"state": "current"}, 16), ({"state": "max"}, 16)],
    "gpu_pcie_replays_total": [({}, 2)],
    "gpu_nvlink_transmit_bytes_total": [({}, 1024000)],
    "gpu_nvlink_receive_bytes_total": [({}, 2048000)],
    "gpu_nvlink_errors_total": [
        ({"kind": "replay"}, 4),
        ({"kind": "recovery"}, 8),
        ({"kind": "crc"}, 12),
    ],
    "gpu_nvlink_link_up": [({"link": "0"}, 1), ({"link": "1"}, 0), ({"link": "3"}, 1)],
    "gpu_sm_active_ratio": [({}, 0.8)],
    "gpu_tensor_active_ratio": [({}, 0.8)],
    "gpu_pcie_transmit_bytes_per_second": [({}, 100 * 2**20)],
    "gpu_pcie_receive_bytes_per_second": [({}, 100 * 2**20)],
    "gpu_processes": [({}, 2)],
    "gpu_mig_enabled": [({}, 0)],
    "gpu_exporter_nvml_available": [({}, 1)],
    "gpu_exporter_devices_visible": [({}, 2)],
    "gpu_exporter_devices_expected": [({}, 2)],
}


async def test_every_value_comes_in_base_units(driver: StubDriver, tmp_path: Path) -> None:
    scrape = await scraped(driver, tmp_path)

    told: dict[str, object] = {}
    for name, expected in VALUES.items():
        label = {} if name.startswith("gpu_exporter") else GPU
        told[name] = [(labels, scrape.value(name, **label, **labels)) for labels, _ in expected]
    assert told == {
        name: [(labels, pytest.approx(value)) for labels, value in expected]
        for name, expected in VALUES.items()
    }
    assert scrape.labels("gpu_info")[0] == {
        **GPU,
        "name": "NVIDIA H200",
        "pci_bus_id": "00000000:1B:00.0",
        "driver_version": "580.95.05",
        "cuda_version": "13.1",
    }


async def test_a_value_the_card_does_not_have_is_absent_and_logged_once(
    driver: StubDriver, tmp_path: Path
) -> None:
    not_supported = 3
    driver.set(power=not_supported, links=0, gpm=0)
    async with ExporterProcess(folder=tmp_path, **driver.environ) as exporter:
        scrape = await exporter.until(is_healthy)
        await exporter.until(lambda s: s.value("gpu_exporter_collect_duration_seconds"))
        lines = exporter.log_lines()

    absent = {"gpu_power_draw_watts", "gpu_dram_active_ratio", "gpu_nvlink_link_up"}
    assert not absent & scrape.names
    assert "gpu_nvlink_transmit_bytes_total" not in scrape.names
    assert scrape.value("gpu_power_limit_watts", gpu="0") == 700
    assert not scrape.labels("gpu_exporter_errors_total")
    told = [line for line in lines if "nvmlDeviceGetPowerUsage" in str(line)]
    assert [line["uuid"] for line in told] == ["GPU-stub-0", "GPU-stub-1"]


async def test_pcie_traffic_is_sampled_where_there_is_no_gpm(
    driver: StubDriver, tmp_path: Path
) -> None:
    driver.set(gpm=0)
    scrape = await scraped(driver, tmp_path)

    assert scrape.value("gpu_pcie_transmit_bytes_per_second", gpu="0") == 1_000_000
    assert scrape.value("gpu_pcie_receive_bytes_per_second", gpu="0") == 2_000_000


async def test_pcie_sampling_can_be_switched_off(driver: StubDriver, tmp_path: Path) -> None:
    driver.set(gpm=0)
    scrape = await scraped(driver, tmp_path, GPU_EXPORTER_PCIE="off")

    assert "gpu_pcie_transmit_bytes_per_second" not in scrape.names


async def test_a_drivers_way_to_say_nothing_is_no_value(driver: StubDriver, tmp_path: Path) -> None:
    driver.set(blank=1)
    scrape = await scraped(driver, tmp_path)

    assert "gpu_power_draw_watts" not in scrape.names
    assert scrape.value("gpu_throttle_seconds_total", gpu="0", reason="hw_thermal") is None
    assert scrape.value("gpu_throttle_seconds_total", gpu="0", reason="sw_power_cap") == 2.5


async def test_an_old_driver_without_the_new_functions_still_tells(
    old_driver: StubDriver, tmp_path: Path
) -> None:
    scrape = await scraped(old_driver, tmp_path)

    assert scrape.value("gpu_temperature_celsius", gpu="0", sensor="core") == 51
    assert scrape.value("gpu_memory_used_bytes", gpu="0") == 100_000_000_000
    assert not {"gpu_memory_reserved_bytes", "gpu_temperature_margin_celsius"} & scrape.names


async def test_a_failing_call_is_counted_by_name_and_costs_one_value(
    driver: StubDriver, tmp_path: Path
) -> None:
    unknown = 999
    driver.set(power=unknown)
    scrape = await scraped(driver, tmp_path)

    error = {"call": "nvmlDeviceGetPowerUsage", "error": "Unknown"}
    assert (scrape.value("gpu_exporter_errors_total", **error) or 0) >= 2
    assert scrape.value("gpu_up", gpu="0") == 1
    assert "gpu_power_draw_watts" not in scrape.names


async def test_sums_over_nvlinks_do_not_drop_when_a_link_falls_silent(
    driver: StubDriver, tmp_path: Path
) -> None:
    driver.set(links_by_link=1)
    async with ExporterProcess(folder=tmp_path, **driver.environ) as exporter:
        before = await exporter.until(is_healthy)
        driver.set(silent_link=2)
        after = await exporter.until(lambda s: s.seconds_after(before) > TWO_INTERVALS)

    sums = [scrape.value("gpu_nvlink_transmit_bytes_total", gpu="0") for scrape in (before, after)]
    assert sums == [1000 + 1001 + 1002 + 1003] * 2
    assert after.value("gpu_nvlink_errors_total", gpu="0", kind="crc") == 12


async def test_processes_are_named_on_request_and_without_their_arguments(
    driver: StubDriver, tmp_path: Path
) -> None:
    quiet = await scraped(driver, tmp_path)
    scrape = await scraped(driver, tmp_path, GPU_EXPORTER_PROCESSES="on")

    assert "gpu_process_memory_bytes" not in quiet.names
    assert scrape.values("gpu_process_memory_bytes", gpu="0", pid="4242", name="python3") == [5e9]
    assert not scrape.values("gpu_process_memory_bytes", pid="4343"), "its memory is not known"
    assert "secret" not in scrape.text


async def test_a_process_whose_name_is_no_text_costs_no_other_number(
    driver: StubDriver, tmp_path: Path
) -> None:
    driver.set(odd_name=1)
    scrape = await scraped(driver, tmp_path, GPU_EXPORTER_PROCESSES="on")

    assert scrape.values("gpu_process_memory_bytes", gpu="0", pid="4242", name="") == [5e9]
    assert scrape.value("gpu_up", gpu="0") == 1


async def test_the_memory_of_each_mig_instance_is_told_once(
    driver: StubDriver, tmp_path: Path
) -> None:
    driver.set(mig=0)
    scrape = await scraped(driver, tmp_path)

    assert scrape.value("gpu_mig_enabled", gpu="0") == 1
    assert scrape.value("gpu_mig_enabled", gpu="1") == 0
    first, second = {"gi": "1", "profile": "1g.18gb"}, {"gi": "2", "profile": "3g.71gb"}
    assert scrape.value("gpu_mig_memory_total_bytes", gpu="0", **first) == 1e9
    assert scrape.value("gpu_mig_memory_total_bytes", gpu="0", **second) == 2e9
    assert scrape.value("gpu_mig_memory_used_bytes", gpu="0", **second) == 1e9
    assert scrape.value("gpu_utilization_ratio", gpu="0") is None, "not supported under MIG"
    assert scrape.value("gpu_utilization_ratio", gpu="1") == 0.97
