"""Exit codes of the commands, and the one place where their errors become a line on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from gateway.auth.keystore import KeyNotFound, KeyRefused
from gateway.database import DatabaseUnusable

DATABASE_UNUSABLE = 1
NO_SUCH_KEY = 3
KEY_REFUSED = 4


@contextmanager
def explained() -> Iterator[None]:
    """1: the database cannot be used; 3: no such key; 4: not possible for this key.

    2 is a wrong command line, as everywhere.
    """
    try:
        yield
    except DatabaseUnusable as error:
        raise _exit(str(error), DATABASE_UNUSABLE) from error
    except KeyNotFound as error:
        raise _exit(str(error.args[0]), NO_SUCH_KEY) from error
    except KeyRefused as error:
        raise _exit(str(error), KEY_REFUSED) from error


def _exit(message: str, code: int) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)
