"""`gateway check` and the settings file, as an operator uses them."""

from pathlib import Path

from scripts.simulator.simulator import Simulator
from tests.harness.commands import run_gateway
from tests.harness.gateway import free_port


def settings_in(folder: Path, **settings: str) -> dict[str, str]:
    return {
        "GATEWAY_API_KEYS": "sk-test-abcdefgh",
        "DATABASE_PATH": str(folder / "gateway.db"),
        "VLLM_URL": "http://127.0.0.1:9",
        **settings,
    }


async def test_check_is_content_when_all_is_well(simulator: Simulator, tmp_path: Path) -> None:
    ended = await run_gateway("check", settings=settings_in(tmp_path, VLLM_URL=simulator.url))

    assert ended.code == 0, ended.err
    assert ended.err == ""


async def test_check_lists_every_fault_and_fails(simulator: Simulator, tmp_path: Path) -> None:
    ended = await run_gateway(
        "check",
        settings=settings_in(
            tmp_path,
            VLLM_URL=f"{simulator.url},http://127.0.0.1:{free_port()}",
            MODEL_NAME="none",
            GATEWAY_API_KEYS="",
            GATEWAY_PROT="1",
            LOG_FILE=str(tmp_path),
        ),
    )

    assert ended.code == 1
    assert f"LOG_FILE={tmp_path}: cannot be written (Is a directory)" in ended.err
    for word in ("VLLM_URL", "MODEL_NAME=none", "sim-model", "GATEWAY_API_KEYS", "GATEWAY_PORT?"):
        assert word in ended.err
    assert "4 fault" in ended.err


async def test_check_names_a_setting_that_cannot_be_read(tmp_path: Path) -> None:
    ended = await run_gateway("check", settings=settings_in(tmp_path, MAX_QUEUED="x"))

    assert ended.code == 78
    assert "MAX_QUEUED=x: must be a whole number" in ended.err


async def test_a_setting_that_cannot_be_read_hides_no_other_fault(tmp_path: Path) -> None:
    ended = await run_gateway(
        "check",
        settings=settings_in(tmp_path, MAX_QUEUED="x", GATEWAY_API_KEYS="", GATEWAY_PROT="1"),
    )

    assert ended.code == 78
    for word in ("MAX_QUEUED=x", "GATEWAY_API_KEYS: no key", "VLLM_URL:", "GATEWAY_PORT?"):
        assert word in ended.err
    assert "3 fault" in ended.err


async def test_keys_and_upstreams_nobody_can_name_are_not_looked_at(tmp_path: Path) -> None:
    ended = await run_gateway(
        "check", settings=settings_in(tmp_path, VLLM_URL="ftp://x", GATEWAY_API_KEYS="sk-sö")
    )

    assert ended.code == 78
    assert "2 fault" in ended.err


async def test_the_environment_wins_over_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("MAX_QUEUED=from-file\nMAX_CHOICES=from-file\n")

    ended = await run_gateway(
        "--env-file", str(file), "check", settings=settings_in(tmp_path, MAX_QUEUED="3")
    )

    assert ended.code == 78
    assert "MAX_CHOICES=from-file" in ended.err
    assert "MAX_QUEUED" not in ended.err


async def test_a_settings_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    # A file of which even root cannot read the first byte.
    ended = await run_gateway(
        "--env-file", "/proc/self/mem", "check", settings=settings_in(tmp_path)
    )

    assert ended.code == 78
    assert "/proc/self/mem: cannot be read (Input/output error)" in ended.err
    assert "Traceback" not in ended.err


async def test_a_settings_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    ended = await run_gateway(
        "--env-file", str(tmp_path / "none.env"), "check", settings=settings_in(tmp_path)
    )

    assert ended.code == 78
    assert "none.env: there is no such file" in ended.err
