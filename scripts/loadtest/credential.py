"""Which key to call with: found where the gateway finds its own, and never shown."""

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from gateway.parsing import api_keys


def credential(environ: Mapping[str, str], env_file: Path, *, is_local: bool) -> str:
    """API_KEY, else the first of GATEWAY_API_KEYS, else that of the file; empty without any.

    The gateway's own keys go to no other machine: for that API_KEY has to be set on purpose.
    Raises ValueError for keys that cannot be read.
    """
    if environ.get("API_KEY"):
        return _ascii(environ["API_KEY"])
    if not is_local:
        return ""
    listed = environ.get("GATEWAY_API_KEYS") or _in_file(env_file)
    keys = api_keys(listed)
    return keys[0][1].reveal() if keys else ""


def _in_file(env_file: Path) -> str:
    return dotenv_values(env_file).get("GATEWAY_API_KEYS") or "" if env_file.is_file() else ""


def _ascii(key: str) -> str:
    # A line break in it would be a header of its own.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("API_KEY is no key: it has characters that cannot stand in a header")
    return key
