"""An upstream that misbehaves before it has said anything: what callers hear in each dialect,
what the books and the circuit say, and that nothing stays behind."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.fakes.upstream import (
    STREAM_HEAD,
    Close,
    Hang,
    Receive,
    ReceiveHead,
    Reset,
    Script,
    ScriptedUpstream,
    Send,
    Wait,
    chunk,
    event_stream,
    whole,
)
from tests.harness.aftermath import watched
from tests.harness.anthropic import message
from tests.harness.callers import UNLIMITED, fronted
from tests.harness.gateway import GatewayProcess, chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
OPEN_SECONDS = 0.02
SECRET = "EngineCore encountered an issue at /srv/secret.py"
ERROR_500 = json.dumps({"error": {"message": SECRET, "type": "InternalServerError"}}).encode()
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
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
ERROR_EVENT = b'data: {"error":{"message":"dead","code":500}}\n\n'


@dataclass(frozen=True, slots=True)
class Row:
    """What the upstream does, what that is to the caller, and whether the circuit counts it."""

    script: Script
    status: int = 502
    code: str | None = "bad_gateway"
    kind: str = "protocol"
    is_failure: bool = True


def says(data: bytes) -> Script:
    """These bytes, then silence until the gateway ends it."""
    return (Receive(), Send(data), Hang())


def answers(data: bytes) -> Script:
    """A whole answer, and the end of the connection."""
    return (Receive(), Send(data), Close())


def said(script: Script) -> bytes:
    return b"".join(step.data for step in script if isinstance(step, Send))


def head(*lines: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


ROWS = {
    "closes before it answers": Row((Receive(), Close()), kind="reset"),
    "resets before it answers": Row((Receive(), Reset()), kind="reset"),
    "resets within its head": Row(
        (Receive(), Send(b"HTTP/1.1 200 OK\r\nco"), Reset()), kind="reset"
    ),
    "resets when the head of the request came": Row((ReceiveHead(), Reset()), kind="reset"),
    "500, the engine is dead": Row(answers(whole(ERROR_500, status=500)), kind="status_5xx"),
    "500 without words": Row(answers(whole(b"", status=500)), kind="status_5xx"),
    "502 of a proxy in HTML": Row(
        answers(whole(b"<html>Bad Gateway</html>", status=502, content_type="text/html")),
        kind="status_5xx",
    ),
    "200 in HTML": Row(answers(whole(b"<html>hello</html>", content_type="text/html"))),
    "200 without a body": Row(answers(whole(b""))),
    "200 with half a document": Row(answers(whole(ANSWER[:-20]))),
    "200 with a list": Row(answers(whole(b"[1,2]"))),
    "hangs": Row((Receive(), Hang()), 504, "upstream_timeout", "timeout"),
    "hangs within its head": Row(says(b"HTTP/1.1 200 OK\r\n"), 504, "upstream_timeout", "timeout"),
    "hangs after the head of a stream": Row(says(STREAM_HEAD), 504, "upstream_timeout", "timeout"),
    "ends a stream before its first event": Row(
        (Receive(), Send(event_stream()), Close()), code="upstream_truncated", kind="truncated"
    ),
    "says an error first thing in a stream": Row(
        answers(event_stream(ERROR_EVENT)), code="upstream_error", kind="error_event"
    ),
    "promises more than it sends": Row(
        (Receive(), Send(whole(ANSWER).replace(b"length: ", b"length: 9")), Close()),
        code="upstream_truncated",
        kind="truncated",
    ),
    "ends within a chunk": Row(
        (Receive(), Send(CHUNKED + chunk(ANSWER)[:-9]), Close()),
        code="upstream_truncated",
        kind="truncated",
    ),
    "a chunk of no size": Row(says(CHUNKED + b"zz\r\n" + ANSWER)),
    "two lengths": Row(says(whole(ANSWER, headers="content-length: 2\r\n"))),
    "a negative length": Row(says(head("content-type: application/json", "content-length: -5"))),
    "a length and chunks": Row(says(whole(ANSWER, headers="transfer-encoding: chunked\r\n"))),
    "gzip that nobody asked for": Row(
        says(whole(b"\x1f\x8b", headers="content-encoding: gzip\r\n"))
    ),
    "a NUL in a header": Row(says(whole(ANSWER, headers="x-a: a\0b\r\n"))),
    "a huge header": Row(says(whole(ANSWER, headers=f"x-a: {'a' * 300_000}\r\n"))),
    "20,000 headers": Row(
        says(whole(ANSWER, headers="".join(f"x-{n}: a\r\n" for n in range(20_000))))
    ),
    "endless interim answers": Row(says(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" * 20_000)),
    "switches protocols": Row(says(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")),
    "no HTTP at all": Row(says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")),
    "a redirect": Row(
        answers(whole(b"", status=302, headers="location: http://169.254.169.254/\r\n")),
        kind="misconfigured",
        is_failure=False,
    ),
    "401: our key is wrong": Row(
        answers(whole(b"{}", status=401)),
        code="upstream_auth",
        kind="misconfigured",
        is_failure=False,
    ),
}


REFUSED = json.dumps({"error": {"message": "no such thing", "type": "BadRequestError"}}).encode()
BUSY = "retry-after: 7\r\n"
# Status, code and the wait told; whether the circuit counts it; the status to Anthropic's clients.
REFUSALS: dict[str, tuple[Script, int, str | None, str | None, bool, int]] = {
    "400": (answers(whole(REFUSED, status=400)), 400, None, None, False, 400),
    "422": (answers(whole(REFUSED, status=422)), 422, None, None, False, 422),
    "429": (
        answers(whole(REFUSED, status=429, headers=BUSY)),
        *(429, "rate_limit_exceeded", "7", False, 429),
    ),
    "503": (
        answers(whole(REFUSED, status=503, headers=BUSY)),
        *(503, "upstream_unavailable", "7", True, 529),
    ),
    "400 before the body was sent": (
        (ReceiveHead(), Send(whole(REFUSED, status=400)), Wait(0.2), Hang()),
        *(400, None, None, False, 400),
    ),
    "400 before the body was sent, and a reset": (
        (ReceiveHead(), Send(whole(REFUSED, status=400)), Close()),
        *(400, None, None, False, 400),
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(WELL) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    """One failure opens its circuit, and soon a probe may close it: each row shows its verdict."""
    async with GatewayProcess(
        folder=tmp_path_factory.mktemp("upstream"),
        VLLM_URL=upstream.url,
        CIRCUIT_FAILURE_THRESHOLD="1",
        CIRCUIT_FAILURE_RATIO="1",
        CIRCUIT_OPEN_SECONDS=str(OPEN_SECONDS),
        CIRCUIT_OPEN_MAX_SECONDS=str(OPEN_SECONDS),
        FIRST_BYTE_TIMEOUT_SECONDS="0.3",
        HEALTH_INTERVAL_SECONDS="3600",
        DAILY_TOKEN_QUOTA="off",
        **UNLIMITED,
    ) as running:
        await ask(running, CHAT)
        yield running


async def ask(gateway: GatewayProcess, path: str, **fields: Any) -> httpx2.Response:
    body = chat(**fields) if path == CHAT else message(**fields)
    return await gateway.client.post(path, json=body | {"model": "m"})


async def is_well_again(gateway: GatewayProcess) -> None:
    """The next call is answered, once the circuit lets a probe through."""
    async with asyncio.timeout(5):
        while (answer := await ask(gateway, CHAT)).status_code == 503:
            await asyncio.sleep(OPEN_SECONDS / 4)
    assert answer.status_code == 200
    assert await gateway.metric("gateway_circuit_state") == 0


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


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("name", ROWS)
async def test_an_answer_that_is_none_is_an_error_in_our_words_and_costs_nothing(
    gateway: GatewayProcess, upstream: ScriptedUpstream, name: str, path: str
) -> None:
    row = ROWS[name]
    upstream.connections.clear()
    upstream.play(row.script, WELL)
    async with watched(gateway) as after:
        answer = await ask(gateway, path, stream=STREAM_HEAD in said(row.script))
        await upstream.sees_end(within_seconds=2)

    assert answer.status_code == row.status
    error = error_of(answer, path)
    assert error["code"] == row.code
    assert SECRET not in answer.text
    assert (after.tokens, after.requests) == (0, 1)
    assert after.outcomes == {"error": 1}
    assert after.faults == {row.kind: 1}
    assert after.opened == row.is_failure
    assert len(upstream.connections) == 1
    await is_well_again(gateway)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_passed_on_with_its_status_its_words_and_its_wait(
    gateway: GatewayProcess, upstream: ScriptedUpstream, name: str, path: str
) -> None:
    script, status, code, wait, is_failure, anthropic_status = REFUSALS[name]
    upstream.connections.clear()
    upstream.play(script, WELL)
    async with watched(gateway) as after:
        answer = await ask(gateway, path, content="word " * 1_000_000)
        await upstream.sees_end(within_seconds=2)

    assert answer.status_code == (status if path == CHAT else anthropic_status)
    error = error_of(answer, path)
    assert error["code"] == code
    assert is_failure or "no such thing" in error["message"]
    assert answer.headers.get("retry-after") == wait
    assert (after.tokens, after.requests) == (0, 1)
    assert after.outcomes == ({"error": 1} if is_failure else {"client_error": 1})
    assert after.faults == ({"status_5xx": 1} if is_failure else {})
    assert after.opened == is_failure
    await is_well_again(gateway)


async def test_an_upstream_that_is_gone_is_told_at_once_and_nothing_is_charged(
    tmp_path: Path,
) -> None:
    async with fronted(tmp_path, CIRCUIT_FAILURE_THRESHOLD="2") as pair:
        gateway = pair.gateway
        await gateway.client.post(CHAT, json=chat())
        pair.simulator.vanish()
        async with watched(gateway) as after:
            chats = [await gateway.client.post(CHAT, json=chat()) for _ in range(2)]
            messages = [await gateway.client.post(MESSAGES, json=message()) for _ in range(2)]

    assert [answer.status_code for answer in (*chats, *messages)] == [503, 503, 529, 529]
    codes = [error_of(answer, CHAT)["code"] for answer in chats]
    codes += [error_of(answer, MESSAGES)["code"] for answer in messages]
    assert codes == ["upstream_unavailable"] * 2 + ["circuit_open"] * 2
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in (*chats, *messages))
    assert (after.tokens, after.requests) == (0, 0)
    assert after.outcomes == {"error": 4}
    assert after.faults == {"connect": 2}
    assert after.opened == 1
