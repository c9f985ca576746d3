"""The systemd units, read by systemd itself, and what our programs ask of them."""

import re
import subprocess
from pathlib import Path

import pytest

from gateway.settings import TABLE
from scripts.supervision.restarts import CONFIGURATION_CODES
from tests.harness.programs import installed

UNITS = Path("config/systemd").resolve()
SERVICES = ("vllm", "vllm-gateway", "gpu-exporter")
# systemd's own measure of what a service could do, 0 (nothing) to 10.
EXPOSURE_MAX = {"vllm-gateway": 1.5, "gpu-exporter": 3.0, "vllm": 4.5}
PROGRAM = re.compile(r"/opt/[\w./-]+")


@pytest.fixture
def analyze() -> str:
    return installed("systemd-analyze", package="systemd")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as installed, with programs that exist in the place of ours."""
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.target")):
        text = unit.read_text().replace("/opt/", f"{tmp_path}/opt/")
        for program in re.findall(rf"{tmp_path}/opt/\S+", setting(unit, "ExecStart", text)):
            Path(program).parent.mkdir(parents=True, exist_ok=True)
            Path(program).write_text("#!/bin/sh\n")
            Path(program).chmod(0o755)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def setting(unit: Path, name: str, text: str = "") -> str:
    """The values of a directive, all its lines joined."""
    lines = (text or unit.read_text()).splitlines()
    values = [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]
    return " ".join(values)


def test_systemd_reads_every_unit_without_a_word(analyze: str, units: Path) -> None:
    files = sorted(str(path) for path in units.glob("*.*") if path.is_file())
    command = (analyze, "verify", "--man=no", "--recursive-errors=no", *files)
    verified = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert len(files) == 4
    said = [line for line in verified.stderr.splitlines() if str(units) in line]
    assert (verified.returncode, said) == (0, []), verified.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_service_can_do_little_beyond_its_work(analyze: str, units: Path, name: str) -> None:
    unit = units / f"{name}.service"
    threshold = f"--threshold={EXPOSURE_MAX[name] * 10:.0f}"
    command = (analyze, "security", "--offline=true", "--no-pager", threshold, str(unit))
    judged = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    verdict = judged.stdout.strip().splitlines()[-1] if judged.stdout else judged.stderr
    assert judged.returncode == 0, verdict


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_started_again_unless_its_settings_are_wrong(name: str) -> None:
    unit = UNITS / f"{name}.service"

    assert setting(unit, "Restart") == "on-failure"
    assert "78" in setting(unit, "RestartPreventExitStatus").split()
    assert {int(code) for code in setting(unit, "RestartPreventExitStatus").split()} <= (
        CONFIGURATION_CODES
    )
    assert int(setting(unit, "StartLimitBurst")) == 5
    assert setting(unit, "PartOf") == setting(unit, "WantedBy") == "vllm-gateway.target"


def test_gateway_is_given_the_time_to_drain_while_vllm_still_lives() -> None:
    unit = UNITS / "vllm-gateway.service"
    drain_seconds = next(float(s.default) for s in TABLE if s.name == "DRAIN_SECONDS")

    assert float(setting(unit, "TimeoutStopSec")) >= drain_seconds + 15
    # What starts after vLLM is stopped before it.
    assert "vllm.service" in setting(unit, "After").split()


@pytest.mark.parametrize("name", SERVICES)
def test_programs_of_a_unit_are_where_the_checkout_has_them(name: str) -> None:
    programs = PROGRAM.findall(setting(UNITS / f"{name}.service", "ExecStart"))
    root = UNITS.parents[1]
    ours = [program.replace("/opt/vllm-gateway", str(root)) for program in programs]

    assert ours
    for program in ours:
        assert "/.venv/bin/" in program or Path(program).is_file()


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_starts_where_make_keeps_its_settings(name: str) -> None:
    # That config/.env has mode 600: a service of another user could not even start.
    assert setting(UNITS / f"{name}.service", "WorkingDirectory") not in ("", "/opt/vllm-gateway")


def test_settings_named_in_the_gateways_unit_exist() -> None:
    environment = setting(UNITS / "vllm-gateway.service", "Environment")

    named = {assignment.partition("=")[0] for assignment in environment.split()}
    assert named
    assert named <= {setting.name for setting in TABLE}
