"""The stack in containers: what is missing for it, starting it, stopping it."""

import os
import platform
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.stack import receiver
from scripts.stack.ports import holder, is_taken
from scripts.stack.targets import write_targets
from scripts.supervision.environment import setting

HOME = Path("monitoring")
PASSWORDS = HOME / ".env"
PASSWORD = "GRAFANA_ADMIN_PASSWORD"
COMPOSE = ("docker", "compose", "--project-directory", str(HOME), "-f", str(HOME / "compose.yaml"))
PROBE_SECONDS = 20
HEALTHY_SECONDS = 300


def ports() -> dict[str, int]:
    """Every port the stack listens on, by what listens there."""
    return {
        "prometheus": int(setting("PROMETHEUS_PORT") or 9090),
        "grafana": int(setting("GRAFANA_PORT") or 3000),
        "alertmanager": 9093,
        "loki": 3100,
        "loki's gRPC": 9096,
        "alloy": 12345,
        "jaeger's page": 16686,
        "jaeger's gRPC": 16685,
        "jaeger's OTLP (gRPC)": 4317,
        "jaeger's OTLP (HTTP)": 4318,
        "jaeger": 8888,
        "jaeger's health": 13133,
    }


def up() -> None:
    """Start everything, or take up what has changed, and wait until all of it is healthy."""
    if lacking := missing():
        sys.exit(
            f"The monitoring stack needs Docker: {lacking}.\n"
            "Without Docker: `make monitoring-native` runs a Prometheus with the same rules."
        )
    runs_already = _runs_already()
    if not runs_already:
        _refuse_taken_ports()
    Path("logs").mkdir(exist_ok=True)
    _ensure_password()
    known = ports()
    own = ("prometheus", "alertmanager", "loki", "jaeger", "alloy")
    write_targets(
        HOME / "prometheus/targets", parts={job: f"127.0.0.1:{known[job]}" for job in own}
    )
    config = receiver.chosen()
    wait = ("--wait", "--wait-timeout", str(HEALTHY_SECONDS))
    if _compose("up", "-d", "--remove-orphans", *wait, config=config.name) != 0:
        _compose("ps", "--all", config=config.name)
        sys.exit(
            "Not every part became healthy. Look at one: "
            f"docker compose -f {HOME / 'compose.yaml'} logs --tail 50 grafana"
        )
    if runs_already:
        # Both take up changed rules, routes and receivers at this signal.
        _compose("kill", "--signal", "HUP", "prometheus", "alertmanager", config=config.name)
    print(_welcome(known, config))


def down() -> None:
    """Stop and remove the containers; the volumes stay."""
    if lacking := missing():
        sys.exit(f"There is nothing to stop with: {lacking}.")
    sys.exit(_compose("down", config=receiver.chosen().name))


def missing() -> str:
    """What keeps Docker from being used, as the end of a sentence; empty if nothing does."""
    if shutil.which("docker") is None:
        return "there is no `docker` on this machine (https://docs.docker.com/engine/install/)"
    if not _succeeds("docker", "compose", "version"):
        return "its compose plugin is not installed (package docker-compose-plugin)"
    if not _succeeds("docker", "info"):
        return "its daemon does not answer; is it running, and may you use it (group docker)?"
    return ""


def _succeeds(*command: str) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _runs_already() -> bool:
    done = subprocess.run(
        ("docker", "ps", "-q", "--filter", "label=com.docker.compose.project=gateway-monitoring"),
        capture_output=True,
        check=False,
        timeout=PROBE_SECONDS,
    )
    return bool(done.stdout.strip())


def _refuse_taken_ports() -> None:
    taken = [
        f"  {port:<6} for {part}: taken by {holder(port)}"
        for part, port in ports().items()
        if is_taken(port)
    ]
    if taken:
        sys.exit(
            "These ports are taken:\n"
            + "\n".join(taken)
            + "\n`make stop` ends what `make` started "
            "here; PROMETHEUS_PORT and GRAFANA_PORT in config/.env move those two."
        )


def _ensure_password() -> None:
    """Grafana's first password, made once, in a file of ours alone; it is never printed."""
    kept = PASSWORDS.read_text() if PASSWORDS.exists() else ""
    if any(line.startswith(f"{PASSWORD}=") for line in kept.splitlines()):
        return
    descriptor = os.open(PASSWORDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(f"{PASSWORD}={secrets.token_urlsafe(24)}\n")
    PASSWORDS.chmod(0o600)


def _compose(*arguments: str, config: str) -> int:
    known = ports()
    environment = os.environ | {
        "ALERTMANAGER_CONFIG": config,
        "PROMETHEUS_PORT": str(known["prometheus"]),
        "GRAFANA_PORT": str(known["grafana"]),
    }
    return subprocess.run((*COMPOSE, *arguments), check=False, env=environment).returncode


def _welcome(known: dict[str, int], config: Path) -> str:
    lines = [
        f"Grafana        http://127.0.0.1:{known['grafana']}   user admin; the password is in "
        f"{PASSWORDS}",
        f"Prometheus     http://127.0.0.1:{known['prometheus']}",
        f"Alertmanager   http://127.0.0.1:9093   alerts are {receiver.described(config)}",
        "Jaeger         http://127.0.0.1:16686  traces come with "
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317",
        "Loki           in Grafana              logs come from logs/*.log "
        "(LOG_FILE=logs/gateway.log)",
    ]
    if platform.system() == "Darwin":
        lines.append("Docker Desktop has to allow host networking (Settings, Resources, Network).")
    return "\n".join(lines)
