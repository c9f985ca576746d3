"""Whom Prometheus asks: target files, made from what config/.env says about ports."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scripts.supervision.environment import setting

LOOPBACK = ("", "0.0.0.0", "::", "127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Group:
    """Addresses, host:port each, and the labels all of them carry."""

    addresses: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)


def write_targets(folder: Path, *, parts: Mapping[str, str]) -> None:
    """Write JOB.json for each job; `parts` are the stack's own programs, job to host:port.

    A file is replaced in one step, so that a running Prometheus never reads half of it.
    """
    alertmanagers = [Group([parts["alertmanager"]])] if "alertmanager" in parts else []
    jobs: dict[str, Sequence[Group]] = {
        "gateway": [gateway()],
        "vllm": vllm(),
        "gpu-exporter": [gpu_exporter()],
        "stack": [Group([address], {"job": job}) for job, address in parts.items()],
        "alertmanager": alertmanagers,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for job, groups in jobs.items():
        rows = [{"targets": list(group.addresses), "labels": group.labels} for group in groups]
        written = folder / f".{job}.new"
        written.write_text(json.dumps(rows, indent=2) + "\n")
        # Read by the container's own user, whatever this shell's umask is.
        written.chmod(0o644)
        written.rename(folder / f"{job}.json")


def gateway() -> Group:
    port = setting("METRICS_PORT") or setting("GATEWAY_PORT") or "8080"
    return Group([address(setting("GATEWAY_HOST"), port)])


def gpu_exporter() -> Group:
    return Group([address(setting("GPU_EXPORTER_HOST"), setting("GPU_EXPORTER_PORT") or "9101")])


def vllm() -> list[Group]:
    """One group per replica of VLLM_URL: each may have a scheme and a path of its own."""
    usual = f"http://127.0.0.1:{setting('VLLM_PORT') or '8000'}"
    return [replica(url.strip()) for url in (setting("VLLM_URL") or usual).split(",")]


def replica(url: str) -> Group:
    parts = urlsplit(url if "//" in url else f"http://{url}")
    labels = {}
    if parts.scheme == "https":
        labels["__scheme__"] = "https"
    if parts.path.strip("/"):
        labels["__metrics_path__"] = f"/{parts.path.strip('/')}/metrics"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Group([address(parts.hostname or "", str(port))], labels)


def address(host: str, port: str) -> str:
    """host:port; MONITORING_TARGET_HOST stands in for this machine, where that is elsewhere."""
    if host in LOOPBACK:
        host = setting("MONITORING_TARGET_HOST") or "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
