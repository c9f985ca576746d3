"""A gateway before an upstream that plays scripts, whose circuit opens at one failure."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.fakes.upstream import Close, Hang, Receive, Script, ScriptedUpstream, Send, whole
from tests.harness.anthropic import message
from tests.harness.callers import UNLIMITED
from tests.harness.gateway import GatewayProcess, chat

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
BOTH = (CHAT, MESSAGES)
OPEN_SECONDS = 0.02
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2},
    }
).encode()
# It closes, so that the next connection plays the next script.
WELL: Script = (Receive(), Send(whole(ANSWER, headers="connection: close\r\n")), Close())


def says(data: bytes) -> Script:
    """These bytes, then silence until the gateway ends it."""
    return (Receive(), Send(data), Hang())


def answers(data: bytes) -> Script:
    """A whole answer, and the end of the connection."""
    return (Receive(), Send(data), Close())


@dataclass(frozen=True, slots=True)
class Stage:
    """The upstream and the gateway before it."""

    upstream: ScriptedUpstream
    gateway: GatewayProcess

    def play(self, script: Script) -> None:
        """For the next connection; those after it are served well."""
        self.upstream.connections.clear()
        self.upstream.play(script, WELL)

    async def ask(self, path: str, **fields: Any) -> httpx2.Response:
        return await self.gateway.client.post(path, json=body_for(path, **fields))

    async def is_well_again(self) -> None:
        """The next call is answered, once the circuit lets a probe through."""
        async with asyncio.timeout(5):
            while (answer := await self.ask(CHAT)).status_code == 503:
                await asyncio.sleep(OPEN_SECONDS / 4)
        assert answer.status_code == 200
        assert await self.gateway.metric("gateway_circuit_state") == 0


@asynccontextmanager
async def stage(folder: Path, **settings: str) -> AsyncIterator[Stage]:
    """One failure opens the circuit, and soon a probe may close it: what counts shows."""
    opens: dict[str, Any] = {
        "CIRCUIT_FAILURE_THRESHOLD": "1",
        "CIRCUIT_FAILURE_RATIO": "1",
        "CIRCUIT_OPEN_SECONDS": str(OPEN_SECONDS),
        "CIRCUIT_OPEN_MAX_SECONDS": str(OPEN_SECONDS),
        "HEALTH_INTERVAL_SECONDS": "3600",
        "DAILY_TOKEN_QUOTA": "off",
    }
    async with (
        ScriptedUpstream(WELL) as upstream,
        GatewayProcess(
            folder=folder, VLLM_URL=upstream.url, **UNLIMITED | opens | settings
        ) as gateway,
    ):
        it = Stage(upstream, gateway)
        await it.is_well_again()
        yield it


def body_for(path: str, **fields: Any) -> dict[str, Any]:
    body = chat(**fields) if path == CHAT else message(**fields)
    return body | {"model": "m"}


def error_of(answer: httpx2.Response, path: str) -> dict[str, Any]:
    """Message, type and code, out of the envelope that the dialect of the path has."""
    document = answer.json()
    error: dict[str, Any] = document["error"]
    if path == CHAT:
        assert list(document) == ["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error
    assert document["type"] == "error"
    assert document["request_id"] == answer.headers["request-id"]
    return error | {"code": error.get("details", {}).get("error_code")}
