"""The one SQLite file, read by several while it is written."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from gateway.database import prepare, reader


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file that somebody has open and has written to, as the journal does."""
    path = tmp_path / "gateway.db"
    prepare(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as journal:
        journal.execute("INSERT INTO usage VALUES ('2026-03-14', 'team', 'm', 1, 1, 1, 0)")
        yield path


def read(path: Path, *, at_once: int = 1) -> None:
    with ExitStack() as reading:
        for _ in range(at_once):
            connection = reading.enter_context(reader(path))
            assert connection.execute("SELECT count(*) FROM usage").fetchone() == (1,)


def descriptors(path: Path) -> int:
    return sum(each.path == str(path) for each in psutil.Process().open_files())


def test_there_stay_as_many_descriptors_as_ever_read_at_once(path: Path) -> None:
    before = descriptors(path)
    for at_once, kept in ((1, 1), (2, 2), (1, 2), (2, 2)):
        for _ in range(20):
            read(path, at_once=at_once)
        assert descriptors(path) == before + kept
