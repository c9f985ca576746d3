"""Exchanges that have ended, for the tests of what is counted."""

from gateway.exchange import Exchange, Principal, TokenUsage
from gateway.telemetry.metrics import Metrics

CHAT = "/v1/chat/completions"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def exchange(**facts: object) -> Exchange:
    """A request of which only these facts are known; it began at 0."""
    made = Exchange(request_id="r", method="POST", started_at=0.0, client_address="::1")
    for name, fact in facts.items():
        setattr(made, name, fact)
    return made


def stream(**facts: object) -> Exchange:
    """A stream of 11 tokens: the first after 0.5 s, the last after 1.5 s."""
    good = {
        "route": CHAT,
        "model": "m",
        "upstream": "u",
        "status": 200,
        "is_stream": True,
        "attempts": 1,
        "first_token_at": 0.5,
        "heard_at": 1.5,
        "upstream_seconds": 1.4,
        "usage": TokenUsage(3, 11),
        "principal": Principal("id", "Key"),
    }
    return exchange(**(good | facts))


async def exposed(metrics: Metrics, accept: str = "") -> str:
    body, _ = await metrics.render(accept)
    return body.decode()


async def series(metrics: Metrics, name: str) -> dict[str, float]:
    """Every sample of one name by its labels as they are written."""
    found = {}
    for line in (await exposed(metrics)).splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.partition("{")[0] == name:
            found[sample.removeprefix(name)] = float(value)
    return found
