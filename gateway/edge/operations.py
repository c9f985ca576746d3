"""What is asked of the gateway itself: health, readiness, metrics, models, usage, version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Protocol
from urllib.parse import parse_qs

import gateway
from gateway.edge.asgi import (
    Receive,
    Scope,
    Send,
    dialect_of,
    exchange_of,
    header,
    respond,
    respond_json,
)
from gateway.edge.origin import Network, Origin, lies_in
from gateway.errors import InvalidRequest, PermissionDenied
from gateway.quota.ledger import Ledger
from gateway.routing.pool import UpstreamPool
from gateway.routing.standing import Standing

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
HISTORY_DAYS_MAX = 400
ReadinessCheck = Callable[[], str | None]


async def health(scope: Scope, receive: Receive, send: Send) -> None:
    """Liveness: this process answers. Says nothing about vLLM."""
    await respond_json(send, {"status": "ok"})


async def version(scope: Scope, receive: Receive, send: Send) -> None:
    await respond_json(send, {"name": "vllm-gateway", "version": gateway.__version__})


class Ready:
    """Readiness: 503 with every reason until all checks are silent.

    A weakness is told, and no reason to take no calls.
    """

    def __init__(
        self, checks: Sequence[ReadinessCheck], *, weaknesses: Sequence[ReadinessCheck] = ()
    ) -> None:
        self._checks = checks
        self._weaknesses = weaknesses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reasons = [reason for check in self._checks if (reason := check())]
        if not reasons:
            degraded = [weakness for tell in self._weaknesses if (weakness := tell())]
            ready: dict[str, object] = {"status": "ready"}
            await respond_json(send, {**ready, "degraded": degraded} if degraded else ready)
            return
        document = {"status": "not ready", "reasons": reasons}
        await respond_json(send, document, status=503, headers=[(b"retry-after", b"1")])


@dataclass(frozen=True, slots=True)
class MetricsAccess:
    """Networks that may read /metrics besides loopback."""

    allow: tuple[Network, ...] = ()


class Visitors:
    """Who may see how things are inside: loopback and METRICS_ALLOW.

    Not what came through a proxy that is not trusted: its peer address says nothing.
    """

    def __init__(self, origin: Origin, access: MetricsAccess) -> None:
        self._origin = origin
        self._networks = (*LOOPBACK, *access.allow)

    def admit(self, scope: Scope) -> bool:
        address = exchange_of(scope).client_address
        is_direct = self._origin.is_direct(scope["client"], dict(scope["headers"]))
        return is_direct and lies_in(address, self._networks)


class Exposition(Protocol):
    """Whatever can show all metrics."""

    async def render(self, accept: str) -> tuple[bytes, bytes]:
        """The page and its content type."""
        ...


class MetricsPage:
    """Prometheus' exposition, for loopback and METRICS_ALLOW only."""

    def __init__(self, metrics: Exposition, *, origin: Origin, access: MetricsAccess) -> None:
        self._metrics = metrics
        self._visitors = Visitors(origin, access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._visitors.admit(scope):
            raise PermissionDenied(
                "Metrics are for loopback and the networks in METRICS_ALLOW only.",
                code="metrics_not_allowed",
            )
        accept = (header(scope, b"accept") or b"").decode("latin-1")
        body, content_type = await self._metrics.render(accept)
        await respond(send, status=200, body=body, content_type=content_type)


class UpstreamsPage:
    """GET /health/upstreams: 200 when every model has a healthy upstream, else 503.

    Which ones there are and how each is stays with loopback and METRICS_ALLOW; the others are
    told the bare status.
    """

    def __init__(
        self, look: Callable[[], Standing], *, origin: Origin, access: MetricsAccess
    ) -> None:
        self._look = look
        self._visitors = Visitors(origin, access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing = self._look()
        document: dict[str, object] = {"status": standing.word}
        if self._visitors.admit(scope):
            document["missing"] = standing.missing
            document["generation"] = standing.generation
            document["upstreams"] = standing.upstreams
        await respond_json(send, document, status=200 if standing.is_whole else 503)


class Models:
    """GET /v1/models: what this key may use, in the shape of the caller's dialect."""

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        models = self._pool.catalogue.listing(exchange_of(scope).caller)
        await respond_json(send, dialect_of(scope).model_list(models))


class Model:
    """GET /v1/models/{id}: whatever a call may name, so that clients can ask before they call.

    An id may contain slashes.
    """

    def __init__(self, pool: UpstreamPool, *, prefix: str) -> None:
        self._pool = pool
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].removeprefix(self._prefix)
        caller = exchange_of(scope).caller
        model = self._pool.catalogue.find(name, visible=caller.may_use)
        await respond_json(send, dialect_of(scope).model_card(model))


class Usage:
    """GET /v1/usage: the caller's own standing; `?days=N` adds history."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        days = _days(scope["query_string"])
        report = await self._ledger.report(exchange_of(scope).caller, days=days)
        await respond_json(send, report.to_dict(), headers=[(b"cache-control", b"no-store")])


def _days(query: bytes) -> int:
    values = parse_qs(query.decode("latin-1")).get("days")
    if values is None:
        return 1
    text = values[-1]
    is_number = len(text) <= 3 and text.isascii() and text.isdigit()
    if not is_number or not 1 <= int(text) <= HISTORY_DAYS_MAX:
        raise InvalidRequest(
            f"days must be a whole number from 1 to {HISTORY_DAYS_MAX}.", param="days"
        )
    return int(text)
