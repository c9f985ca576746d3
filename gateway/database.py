"""The one SQLite file: who may open it, which tables it has, and why it may be refused."""

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

APPLICATION_ID = 0x764C4757
BUSY_SECONDS = 2.0

_KEYS_CHANGED = """
CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN
    UPDATE meta SET value = lower(hex(randomblob(8))) WHERE name = 'keys_version';
END
"""

# Each entry takes the file one `PRAGMA user_version` further. Never edit one, only append.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # store_id names this file for life; keys_version changes with every change of a key.
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """
        INSERT INTO meta VALUES
            ('store_id', lower(hex(randomblob(16)))),
            ('keys_version', lower(hex(randomblob(8))))
        """,
        # Absolute counts. Refusals are booked under the empty model: no model was asked.
        """
        CREATE TABLE usage (
            day TEXT NOT NULL,
            key_id TEXT NOT NULL,
            model TEXT NOT NULL,
            input_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            refusals INTEGER NOT NULL,
            PRIMARY KEY (day, key_id, model)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX usage_of_key ON usage (key_id, day)",
        # A limit is NULL for the gateway's default and -1 for none; times are ISO 8601 in UTC.
        """
        CREATE TABLE api_keys (
            key_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            created_at TEXT NOT NULL,
            expires_at TEXT,
            revoked_at TEXT,
            daily_token_quota INTEGER,
            requests_per_minute INTEGER,
            max_concurrent INTEGER,
            allowed_models TEXT
        )
        """,
        "CREATE UNIQUE INDEX active_key_names ON api_keys (name) WHERE revoked_at IS NULL",
        # Only SHA-256 digests; a secret that was rotated out has its own revoked_at.
        """
        CREATE TABLE api_key_secrets (
            digest BLOB PRIMARY KEY,
            key_id TEXT NOT NULL REFERENCES api_keys (key_id),
            created_at TEXT NOT NULL,
            revoked_at TEXT
        )
        """,
        *(
            _KEYS_CHANGED.format(table=table, event=event)
            for table in ("api_keys", "api_key_secrets")
            for event in ("INSERT", "UPDATE", "DELETE")
        ),
    ),
)

_UNSOUND = (
    "it is not a sound SQLite database",
    "Stop the gateway, move the file and its -wal and -shm aside or restore a backup",
)
_UNWRITABLE = (
    "it cannot be opened for writing",
    "Let the gateway's user write the file and its directory, or name another path",
)
_REASONS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_NOTADB: _UNSOUND,
    sqlite3.SQLITE_CORRUPT: _UNSOUND,
    sqlite3.SQLITE_READONLY: _UNWRITABLE,
    sqlite3.SQLITE_CANTOPEN: _UNWRITABLE,
    sqlite3.SQLITE_PERM: _UNWRITABLE,
    sqlite3.SQLITE_BUSY: ("another program keeps it locked", "End that program, then try again"),
    sqlite3.SQLITE_FULL: ("the disk is full", "Free some space"),
}
_UNKNOWN = ("it cannot be used", "See whether the disk is full, read-only or failing")


class DatabaseUnusable(Exception):
    """`DATABASE_PATH` cannot be used; the message says why and what helps."""

    def __init__(self, path: Path, *, cause: str, cure: str) -> None:
        super().__init__(f"DATABASE_PATH={path}: {cause}. {cure}.")
        self.path = path


def prepare(path: Path, *, verify: bool = False) -> None:
    """Create the file if there is none and bring its tables up to date; safe to run in a race.

    `verify` reads the whole file first. Raises DatabaseUnusable; never replaces what is there.
    """
    with _explained(path):
        _create(path)
        with closing(_connect(path)) as connection:
            if verify:
                _quick_check(connection, path)
            _migrate(connection, path)


@contextmanager
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction that commits when the block ends well. Raises DatabaseUnusable."""
    prepare(path)
    with _explained(path), closing(_connect(path)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        with _transaction(connection, "IMMEDIATE"):
            yield connection


@contextmanager
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    """One consistent view that can write nothing. Raises DatabaseUnusable, also for no file.

    While the journal has the file open, SQLite keeps a closed reader's descriptor for the next one
    (to close any would drop the journal's lock): there stay as many as ever read at once.
    """
    if not path.exists():
        raise DatabaseUnusable(
            path,
            cause="there is no such file",
            cure="Start the gateway or create a key first, or correct the path",
        )
    with _explained(path), closing(_connect(path, "?mode=ro")) as connection:
        connection.execute("BEGIN")
        if _version(connection, path) < len(MIGRATIONS):
            raise DatabaseUnusable(
                path, cause="its tables are of an older gateway", cure="Start this gateway once"
            )
        yield connection


def _connect(path: Path, options: str = "") -> sqlite3.Connection:
    uri = path.absolute().as_uri() + options
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _create(path: Path) -> None:
    # Opened only if new: closing any other descriptor of a file drops SQLite's locks on it.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    # SQLite opens what it may not write as read-only without a word, and begins to write.
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _quick_check(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DatabaseUnusable(path, cause=_UNSOUND[0], cure=_UNSOUND[1])


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    # Nothing is changed before it is certain that the file is ours.
    with _transaction(connection, "DEFERRED"):
        _version(connection, path)
    _write_ahead(connection)
    # Writers take turns here, so of two that come first only one creates the tables.
    with _transaction(connection, "IMMEDIATE"):
        version = _version(connection, path)
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise DatabaseUnusable(
            path, cause="it belongs to another program", cure="Name a file of the gateway's own"
        )
    if version > len(MIGRATIONS):
        raise DatabaseUnusable(
            path,
            cause=f"a newer gateway wrote it (schema {version}, this one knows {len(MIGRATIONS)})",
            cure="Run that gateway, or restore the backup made before the upgrade",
        )
    return int(version)


def _write_ahead(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for its busy timeout while it changes the journal mode.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What SQLite and the file system say, with the setting's name and a cure."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        cause, cure = _REASONS.get(code, _UNKNOWN)
        raise DatabaseUnusable(path, cause=f"{cause} ({error})", cure=cure) from error
    except OSError as error:
        cause, cure = _UNWRITABLE
        raise DatabaseUnusable(path, cause=f"{cause} ({error.strerror})", cure=cure) from error
