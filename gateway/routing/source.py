"""Where the definitions come from: fixed ones, or a file that may change while the gateway runs."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gateway.routing.definition import FleetDefinition
from gateway.routing.secret import Secret
from gateway.routing.tables import read_tables

FILE_BYTES_MAX = 1024 * 1024


class DefinitionsUnusable(Exception):
    """The upstreams file cannot be used; each of `faults` names the place and the cure."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class Stamp(NamedTuple):
    """What tells a file from what it was before."""

    modified_ns: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class UpstreamsFile:
    """A TOML file of [[upstream]] tables and [aliases].

    `environ` holds the keys that `api_key_env` names, `api_key` is that of an upstream that names
    none, and `aliases` are those of the settings; the file's own win over them.
    """

    path: Path
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_key: Secret = field(default_factory=lambda: Secret(""))
    aliases: Mapping[str, str] = field(default_factory=dict)

    def stamp(self) -> Stamp | None:
        """None while there is no such file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return Stamp(found.st_mtime_ns, found.st_size, found.st_ino)

    def read(self) -> FleetDefinition:
        """The whole file, or DefinitionsUnusable with all that is wrong with it."""
        document = self._document()
        tables = read_tables(document, environ=self.environ, api_key=self.api_key)
        if tables.faults:
            raise DefinitionsUnusable(tuple(f"{self.path}: {fault}" for fault in tables.faults))
        aliases = {**self.aliases, **tables.fleet.aliases}
        return FleetDefinition(tables.fleet.upstreams, aliases)

    def _document(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                text = file.read(FILE_BYTES_MAX + 1)
            if len(text) > FILE_BYTES_MAX:
                raise DefinitionsUnusable((f"{self.path}: is larger than {FILE_BYTES_MAX} bytes",))
            return tomllib.loads(text.decode())
        except OSError as cause:
            raise DefinitionsUnusable(
                (f"{self.path}: cannot be read ({cause.strerror})",)
            ) from None
        except UnicodeDecodeError:
            raise DefinitionsUnusable((f"{self.path}: is not UTF-8 text",)) from None
        except tomllib.TOMLDecodeError as fault:
            raise DefinitionsUnusable((f"{self.path}: is no TOML: {fault}",)) from None
