"""`gateway keys`: what a person sees, what a script reads, and how it fails."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.auth.keyring import KeyDefaults, KeyRing, static_entries
from gateway.auth.keystore import KeyStore
from gateway.commands.books import FileBooks
from gateway.commands.keys import keys_app
from tests.fakes.clock import FakeClock

ROOT = Path(__file__).parents[3]


class Shell:
    """Runs `gateway keys ...` on one file."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.store = KeyStore(path=path, clock=self.clock)
        static = static_entries([("Team A", "sk-team-of-settings")], defaults=KeyDefaults())
        self._app = keys_app(
            books=lambda: FileBooks(path, clock=self.clock),
            clock=self.clock,
            static_keys=lambda: static,
        )

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(self._app, list(words), env={"COLUMNS": "200"})

    def facts(self, *words: str) -> dict[str, object]:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        facts: dict[str, object] = json.loads(result.stdout)
        return facts

    def owner_of(self, secret: str) -> str:
        entries = self.store.snapshot(KeyDefaults()).entries
        return KeyRing(entries, clock=self.clock).authenticate(secret).name


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "gateway.db")


def test_create_prints_the_secret_alone_on_stdout(shell: Shell) -> None:
    result = shell.run("create", "--name", "alice")
    assert result.exit_code == 0
    assert shell.owner_of(result.stdout.strip()) == "alice"
    assert "not shown again" in result.stderr


def test_create_quietly_says_nothing_else(shell: Shell) -> None:
    result = shell.run("create", "--name", "alice", "--quiet")
    assert result.stderr == ""
    assert result.stdout.startswith("sk-")


def test_create_takes_every_term(shell: Shell) -> None:
    words = "--daily-tokens 1_000_000 --rpm unlimited --concurrent 4 --models a,b --expires 30d"
    facts = shell.facts("create", "--name", "alice", *words.split())
    assert facts["daily_token_quota"] == 1_000_000
    assert facts["requests_per_minute"] == "unlimited"
    assert facts["max_concurrent"] == 4
    assert facts["allowed_models"] == ["a", "b"]
    assert facts["expires_at"] == "2026-04-13T12:00:00Z"
    assert shell.owner_of(str(facts["secret"])) == "alice"


@pytest.mark.parametrize("word", ["off", "unlimited"])
def test_no_limit_has_the_word_of_the_settings_and_that_of_the_json(
    shell: Shell, word: str
) -> None:
    words = f"--daily-tokens {word} --rpm {word} --concurrent {word}"
    facts = shell.facts("create", "--name", "alice", *words.split())
    limits = [facts[name] for name in ("daily_token_quota", "requests_per_minute")]
    assert [*limits, facts["max_concurrent"]] == ["unlimited"] * 3


@pytest.mark.parametrize("document", ["README.md", "scripts/README.md"])
def test_keys_can_be_made_as_the_documents_say(shell: Shell, document: str) -> None:
    told = re.findall(r"gateway keys (create --[^`)#\n]*)", (ROOT / document).read_text())
    results = [shell.run(*words.split()) for words in told]
    assert results
    assert [result.output for result in results if result.exit_code != 0] == []


def test_what_is_left_out_is_the_gateways_default(shell: Shell) -> None:
    facts = shell.facts("create", "--name", "alice")
    assert facts["daily_token_quota"] == "default"
    assert facts["requests_per_minute"] == "default"
    assert facts["allowed_models"] is None
    assert facts["expires_at"] is None


@pytest.mark.parametrize(
    ("expires", "said"),
    [
        ("2026-12-31", "2027-01-01T00:00:00Z"),
        ("2026-12-31T18:00:00+02:00", "2026-12-31T16:00:00Z"),
        ("12h", "2026-03-15T00:00:00Z"),
        ("never", None),
    ],
)
def test_an_expiry_has_many_words(shell: Shell, expires: str, said: str | None) -> None:
    assert shell.facts("create", "--name", "a", "--expires", expires)["expires_at"] == said


@pytest.mark.parametrize(
    "words",
    [
        ("--name", ""),
        ("--name", "bell\x07"),
        ("--name", "a", "--rpm", "-1"),
        ("--name", "a", "--rpm", "many"),
        ("--name", "a", "--rpm", "0"),
        ("--name", "a", "--concurrent", "0"),
        ("--name", "a", "--daily-tokens", "1e6"),
        ("--name", "a", "--models", ","),
        ("--name", "a", "--expires", "2020-01-01"),
        ("--name", "a", "--expires", "2026-12-31T18:00:00"),
        ("--name", "a", "--expires", "soon"),
        (),
    ],
)
def test_a_wrong_word_is_a_usage_error_and_creates_nothing(
    shell: Shell, words: tuple[str, ...], tmp_path: Path
) -> None:
    assert shell.run("create", *words).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_list_shows_names_as_they_are_and_no_secret(shell: Shell) -> None:
    secret = shell.run("create", "--name", "[red]alice[/red]").stdout.strip()
    shown = shell.run("list").stdout
    assert "[red]alice[/red]" in shown
    assert "active" in shown
    assert secret not in shown


