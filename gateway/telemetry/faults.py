"""An exception as the log shows it: where it happened, and no word of any request."""

import sqlite3
import traceback

from gateway.errors import GatewayError

WITHHELD = "its message is withheld: it may quote a request"
# What these say is written by us, or by the operating system and the database about themselves.
PLAIN_SPOKEN = (GatewayError, OSError, sqlite3.Error)
CHAIN_MAX = 10


def describe(error: BaseException) -> str:
    """The traceback, causes first, without values: most exceptions of Python and its libraries
    quote what they could not read, and that may be a prompt or a key."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain and len(chain) < CHAIN_MAX:
        chain.append(found)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return "\nwhich led to:\n".join(_one(each) for each in reversed(chain))


def _one(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    parts = [f"{frames}{name}: {_words(error)}"]
    if isinstance(error, BaseExceptionGroup):
        parts += [describe(each) for each in error.exceptions[:CHAIN_MAX]]
    return "\nwith:\n".join(parts)


def _words(error: BaseException) -> str:
    is_ours = type(error).__module__.partition(".")[0] == "gateway"
    return str(error) if is_ours or isinstance(error, PLAIN_SPOKEN) else WITHHELD
