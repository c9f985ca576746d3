"""Which upstreams the settings name: in VLLM_URL, in UPSTREAMS or in a file, never in two."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.routing.definition import FleetDefinition, UpstreamDefinition, place_of
from gateway.routing.source import DefinitionsUnusable, UpstreamsFile
from gateway.routing.tables import read_aliases, repeated_places

SOURCES: Final = frozenset({"VLLM_URL", "UPSTREAMS", "UPSTREAMS_FILE"})


@dataclass(frozen=True, slots=True)
class Sources:
    """What was found: `file` is to be watched where there is one; faults are pairs of the variable
    to change and a sentence."""

    fleet: FleetDefinition
    file: UpstreamsFile | None = None
    faults: tuple[tuple[str, str], ...] = ()


def read_fleet(
    values: Mapping[str, Any], *, said: AbstractSet[str], environ: Mapping[str, str]
) -> Sources:
    """The upstreams of the one source there is. A file that is merely there gives way to what is
    said in a variable."""
    aliases, alias_faults = read_aliases(values["MODEL_ALIASES"])
    faults = [("MODEL_ALIASES", f"MODEL_ALIASES: {fault}") for fault in alias_faults]
    named = sorted(_named(values, said))
    if len(named) > 1:
        both = " and ".join(named)
        faults.append((named[-1], f"{both} are set: each names all upstreams, so keep one of them"))
    path = values["UPSTREAMS_FILE"]
    if named and named[-1] != "UPSTREAMS_FILE":
        path = None
    if path is not None and (named or path.is_file()):
        return _from_file(path, values, environ, aliases, faults)
    definitions = _from_variables(values)
    faults += [("UPSTREAMS", f"UPSTREAMS: {fault}") for fault in repeated_places(definitions)]
    return Sources(FleetDefinition(definitions, aliases), None, tuple(faults))


def found_beside(values: Mapping[str, Any], *, said: AbstractSet[str]) -> Iterator[str]:
    """A warning of a file of upstreams that is there and not read."""
    named = _named(values, said)
    path: Path | None = values["UPSTREAMS_FILE"]
    if path is not None and named and "UPSTREAMS_FILE" not in named and path.is_file():
        yield f"{path} is not read: {named[0]} is set; remove one of them"


def _named(values: Mapping[str, Any], said: AbstractSet[str]) -> list[str]:
    """The sources that somebody chose; `off` chooses none."""
    chosen = SOURCES & said
    return sorted(chosen if values["UPSTREAMS_FILE"] else chosen - {"UPSTREAMS_FILE"})


def _from_file(
    path: Path,
    values: Mapping[str, Any],
    environ: Mapping[str, str],
    aliases: Mapping[str, str],
    faults: list[tuple[str, str]],
) -> Sources:
    # All of the environment: a later state of the file may name any of it with api_key_env.
    file = UpstreamsFile(path, dict(environ), values["VLLM_API_KEY"], aliases)
    try:
        return Sources(file.read(), file, tuple(faults))
    except DefinitionsUnusable as unusable:
        faults += [("UPSTREAMS_FILE", f"UPSTREAMS_FILE={fault}") for fault in unusable.faults]
        return Sources(FleetDefinition(()), None, tuple(faults))


def _from_variables(values: Mapping[str, Any]) -> tuple[UpstreamDefinition, ...]:
    pairs = values["UPSTREAMS"] or [(place_of(url), url) for url in values["VLLM_URL"]]
    key = values["VLLM_API_KEY"]
    return tuple(UpstreamDefinition(name=name, url=url, api_key=key) for name, url in pairs)
