"""One setting: from the environment, else from config/.env, as the gateway itself reads it."""

import os
import re
from pathlib import Path

ENV_FILE = Path("config/.env")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
_QUOTED = re.compile(r"""(["'])(.*?)\1\s*(?:#.*)?$""")


def setting(variable: str) -> str:
    """Its value, or empty."""
    return os.environ.get(variable) or from_env_file(variable)


def from_env_file(variable: str) -> str:
    """The value of its last line in the file, or empty."""
    try:
        lines = ENV_FILE.read_text().splitlines()
    except OSError:
        return ""
    matches = [match for line in lines if (match := _LINE.match(line))]
    values = [unquoted(match[2]) for match in matches if match[1] == variable]
    return values[-1] if values else ""


def unquoted(value: str) -> str:
    """Without quotes, or without the comment behind it."""
    if quoted := _QUOTED.match(value):
        return quoted[2]
    return re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
