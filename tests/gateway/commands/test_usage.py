"""`gateway usage`: the journal's counts, for people and for scripts."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import typer
from typer.testing import CliRunner, Result

from gateway.auth.keystore import KeyStore
from gateway.auth.record import KeyTerms
from gateway.commands.books import FileBooks
from gateway.commands.usage import UsageSource, usage_command
from tests.fakes.clock import FakeClock


class Shell:
    """Runs `gateway usage ...` on a file with two keys' usage over two days."""

    def __init__(self, path: Path) -> None:
        clock = FakeClock()
        self._app = typer.Typer()
        source = UsageSource(books=FileBooks(path, clock=clock), zone=ZoneInfo("UTC"))
        self._app.command()(usage_command(source=lambda: source, clock=clock))
        self.alice = KeyStore(path=path, clock=clock).create("alice", KeyTerms())[0].key_id
        rows = [
            ("2026-03-14", self.alice, "small", 1000, 200, 3, 0),
            ("2026-03-14", self.alice, "", 0, 0, 0, 7),
            ("2026-03-13", self.alice, "small", 40, 2, 1, 0),
            ("2026-03-14", "static", "large", 5, 5, 1, 0),
            ("2026-01-01", "static", "large", 9, 9, 9, 0),
        ]
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany("INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(self._app, list(words), env={"COLUMNS": "200"})

    def keys(self, *words: str) -> dict[str, list[dict[str, object]]]:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return {key["key_id"]: key["days"] for key in json.loads(result.stdout)["keys"]}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "gateway.db")


def test_today_is_shown_per_key_and_model_with_a_sum(shell: Shell) -> None:
    shown = shell.run().stdout
    for word in ("alice", "small", "1,200", "static", "large", "total", "1,210", "7"):
        assert word in shown
    assert "2026-03-13" not in shown


def test_more_days_reach_back(shell: Shell) -> None:
    shown = shell.run("--days", "2").stdout
    assert "2026-03-13" in shown
    assert "2026-01-01" not in shown


@pytest.mark.parametrize("reference", ["alice", "id"])
def test_one_key_is_found_by_name_and_by_id(shell: Shell, reference: str) -> None:
    keys = shell.keys("--key", shell.alice if reference == "id" else reference, "--days", "2")
    assert list(keys) == [shell.alice]
    assert [day["date"] for day in keys[shell.alice]] == ["2026-03-14", "2026-03-13"]
    assert keys[shell.alice][0]["total_tokens"] == 1200
    assert keys[shell.alice][0]["refusals"] == 7
    assert keys[shell.alice][0]["models"] == {
        "small": {
            "input_tokens": 1000,
            "output_tokens": 200,
            "total_tokens": 1200,
            "requests": 3,
        }
    }


def test_a_key_of_the_environment_is_known_by_its_usage(shell: Shell) -> None:
    assert list(shell.keys("--key", "static")) == ["static"]


def test_an_unknown_key_is_exit_code_3(shell: Shell) -> None:
    result = shell.run("--key", "bob")
    assert result.exit_code == 3
    assert "bob" in result.stderr


@pytest.mark.parametrize("days", ["0", "-1", "many"])
def test_days_that_are_none_are_a_usage_error(shell: Shell, days: str) -> None:
    assert shell.run("--days", days).exit_code == 2


def test_a_missing_file_is_exit_code_1_and_is_not_created(tmp_path: Path) -> None:
    app = typer.Typer()
    source = UsageSource(
        books=FileBooks(tmp_path / "none.db", clock=FakeClock()), zone=ZoneInfo("UTC")
    )
    app.command()(usage_command(source=lambda: source, clock=FakeClock()))
    assert CliRunner().invoke(app, []).exit_code == 1
    assert list(tmp_path.iterdir()) == []
