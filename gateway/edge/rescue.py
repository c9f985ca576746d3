"""The only place where an exception becomes a response."""

from collections.abc import Callable

from gateway.edge.asgi import (
    JSON_TYPE,
    ASGIApp,
    Receive,
    Scope,
    Send,
    dialect_of,
    exchange_of,
    respond,
)
from gateway.edge.limits import LimitHeaders
from gateway.errors import ClientDisconnected, GatewayError, InternalError, Refusal
from gateway.exchange import Exchange, Outcome
from gateway.wire.dialect import Dialect


class Rescue:
    """A GatewayError becomes an answer in the dialect of the request.

    Once the response has begun no other is started: an event stream gets the dialect's error
    event, and returning without the end makes the server cut the connection, so that the
    truncation stays visible. `on_fault` hears of errors that are ours.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit_headers: LimitHeaders,
        on_fault: Callable[[Exchange, Exception], None],
    ) -> None:
        self._app = app
        self._limit_headers = limit_headers
        self._on_fault = on_fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        try:
            await self._app(scope, receive, send)
        except GatewayError as error:
            await self._answer(error, exchange, dialect_of(scope), send)
        except Exception as fault:
            self._on_fault(exchange, fault)
            internal = InternalError(
                f"Internal error; the gateway's log has it as {exchange.request_id}."
            )
            await self._answer(internal, exchange, dialect_of(scope), send)

    async def _answer(
        self, error: GatewayError, exchange: Exchange, dialect: Dialect, send: Send
    ) -> None:
        has_begun = exchange.status != 0
        exchange.error_code = error.code
        exchange.outcome = _outcome(error, has_begun=has_begun)
        if isinstance(error, Refusal):
            exchange.limit = error.limit
        if isinstance(error, ClientDisconnected):
            exchange.status = exchange.status or error.status
        elif not has_begun:
            await respond(
                send,
                status=dialect.status_of(error),
                body=dialect.render_error(error, request_id=exchange.request_id),
                content_type=JSON_TYPE,
                headers=[*error.headers(), *self._limit_headers(exchange, dialect)],
            )
        elif exchange.is_stream:
            event = dialect.error_event(error, request_id=exchange.request_id)
            await send({"type": "http.response.body", "body": event, "more_body": True})


def _outcome(error: GatewayError, *, has_begun: bool) -> Outcome:
    if isinstance(error, ClientDisconnected):
        return Outcome.CANCELLED
    if has_begun:
        return Outcome.TRUNCATED
    if isinstance(error, Refusal):
        return Outcome.REJECTED
    return Outcome.CLIENT_ERROR if error.status < 500 else Outcome.ERROR
