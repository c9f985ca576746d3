"""`gateway keys`: create, list, show, revoke and rotate API keys; a running gateway follows."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from gateway.auth.keyring import KeyEntry
from gateway.auth.keystore import KeyNotFound, KeyRefused
from gateway.auth.record import KeyRecord, KeyStatus, KeyTerms, Limit
from gateway.auth.register import KeyRegister
from gateway.clock import Clock
from gateway.commands.books import Books
from gateway.commands.exits import explained
from gateway.commands.tables import new_table, print_table
from gateway.commands.terms import (
    expiry_of,
    limit_of,
    models_of,
    name_of,
    positive_limit_of,
    seconds_of,
)

_Key = Annotated[str, typer.Argument(metavar="KEY", help="Id or name of the key.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No explanation on stderr.")]
_LIMIT_HELP = "A number, 'off', or 'default' for what the gateway is configured with."


def keys_app(
    *,
    books: Callable[[], Books],
    clock: Clock,
    static_keys: Callable[[], tuple[KeyEntry, ...]] = tuple,
) -> typer.Typer:
    """The sub-application. The callables are asked when a command runs, not before.

    `static_keys` are those of GATEWAY_API_KEYS: listed, and changed nowhere but there.
    """
    app = typer.Typer(name="keys", help="Create, list, revoke and rotate API keys.")
    commands = _Keys(books=books, clock=clock, static_keys=static_keys)
    app.command("create")(commands.create)
    app.command("list")(commands.list)
    app.command("show")(commands.show)
    app.command("revoke")(commands.revoke)
    app.command("rotate")(commands.rotate)
    return app


class _Keys:
    """The commands. What a script reads goes to stdout, what a person is told to stderr."""

    def __init__(
        self,
        *,
        books: Callable[[], Books],
        clock: Clock,
        static_keys: Callable[[], tuple[KeyEntry, ...]],
    ) -> None:
        self._books = books
        self._clock = clock
        self._static_keys = static_keys

    def create(
        self,
        *,
        name: Annotated[str, typer.Option(help="Who or what the key is for.")],
        daily_tokens: Annotated[str, typer.Option(help=_LIMIT_HELP)] = "default",
        rpm: Annotated[str, typer.Option(help=f"Requests per minute. {_LIMIT_HELP}")] = "default",
        concurrent: Annotated[str, typer.Option(help=_LIMIT_HELP)] = "default",
        models: Annotated[
            str | None, typer.Option(help="Allowed models: a,b. All if left out.")
        ] = (None),
        expires: Annotated[str, typer.Option(help="30d, 2026-12-31 or 'never'.")] = "never",
        as_json: _Json = False,
        quiet: _Quiet = False,
    ) -> None:
        """Create a key and print its secret, which is shown this once."""
        terms = KeyTerms(
            daily_token_quota=limit_of(daily_tokens),
            requests_per_minute=positive_limit_of(rpm),
            max_concurrent=positive_limit_of(concurrent),
            allowed_models=models_of(models),
            expires_at=expiry_of(expires, now=self._clock.now()),
        )
        name = name_of(name)
        with explained():
            self._refuse_static(name)
            record, secret = self._store().create(name, terms)
        place = self._books().place
        story = f"Key '{record.name}' has the id {record.key_id}; it is kept in {place}."
        self._hand_over(record, secret, story, as_json=as_json, quiet=quiet)

    def list(self, as_json: _Json = False) -> None:
        """Show every key; never its secret."""
        with explained():
            records = self._store().records()
        now = self._clock.now()
        keys = [_static_facts(entry) for entry in self._static_keys()]
        keys += [{**record.to_dict(now), "source": "database"} for record in records]
        if as_json:
            typer.echo(json.dumps(keys, indent=2))
            return
        print_table(_table(keys))

    def show(self, key: _Key, as_json: _Json = False) -> None:
        """Show one key; never its secret."""
        with explained(), self._told_if_static(key):
            record = self._store().get(key)
        facts = record.to_dict(self._clock.now())
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
            return
        table = new_table(show_header=False)
        for fact, value in facts.items():
            table.add_row(Text(fact.replace("_", " "), style="bold"), Text(_shown(value)))
        print_table(table)

    def revoke(self, key: _Key, as_json: _Json = False) -> None:
        """Take a key out of use, for good. A running gateway follows within two seconds."""
        with explained(), self._told_if_static(key):
            record = self._store().revoke(key)
        if as_json:
            typer.echo(json.dumps(record.to_dict(self._clock.now()), indent=2))
            return
        typer.echo(f"Key '{record.name}' ({record.key_id}) is revoked.", err=True)

    def rotate(
        self,
        key: _Key,
        grace: Annotated[str, typer.Option(help="How long the old secret still works: 1h.")] = "0",
        as_json: _Json = False,
        quiet: _Quiet = False,
    ) -> None:
        """Give a key a new secret. Its id, limits and usage stay."""
        grace_seconds = seconds_of(grace)
        with explained(), self._told_if_static(key):
            record, secret = self._store().rotate(key, grace_seconds=grace_seconds)
        end = f"works for another {grace}" if grace_seconds else "no longer works"
        story = f"Key '{record.name}' ({record.key_id}) has a new secret. The old one {end}."
        self._hand_over(record, secret, story, as_json=as_json, quiet=quiet)

    def _store(self) -> KeyRegister:
        return self._books().keys

    def _refuse_static(self, reference: str) -> None:
        """Raises KeyRefused if GATEWAY_API_KEYS has a key of this id or name."""
        principals = [entry.principal for entry in self._static_keys()]
        if any(reference in (principal.key_id, principal.name) for principal in principals):
            raise KeyRefused(
                f"key '{reference}' comes from GATEWAY_API_KEYS: change it there and restart"
            )

    @contextmanager
    def _told_if_static(self, reference: str) -> Iterator[None]:
        try:
            yield
        except KeyNotFound:
            self._refuse_static(reference)
            raise

    def _hand_over(
        self, record: KeyRecord, secret: str, story: str, *, as_json: bool, quiet: bool
    ) -> None:
        if as_json:
            facts = record.to_dict(self._clock.now())
            typer.echo(json.dumps({**facts, "secret": secret}, indent=2))
            return
        if not quiet:
            typer.echo(f"{story} This is its secret; it is not shown again:", err=True)
        typer.echo(secret)


def _static_facts(entry: KeyEntry) -> dict[str, object]:
    """A key of GATEWAY_API_KEYS in the words of KeyRecord.to_dict."""
    return {
        "key_id": entry.principal.key_id,
        "name": entry.principal.name,
        "status": KeyStatus.ACTIVE.value,
        "created_at": None,
        "expires_at": None,
        "revoked_at": None,
        "daily_token_quota": Limit.DEFAULT.value,
        "requests_per_minute": Limit.DEFAULT.value,
        "max_concurrent": Limit.DEFAULT.value,
        "allowed_models": None,
        "old_secret_works_until": None,
        "source": "settings",
    }


def _table(keys: Iterable[dict[str, object]]) -> Table:
    columns = {
        "id": "key_id",
        "name": "name",
        "status": "status",
        "tokens/day": "daily_token_quota",
        "requests/min": "requests_per_minute",
        "concurrent": "max_concurrent",
        "models": "allowed_models",
        "expires": "expires_at",
        "old secret works until": "old_secret_works_until",
        "source": "source",
    }
    table = new_table()
    for title in columns:
        table.add_column(title, overflow="fold", no_wrap=title in ("id", "name"))
    for facts in keys:
        # Text, not markup: a name is what somebody typed.
        table.add_row(*(Text(_shown(facts[fact])) for fact in columns.values()))
    return table


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case list():
            return ", ".join(str(item) for item in value)
        case _:
            return str(value)
