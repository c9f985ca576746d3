"""Settings: the variables of the table, read once, with every fault in one message."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from gateway import parsing as parse
from gateway.admission import AdmissionConfig
from gateway.auth.keyring import KeyDefaults
from gateway.breaker import BreakerConfig
from gateway.dispatch import DispatchConfig
from gateway.edge.inference import InferenceConfig
from gateway.edge.operations import MetricsAccess
from gateway.edge.origin import OriginConfig
from gateway.exchange import RateLimit
from gateway.protocol.limits import ServerConfig
from gateway.quota.journal import JournalConfig
from gateway.routing.definition import FleetDefinition
from gateway.routing.health import ProberConfig
from gateway.routing.retries import RetryConfig
from gateway.routing.source import UpstreamsFile
from gateway.settings.fleet import SOURCES, found_beside, read_fleet
from gateway.settings.table import TABLE, Setting
from gateway.shared.config import RedisConfig
from gateway.telemetry.goodput import Slo
from gateway.telemetry.logs import LogFormat
from gateway.telemetry.metrics import MetricsConfig
from gateway.transport.config import TransportConfig
from gateway.wire.openai import OpenAIConfig

__all__ = ["TABLE", "ConfigurationError", "Setting", "Settings"]

# How alike (difflib's ratio) a name must be to be taken for a misspelt setting.
_NEAR = 0.85
_SHORTEST_KEY = 16


class ConfigurationError(Exception):
    """Everything that is wrong with the settings: pairs of the variable to change and a sentence
    that names it."""

    def __init__(self, faults: Iterable[tuple[str, str]]) -> None:
        faults = list(faults)
        self.faults = [sentence for _, sentence in faults]
        self.variables = frozenset(name for name, _ in faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True, slots=True)
class Settings:
    """Every room's Config, and what app.py needs to compose the rooms."""

    server: ServerConfig
    static_keys: parse.ApiKeys
    key_defaults: KeyDefaults
    fleet: FleetDefinition
    upstreams_file: UpstreamsFile | None
    default_model: str | None
    slow_start_seconds: float
    transport: TransportConfig
    breaker: BreakerConfig
    prober: ProberConfig
    admission: AdmissionConfig
    dispatch: DispatchConfig
    inference: InferenceConfig
    dialect: OpenAIConfig
    origin: OriginConfig
    address_limits: tuple[RateLimit, ...]
    metrics_access: MetricsAccess
    metrics_port: int | None
    metrics: MetricsConfig
    has_dashboard: bool
    cors_origins: frozenset[str]
    journal: JournalConfig
    redis: RedisConfig | None
    workers: int
    quota_zone: ZoneInfo
    log_level: str
    log_format: LogFormat
    log_file: Path | None
    trusted_traces: tuple[parse.Network, ...]
    otel: Mapping[str, str]
    warnings: tuple[str, ...]

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, base: Path = Path()) -> "Settings":
        """Raises ConfigurationError with every fault. An empty variable is an unset one.

        `base` is the folder that relative paths start from.
        """
        values, faults = _read(environ)
        for name in ("DATABASE_PATH", "LOG_FILE", "UPSTREAMS_FILE"):
            values[name] = values[name] and base / values[name]
        said = {name for name, raw in environ.items() if raw.strip()}
        sources = read_fleet(values, said=said, environ=environ)
        found = list(faults.items())
        # A variable that cannot be read is told once; what follows from it is not a fault.
        found += [(name, text) for name, text in sources.faults if not faults.keys() & SOURCES]
        if found:
            raise ConfigurationError(found)
        return _compose(values, environ, fleet=sources.fleet, file=sources.file)


