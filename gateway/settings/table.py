"""The table of settings: every variable, its default, how it is read and what it does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway import parsing as parse
from gateway.ratelimit import parse_rate_limits
from gateway.wire.openai_fields import DROPPED_FIELDS, REFUSED_FIELDS

UPSTREAMS_FILE: Final = "config/upstreams.toml"


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: its default as an operator would write it, how it is read, what it does."""

    name: str
    default: str
    read: Callable[[str], Any]
    help: str
    is_secret: bool = False


TABLE: Final = (
    Setting("GATEWAY_HOST", "127.0.0.1", parse.text, "Address to listen on; `0.0.0.0` for every interface (put TLS in front)."),
    Setting("GATEWAY_PORT", "8080", parse.port, "Port to listen on."),
    Setting("GATEWAY_API_KEYS", "", parse.api_keys, "Client keys, comma-separated, each `key` or `name=key`. More keys: `gateway keys create`.", is_secret=True),
    Setting("VLLM_URL", "http://127.0.0.1:8000", parse.urls, "vLLM's base URL without `/v1`; several comma-separated."),
    Setting("UPSTREAMS", "", parse.upstreams, "The same with names: `name=url`, comma-separated. Instead of VLLM_URL."),
    Setting("UPSTREAMS_FILE", UPSTREAMS_FILE, parse.off_or(parse.path), "TOML file of upstreams and aliases, instead of both; read again on SIGHUP and when it changes. Its default is read if it is there; `off` for never."),
    Setting("VLLM_API_KEY", "", parse.secret, "The key vLLM was started with; sent to each upstream that has no key of its own, never to clients.", is_secret=True),
    Setting("MODEL_NAME", "", parse.text, "The model meant by a request that names none; what `make vllm` serves."),
    Setting("MODEL_ALIASES", "", parse.aliases, "Other names for served models: `alias=model`, comma-separated; an alias may be a pattern like `claude-*`."),
    Setting("SESSION_HEADER", "", parse.optional(parse.header_name), "A request header whose value names a session: its calls go to the same replica while that can take them."),
    Setting("SLOW_START_SECONDS", "10", parse.seconds_or_zero, "How long a replica that came back takes to get its whole share; `0` for at once."),
    Setting("RETRY_ATTEMPTS", "3", parse.whole, "Further tries of a call that failed before its answer began; none after a time-out."),
    Setting("RETRY_BUDGET_RATIO", "0.2", parse.ratio, "Retries that a call earns for all; beyond a call's first move to another replica each costs 1, and up to 100 are saved."),
    Setting("RETRY_BUDGET_PER_SECOND", "10", parse.number, "Retries earned each second besides."),
    Setting("DATABASE_PATH", "data/gateway.db", parse.path, "SQLite file of keys and usage; relative to the folder that holds config/.env; its folder is created."),
    Setting("DAILY_TOKEN_QUOTA", "1000000", parse.off_or(parse.tokens), "Tokens (input + output) a key may use per day unless it has its own quota; `off` for no limit."),
    Setting("QUOTA_TIMEZONE", "UTC", parse.time_zone, "IANA time zone in whose midnight the day turns."),
    Setting("QUOTA_FLUSH_SECONDS", "0.1", parse.seconds, "How often usage is written to disk, or the progress of streams to Redis: what a `kill -9` can lose."),
    Setting("USAGE_RETENTION_DAYS", "400", parse.count, "Days of usage history kept."),
    Setting("REDIS_URL", "", parse.optional(parse.redis_url), "Redis 7 or Valkey that several gateways share keys, usage, quotas and rate limits through: `redis://[user:password@]host:port/db`, `rediss://` with TLS. Instead of DATABASE_PATH.", is_secret=True),
    Setting("REDIS_TIMEOUT_SECONDS", "0.5", parse.seconds, "The longest a call waits for Redis' word. After three such waits Redis is asked nothing until it answers again."),
    Setting("REDIS_LEASE_SECONDS", "15", parse.lease, "How long the reservations of a gateway that is gone still hold tokens and places."),
    Setting("REDIS_FAILURE_QUOTA", "closed", parse.on_failure, "Calls of a key with a quota while Redis is silent: `closed` refuses them with 503, `open` lets them in by what this gateway knows."),
    Setting("REDIS_FAILURE_RATE", "open", parse.on_failure, "Rate and concurrency limits while Redis is silent: `open` lets each gateway count for itself, `closed` refuses calls with 503."),
    Setting("WORKERS", "1", parse.count, "Processes that share the port; more than 1 need REDIS_URL."),
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
    Setting("MAX_QUEUED", "64", parse.whole, "Requests waiting for a place beyond that, or for a replica that is not full."),
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
