"""What the watchdog starts, by what the operator chose and the machine has."""

from pathlib import Path

import pytest

from scripts.supervision.environment import unquoted
from scripts.supervision.programs import GPU_MARKS, Program, contradictions, programs
from scripts.supervision.settings import SettingsFault, gateway_stop_seconds, read_settings


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one: neither config/.env nor variables of whoever runs the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("VLLM_URL", "VLLM_PORT", "SIM_PORT", "LOG_FILE", "DRAIN_SECONDS"):
        monkeypatch.delenv(name, raising=False)


def chosen(vllm: str, exporter: str = "off") -> dict[str, Program]:
    settings = read_settings({"WATCHDOG_VLLM": vllm, "WATCHDOG_EXPORTER": exporter})
    return {program.name: program for program in programs(settings)}


@pytest.mark.parametrize(
    ("vllm", "exporter", "names"),
    [
        ("gpu", "on", ["vllm", "gateway", "gpu-exporter"]),
        ("cpu", "off", ["vllm-cpu", "gateway"]),
        ("sim", "2", ["sim", "gateway", "gpu-exporter"]),
        ("none", "off", ["gateway"]),
    ],
)
def test_programs_are_started_in_this_order(vllm: str, exporter: str, names: list[str]) -> None:
    assert list(chosen(vllm, exporter)) == names


@pytest.mark.skipif(any(mark.exists() for mark in GPU_MARKS), reason="this machine has a GPU")
def test_without_a_gpu_the_operator_is_asked_to_choose() -> None:
    with pytest.raises(SettingsFault, match="make up ARGS=--vllm=sim"):
        chosen("")


def test_simulated_gpus_are_the_exporters_to_simulate() -> None:
    assert chosen("none", "4")["gpu-exporter"].command[-2:] == ("--simulate", "4")
    assert chosen("none", "on")["gpu-exporter"].command[-1] == "exporter"


def test_port_variable_is_kept_from_a_vllm_that_would_misread_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_PORT", "8123")

    vllm = chosen("cpu")["vllm-cpu"]

    assert vllm.command[-2:] == ("--port", "8123")
    assert "VLLM_PORT" not in vllm.environment
    assert "VLLM_PORT" in chosen("gpu")["vllm"].environment


def test_vllm_that_the_gateway_does_not_look_for_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert contradictions(list(chosen("sim").values())) == []

    monkeypatch.setenv("SIM_PORT", "8001")

    (note,) = contradictions(list(chosen("sim").values()))
    assert "set VLLM_URL=http://127.0.0.1:8001" in note


def test_gateway_writes_the_log_that_the_watchdog_turns_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = chosen("none")["gateway"]
    monkeypatch.setenv("LOG_FILE", "/var/log/gateway.log")
    elsewhere = chosen("none")["gateway"]

    assert usual.own_log == tmp_path / "logs" / "gateway.log"
    assert elsewhere.own_log == Path("/var/log/gateway.log")
    for gateway in (usual, elsewhere):
        assert gateway.environment["LOG_FILE"] == str(gateway.own_log)


def test_settings_are_read_from_the_file_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/.env").write_text(
        "export WATCHDOG_RESTARTS_MAX='7'  # more\nWATCHDOG_STALL_SECONDS=off\nDRAIN_SECONDS=100\n"
    )
    monkeypatch.setenv("WATCHDOG_LOG_FILES", "9")

    settings = read_settings({})

    assert settings.policy.restarts_max == 7
    assert settings.patience.stall_seconds == float("inf")
    assert settings.logs.files == 9
    assert gateway_stop_seconds() == 115


def test_every_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_RESTARTS_MAX", "-1")
    monkeypatch.setenv("WATCHDOG_LOG_BYTES", "0")

    with pytest.raises(SettingsFault) as raised:
        read_settings({"WATCHDOG_VLLM": "tpu"})

    names = [line.partition("=")[0] for line in str(raised.value).splitlines()]
    assert names == ["WATCHDOG_VLLM", "WATCHDOG_RESTARTS_MAX", "WATCHDOG_LOG_BYTES"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("8081", "8081"),
        ("8081 # the other one", "8081"),
        ("'a # b'", "a # b"),
        ('"x" # why', "x"),
        ("# nothing", ""),
        ("a#b", "a#b"),
    ],
)
def test_env_file_values_are_read_as_the_gateway_reads_them(written: str, meant: str) -> None:
    assert unquoted(written) == meant
