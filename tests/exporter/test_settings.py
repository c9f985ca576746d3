"""Settings: defaults that start, every fault at once, and all of them documented."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.settings import TABLE, ConfigurationError, Setting, Settings
from gateway.settings import Settings as GatewaySettings

EXAMPLE = (Path(__file__).parents[2] / "config" / ".env.example").read_text()


def test_the_defaults_are_valid() -> None:
    settings = Settings.from_env({})

    assert (settings.host, settings.port) == ("127.0.0.1", 9101)
    assert settings.collector.interval_seconds == 5.0
    assert settings.collector.timeout_seconds == 4.0
    assert settings.expected_count is None
    assert settings.wants_pcie
    assert not settings.wants_processes


def test_an_empty_variable_is_an_unset_one() -> None:
    assert Settings.from_env({"GPU_EXPORTER_PORT": " "}) == Settings.from_env({})


def test_every_fault_is_told_and_names_its_variable() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({"GPU_EXPORTER_PORT": "x", "GPU_EXPORTER_PCIE": "maybe"})

    assert caught.value.faults == [
        "GPU_EXPORTER_PORT=x: must be a whole number",
        "GPU_EXPORTER_PCIE=maybe: must be on or off",
    ]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("GPU_EXPORTER_PORT", "65536"),
        ("GPU_EXPORTER_PORT", "-1"),
        ("GPU_EXPORTER_INTERVAL_SECONDS", "0"),
        ("GPU_EXPORTER_INTERVAL_SECONDS", "inf"),
        ("GPU_EXPORTER_TIMEOUT_SECONDS", "soon"),
        ("GPU_EXPECTED_COUNT", "two"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_value_that_cannot_be_read_is_a_fault(name: str, raw: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}={raw}: "):
        Settings.from_env({name: raw})


def test_a_misspelt_variable_is_warned_about() -> None:
    settings = Settings.from_env({"GPU_EXPORTER_PROT": "9102"})

    assert settings.warnings == (
        "GPU_EXPORTER_PROT is not a setting of the exporter; it does nothing",
    )


def test_the_gateway_does_not_take_them_for_misspelt_settings_of_its_own() -> None:
    environ = {setting.name: setting.default or "2" for setting in TABLE}

    assert GatewaySettings.from_env(environ).warnings == ()


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_every_setting_stands_in_the_example_with_its_default(setting: Setting) -> None:
    lines = re.findall(rf"^#{setting.name}=(.*)$", EXAMPLE, re.MULTILINE)

    assert lines == [setting.default]


def test_the_command_line_tells_all_faults_and_exits_with_78(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("GPU_EXPORTER_INTERVAL_SECONDS=never\nGPU_EXPORTER_PCIE=perhaps\n")
    environ = {"GPU_EXPORTER_PCIE": "on"}
    command = [sys.executable, "-m", "exporter", "--port", "http", "--env-file", str(env_file)]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=20
    )

    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "2 fault(s) in the configuration:",
        "  GPU_EXPORTER_PORT=http: must be a whole number",
        "  GPU_EXPORTER_INTERVAL_SECONDS=never: must be a number of seconds",
    ]


def test_a_settings_file_that_cannot_be_read_is_a_fault() -> None:
    # A file of which even root cannot read the first byte.
    command = [sys.executable, "-m", "exporter", "--env-file", "/proc/self/mem"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    assert done.returncode == 78
    assert "/proc/self/mem: cannot be read (Input/output error)" in done.stderr
    assert "Traceback" not in done.stderr
