"""Exact paths to endpoints: an allow-list, because vLLM has open administrative paths."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from gateway.edge.asgi import ASGIApp, Receive, Scope, Send, exchange_of
from gateway.errors import MethodNotAllowed, NotFound


@dataclass(frozen=True, slots=True)
class Route:
    """A path of ours. `is_prefix` routes match anything longer; `label` goes into metrics."""

    path: str
    method: str
    app: ASGIApp
    is_prefix: bool = False

    @property
    def allow(self) -> str:
        return "GET, HEAD, OPTIONS" if self.method == "GET" else f"{self.method}, OPTIONS"

    def takes(self, method: str) -> bool:
        return method == self.method or (method == "HEAD" and self.method == "GET")


class Router:
    """Looks at the path as it was sent, never at the Host header.

    An encoded slash or letter names no path of ours: nobody downstream can read it differently.

    Raises NotFound and MethodNotAllowed; OPTIONS tells what a path takes. `elsewhere` guards
    the unknown paths, so that scanning them is rate limited.
    """

    def __init__(self, routes: list[Route], *, elsewhere: ASGIApp) -> None:
        self._exact: Mapping[bytes, Route] = {
            r.path.encode("ascii"): r for r in routes if not r.is_prefix
        }
        self._prefixes = [(r.path.encode("ascii"), r) for r in routes if r.is_prefix]
        self._elsewhere = elsewhere

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path: bytes = scope["raw_path"]
        route = self._exact.get(path) or self._by_prefix(path)
        if route is None:
            return self._elsewhere(scope, receive, send)
        exchange_of(scope).route = route.path
        method: str = scope["method"]
        if method == route.method or route.takes(method):
            return route.app(scope, receive, send)
        if method == "OPTIONS":
            return _tell_options(route, send)
        raise MethodNotAllowed(f"{route.path} takes {route.allow}.", allow=route.allow)

    def _by_prefix(self, path: bytes) -> Route | None:
        for prefix, route in self._prefixes:
            if path.startswith(prefix) and len(path) > len(prefix):
                return route
        return None


async def _tell_options(route: Route, send: Send) -> None:
    headers = [(b"allow", route.allow.encode("ascii"))]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to every path that is not ours."""
    raise NotFound(f"There is no {scope['method'][:20]} {scope['path'][:200]} here.")
