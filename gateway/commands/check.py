"""`gateway check`: what a start would run into, and whether the upstreams answer."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from gateway.auth.keyring import KeyConflict, static_entries
from gateway.auth.keystore import KeyStore
from gateway.clock import SystemClock
from gateway.database import DatabaseUnusable
from gateway.settings import ConfigurationError, Settings
from gateway.telemetry.logs import LogFileUnusable, require_writable
from gateway.transport.probe import HttpProbe

PROBE_TIMEOUT_SECONDS = 5.0


_KEY_VARIABLES = frozenset({"GATEWAY_API_KEYS", "DATABASE_PATH"})
_UPSTREAM_VARIABLES = frozenset({"VLLM_URL", "VLLM_API_KEY"})


@dataclass(frozen=True, slots=True)
class Findings:
    """Faults, each a sentence with its cure: in the settings' text, and in what they lead to."""

    settings: tuple[str, ...]
    others: tuple[str, ...]
    warnings: tuple[str, ...]


def examine(environ: Mapping[str, str], *, base: Path = Path()) -> Findings:
    """Every fault found. What depends on a variable that cannot be read is left out."""
    try:
        settings = Settings.from_env(environ, base=base)
    except ConfigurationError as error:
        rest = {name: value for name, value in environ.items() if name not in error.variables}
        return _findings(Settings.from_env(rest, base=base), tuple(error.faults), error.variables)
    return _findings(settings, (), frozenset())


def _findings(settings: Settings, faults: tuple[str, ...], unread: frozenset[str]) -> Findings:
    others: list[str] = [*_log_faults(settings)]
    if not unread & _KEY_VARIABLES:
        others += _key_faults(settings)
    if not unread & _UPSTREAM_VARIABLES:
        others += asyncio.run(_upstream_faults(settings))
    return Findings(faults, tuple(others), settings.warnings)


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
    if settings.journal.path.exists():
        try:
            stored = len(KeyStore(path=settings.journal.path, clock=SystemClock()).records())
        except DatabaseUnusable as fault:
            yield str(fault)
    if not secrets and not stored:
        yield "GATEWAY_API_KEYS: no key exists; set it, or run `gateway keys create --name NAME`"


async def _upstream_faults(settings: Settings) -> list[str]:
    api_key = settings.upstream_api_key.reveal() or None
    async with httpx2.AsyncClient(timeout=PROBE_TIMEOUT_SECONDS, trust_env=False) as client:
        probes = [
            HttpProbe(url=url, client=client, api_key=api_key) for url in settings.upstream_urls
        ]
        answers = [await probe.check() for probe in probes]
    faults = [f"VLLM_URL: {health.reason}" for health in answers if not health.is_healthy]
    served = {model.name for health in answers for model in health.models}
    if settings.default_model and served and settings.default_model not in served:
        names = ", ".join(sorted(served))
        faults.append(
            f"MODEL_NAME={settings.default_model}: not served; the upstreams have {names}"
        )
    return faults