def _read(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for setting in TABLE:
        raw = environ.get(setting.name, "").strip() or setting.default
        try:
            values[setting.name] = setting.read(raw)
        except ValueError as fault:
            # An @ may follow a password, as in http://user:password@host.
            shown = "" if setting.is_secret or "@" in raw else f"={raw}"
            faults[setting.name] = f"{setting.name}{shown}: {fault}"
            values[setting.name] = setting.read(setting.default)
    said = {name for name, value in environ.items() if value.strip()} - faults.keys()
    return values, faults | _contradictions(values, said)


def _contradictions(v: Mapping[str, Any], said: AbstractSet[str]) -> dict[str, str]:
    """Faults of two settings together, under the one to change. `said` are those not defaults."""
    faults = {}
    if v["METRICS_PORT"] and v["METRICS_PORT"] == v["GATEWAY_PORT"]:
        faults["METRICS_PORT"] = (
            f"METRICS_PORT={v['METRICS_PORT']}: is GATEWAY_PORT too; give each its own port"
        )
    if v["WORKERS"] > 1 and v["REDIS_URL"] is None:
        faults["WORKERS"] = (
            f"WORKERS={v['WORKERS']}: several processes share keys, quotas and rate limits through "
            "Redis; set REDIS_URL, or WORKERS=1"
        )
    elif v["WORKERS"] > 1 and v["GATEWAY_PORT"] == 0:
        faults["WORKERS"] = f"WORKERS={v['WORKERS']}: they share one port; name it in GATEWAY_PORT"
    is_longest_said = "CIRCUIT_OPEN_MAX_SECONDS" in said
    if is_longest_said and v["CIRCUIT_OPEN_MAX_SECONDS"] < v["CIRCUIT_OPEN_SECONDS"]:
        faults["CIRCUIT_OPEN_MAX_SECONDS"] = (
            f"CIRCUIT_OPEN_MAX_SECONDS={v['CIRCUIT_OPEN_MAX_SECONDS']:g}: must be at least "
            f"CIRCUIT_OPEN_SECONDS={v['CIRCUIT_OPEN_SECONDS']:g}"
        )
    return faults


def _compose(
    v: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    fleet: FleetDefinition,
    file: UpstreamsFile | None,
) -> Settings:
    return Settings(
        server=ServerConfig(
            host=v["GATEWAY_HOST"],
            port=v["GATEWAY_PORT"],
            header_timeout_seconds=v["HEADER_TIMEOUT_SECONDS"],
            body_timeout_seconds=v["BODY_TIMEOUT_SECONDS"],
            write_timeout_seconds=v["WRITE_TIMEOUT_SECONDS"],
            keepalive_seconds=v["KEEPALIVE_TIMEOUT_SECONDS"],
            drain_seconds=v["DRAIN_SECONDS"],
        ),
        static_keys=v["GATEWAY_API_KEYS"],
        key_defaults=KeyDefaults(
            daily_token_quota=v["DAILY_TOKEN_QUOTA"],
            rate_limits=v["RATE_LIMIT_PER_KEY"],
            max_concurrent=v["MAX_CONCURRENT_PER_KEY"],
        ),
        fleet=fleet,
        upstreams_file=file,
        default_model=v["MODEL_NAME"] or None,
        slow_start_seconds=v["SLOW_START_SECONDS"],
        transport=_transport(v, environ),
        breaker=BreakerConfig(
            failure_threshold=v["CIRCUIT_FAILURE_THRESHOLD"],
            failure_ratio=v["CIRCUIT_FAILURE_RATIO"],
            open_seconds=v["CIRCUIT_OPEN_SECONDS"],
            open_max_seconds=max(v["CIRCUIT_OPEN_MAX_SECONDS"], v["CIRCUIT_OPEN_SECONDS"]),
            half_open_probes=v["CIRCUIT_HALF_OPEN_PROBES"],
        ),
        prober=ProberConfig(
            healthy_interval_seconds=v["HEALTH_INTERVAL_SECONDS"],
            unhealthy_interval_seconds=min(1.0, v["HEALTH_INTERVAL_SECONDS"]),
        ),
        admission=AdmissionConfig(
            max_in_flight=v["MAX_IN_FLIGHT"],
            max_queued=v["MAX_QUEUED"],
            queue_timeout_seconds=v["QUEUE_TIMEOUT_SECONDS"],
        ),
        dispatch=DispatchConfig(
            max_answer_bytes=v["MAX_ANSWER_BYTES"],
            retries=RetryConfig(
                attempts=v["RETRY_ATTEMPTS"],
                budget_ratio=v["RETRY_BUDGET_RATIO"],
                budget_per_second=v["RETRY_BUDGET_PER_SECOND"],
            ),
        ),
        inference=InferenceConfig(
            max_body_bytes=v["MAX_BODY_BYTES"], session_header=v["SESSION_HEADER"]
        ),
        dialect=OpenAIConfig(
            refused_fields=v["REFUSED_FIELDS"],
            dropped_fields=v["DROPPED_FIELDS"],
            allowed_media_domains=v["ALLOWED_MEDIA_DOMAINS"],
            max_choices=v["MAX_CHOICES"],
        ),
        origin=OriginConfig(trusted_proxies=v["TRUSTED_PROXIES"]),
        address_limits=v["RATE_LIMIT_PER_IP"],
        metrics_access=MetricsAccess(allow=v["METRICS_ALLOW"]),
        metrics_port=v["METRICS_PORT"],
        metrics=MetricsConfig(
            keys_max=v["METRICS_KEYS_MAX"],
            slo=Slo(
                ttft_seconds=v["SLO_TTFT_SECONDS"],
                time_per_output_token_seconds=v["SLO_TIME_PER_OUTPUT_TOKEN_SECONDS"],
            ),
        ),
        has_dashboard=v["DASHBOARD"],
        cors_origins=v["CORS_ALLOW_ORIGINS"],
        journal=JournalConfig(
            path=v["DATABASE_PATH"],
            flush_seconds=v["QUOTA_FLUSH_SECONDS"],
            retention_days=v["USAGE_RETENTION_DAYS"],
        ),
        redis=_redis(v),
        workers=v["WORKERS"],
        quota_zone=v["QUOTA_TIMEZONE"],
        log_level=v["LOG_LEVEL"],
        log_format=v["LOG_FORMAT"],
        log_file=v["LOG_FILE"],
        trusted_traces=v["TRUST_INCOMING_TRACES"],
        otel={name: value for name, value in environ.items() if name.startswith("OTEL_")},
        warnings=_warnings(v, environ),
    )


def _redis(v: Mapping[str, Any]) -> RedisConfig | None:
    if v["REDIS_URL"] is None:
        return None
    return RedisConfig(
        v["REDIS_URL"],
        timeout_seconds=v["REDIS_TIMEOUT_SECONDS"],
        lease_seconds=v["REDIS_LEASE_SECONDS"],
        on_quota_failure=v["REDIS_FAILURE_QUOTA"],
        on_rate_failure=v["REDIS_FAILURE_RATE"],
    )


def _transport(v: Mapping[str, Any], environ: Mapping[str, str]) -> TransportConfig:
    # Whoever lowers the first-byte time-out means every answer; a generation that is not
    # streamed needs longer only as long as nobody has said anything.
    chosen = v["UNSTREAMED_TIMEOUT_SECONDS"]
    is_said = bool(environ.get("FIRST_BYTE_TIMEOUT_SECONDS", "").strip())
    unstreamed = chosen or (v["FIRST_BYTE_TIMEOUT_SECONDS"] if is_said else 600.0)
    return TransportConfig(
        connect_timeout_seconds=v["CONNECT_TIMEOUT_SECONDS"],
        first_byte_timeout_seconds=v["FIRST_BYTE_TIMEOUT_SECONDS"],
        unstreamed_timeout_seconds=unstreamed,
        idle_timeout_seconds=v["IDLE_TIMEOUT_SECONDS"],
        answer_timeout_seconds=v["ANSWER_TIMEOUT_SECONDS"],
    )


def _warnings(v: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, ...]:
    said = {name for name, raw in environ.items() if raw.strip()}
    return (
        *_misspelt(environ),
        *_short_keys(v["GATEWAY_API_KEYS"]),
        *found_beside(v, said=said),
    )


def _misspelt(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that look meant for us and are not known."""
    known = [setting.name for setting in TABLE]
    for name in sorted(environ.keys() - known):
        near = get_close_matches(name.upper(), known, n=1, cutoff=_NEAR)
        if near:
            yield f"{name} is not a setting of the gateway; did you mean {near[0]}?"
        elif name.startswith("GATEWAY_"):
            yield f"{name} is not a setting of the gateway; it does nothing"


def _short_keys(keys: parse.ApiKeys) -> Iterator[str]:
    for number, (name, key) in enumerate(keys, start=1):
        if len(key.reveal()) < _SHORTEST_KEY:
            which = f"'{name}'" if name else f"number {number}"
            yield (
                f"GATEWAY_API_KEYS: key {which} is shorter than {_SHORTEST_KEY} characters and may "
                "be guessed; make one with `openssl rand -hex 32`"
            )
