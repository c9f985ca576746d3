"""GET /dashboard: a page on which key holders see their usage, and the files it is made of."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources

from gateway.edge.asgi import ASGIApp, Headers, Receive, Scope, Send, header, respond
from gateway.edge.router import Route, not_found

PATH = "/dashboard"
PAGE = "page.html"
_TYPES: Mapping[str, bytes] = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}

# Nothing runs, loads or asks anything but this gateway's own files and answers; nobody frames the
# page; no form is ever sent, so that a key cannot end up in a URL even where the script fails.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_SAFETY: Headers = (
    (b"content-security-policy", _POLICY.encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Kept, but asked about each time: page and scripts are always of one version.
    (b"cache-control", b"no-cache"),
)


def dashboard_routes(*, guard: Callable[[ASGIApp], ASGIApp]) -> list[Route]:
    """The page and its files, each behind `guard`; their labels in metrics are constant."""
    files = _files()
    prefix = f"{PATH}/"
    return [
        Route(PATH, "GET", guard(files[PAGE])),
        Route(prefix, "GET", guard(_without_the_slash)),
        Route(prefix, "GET", guard(_Files(files, prefix=prefix)), is_prefix=True),
    ]


@dataclass(frozen=True, slots=True)
class _File:
    """One file in memory, and the tag by which a browser knows that it still has it."""

    content_type: bytes
    body: bytes

    @property
    def tag(self) -> bytes:
        return b'"%s"' % hashlib.sha256(self.body).hexdigest()[:32].encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*_SAFETY, (b"etag", self.tag)]
        if self.tag in _known(scope):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await respond(
            send, status=200, body=self.body, content_type=self.content_type, headers=headers
        )


class _Files:
    """The files by name. Raises NotFound for every other name."""

    def __init__(self, files: Mapping[str, _File], *, prefix: str) -> None:
        self._by_path = {f"{prefix}{name}".encode("ascii"): file for name, file in files.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = self._by_path.get(scope["raw_path"], not_found)
        await file(scope, receive, send)


async def _without_the_slash(scope: Scope, receive: Receive, send: Send) -> None:
    """Relative, so that it holds under whatever prefix a proxy gives us."""
    headers = [(b"location", b"../dashboard")]
    await respond(send, status=308, body=b"", content_type=_TYPES["html"], headers=headers)


def _files() -> dict[str, _File]:
    """All of them, read once: nothing a client sends ever names a file on disk."""
    return {
        entry.name: _File(_TYPES[suffix], entry.read_bytes())
        for entry in resources.files("gateway.edge.dashboard").iterdir()
        if (suffix := entry.name.rpartition(".")[2]) in _TYPES
    }


def _known(scope: Scope) -> list[bytes]:
    """The tags of If-None-Match; a proxy that compressed the file made its tag a weak one."""
    listed = header(scope, b"if-none-match") or b""
    return [tag.strip().removeprefix(b"W/") for tag in listed.split(b",")]
