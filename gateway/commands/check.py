"""`gateway check`: what a start would run into, and whether the upstreams answer."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from gateway.auth.keyring import KeyConflict, static_entries
from gateway.clock import SystemClock
from gateway.commands.books import books_of
from gateway.database import DatabaseUnusable
from gateway.routing.definition import UpstreamDefinition, place_of
from gateway.settings import ConfigurationError, Settings
from gateway.settings.fleet import SOURCES
from gateway.shared.config import RedisConfig
from gateway.telemetry.logs import LogFileUnusable, require_writable
from gateway.transport.probe import HttpProbe

PROBE_TIMEOUT_SECONDS = 5.0


_KEY_VARIABLES = frozenset({"GATEWAY_API_KEYS", "DATABASE_PATH", "REDIS_URL"})
_UPSTREAM_VARIABLES = frozenset({*SOURCES, "VLLM_API_KEY", "MODEL_ALIASES"})


@dataclass(frozen=True, slots=True)
class Findings:
    """Faults, each a sentence with its cure: in the settings' text, and in what they lead to."""

    settings: tuple[str, ...]
    others: tuple[str, ...]
    warnings: tuple[str, ...]


def examine(environ: Mapping[str, str], *, base: Path = Path()) -> Findings:
    """Every fault found. What depends on a variable that cannot be read is left out."""
    faults: list[str] = []
    unread: frozenset[str] = frozenset()
    while True:
        rest = {name: value for name, value in environ.items() if name not in unread}
        if "UPSTREAMS_FILE" in unread:
            rest["UPSTREAMS_FILE"] = "off"  # Left out, it would be looked for at its default.
        try:
            return _findings(Settings.from_env(rest, base=base), tuple(faults), unread)
        except ConfigurationError as error:
            # Of two sources of upstreams the one that is kept may have faults of its own.
            if error.variables <= unread:
                raise
            faults += error.faults
            unread |= error.variables


def _findings(settings: Settings, faults: tuple[str, ...], unread: frozenset[str]) -> Findings:
    others: list[str] = [*_log_faults(settings)]
    if not unread & _KEY_VARIABLES:
        others += _key_faults(settings)
    if not unread & _UPSTREAM_VARIABLES:
        others += asyncio.run(_upstream_faults(settings))
    warnings = [*settings.warnings]
    if settings.redis is not None and "REDIS_URL" not in unread:
        warnings += _redis_warnings(settings.redis)
    return Findings(faults, tuple(others), tuple(warnings))


def _log_faults(settings: Settings) -> Iterator[str]:
    if settings.log_file is not None:
        try:
            require_writable(settings.log_file)
        except LogFileUnusable as fault:
            yield str(fault)


def _key_faults(settings: Settings) -> Iterator[str]:
    secrets = [(name, secret.reveal()) for name, secret in settings.static_keys]
    stored = 0
    try:
        static_entries(secrets, defaults=settings.key_defaults)
    except KeyConflict as fault:
        yield f"GATEWAY_API_KEYS: {fault}"
    if settings.redis is not None or settings.journal.path.exists():
        try:
            stored = len(books_of(settings, clock=SystemClock()).keys.records())
        except DatabaseUnusable as fault:
            yield str(fault)
    if not secrets and not stored:
        yield "GATEWAY_API_KEYS: no key exists; set it, or run `gateway keys create --name NAME`"


def _redis_warnings(config: RedisConfig) -> Iterator[str]:
    from gateway.shared.inspection import inspect
    from gateway.shared.tables import Tables

    tables = Tables(config)
    try:
        found = inspect(tables, place=config.place)
    except DatabaseUnusable as fault:
        yield str(fault)
        return
    finally:
        tables.close()
    for warning in found.warnings:
        yield f"REDIS_URL={config.place}: {warning}"


async def _upstream_faults(settings: Settings) -> list[str]:
    definitions = settings.fleet.upstreams
    async with httpx2.AsyncClient(timeout=PROBE_TIMEOUT_SECONDS, trust_env=False) as client:
        answers = await asyncio.gather(*(_probe(each, client).check() for each in definitions))
    file = settings.upstreams_file
    faults = []
    served: set[str] = set()
    for definition, health in zip(definitions, answers, strict=True):
        where = f"{file.path}: upstream '{definition.name}'" if file else _variable(definition)
        if not health.is_healthy:
            faults.append(f"{where}: {health.reason}")
            continue
        listed = {model.name for model in health.models}
        served |= listed & definition.models if definition.models else listed
        absent = sorted(definition.models - listed)
        if absent:
            has = ", ".join(sorted(listed))
            faults.append(f"{where}, models: {', '.join(absent)} not served there; it has {has}")
    return [*faults, *_unserved(settings, served)]


def _variable(definition: UpstreamDefinition) -> str:
    """Where one that is in no file was named."""
    has_no_name = definition.name == place_of(definition.url)
    return "VLLM_URL" if has_no_name else f"UPSTREAMS, {definition.name}"


def _unserved(settings: Settings, served: set[str]) -> Iterator[str]:
    """Names in the settings that no upstream serves, once some have said what they serve."""
    names = ", ".join(sorted(served))
    wanted = {f"alias {alias}": target for alias, target in settings.fleet.aliases.items()}
    if settings.default_model:
        wanted["MODEL_NAME"] = settings.default_model
    for what, model in wanted.items():
        if served and model not in served:
            yield f"{what}={model}: not served; the upstreams have {names}"


def _probe(definition: UpstreamDefinition, client: httpx2.AsyncClient) -> HttpProbe:
    return HttpProbe(
        url=definition.url,
        client=client,
        api_key=definition.api_key.reveal() or None,
        health_path=definition.health_path,
    )
