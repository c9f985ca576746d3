"""Where each program listens, and which path tells that it is well."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.supervision.environment import setting

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Service:
    """The variable of its port, the port when nobody says otherwise, and the path to ask."""

    variable: str
    usual_port: int
    path: str


SERVICES = {
    "gateway": Service("GATEWAY_PORT", 8080, "/ready"),
    "vllm": Service("VLLM_PORT", 8000, "/health"),
    "vllm-cpu": Service("VLLM_PORT", 8000, "/health"),
    "sim": Service("SIM_PORT", 8000, "/health"),
    "gpu-exporter": Service("GPU_EXPORTER_PORT", 9101, "/health"),
    "cluster": Service("CLUSTER_PORT", 8090, "/ready"),
    "prometheus": Service("PROMETHEUS_PORT", 9090, "/-/ready"),
}
HOST_VARIABLES = {"gateway": "GATEWAY_HOST", "gpu-exporter": "GPU_EXPORTER_HOST"}


def port_of(name: str, command: Sequence[str] = ()) -> int:
    """The port the command says, else the one in the environment or config/.env, else the usual."""
    if "--port" in command[:-1]:
        return int(command[command.index("--port") + 1])
    service = SERVICES[name]
    text = setting(service.variable)
    return int(text) if text.isdecimal() else service.usual_port


def url_of(name: str, port: int) -> str:
    """Where to ask: loopback for a program that listens on every interface."""
    variable = HOST_VARIABLES.get(name, "")
    host = setting(variable) if variable else ""
    if host in ("", "0.0.0.0", "::"):
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def environment_without(*variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in variables}
