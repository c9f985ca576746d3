"""What config/nginx says fits what the gateway does by default."""

import re

from gateway.settings import Settings
from tests.harness.nginx import FILES

# Without a config/upstreams.toml that may be there.
DEFAULTS = Settings.from_env({"UPSTREAMS_FILE": "off"})


def directive(name: str) -> str:
    """The value of the only directive of this name in the files."""
    text = "\n".join(path.read_text() for path in sorted(FILES.glob("*.conf")))
    (value,) = re.findall(rf"^\s*{name} ([^;]+);", text, re.MULTILINE)
    return str(value)


def seconds(name: str) -> float:
    return float(directive(name).removesuffix("s"))


def test_nginx_waits_longer_than_the_gateway_does() -> None:
    patience = DEFAULTS.transport
    longest = max(
        patience.first_byte_timeout_seconds,
        patience.unstreamed_timeout_seconds,
        patience.idle_timeout_seconds,
    )

    assert seconds("proxy_read_timeout") > longest + DEFAULTS.admission.queue_timeout_seconds
    assert seconds("proxy_send_timeout") > DEFAULTS.server.body_timeout_seconds


def test_nginx_lets_go_of_idle_connections_before_the_gateway_does() -> None:
    assert seconds("keepalive_timeout") < DEFAULTS.server.keepalive_seconds


def test_nginx_takes_bodies_as_large_as_the_gateway_does() -> None:
    assert int(directive("client_max_body_size")) == DEFAULTS.inference.max_body_bytes
