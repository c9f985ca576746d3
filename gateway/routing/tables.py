"""The tables of the upstreams file: what is written there to definitions, or every fault in it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from gateway.routing.definition import (
    HEALTH_PATH,
    FleetDefinition,
    Kind,
    MessagesMode,
    UpstreamDefinition,
    place_of,
    require_url,
)
from gateway.routing.secret import Secret

WEIGHT_MAX: Final = 100
NAME_MAX: Final = 100
_SECTIONS: Final = ("upstream", "aliases")


@dataclass(slots=True)
class Tables:
    """What a file says, as far as it could be read, and a fault for each thing that could not."""

    fleet: FleetDefinition = field(default_factory=lambda: FleetDefinition(()))
    faults: list[str] = field(default_factory=list)


def read_tables(
    document: Mapping[str, Any], *, environ: Mapping[str, str], api_key: Secret
) -> Tables:
    """Read the whole document. `api_key` is for upstreams that name none of their own."""
    tables = Tables()
    tables.faults += _unknown("", document, _SECTIONS)
    entries = document.get("upstream", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        tables.faults.append("upstream: write each upstream as a table [[upstream]]")
        entries = []
    elif not entries:
        tables.faults.append("names no upstream: write at least one table [[upstream]]")
    definitions = []
    for number, entry in enumerate(entries, start=1):
        reading = _Entry(entry, number, environ=environ, api_key=api_key)
        definitions.append(reading.definition())
        tables.faults += reading.faults
    tables.faults += repeated_places(definitions)
    aliases, faults = read_aliases(document.get("aliases", {}))
    tables.faults += faults
    tables.fleet = FleetDefinition(tuple(definitions), aliases)
    return tables


def read_aliases(table: Any) -> tuple[dict[str, str], list[str]]:
    """The aliases of a table, and the faults in it."""
    if not isinstance(table, dict):
        return {}, ['[aliases]: write each as "name for clients" = "served model"']
    faults = []
    aliases: dict[str, str] = {}
    for name, target in table.items():
        if not isinstance(target, str) or not target.strip() or not name.strip():
            faults.append(f'[aliases] "{name}": must be the name of a served model, in quotes')
        else:
            aliases[name] = target
    for name, target in aliases.items():
        if target in aliases:
            faults.append(
                f'[aliases] "{name}": "{target}" is an alias itself; name the model it stands for'
            )
    return aliases, faults


def repeated_places(definitions: Iterable[UpstreamDefinition]) -> list[str]:
    """A fault for each name and each address that two upstreams have in common."""
    faults = []
    names: set[str] = set()
    urls: dict[str, str] = {}
    for each in definitions:
        if each.name and each.name in names:
            faults.append(f"upstream '{each.name}': two have this name; give each its own")
        names.add(each.name)
        if each.url and each.url in urls:
            faults.append(f"upstream '{each.name}', url: '{urls[each.url]}' is there already")
        urls.setdefault(each.url, each.name)
    return faults


class _Entry:
    """One [[upstream]] table on its way to a definition; what cannot be read takes its default."""

    def __init__(
        self,
        entry: Mapping[str, Any],
        number: int,
        *,
        environ: Mapping[str, str],
        api_key: Secret,
    ) -> None:
        self._entry = entry
        self._environ = environ
        self._default_key = api_key
        self.faults: list[str] = []
        self._where = f"upstream {number}"
        self._readers: dict[str, Callable[[Any], Any]] = {
            "name": _name,
            "url": _url,
            "kind": _kinds,
            "models": _models,
            "weight": _weight,
            "max_in_flight": _count,
            "connect_timeout_seconds": _seconds,
            "first_byte_timeout_seconds": _seconds,
            "idle_timeout_seconds": _seconds,
            "api_key": _key,
            "api_key_env": self._key_from_environment,
            "health_path": _path,
            "messages": _messages,
        }

    def definition(self) -> UpstreamDefinition:
        url = self._read("url", "")
        name = self._read("name", "") or place_of(url)
        if name:
            self._where = f"upstream '{name}'"
        if "url" not in self._entry:
            self._fault("url", 'is missing; write e.g. url = "http://127.0.0.1:8000"')
        self.faults += _unknown(self._where, self._entry, self._readers)
        return UpstreamDefinition(
            name=name,
            url=url,
            kinds=self._read("kind", frozenset()),
            models=self._read("models", frozenset()),
            weight=self._read("weight", 1),
            max_in_flight=self._read("max_in_flight", None),
            connect_timeout_seconds=self._read("connect_timeout_seconds", None),
            first_byte_timeout_seconds=self._read("first_byte_timeout_seconds", None),
            idle_timeout_seconds=self._read("idle_timeout_seconds", None),
            api_key=self._api_key(),
            health_path=self._read("health_path", HEALTH_PATH),
            messages=self._read("messages", MessagesMode.AUTO),
        )

    def _api_key(self) -> Secret:
        if "api_key" in self._entry and "api_key_env" in self._entry:
            self._fault("api_key", "stands beside api_key_env; keep one of them")
        key = "api_key_env" if "api_key_env" in self._entry else "api_key"
        found: Secret = self._read(key, self._default_key)
        return found

    def _read(self, key: str, default: Any) -> Any:
        if key not in self._entry:
            return default
        try:
            return self._readers[key](self._entry[key])
        except ValueError as fault:
            self._fault(key, str(fault))
            return default

    def _fault(self, key: str, sentence: str) -> None:
        self.faults.append(f"{self._where}, {key}: {sentence}")

    def _key_from_environment(self, value: Any) -> Secret:
        name = _text(value)
        found = self._environ.get(name, "").strip()
        if not found:
            raise ValueError(f"the environment has no variable {name}, or it is empty; set it")
        return _key(found)


def _unknown(where: str, table: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    prefix = f"{where}, " if where else ""
    faults = []
    for key in sorted(table.keys() - set(known)):
        near = get_close_matches(key, list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        faults.append(f"{prefix}{key}: is no key of this file; {hint}")
    return faults


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text in quotes, not empty")
    return value.strip()


def _name(value: Any) -> str:
    name = _text(value)
    if len(name) > NAME_MAX or not name.isprintable():
        raise ValueError(f"must be printable and at most {NAME_MAX} characters long")
    return name


def _url(value: Any) -> str:
    try:
        return require_url(_text(value))
    except ValueError as fault:
        raise ValueError(str(fault).replace("VLLM_API_KEY", "api_key_env")) from None


def _texts(value: Any) -> list[str]:
    return [_text(each) for each in (value if isinstance(value, list) else [value])]


def _kinds(value: Any) -> frozenset[Kind]:
    names = [kind.value for kind in Kind]
    kinds = set()
    for each in _texts(value):
        if each == "auto":
            continue
        if each not in names:
            raise ValueError(f"'{each}' is none of auto, {', '.join(names)}")
        kinds.add(Kind(each))
    return frozenset(kinds)


def _models(value: Any) -> frozenset[str]:
    if value == []:
        raise ValueError("names none; leave it out to serve all that the upstream lists")
    return frozenset(_texts(value))


def _whole(value: Any, *, most: float = math.inf) -> int:
    if type(value) is not int or not 1 <= value <= most:  # TOML's true is an int to Python.
        bound = f" to {most}" if most < math.inf else " up"
        raise ValueError(f"must be a whole number from 1{bound}")
    return value


def _weight(value: Any) -> int:
    return _whole(value, most=WEIGHT_MAX)


def _count(value: Any) -> int:
    return _whole(value)


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError("must be a number of seconds above 0")
    return float(value)


def _key(value: Any) -> Secret:
    if not isinstance(value, str) or not value.isascii() or any(c.isspace() for c in value):
        raise ValueError("must be a text of ASCII without spaces")
    return Secret(value)


def _path(value: Any) -> str:
    path = _text(value)
    if not path.startswith("/") or not path.isascii() or any(c.isspace() for c in path):
        raise ValueError("must be a path like /health")
    return path


def _messages(value: Any) -> MessagesMode:
    modes = [mode.value for mode in MessagesMode]
    if value not in modes:
        raise ValueError(f"must be one of {', '.join(modes)}")
    return MessagesMode(value)
