"""Probes over httpx2: is the upstream well, and which models does it serve."""

import asyncio
from typing import Any

import httpx2

from gateway.exchange import Health, ServedModel

SILENT_PROBES_MAX = 3
PATIENCE_SECONDS = 10.0


class HttpProbe:
    """GET /health, then GET /v1/models with the upstream's key, and once whether it has
    /v1/messages: a GET of that path is 405 where it exists, and 404 where it does not.

    A refused connection or a 503 counts at once; silence counts after three probes in a row,
    since a vLLM that is busy loading a batch may be slow to say that it is well. An answer that
    is not whole after `patience_seconds` is silence too, however steadily it drips.
    """

    def __init__(
        self,
        *,
        url: str,
        client: httpx2.AsyncClient,
        api_key: str | None,
        health_path: str = "/health",
        asks_for_messages: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._url = url.rstrip("/")
        self._client = client
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._health_path = health_path
        self._asks_for_messages = asks_for_messages
        self._speaks_messages: bool | None = None
        self._patience_seconds = patience_seconds
        self._silent_probes = 0
        self._last = Health(is_healthy=False, reason="not asked yet")

    async def check(self) -> Health:
        """Never raises for what the upstream does; the reason says what an operator can do."""
        try:
            async with asyncio.timeout(self._patience_seconds):
                self._last = await self._ask()
            self._silent_probes = 0
        except (TimeoutError, httpx2.TimeoutException):
            self._silent_probes += 1
            if self._silent_probes >= SILENT_PROBES_MAX or not self._last.is_healthy:
                self._last = Health(is_healthy=False, reason=f"{self._url} does not answer in time")
        except httpx2.HTTPError:
            self._last = Health(
                is_healthy=False,
                reason=f"nothing answers at {self._url}: start vLLM there (make vllm, "
                "make vllm-cpu or make sim) or correct this address",
            )
        if not self._last.is_healthy:
            self._speaks_messages = None  # What comes back may be another version.
        return self._last

    async def _ask(self) -> Health:
        health = await self._get(self._health_path)
        if health.status_code >= 500:
            place = f"{self._url}{self._health_path}"
            reason = f"{place} says {health.status_code}: its engine is not running"
            return Health(is_healthy=False, reason=reason)
        listing = await self._get("/v1/models")
        if listing.status_code in (401, 403):
            reason = (
                f"{self._url} refuses our key: VLLM_API_KEY, or its own in the upstreams file, "
                "must be vLLM's --api-key"
            )
            return Health(is_healthy=False, reason=reason)
        models = _models(listing)
        if not models:
            reason = f"{self._url}/v1/models lists no model (status {listing.status_code})"
            return Health(is_healthy=False, reason=reason)
        if self._asks_for_messages and self._speaks_messages is None:
            answer = await self._get("/v1/messages")
            self._speaks_messages = answer.status_code == 405
        return Health(is_healthy=True, models=models, speaks_messages=self._speaks_messages)

    async def _get(self, path: str) -> httpx2.Response:
        return await self._client.get(f"{self._url}{path}", headers=self._headers)


def _models(listing: httpx2.Response) -> tuple[ServedModel, ...]:
    """The models of an OpenAI listing; `max_model_len` is vLLM's own addition to it.

    The card of a LoRA adapter has none, but names its `parent`, whose context it shares.
    """
    try:
        document = listing.json()
    except ValueError:
        return ()
    entries: Any = document.get("data") if isinstance(document, dict) else None
    cards: dict[str, Any] = {}
    for entry in entries if isinstance(entries, list) else []:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            cards[name] = entry
    return tuple(ServedModel(name, _context_tokens(card, cards)) for name, card in cards.items())


def _context_tokens(card: dict[str, Any], cards: dict[str, Any]) -> int | None:
    parent = card.get("parent")
    base = cards.get(parent, {}) if isinstance(parent, str) else {}
    for length in (card.get("max_model_len"), base.get("max_model_len")):
        if type(length) is int and length > 0:  # JSON true is an int to Python.
            return length
    return None
