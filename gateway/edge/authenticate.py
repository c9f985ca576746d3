"""From a header to a Principal."""

from collections.abc import Awaitable, Callable

from gateway.auth.keyring import KeyRing
from gateway.edge.asgi import ASGIApp, Receive, Scope, Send, exchange_of
from gateway.errors import AuthenticationFailed

BEARER = b"bearer "


class Authenticate:
    """Takes `Authorization: Bearer` or `X-API-Key`, never a query string: those end up in logs.

    `ring` gives the present KeyRing; a change of keys replaces it whole.
    """

    def __init__(self, app: ASGIApp, *, ring: Callable[[], KeyRing]) -> None:
        self._app = app
        self._ring = ring

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        token = _token(scope)
        exchange_of(scope).principal = self._ring().authenticate(token)
        return self._app(scope, receive, send)


def _token(scope: Scope) -> bytes:
    """The one credential of a request. Raises AuthenticationFailed for none and for several."""
    offered: set[bytes] = set()
    for name, value in scope["headers"]:
        if name == b"authorization":
            if value[:7].lower() != BEARER:
                raise AuthenticationFailed(
                    "The Authorization header must be 'Bearer <key>'.", code="invalid_api_key"
                )
            offered.add(value[7:].strip())
        elif name == b"x-api-key":
            offered.add(value.strip())
    if len(offered) > 1:
        raise AuthenticationFailed("Send one API key, not several different ones.")
    if not offered or offered == {b""}:
        raise AuthenticationFailed(
            "Send an API key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
            code="missing_api_key",
        )
    return offered.pop()
