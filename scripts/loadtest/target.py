"""The server under load: where it is, whether it may be loaded, and which model it serves."""

import ipaddress
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx2

from scripts.loadtest.failure import error_words
from scripts.loadtest.plan import PATHS, Endpoint

# Statuses that will not be another one in a moment.
_NEVER: Final = frozenset({400, 403, 404, 405, 422, 501})
_TRIALS: Final[dict[Endpoint, dict[str, object]]] = {
    Endpoint.CHAT: {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1},
    Endpoint.COMPLETIONS: {"prompt": "Hello", "max_tokens": 1},
    Endpoint.EMBEDDINGS: {"input": "Hello"},
}


class TargetUnusable(Exception):
    """There is nothing to measure; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """A base URL in its parts; `prefix` is the path before /v1."""

    url: str
    host: str
    port: int
    is_tls: bool
    authority: str
    prefix: str

    @property
    def is_local(self) -> bool:
        """True for an address of loopback, and for `localhost`."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def target(url: str) -> Target:
    """Raises TargetUnusable for what is no base URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise TargetUnusable(f"{url} is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise TargetUnusable(f"{url} is no base URL: write http://HOST:PORT")
    if parts.username is not None or not url.isascii():
        raise TargetUnusable("a base URL holds no user, and only ASCII; a key belongs in API_KEY")
    prefix = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    if any(character.isspace() for character in url):
        raise TargetUnusable("a URL holds no blanks")
    return Target(
        url=f"{parts.scheme}://{parts.netloc}{prefix}",
        host=parts.hostname,
        port=port,
        is_tls=parts.scheme == "https",
        authority=parts.netloc,
        prefix=prefix,
    )


def require_permission(server: Target, *, is_allowed: bool) -> None:
    """Raises TargetUnusable for another machine unless that was meant."""
    if not (server.is_local or is_allowed):
        raise TargetUnusable(
            f"{server.host} is another machine, and load may hurt it: add --yes-remote if you may"
        )


def served_model(
    server: Target, api_key: str, endpoint: Endpoint, wanted: str, *, timeout_seconds: float
) -> str:
    """The wanted model, else the first one that answers a small trial request on that endpoint.

    Raises TargetUnusable if nobody answers, or no model does.
    """
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    verify = ssl.create_default_context() if server.is_tls else False
    try:
        # No proxy of the environment: the load takes none either.
        with httpx2.Client(
            base_url=server.url,
            headers=headers,
            trust_env=False,
            timeout=timeout_seconds,
            verify=verify,
        ) as client:
            models = [wanted] if wanted else _listed(client, has_key=bool(api_key))
            refused = []
            for model in models:
                refused.append(_refusal(client, endpoint, model))
                if not refused[-1]:
                    return model
    except httpx2.HTTPError as error:
        raise TargetUnusable(
            f"{server.url} does not answer ({error}): start it (make gateway), or set URL"
        ) from None
    raise TargetUnusable(f"no model takes a request to {PATHS[endpoint]}: {refused[0]}")


def _listed(client: httpx2.Client, *, has_key: bool) -> list[str]:
    answer = client.get("/v1/models")
    if answer.status_code == 401:
        raise TargetUnusable(_wrong_key(client, has_key=has_key))
    models = _names(answer)
    if not models:
        raise TargetUnusable(
            f"{client.base_url} names no model (status {answer.status_code}): "
            "is vLLM running behind it? Else set MODEL"
        )
    return models


def _refusal(client: httpx2.Client, endpoint: Endpoint, model: str) -> str:
    """Why this model cannot be asked there; empty if it can, or only not at this moment."""
    answer = client.post(PATHS[endpoint], json={"model": model, **_TRIALS[endpoint]})
    if answer.status_code == 401:
        raise TargetUnusable(_wrong_key(client, has_key="authorization" in client.headers))
    if answer.status_code not in _NEVER:
        return ""
    code, message = error_words(answer.content)
    return f"{answer.status_code} {code}: {message}"


def _wrong_key(client: httpx2.Client, *, has_key: bool) -> str:
    how = "is not accepted" if has_key else "is missing"
    return f"{client.base_url} wants a key and ours {how}: set API_KEY"


def _names(answer: httpx2.Response) -> list[str]:
    try:
        return [str(card["id"]) for card in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []
