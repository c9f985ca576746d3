"""One vLLM replica as the gateway sees it: what it serves, how busy and how well it is."""

from typing import Protocol

from gateway.breaker import CircuitBreaker
from gateway.exchange import Health, ServedModel, UpstreamAnswer


class UpstreamTransport(Protocol):
    """How bytes get there and back; see transport/client.py."""

    async def send(
        self, path: str, body: bytes, headers: list[tuple[bytes, bytes]], *, is_stream: bool
    ) -> UpstreamAnswer: ...


NEVER_PROBED = Health(is_healthy=False, reason="not asked yet")


class Probe(Protocol):
    """One look at one upstream; never raises for what an upstream does. See transport/probe.py."""

    async def check(self) -> Health: ...


class Upstream:
    """Live state of one replica. In-flight is counted by leases alone."""

    def __init__(
        self,
        *,
        name: str,
        url: str,
        transport: UpstreamTransport,
        probe: Probe,
        breaker: CircuitBreaker,
    ) -> None:
        self.name = name
        self.url = url
        self.transport = transport
        self.probe = probe
        self.breaker = breaker
        self.in_flight = 0
        self.health = NEVER_PROBED
        self.models: dict[str, ServedModel] = {}

    @property
    def was_discovered(self) -> bool:
        """True once its models have been listed; they are kept while it is away."""
        return bool(self.models)

    def learn(self, health: Health) -> None:
        """Take the prober's word: models replace the known ones only when it is well."""
        came_back = health.is_healthy and not self.health.is_healthy
        self.health = health
        if health.models:
            self.models = {model.name: model for model in health.models}
        if came_back:
            self.breaker.hint_recovered()
