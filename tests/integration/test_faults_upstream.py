"""An upstream that misbehaves before it has said anything: what callers hear in each dialect,
what the books and the circuit say, and that nothing stays behind."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.upstream import (
    STREAM_HEAD,
    Close,
    CloseHalf,
    Hang,
    Receive,
    ReceiveHead,
    Reset,
    Script,
    Send,
    Wait,
    chunk,
    event_stream,
    whole,
)
from tests.harness.aftermath import watched
from tests.harness.anthropic import message
from tests.harness.callers import fronted
from tests.harness.gateway import chat
from tests.integration.scripted import (
    ANSWER,
    BOTH,
    CHAT,
    MESSAGES,
    Stage,
    answers,
    error_of,
    says,
    stage,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "EngineCore encountered an issue at /srv/secret.py"
ERROR_500 = json.dumps({"error": {"message": SECRET, "type": "InternalServerError"}}).encode()
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


def said(script: Script) -> bytes:
    return b"".join(step.data for step in script if isinstance(step, Send))


def head(*lines: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


ROWS = {
    "closes before it answers": Row((Receive(), Close()), kind="reset"),
    "closes its half before it answers": Row((Receive(), CloseHalf(), Hang()), kind="reset"),
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


REFUSED = json.dumps(
    {"error": {"message": "no such thing in this model", "type": "BadRequestError"}}
).encode()
BUSY = "retry-after: 7\r\n"
# Status, code and the wait told; whether the circuit counts it; the status to Anthropic's clients.
REFUSALS: dict[str, tuple[Script, int, str | None, str | None, bool, int]] = {
    "400": (answers(whole(REFUSED, status=400)), 400, None, None, False, 400),
    "404": (answers(whole(REFUSED, status=404)), 404, "model_not_found", None, False, 404),
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
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("upstream")
    async with stage(folder, FIRST_BYTE_TIMEOUT_SECONDS="0.3") as running:
        yield running


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("name", ROWS)
async def test_an_answer_that_is_none_is_an_error_in_our_words_and_costs_nothing(
    it: Stage, name: str, path: str
) -> None:
    row = ROWS[name]
    it.play(row.script)
    async with watched(it.gateway) as after:
        answer = await it.ask(path, stream=STREAM_HEAD in said(row.script))
        await it.upstream.sees_end(within_seconds=2)

    assert answer.status_code == row.status
    error = error_of(answer, path)
    assert error["code"] == row.code
    assert SECRET not in answer.text
    assert (after.tokens, after.requests) == (0, 1)
    assert after.outcomes == {"error": 1}
    assert after.faults == {row.kind: 1}
    assert after.opened == row.is_failure
    assert len(it.upstream.connections) == 1
    await it.is_well_again()


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_passed_on_with_its_status_its_words_and_its_wait(
    it: Stage, name: str, path: str
) -> None:
    script, status, code, wait, is_failure, anthropic_status = REFUSALS[name]
    it.play(script)
    async with watched(it.gateway) as after:
        answer = await it.ask(path, content="word " * 1_000_000)
        await it.upstream.sees_end(within_seconds=2)

    assert answer.status_code == (status if path == CHAT else anthropic_status)
    error = error_of(answer, path)
    assert error["code"] == code
    assert is_failure or "no such thing" in error["message"]
    assert answer.headers.get("retry-after") == wait
    assert (after.tokens, after.requests) == (0, 1)
    assert after.outcomes == ({"error": 1} if is_failure else {"client_error": 1})
    assert after.faults == ({"status_5xx": 1} if is_failure else {})
    assert after.opened == is_failure
    await it.is_well_again()


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
