"""The stack's files, as far as they can be proven without their programs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.stack import docker
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.programs import unpacked

HOME = Path("monitoring")
COMPOSE = HOME / "compose.yaml"
PASSED_ON = {"ALERTMANAGER_CONFIG", "PROMETHEUS_PORT", "GRAFANA_PORT", "GRAFANA_ADMIN_PASSWORD"}
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
each_service = pytest.mark.parametrize("name", SERVICES)


def datasources() -> dict[str, dict[str, Any]]:
    text = (HOME / "grafana/provisioning/datasources/datasources.yaml").read_text()
    return {source["uid"]: source for source in yaml.safe_load(text)["datasources"]}


def config(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((HOME / path).read_text())
    return found


def test_the_compose_file_follows_the_compose_specification() -> None:
    command = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = subprocess.run(
        (*command, str(COMPOSE)), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_docker_itself_can_read_the_compose_file() -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker here")
    if subprocess.run(
        ("docker", "compose", "version"), capture_output=True, check=False
    ).returncode:
        pytest.skip("docker's compose plugin is not installed here")
    done = subprocess.run(
        ("docker", "compose", "-f", str(COMPOSE), "config", "-q"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/usr/local/bin", "GRAFANA_ADMIN_PASSWORD": "for-the-check"},
    )
    assert done.returncode == 0, done.stderr


@each_service
def test_an_image_is_pinned_to_one_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@each_service
def test_a_container_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["DAC_READ_SEARCH"] if name == "alloy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "user", "pid", "ports"} & service.keys()
    assert service.get("read_only", False) is (name not in ("grafana", "alloy"))


@each_service
def test_a_container_is_bounded_and_looked_after(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


@each_service
def test_configuration_is_mounted_read_only_and_data_lies_on_named_volumes(name: str) -> None:
    named = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for mount in SERVICES[name]["volumes"]:
        source, _, rest = mount.partition(":")
        if source.startswith("."):
            assert rest.endswith(":ro"), mount
            assert source == "../logs" or (HOME / source).is_dir(), mount
        else:
            assert source in named, mount


def test_nothing_listens_beyond_loopback() -> None:
    """Host networking makes a listener on every address one of the machine's."""
    for name, service in SERVICES.items():
        assert service["network_mode"] == "host"
        for argument in service.get("command", []):
            if "listen" in argument:
                assert argument.partition("=")[2].startswith("127.0.0.1:") or (
                    argument == "--cluster.listen-address="
                ), name
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    server = config("loki/loki.yaml")["server"]
    assert (server["http_listen_address"], server["grpc_listen_address"]) == ("127.0.0.1",) * 2
    jaeger = (HOME / "jaeger/config.yaml").read_text()
    assert set(re.findall(r"(?:endpoint|host): ([\d.]+)", jaeger)) == {"127.0.0.1"}
    assert "0.0.0.0" not in "".join(path.read_text() for path in _files())


def test_every_port_of_the_stack_is_looked_at_before_it_starts() -> None:
    text = "\n".join(path.read_text() for path in _files())
    used = {int(port) for port in re.findall(r"127\.0\.0\.1[:/](\d+)", text)}
    used |= {int(port) for port in re.findall(r"port: (\d+)$", text, re.MULTILINE)}
    assert used == set(docker.ports().values()) - {docker.ports()["grafana"], 9090}


def test_grafanas_password_has_no_default() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_every_variable_of_the_compose_file_is_one_that_is_passed_on() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert used == PASSED_ON


def test_the_four_sources_have_the_uids_that_dashboards_use() -> None:
    assert set(datasources()) == {"prometheus", "loki", "jaeger", "alertmanager"}
    assert all(source["editable"] is False for source in datasources().values())


def test_a_dollar_that_is_grafanas_own_is_doubled() -> None:
    text = (HOME / "grafana/provisioning/datasources/datasources.yaml").read_text()
    assert re.findall(r"(?<!\$)\$\{", text) == []
    assert text.count("$${__") == 3


def test_exemplars_log_lines_and_traces_link_to_each_other() -> None:
    sources = datasources()
    exemplar = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    lines = sources["loki"]["jsonData"]["derivedFields"]
    trace = sources["jaeger"]["jsonData"]
    assert [(to["name"], to["datasourceUid"]) for to in exemplar] == [("trace_id", "jaeger")]
    assert {field["datasourceUid"] for field in lines} == {"jaeger"}
    assert trace["tracesToLogsV2"]["datasourceUid"] == "loki"
    assert trace["tracesToMetrics"]["datasourceUid"] == "prometheus"


