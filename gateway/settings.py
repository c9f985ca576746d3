"""Settings: a table of variables, read once, with every fault in one message."""

from collections.abc import Callable, Iterator, Mapping
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
from gateway.protocol.connection import ServerConfig
from gateway.quota.journal import JournalConfig
from gateway.ratelimit import parse_rate_limits
from gateway.routing.health import ProberConfig
from gateway.telemetry.goodput import Slo
from gateway.telemetry.logs import LogFormat
from gateway.telemetry.metrics import MetricsConfig
from gateway.transport.config import TransportConfig
from gateway.wire.openai import OpenAIConfig
from gateway.wire.openai_fields import DROPPED_FIELDS, REFUSED_FIELDS

# How alike (difflib's ratio) a name must be to be taken for a misspelt setting.
_NEAR = 0.85
_SHORTEST_KEY = 16


class ConfigurationError(Exception):
    """Everything that is wrong with the settings: a fault for each variable, naming it."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("\n".join(faults.values()))
        self.faults = list(faults.values())
        self.variables = frozenset(faults)


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: its default as an operator would write it, how it is read, what it does."""

    name: str
    default: str
    read: Callable[[str], Any]
    help: str
    is_secret: bool = False


TABLE = (
    Setting("GATEWAY_HOST", "127.0.0.1", parse.text, "Address to listen on; `0.0.0.0` for every interface (put TLS in front)."),
    Setting("GATEWAY_PORT", "8080", parse.port, "Port to listen on."),
    Setting("GATEWAY_API_KEYS", "", parse.api_keys, "Client keys, comma-separated, each `key` or `name=key`. More keys: `gateway keys create`.", is_secret=True),
    Setting("VLLM_URL", "http://127.0.0.1:8000", parse.urls, "vLLM's base URL without `/v1`; several replicas comma-separated."),
    Setting("VLLM_API_KEY", "", parse.secret, "The key vLLM was started with; sent to it, never to clients.", is_secret=True),
    Setting("MODEL_NAME", "", parse.text, "The model meant by a request that names none; what `make vllm` serves."),
    Setting("DATABASE_PATH", "data/gateway.db", parse.path, "SQLite file of keys and usage; relative to the folder that holds config/.env; its folder is created."),
    Setting("DAILY_TOKEN_QUOTA", "1000000", parse.off_or(parse.tokens), "Tokens (input + output) a key may use per day unless it has its own quota; `off` for no limit."),
    Setting("QUOTA_TIMEZONE", "UTC", parse.time_zone, "IANA time zone in whose midnight the day turns."),
    Setting("QUOTA_FLUSH_SECONDS", "0.1", parse.seconds, "How often usage is written to disk: what a `kill -9` can lose."),
    Setting("USAGE_RETENTION_DAYS", "400", parse.count, "Days of usage history kept."),
    Setting("RATE_LIMIT_PER_IP", "600/minute", parse_rate_limits, "Requests per client address (IPv6: per /64), before any key is looked at; several windows with `;`, or `off`."),
    Setting("RATE_LIMIT_PER_KEY", "600/minute", parse_rate_limits, "Requests per key unless it has its own limit, or `off`."),
    Setting("MAX_CONCURRENT_PER_KEY", "64", parse.off_or(parse.count), "Requests of one key at the same time, or `off`."),
    Setting("TRUSTED_PROXIES", "", parse.networks, "Addresses or networks whose X-Forwarded-For is believed; none by default."),
    Setting("CIRCUIT_FAILURE_THRESHOLD", "5", parse.count, "Failures in a row that open an upstream's circuit."),
    Setting("CIRCUIT_FAILURE_RATIO", "0.5", parse.ratio, "Share of failures among at least 20 calls in 10 s that opens it too."),
    Setting("CIRCUIT_OPEN_SECONDS", "5", parse.seconds, "How long it stays open the first time; doubles each time a probe fails."),
    Setting("CIRCUIT_OPEN_MAX_SECONDS", "60", parse.seconds, "The longest it stays open."),
    Setting("CIRCUIT_HALF_OPEN_PROBES", "1", parse.count, "Calls let through to test a failing upstream; all must succeed to close."),
    Setting("CONNECT_TIMEOUT_SECONDS", "2", parse.seconds, "To connect to vLLM."),
    Setting("FIRST_BYTE_TIMEOUT_SECONDS", "120", parse.seconds, "Until vLLM's answer begins, for streams."),
    Setting("UNSTREAMED_TIMEOUT_SECONDS", "", parse.optional(parse.seconds), "The same for answers that are not streamed, which begin when all is generated. Empty: FIRST_BYTE_TIMEOUT_SECONDS if that is set, else 600."),
    Setting("IDLE_TIMEOUT_SECONDS", "300", parse.seconds, "Silence within an answer."),
    Setting("ANSWER_TIMEOUT_SECONDS", "3600", parse.seconds, "A whole answer, from the request sent to the last byte."),
    Setting("HEADER_TIMEOUT_SECONDS", "10", parse.seconds, "A client's whole request head, and silence on a new connection."),
    Setting("BODY_TIMEOUT_SECONDS", "30", parse.seconds, "A client's whole request body."),
    Setting("WRITE_TIMEOUT_SECONDS", "60", parse.seconds, "A client that reads nothing while an answer waits for it."),
    Setting("KEEPALIVE_TIMEOUT_SECONDS", "75", parse.count, "An idle client connection; longer than a proxy in front keeps it."),
    Setting("MAX_BODY_BYTES", "33554432", parse.off_or(parse.count), "Largest request body, or `off`."),
    Setting("MAX_ANSWER_BYTES", "33554432", parse.count, "Largest answer that is not streamed."),
    Setting("MAX_IN_FLIGHT", "256", parse.off_or(parse.count), "Requests being answered at the same time by this gateway, or `off`."),
    Setting("MAX_QUEUED", "64", parse.whole, "Requests waiting for a place beyond that."),
    Setting("QUEUE_TIMEOUT_SECONDS", "5", parse.seconds, "The longest wait for a place."),
    Setting("HEALTH_INTERVAL_SECONDS", "5", parse.seconds, "How often a healthy upstream is looked at; an unhealthy one every second."),
    Setting("DRAIN_SECONDS", "30", parse.seconds_or_zero, "After SIGTERM: time for running answers to end."),
    Setting("METRICS_ALLOW", "", parse.networks, "Networks that may read `/metrics` besides loopback."),
    Setting("METRICS_PORT", "", parse.optional(parse.port), "A port of its own for `/metrics` on GATEWAY_HOST, then not served on GATEWAY_PORT."),
    Setting("METRICS_KEYS_MAX", "100", parse.count, "API keys with metrics of their own; the others are summed under `other`."),
    Setting("SLO_TTFT_SECONDS", "2.5", parse.seconds, "The time to the first token that an answer may take and count as goodput."),
    Setting("SLO_TIME_PER_OUTPUT_TOKEN_SECONDS", "0.1", parse.seconds, "The same for each token after the first."),
    Setting("DASHBOARD", "on", parse.switch, "The page for key holders at `/dashboard`, or `off`."),
    Setting("CORS_ALLOW_ORIGINS", "", parse.origins, "Origins of browser pages that may call the gateway, or `*`; none by default."),
    Setting("REFUSED_FIELDS", ",".join(sorted(REFUSED_FIELDS)), parse.words, "Body fields answered with 400."),
    Setting("DROPPED_FIELDS", ",".join(sorted(DROPPED_FIELDS)), parse.words, "Body fields removed silently."),
    Setting("ALLOWED_MEDIA_DOMAINS", "", parse.hosts, "Hosts that image, audio and video URLs may name (`*`: any); `data:` URLs always pass."),
    Setting("MAX_CHOICES", "128", parse.count, "Largest `n`."),
    Setting("TRUST_INCOMING_TRACES", "", parse.networks_or_all, "Addresses or networks of clients whose traces (`traceparent`) are continued, or `all`; others' are linked."),
    Setting("LOG_LEVEL", "INFO", parse.log_level, "DEBUG, INFO, WARNING or ERROR."),
    Setting("LOG_FORMAT", "auto", parse.log_format, "`json`, `console`, or `auto`: console on a terminal."),
    Setting("LOG_FILE", "", parse.optional(parse.path), "A file that gets every line too, as JSON; opened anew on SIGHUP. Relative to the folder that holds config/.env; its folder is created."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """Every room's Config, and what app.py needs to compose the rooms."""

    server: ServerConfig
    static_keys: parse.ApiKeys
    key_defaults: KeyDefaults
    upstream_urls: tuple[str, ...]
    upstream_api_key: parse.Secret
    default_model: str | None
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

        `base` is the folder that a relative DATABASE_PATH or LOG_FILE starts from.
        """
        values, faults = _read(environ)
        if faults:
            raise ConfigurationError(faults)
        values["DATABASE_PATH"] = base / values["DATABASE_PATH"]
        values["LOG_FILE"] = values["LOG_FILE"] and base / values["LOG_FILE"]
        return _compose(values, environ)


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
    is_longest_said = "CIRCUIT_OPEN_MAX_SECONDS" in said
    if is_longest_said and v["CIRCUIT_OPEN_MAX_SECONDS"] < v["CIRCUIT_OPEN_SECONDS"]:
        faults["CIRCUIT_OPEN_MAX_SECONDS"] = (
            f"CIRCUIT_OPEN_MAX_SECONDS={v['CIRCUIT_OPEN_MAX_SECONDS']:g}: must be at least "
            f"CIRCUIT_OPEN_SECONDS={v['CIRCUIT_OPEN_SECONDS']:g}"
        )
    return faults


def _compose(v: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
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
        upstream_urls=v["VLLM_URL"],
        upstream_api_key=v["VLLM_API_KEY"],
        default_model=v["MODEL_NAME"] or None,
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
        dispatch=DispatchConfig(max_answer_bytes=v["MAX_ANSWER_BYTES"]),
        inference=InferenceConfig(max_body_bytes=v["MAX_BODY_BYTES"]),
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
        quota_zone=v["QUOTA_TIMEZONE"],
        log_level=v["LOG_LEVEL"],
        log_format=v["LOG_FORMAT"],
        log_file=v["LOG_FILE"],
        trusted_traces=v["TRUST_INCOMING_TRACES"],
        otel={name: value for name, value in environ.items() if name.startswith("OTEL_")},
        warnings=_warnings(v, environ),
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
    return (*_misspelt(environ), *_short_keys(v["GATEWAY_API_KEYS"]))


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
