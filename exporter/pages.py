"""The HTTP side: /metrics, /health, and in a simulation the control of its faults."""

import json
from collections.abc import Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter.exposition import Exposition
from exporter.faults import FaultBoard
from exporter.source import Trouble

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_BODY_BYTES: Final = 4096
_LARGEST_XID: Final = 65535


class Refused(Exception):
    """A request for the simulation that is not served: the status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def pages(exposition: Exposition, *, control: "FaultControl | None") -> Starlette:
    """The application; without `control` there is no /sim."""

    async def metrics(request: Request) -> Response:
        body, content_type = exposition.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def faults(request: Request) -> Response:
        assert control is not None  # noqa: S101  the route exists with it alone
        try:
            return JSONResponse({"faults": await control.handle(request)})
        except Refused as refusal:
            return JSONResponse({"error": refusal.why}, status_code=refusal.status)

    routes = [Route("/metrics", metrics), Route("/health", health)]
    if control is not None:
        routes.append(Route("/sim/faults", faults, methods=["POST", "DELETE"]))
    return Starlette(routes=routes)


class FaultControl:
    """POST sets a fault, DELETE ends all; both answer with those that last.

    For this machine alone, and never for a page in its browser: loopback by address and by name
    (a rebound DNS name is neither), and a body that a page cannot send without asking first.
    """

    def __init__(self, board: FaultBoard, *, gpus: int, on_change: Callable[[], None]) -> None:
        self._board = board
        self._gpus = gpus
        self._on_change = on_change

    async def handle(self, request: Request) -> list[dict[str, Any]]:
        """Raises Refused."""
        self._check_origin(request)
        if request.method == "DELETE":
            self._board.clear()
        else:
            self._set(await _json_of(request))
        self._on_change()
        return [{"gpu": fault.gpu, "kind": fault.kind} for fault in self._board.active]

    def _check_origin(self, request: Request) -> None:
        address = request.client.host if request.client else ""
        if address not in _LOOPBACK or request.url.hostname not in _LOOPBACK:
            raise Refused(403, "faults are set from this machine, at 127.0.0.1")
        if "origin" in request.headers:
            raise Refused(403, "faults are not set by web pages")

    def _set(self, body: Any) -> None:
        if not isinstance(body, dict) or body.keys() - {"gpu", "kind", "xid"}:
            raise Refused(400, 'write {"gpu": 1, "kind": "lost"}')
        gpu, xid = body.get("gpu"), body.get("xid", 0)
        if type(gpu) is not int or not 0 <= gpu < self._gpus:
            raise Refused(400, f"gpu: must be a whole number from 0 to {self._gpus - 1}")
        try:
            kind = Trouble(str(body.get("kind")))
        except ValueError:
            raise Refused(400, f"kind: must be one of {', '.join(Trouble)}") from None
        if type(xid) is not int or not 0 <= xid <= _LARGEST_XID:
            raise Refused(400, "xid: must be a whole number, such as 79")
        if (kind is Trouble.XID) != bool(xid):
            raise Refused(400, 'xid: goes with the kind "xid", as in {"kind": "xid", "xid": 79}')
        self._board.set(gpu=gpu, kind=kind, xid=xid)


async def _json_of(request: Request) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "send application/json")
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _BODY_BYTES:
            raise Refused(413, f"a fault has at most {_BODY_BYTES} bytes")
    try:
        return json.loads(raw)
    except ValueError:
        raise Refused(400, "the body is no JSON") from None