def test_the_pattern_for_a_trace_in_a_line_matches_the_gateways_json() -> None:
    (field,) = [
        field
        for field in datasources()["loki"]["jsonData"]["derivedFields"]
        if field.get("matcherType") != "label"
    ]
    for line in ('{"trace_id":"%s"}', '{"a": 1, "trace_id": "%s"}'):
        found = re.search(field["matcherRegex"], line % ("0af7" * 8))
        assert found is not None
        assert found[1] == "0af7" * 8


def test_metrics_that_a_trace_links_to_are_recorded() -> None:
    rules = "".join(path.read_text() for path in (HOME / "prometheus/rules").glob("*.yml"))
    for link in datasources()["jaeger"]["jsonData"]["tracesToMetrics"]["queries"]:
        assert f"record: {link['query']}\n" in rules


def test_dashboards_are_read_from_where_they_are_mounted() -> None:
    (provider,) = config("grafana/provisioning/dashboards/dashboards.yaml")["providers"]
    mount = f"./grafana/dashboards:{provider['options']['path']}:ro"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mount in SERVICES["grafana"]["volumes"]
    assert (HOME / "grafana/dashboards" / Path(home).name).exists()


def test_jaegers_pipeline_is_made_of_parts_that_are_defined() -> None:
    jaeger = config("jaeger/config.yaml")
    service = jaeger["service"]
    assert set(service["extensions"]) == set(jaeger["extensions"])
    for kind, parts in service["pipelines"]["traces"].items():
        assert set(parts) == set(jaeger[kind])
    backends = jaeger["extensions"]["jaeger_storage"]["backends"]
    assert jaeger["extensions"]["jaeger_query"]["storage"]["traces"] in backends
    assert jaeger["exporters"]["jaeger_storage_exporter"]["trace_storage"] in backends


def test_traces_and_logs_survive_a_restart_and_are_forgotten_in_time() -> None:
    (backend,) = config("jaeger/config.yaml")["extensions"]["jaeger_storage"]["backends"].values()
    loki = config("loki/loki.yaml")
    assert backend["badger"]["ephemeral"] is False
    assert backend["badger"]["directories"]["keys"].startswith("/tmp/")
    assert "jaeger-data:/tmp" in SERVICES["jaeger"]["volumes"]
    assert backend["badger"]["ttl"]["spans"] == "168h"
    assert f"loki-data:{loki['common']['path_prefix']}" in SERVICES["loki"]["volumes"]
    assert loki["compactor"]["retention_enabled"] is True
    assert loki["limits_config"]["retention_period"] == "336h"


def test_alloys_parts_are_connected() -> None:
    text = (HOME / "alloy/config.alloy").read_text()
    parts = {f"{kind}.{name}" for kind, name in re.findall(r'^([\w.]+) "(\w+)" \{', text, re.M)}
    ends = re.findall(r"([a-z_.]+\.[a-z_]+)\.(?:targets|output|receiver)\b", text)
    assert set(ends) == parts - {"loki.source.file.logs"}
    assert text.count("{") == text.count("}")
    assert f"http://127.0.0.1:{config('loki/loki.yaml')['server']['http_listen_port']}/" in text


async def test_what_alloy_takes_from_a_line_is_what_the_gateway_writes(tmp_path: Path) -> None:
    text = (HOME / "alloy/config.alloy").read_text()
    expressions = text.partition("expressions = {")[2].partition("}")[0]
    taken = set(re.findall(r"(\w+)\s*=", expressions))
    async with GatewayProcess(folder=tmp_path, until_ready=False) as gateway:
        await gateway.client.post("/v1/chat/completions", json=chat())
        (line, *_) = await gateway.logged(route="/v1/chat/completions")
    # Traces are off in this test, and a call that no upstream took has no model to name.
    assert taken - line.keys() == {"trace_id", "span_id", "model"}


def test_secrets_targets_and_the_operators_own_are_not_tracked() -> None:
    ignored = (HOME / ".gitignore").read_text().splitlines()
    assert {".env", "alertmanager/own.yml", "alertmanager/webhook_url"} <= set(ignored)
    assert {"prometheus/targets/*", "!prometheus/targets/.gitkeep"} <= set(ignored)


def test_prometheus_takes_the_flags_of_the_compose_file() -> None:
    """All but those of its container's paths, asked of Debian's older Prometheus."""
    program = unpacked("prometheus", package="prometheus")
    known = subprocess.run((program, "--help"), capture_output=True, text=True, check=False)
    for argument in SERVICES["prometheus"]["command"]:
        assert argument.partition("=")[0] in known.stdout + known.stderr


def _files() -> list[Path]:
    found = ("compose.yaml", "loki/loki.yaml", "jaeger/config.yaml", "alloy/config.alloy")
    provisioned = sorted((HOME / "grafana/provisioning").rglob("*.yaml"))
    return [*(HOME / name for name in found), *provisioned]
