"""What the load test is told, where it aims, and whose key it takes."""

from pathlib import Path

import pytest

from scripts.loadtest.credential import credential
from scripts.loadtest.options import options
from scripts.loadtest.plan import Slo
from scripts.loadtest.target import TargetUnusable, require_permission, target


def test_flags_win_over_variables() -> None:
    asked = options(["--duration", "5"], {"DURATION": "9", "CONCURRENCY": "3", "STREAM": "off"})

    assert (asked.duration, asked.concurrency, asked.stream, asked.slo) == (5.0, 3, False, Slo())


def test_limits_are_read_from_words_and_from_one_variable() -> None:
    limits = Slo(ttft_seconds=1.0, e2el_seconds=30.0)

    assert options(["--slo", "ttft:1", "e2el:30"], {}).slo == limits
    assert options([], {"SLO": "ttft:1,e2el:30"}).slo == limits


@pytest.mark.parametrize(
    "argv",
    [
        ["--rate", "5", "--concurrency", "3"],
        ["--rate", "5", "--think-time", "1"],
        ["--rate", "0"],
        ["--rate", "nan"],
        ["--arrivals", "constant"],
        ["--concurrency", "0"],
        ["--duration", "0"],
        ["--slo", "ttft"],
        ["--stream", "off", "--slo", "ttft:1"],
        ["--endpoint", "embeddings", "--output-tokens", "5"],
        ["--prompts", "/nowhere/at/all"],
        ["--html", "/nowhere/at/all.html"],
        ["--body", "[1]"],
        ["--unknown"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options(argv, {})

    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.3.2.1", True),
        ("http://[::1]:8080/v1", True),
        ("http://localhost:8080/", True),
        ("https://gateway.example/api/v1/", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0:8080", False),
        ("http://localhost.example", False),
    ],
)
def test_only_this_machine_is_loaded_unasked(url: str, is_local: bool) -> None:
    server = target(url)

    assert server.is_local is is_local
    require_permission(server, is_allowed=True)
    if not is_local:
        with pytest.raises(TargetUnusable, match="--yes-remote"):
            require_permission(server, is_allowed=False)


@pytest.mark.parametrize(
    "url", ["", "gateway:8080", "ftp://x", "http://u:p@x", "http://x?y", "http://x:y", "http://a b"]
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(TargetUnusable):
        target(url)


def test_a_prefix_stays_and_v1_goes() -> None:
    server = target("https://x.example/team/v1/")

    assert (server.url, server.prefix, server.port) == ("https://x.example/team", "/team", 443)


def test_the_key_is_found_where_the_gateway_finds_its_own(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("GATEWAY_API_KEYS=default=sk-file,other=sk-no\n")
    listed = {"GATEWAY_API_KEYS": "sk-listed"}

    assert credential({"API_KEY": "sk-own", **listed}, file, is_local=True) == "sk-own"
    assert credential(listed, file, is_local=True) == "sk-listed"
    assert credential({}, file, is_local=True) == "sk-file"
    assert credential({}, tmp_path / "none", is_local=True) == ""


def test_the_gateways_keys_go_to_no_other_machine(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("GATEWAY_API_KEYS=sk-file\n")

    assert credential({"GATEWAY_API_KEYS": "sk-listed"}, file, is_local=False) == ""
    assert credential({"API_KEY": "sk-own"}, file, is_local=False) == "sk-own"