def test_list_for_scripts_has_every_key(shell: Shell) -> None:
    shell.run("create", "--name", "alice")
    shell.run("create", "--name", "bob")
    shell.run("revoke", "alice")
    listed = json.loads(shell.run("list", "--json").stdout)
    assert {facts["name"]: facts["status"] for facts in listed} == {
        "Team A": "active",
        "alice": "revoked",
        "bob": "active",
    }


def test_show_finds_a_key_by_name_and_by_id(shell: Shell) -> None:
    facts = shell.facts("create", "--name", "alice")
    assert shell.facts("show", "alice")["key_id"] == facts["key_id"]
    assert "alice" in shell.run("show", str(facts["key_id"])).stdout


def test_rotate_prints_a_new_secret_and_honours_the_grace(shell: Shell) -> None:
    old = shell.run("create", "--name", "alice", "-q").stdout.strip()
    new = shell.run("rotate", "alice", "--grace", "1h", "-q").stdout.strip()
    assert (shell.owner_of(old), shell.owner_of(new)) == ("alice", "alice")


def test_a_key_in_its_grace_says_until_when_the_old_secret_works(shell: Shell) -> None:
    shell.run("create", "--name", "alice")
    rotated = shell.facts("rotate", "alice", "--grace", "1h")

    assert rotated["old_secret_works_until"] == "2026-03-14T13:00:00Z"
    assert "2026-03-14T13:00:00Z" in shell.run("list").stdout
    shell.clock.advance(timedelta(hours=1).total_seconds())
    assert shell.facts("show", "alice")["old_secret_works_until"] is None


def test_create_says_which_database_it_wrote(shell: Shell, tmp_path: Path) -> None:
    assert str(tmp_path / "gateway.db") in shell.run("create", "--name", "alice").stderr


def test_list_is_one_line_a_key_where_nobody_looks(shell: Shell) -> None:
    shell.run("create", "--name", "alice " * 10, "--models", ",".join(f"m{n}" for n in range(99)))
    lines = shell.run("list").stdout.splitlines()

    assert len(lines) == 1 + 2
    assert lines[0].split()[0] == "id"


def test_list_shows_keys_of_the_settings(shell: Shell) -> None:
    shell.run("create", "--name", "alice")
    shown = shell.run("list").stdout

    assert "team-a" in shown
    assert "settings" in shown


@pytest.mark.parametrize("words", ["show", "revoke", "rotate", "create --name"])
@pytest.mark.parametrize("name", ["Team A", "team-a"])
def test_a_key_of_the_settings_is_changed_there(shell: Shell, words: str, name: str) -> None:
    shell.run("create", "--name", "alice")
    result = shell.run(*words.split(), name)

    assert result.exit_code == 4
    assert "comes from GATEWAY_API_KEYS: change it there and restart" in result.stderr


def test_an_expired_key_is_shown_as_expired(shell: Shell) -> None:
    shell.run("create", "--name", "alice", "--expires", "1h")
    shell.clock.advance(timedelta(hours=1).total_seconds())
    assert shell.facts("show", "alice")["status"] == "expired"


@pytest.mark.parametrize("command", ["show", "revoke", "rotate"])
def test_an_unknown_key_is_exit_code_3(shell: Shell, command: str) -> None:
    shell.run("create", "--name", "alice")
    result = shell.run(command, "bob")
    assert result.exit_code == 3
    assert "no key has the id or name 'bob'" in result.stderr
    assert result.stdout == ""


def test_what_cannot_be_done_to_a_key_is_exit_code_4(shell: Shell) -> None:
    shell.run("create", "--name", "alice")
    assert shell.run("create", "--name", "alice").exit_code == 4
    assert shell.run("revoke", "alice").exit_code == 0
    assert shell.run("revoke", "alice").exit_code == 4


def test_an_unusable_database_is_exit_code_1(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"no database" * 100)
    for words in (("list",), ("create", "--name", "alice")):
        result = shell.run(*words)
        assert result.exit_code == 1
        assert "DATABASE_PATH=" in result.stderr
