"""Settings: defaults that start, every fault at once, and no secret shown."""

from pathlib import Path

import pytest
import structlog

from gateway.exchange import RateLimit
from gateway.settings import TABLE, ConfigurationError, Settings
from gateway.telemetry.traces import NoTracing, open_tracing

KEY = {"GATEWAY_API_KEYS": "sk-test-abcdefgh"}


@pytest.fixture(autouse=True)
def in_a_folder_without_upstreams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a config/upstreams.toml, which is read where it is there."""
    monkeypatch.chdir(tmp_path)


def fault_of(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(KEY | environ)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


def test_the_defaults_are_valid() -> None:
    settings = Settings.from_env({})

    assert settings.server.host == "127.0.0.1"
    assert settings.server.drain_seconds == 30.0
    assert settings.inference.max_body_bytes == 32 * 1024 * 1024
    assert settings.journal.flush_seconds == 0.1
    assert settings.origin.trusted_proxies == ()
    assert settings.cors_origins == frozenset()


def test_an_empty_variable_is_an_unset_one() -> None:
    assert Settings.from_env({"GATEWAY_PORT": " ", "DRAIN_SECONDS": ""}) == Settings.from_env({})


def test_every_fault_is_told_and_names_its_variable() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({"GATEWAY_PORT": "x", "DRAIN_SECONDS": "-1", "LOG_LEVEL": "LOUD"})

    names = [fault.partition("=")[0] for fault in caught.value.faults]
    assert names == ["GATEWAY_PORT", "DRAIN_SECONDS", "LOG_LEVEL"]
    assert str(caught.value).count("\n") == 2


BAD = {
    "GATEWAY_PORT": ("65536", "-1", "80.5", "http"),
    "VLLM_URL": (
        "vllm:8000",
        "ftp://vllm",
        "http://",
        "http://a/v1",
        "http://a?b",
        "http://a,http://a",
        "http://a:99999",
        ",",
    ),
    "DAILY_TOKEN_QUOTA": ("-1", "many", "1.5"),
    "QUOTA_TIMEZONE": ("Mars/Olympus", "../etc/passwd", "/etc/localtime"),
    "QUOTA_FLUSH_SECONDS": ("0", "nan", "inf", "-1", "soon"),
    "RATE_LIMIT_PER_IP": ("fast", "0/minute", "10/fortnight", "-1/second"),
    "RATE_LIMIT_PER_KEY": ("600", "10/second;x"),
    "MAX_CONCURRENT_PER_KEY": ("0", "none"),
    "TRUSTED_PROXIES": ("10.0.0.0/33", "proxy.example"),
    "METRICS_ALLOW": ("everyone",),
    "TRUST_INCOMING_TRACES": ("friends", "all,10.0.0.0/8"),
    "CIRCUIT_FAILURE_THRESHOLD": ("0", "1.5"),
    "CIRCUIT_FAILURE_RATIO": ("0", "1.1", "half"),
    "MAX_BODY_BYTES": ("0", "32MiB"),
    "MAX_IN_FLIGHT": ("0",),
    "MAX_QUEUED": ("-1",),
    "DRAIN_SECONDS": ("-1", "forever"),
    "METRICS_PORT": ("99999", "x", "8080"),
    "CORS_ALLOW_ORIGINS": ("app.example", "https://app.example/", "https://*.example"),
    "ALLOWED_MEDIA_DOMAINS": ("https://a.example", "a.example:80", "a.example/x", "*.example"),
    "CIRCUIT_OPEN_MAX_SECONDS": ("0", "4"),
    "LOG_LEVEL": ("TRACE", "2"),
    "LOG_FORMAT": ("xml",),
    "KEEPALIVE_TIMEOUT_SECONDS": ("0", "1.5"),
    "UNSTREAMED_TIMEOUT_SECONDS": ("0", "x"),
    "UPSTREAMS": ("http://a", "a=", "a=vllm:8000", "a=http://a,a=http://b", "a=http://b/v1"),
    "MODEL_ALIASES": ("gpt-4o", "=x", "a=x,a=y"),
    "SESSION_HEADER": ("X Session", "x:y", "Authorization"),
    "SLOW_START_SECONDS": ("-1", "long"),
    "RETRY_ATTEMPTS": ("-1", "some"),
    "RETRY_BUDGET_RATIO": ("0", "2"),
    "RETRY_BUDGET_PER_SECOND": ("-1", "inf"),
}


@pytest.mark.parametrize(("name", "raw"), [(name, raw) for name in BAD for raw in BAD[name]])
def test_a_bad_value_is_told_with_its_variable_and_itself(name: str, raw: str) -> None:
    assert fault_of(**{name: raw}).startswith(f"{name}={raw}: ")


@pytest.mark.parametrize(
    "raw", ["sk-söcret-1", "name=", "=sk-secret-1", "sk secret-1", "a=sk\tsecret-1"]
)
def test_a_bad_key_is_told_without_being_shown(raw: str) -> None:
    fault = fault_of(GATEWAY_API_KEYS=raw)

    assert fault.startswith("GATEWAY_API_KEYS: ")
    assert "cret-1" not in fault


def test_credentials_in_a_url_are_refused_without_being_shown() -> None:
    fault = fault_of(VLLM_URL="http://user:hunter2@vllm:8000")

    assert "VLLM_API_KEY" in fault
    assert "hunter2" not in fault


def test_secrets_do_not_show_in_a_repr() -> None:
    settings = Settings.from_env({**KEY, "VLLM_API_KEY": "sk-upstream-1"})

    assert "sk-test" not in repr(settings)
    assert "sk-upstream" not in repr(settings)


OFF = ("DAILY_TOKEN_QUOTA", "MAX_CONCURRENT_PER_KEY", "MAX_BODY_BYTES", "MAX_IN_FLIGHT")


def test_off_means_no_limit() -> None:
    switched = dict.fromkeys((*OFF, "RATE_LIMIT_PER_IP", "RATE_LIMIT_PER_KEY"), "OFF")

    settings = Settings.from_env(switched)

    assert settings.key_defaults.daily_token_quota is None
    assert settings.key_defaults.max_concurrent is None
    assert settings.key_defaults.rate_limits == ()
    assert settings.address_limits == ()
    assert settings.inference.max_body_bytes is None
    assert settings.admission.max_in_flight is None


def test_keys_with_and_without_names_are_read() -> None:
    settings = Settings.from_env({"GATEWAY_API_KEYS": "sk-aaaaaaaa, team=sk-bbbb=bbb ,"})

    keys = [(name, secret.reveal()) for name, secret in settings.static_keys]
    assert keys == [(None, "sk-aaaaaaaa"), ("team", "sk-bbbb=bbb")]


def test_several_windows_and_upstreams_are_read() -> None:
    settings = Settings.from_env(
        {"RATE_LIMIT_PER_IP": "10/second;600/minute", "VLLM_URL": "http://a:1/, https://b/vllm"}
    )

    assert settings.address_limits == (RateLimit(10, 1.0), RateLimit(600, 60.0))
    assert [upstream.url for upstream in settings.fleet.upstreams] == [
        "http://a:1",
        "https://b/vllm",
    ]
    assert settings.fleet.names == ("a:1", "b/vllm")


def test_a_host_address_is_a_network_of_one() -> None:
    settings = Settings.from_env({"TRUSTED_PROXIES": "10.1.2.3, 2001:db8::/32"})

    assert {str(network) for network in settings.origin.trusted_proxies} == {
        "10.1.2.3/32",
        "2001:db8::/32",
    }


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 600.0),
        ({"FIRST_BYTE_TIMEOUT_SECONDS": "7"}, 7.0),
        ({"FIRST_BYTE_TIMEOUT_SECONDS": "7", "UNSTREAMED_TIMEOUT_SECONDS": "9"}, 9.0),
    ],
)
def test_unstreamed_answers_have_their_own_patience(
    environ: dict[str, str], seconds: float
) -> None:
    assert Settings.from_env(environ).transport.unstreamed_timeout_seconds == seconds


def test_the_longest_open_time_is_never_below_the_first() -> None:
    settings = Settings.from_env({"CIRCUIT_OPEN_SECONDS": "90"})

    assert settings.breaker.open_max_seconds == 90.0


def test_a_fault_says_that_off_is_possible_where_it_is() -> None:
    assert fault_of(MAX_IN_FLIGHT="none").endswith(", or off")
    assert not fault_of(MAX_QUEUED="none").endswith(", or off")


def test_faults_of_two_settings_together_name_both() -> None:
    ports = fault_of(GATEWAY_PORT="9000", METRICS_PORT="9000")
    circuit = fault_of(CIRCUIT_OPEN_SECONDS="90", CIRCUIT_OPEN_MAX_SECONDS="60")

    assert ports.startswith("METRICS_PORT=9000: ")
    assert "GATEWAY_PORT" in ports
    assert "CIRCUIT_OPEN_SECONDS=90" in circuit


def test_what_stands_beside_a_faulty_variable_is_judged_against_its_default() -> None:
    environ = {"GATEWAY_PORT": "x", "METRICS_PORT": "8080"}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)

    assert caught.value.variables == {"GATEWAY_PORT", "METRICS_PORT"}


def test_several_workers_need_a_redis_and_a_port() -> None:
    assert "set REDIS_URL, or WORKERS=1" in fault_of(WORKERS="2")
    redis = {"WORKERS": "2", "REDIS_URL": "redis://r"}
    assert "name it in GATEWAY_PORT" in fault_of(**redis, GATEWAY_PORT="0")
    assert Settings.from_env({**KEY, **redis}).workers == 2


@pytest.mark.parametrize(
    "raw",
    [
        "127.0.0.1:6379",
        "http://127.0.0.1",
        "redis://",
        "redis://:hidden-word@",
        "redis://host:port",
        "unix://",
    ],
)
def test_a_redis_that_cannot_be_named_is_told_without_its_password(raw: str) -> None:
    told = fault_of(REDIS_URL=raw)
    assert "redis://host:6379/0" in told
    assert "hidden-word" not in told


def test_a_redis_is_named_without_its_password() -> None:
    settings = Settings.from_env(KEY | {"REDIS_URL": "rediss://me:hidden-word@host:6380/2"})
    assert settings.redis is not None
    assert settings.redis.place == "rediss://host:6380/2"
    assert "hidden-word" not in repr(settings)


def test_a_policy_is_one_of_two_words_and_a_lease_no_moment() -> None:
    assert "must be open or closed" in fault_of(REDIS_FAILURE_QUOTA="maybe")
    assert "at least 1 second" in fault_of(REDIS_LEASE_SECONDS="0.1")


def test_origins_and_hosts_are_taken_as_they_are() -> None:
    settings = Settings.from_env(
        {
            "CORS_ALLOW_ORIGINS": "https://app.example, http://[::1]:3000,*",
            "ALLOWED_MEDIA_DOMAINS": "Images.example,10.0.0.1",
        }
    )

    assert settings.cors_origins == {"https://app.example", "http://[::1]:3000", "*"}
    assert settings.dialect.allowed_media_domains == {"images.example", "10.0.0.1"}


def test_a_relative_database_starts_from_the_folder_given() -> None:
    base = Path("/srv/gateway")
    absolute = {"DATABASE_PATH": "/var/lib/gateway.db"}

    assert Settings.from_env({}).journal.path == Path("data/gateway.db")
    assert Settings.from_env({}, base=base).journal.path == base / "data/gateway.db"
    assert Settings.from_env(absolute, base=base).journal.path == Path("/var/lib/gateway.db")


def test_a_near_miss_of_any_setting_is_warned_about() -> None:
    environ = {"RATE_LIMIT_PER_KY": "5/minute", "log_level": "DEBUG", "VLLM_PORT": "1", "HOME": "/"}

    assert Settings.from_env(environ).warnings == (
        "RATE_LIMIT_PER_KY is not a setting of the gateway; did you mean RATE_LIMIT_PER_KEY?",
        "log_level is not a setting of the gateway; did you mean LOG_LEVEL?",
    )


def test_a_short_key_is_warned_about_and_not_shown() -> None:
    environ = {"GATEWAY_API_KEYS": "sk-test-abcdefgh,hunter2,team=hunter3"}
    number_two, team = Settings.from_env(environ).warnings

    assert "number 2" in number_two
    assert "'team'" in team
    assert "hunter" not in number_two + team


def test_unknown_variables_of_ours_are_warned_about() -> None:
    settings = Settings.from_env({"GATEWAY_API_KEY": "x", "GATEWAY_ZZZ": "x", "PATH": "/"})

    assert [warning.split()[0] for warning in settings.warnings] == [
        "GATEWAY_API_KEY",
        "GATEWAY_ZZZ",
    ]
    assert "did you mean GATEWAY_API_KEYS?" in settings.warnings[0]


def test_names_are_unique_and_every_setting_says_what_it_does() -> None:
    names = [setting.name for setting in TABLE]

    assert len(names) == len(set(names))
    assert all(setting.help for setting in TABLE)


@pytest.mark.parametrize(
    "otel",
    [
        {},
        {"OTEL_SERVICE_NAME": "a"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_traces_are_off_unless_an_endpoint_is_named(otel: dict[str, str]) -> None:
    opened = open_tracing(otel, trusts=lambda address: False, log=structlog.get_logger())

    assert isinstance(opened, NoTracing)


def test_all_callers_traces_can_be_trusted_and_none_are_by_default() -> None:
    def trusted(raw: str) -> set[str]:
        settings = Settings.from_env({"TRUST_INCOMING_TRACES": raw})
        return {str(network) for network in settings.trusted_traces}

    assert trusted("") == set()
    assert trusted("10.1.2.3") == {"10.1.2.3/32"}
    assert trusted("ALL") == {"0.0.0.0/0", "::/0"}


def test_a_log_file_is_relative_to_the_project_as_the_database_is() -> None:
    settings = Settings.from_env({"LOG_FILE": "logs/gateway.log"}, base=Path("/srv/gateway"))

    assert settings.log_file == Path("/srv/gateway/logs/gateway.log")
    assert Settings.from_env({}).log_file is None


# Where the upstreams are named

FILE = '[[upstream]]\nname = "a"\nurl = "http://a:1"\n[aliases]\n"gpt" = "x"\n'


def test_upstreams_can_have_names() -> None:
    settings = Settings.from_env({"UPSTREAMS": "a=http://b:1/, c=https://d", "VLLM_API_KEY": "k"})

    assert [(u.name, u.url) for u in settings.fleet.upstreams] == [
        ("a", "http://b:1"),
        ("c", "https://d"),
    ]
    assert {u.api_key.reveal() for u in settings.fleet.upstreams} == {"k"}
    assert settings.upstreams_file is None


def test_a_file_of_upstreams_is_read_at_its_default_place(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "upstreams.toml").write_text(FILE)

    settings = Settings.from_env({"MODEL_ALIASES": "gpt=y,other=z"}, base=tmp_path)

    assert settings.fleet.names == ("a",)
    assert settings.fleet.aliases == {"gpt": "x", "other": "z"}
    assert settings.upstreams_file is not None
    assert Settings.from_env({"UPSTREAMS_FILE": "off"}, base=tmp_path).upstreams_file is None


def test_a_file_that_is_merely_there_gives_way_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "upstreams.toml").write_text(FILE)

    settings = Settings.from_env({"VLLM_URL": "http://b:1"}, base=tmp_path)

    assert settings.fleet.names == ("b:1",)
    (warning,) = settings.warnings
    assert "upstreams.toml is not read: VLLM_URL is set" in warning


@pytest.mark.parametrize(
    "named",
    [
        {"VLLM_URL": "http://a:1", "UPSTREAMS": "a=http://a:1"},
        {"VLLM_URL": "http://a:1", "UPSTREAMS_FILE": "upstreams.toml"},
        {"UPSTREAMS": "a=http://a:1", "UPSTREAMS_FILE": "upstreams.toml"},
    ],
)
def test_two_sources_of_upstreams_are_one_too_many(named: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "upstreams.toml").write_text(FILE)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(named, base=tmp_path)

    (fault,) = caught.value.faults
    assert " and ".join(sorted(named)) in fault
    assert "keep one" in fault


def test_every_fault_in_the_file_is_told_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[upstream]]\nweight = 0\n")
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({"UPSTREAMS_FILE": "bad.toml", "MAX_QUEUED": "x"}, base=tmp_path)

    queued, url, weight = caught.value.faults
    assert queued.startswith("MAX_QUEUED=x: ")
    assert url.startswith(f"UPSTREAMS_FILE={tmp_path / 'bad.toml'}: upstream 1, url: is missing")
    assert "weight: must be a whole number" in weight
    assert caught.value.variables == {"MAX_QUEUED", "UPSTREAMS_FILE"}


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({"UPSTREAMS_FILE": "gone.toml"}, base=tmp_path)

    assert "gone.toml: cannot be read (No such file or directory)" in str(caught.value)


def test_the_example_file_is_a_valid_one() -> None:
    example = Path(__file__).parents[2] / "config" / "upstreams.example.toml"

    settings = Settings.from_env({"UPSTREAMS_FILE": str(example)})

    assert settings.fleet.names == ("generate", "embed")


def test_the_example_file_is_valid_with_all_that_it_comments_out(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "config" / "upstreams.example.toml"
    lines = example.read_text().splitlines()
    meant = [line.removeprefix("#") if not line.startswith("# ") else "" for line in lines]
    (tmp_path / "all.toml").write_text("\n".join(meant))

    settings = Settings.from_env(
        {"UPSTREAMS_FILE": "all.toml", "GPU_2_API_KEY": "k"}, base=tmp_path
    )

    assert settings.fleet.names == ("generate", "embed", "generate-large")
    assert settings.fleet.aliases == {"gpt-4o": "qwen3-32b", "claude-*": "qwen3-32b"}


def test_a_chain_of_aliases_is_refused() -> None:
    assert "is an alias itself" in fault_of(MODEL_ALIASES="a=b,b=c")


def test_a_session_header_is_kept_as_it_arrives() -> None:
    assert Settings.from_env({"SESSION_HEADER": "X-Session-Id"}).inference.session_header == (
        b"x-session-id"
    )
