"""An upstream that misbehaves inside a stream: nothing false is passed on, what was generated is
paid, and what can be borne is borne."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.upstream import (
    STREAM_HEAD,
    Close,
    CloseHalf,
    Drip,
    Hang,
    Receive,
    Reset,
    Script,
    Send,
    chunk,
    event_stream,
    whole,
)
from tests.harness.aftermath import watched
from tests.harness.callers import RawCall, dechunked
from tests.integration.scripted import ANSWER, BOTH, CHAT, Stage, answers, body_for, error_of, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT_TOKENS = 3
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"


def event(delta: dict[str, str], *, output_tokens: int | None, **fields: Any) -> bytes:
    """As vLLM writes it, the running usage that the gateway asks for included."""
    choice = {"index": 0, "delta": delta, "finish_reason": fields.get("finish_reason")}
    said: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
    said |= {"model": "m", "choices": [choice]}
    if output_tokens is not None:
        said["usage"] = {
            "prompt_tokens": PROMPT_TOKENS,
            "total_tokens": PROMPT_TOKENS + output_tokens,
            "completion_tokens": output_tokens,
        }
    return (
        b"data: " + json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"
    )


ROLE = event({"role": "assistant", "content": ""}, output_tokens=0)
WORDS = [event({"content": f"w{number} "}, output_tokens=number) for number in (1, 2, 3)]
BEGUN = STREAM_HEAD + b"".join(map(chunk, [ROLE, *WORDS]))
ERROR_EVENT = b'data: {"error":{"message":"EngineCore died","code":500}}\n\n'
# What the upstream does after three words, how that is called, and whether it says why.
BROKEN: dict[str, tuple[Script, str, str]] = {
    "closes": ((Receive(), Send(BEGUN), Close()), "truncated", "upstream_truncated"),
    "closes its half": (
        (Receive(), Send(BEGUN), CloseHalf(), Hang()),
        *("truncated", "upstream_truncated"),
    ),
    "resets": ((Receive(), Send(BEGUN), Drip(b"", 1), Reset()), "truncated", "upstream_truncated"),
    "ends without the terminator": (
        (Receive(), Send(BEGUN + LAST_CHUNK), Close()),
        *("truncated", "upstream_truncated"),
    ),
    "sends half an event and closes": (
        (Receive(), Send(BEGUN + chunk(WORDS[0][:40])), Close()),
        *("truncated", "upstream_truncated"),
    ),
    "sends half an event and ends": (
        (Receive(), Send(BEGUN + chunk(WORDS[0][:40]) + LAST_CHUNK), Close()),
        *("truncated", "upstream_truncated"),
    ),
    "sends a chunk of no size": (
        (Receive(), Send(BEGUN + b"zz\r\n"), Hang()),
        "protocol",
        "bad_gateway",
    ),
    "sends an event of 5 MB": (
        (Receive(), Send(BEGUN + chunk(b"data: " + b"a" * 5_000_000)), Hang()),
        *("protocol", "bad_gateway"),
    ),
    "falls silent": ((Receive(), Send(BEGUN), Hang()), "timeout", "upstream_timeout"),
    "reports an error and claims to be done": (
        (Receive(), Send(BEGUN + chunk(ERROR_EVENT) + chunk(DONE) + LAST_CHUNK), Close()),
        *("error_event", "upstream_error"),
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("streams")
    patience = {"IDLE_TIMEOUT_SECONDS": "0.3", "MAX_ANSWER_BYTES": "100000"}
    async with stage(folder, **patience) as running:
        yield running


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("name", BROKEN)
async def test_a_stream_that_breaks_ends_with_one_error_event_and_costs_what_was_generated(
    it: Stage, name: str, path: str
) -> None:
    script, kind, code = BROKEN[name]
    it.play(script)
    async with watched(it.gateway) as after:
        async with RawCall(it.gateway, body_for(path, stream=True), path=path) as call:
            raw = await call.read_to_end()
        await it.upstream.sees_end(within_seconds=2)

    heard = dechunked(raw)
    *passed, error, rest = heard.split(b"\n\n")
    assert rest == b""
    said = json.loads(error.partition(b"data: ")[2])["error"]
    assert code == (said["code"] if path == CHAT else said["details"]["error_code"])
    assert b"EngineCore" not in heard
    assert [b"w%d " % number in heard for number in (1, 2, 3)] == [True] * 3
    assert not any(each.startswith(b"event: error") for each in passed)
    assert b"[DONE]" not in heard
    assert b"message_stop" not in heard
    assert b'"finish_reason":"' not in heard
    # The cut shows that this is no end, to clients that know no error events too.
    assert not raw.endswith(LAST_CHUNK)
    assert (after.tokens, after.requests) == (PROMPT_TOKENS + 3, 1)
    assert after.outcomes == {"truncated": 1}
    assert (after.faults, after.opened) == ({kind: 1}, 1)
    await it.is_well_again()


def final(output_tokens: int) -> bytes:
    """The last event before the terminator, which the client has not asked for."""
    return (
        b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":%d}}\n\n'
        % (output_tokens)
    )


FINAL = final(3)
BARE = [
    event({"content": text}, output_tokens=None) for text in ("\u2028 \u0085", "é\U0001f600", "c")
]
COMMENT = b": still here\n\n"
CRLF = BARE[2].replace(b"\n", b"\r\n")
TWO_LINES = b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"d"}}]}\n\n'
NO_JSON = b"data: {this is no JSON\n\n"
ODD = [COMMENT, *BARE, CRLF, TWO_LINES, NO_JSON]


def drip(data: bytes) -> Script:
    return (Receive(), Drip(data, 7), Close())


# What is sent, and what of it arrives.
BORNE: dict[str, tuple[Script, bytes]] = {
    "odd events, a few bytes at a time": (
        drip(event_stream(*ODD, final(5), DONE)),
        b"".join(ODD) + DONE,
    ),
    "events after the terminator": (
        answers(event_stream(*BARE, FINAL, DONE, *WORDS)),
        b"".join(BARE) + DONE,
    ),
    "100 and 103 before the answer": (
        answers(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"
            + event_stream(*BARE, FINAL, DONE)
        ),
        b"".join(BARE) + DONE,
    ),
    "no length and no chunks": (
        answers(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
            + b"".join([*BARE, FINAL, DONE])
        ),
        b"".join(BARE) + DONE,
    ),
}


@pytest.mark.parametrize("name", BORNE)
async def test_what_is_odd_and_well_formed_arrives_byte_for_byte(it: Stage, name: str) -> None:
    script, expected = BORNE[name]
    it.play(script)
    async with watched(it.gateway) as after:
        answer = await it.ask(CHAT, stream=True)

    assert answer.content == expected
    assert after.tokens == (8 if "odd" in name else 6)
    assert after.outcomes == {"ok": 1}
    assert (after.faults, after.opened) == ({}, 0)
    await it.is_well_again()


UNBELIEVABLE = {
    "none": b"",
    "null": b',"usage":null',
    "negative": b',"usage":{"prompt_tokens":-3,"completion_tokens":-1,"total_tokens":-4}',
    "beyond all bounds": b',"usage":{"prompt_tokens":1e30,"completion_tokens":%d}' % 10**30,
    "in words": b',"usage":{"prompt_tokens":"three","completion_tokens":"many"}',
}


@pytest.mark.parametrize("usage", UNBELIEVABLE)
@pytest.mark.parametrize("path", BOTH)
async def test_usage_that_nobody_can_believe_is_estimated_and_never_nothing(
    it: Stage, path: str, usage: str
) -> None:
    counted = b'data: {"id":"c","choices":[]' + UNBELIEVABLE[usage] + b"}\n\n"
    it.play(answers(event_stream(*BARE, counted, DONE)))
    async with watched(it.gateway) as after:
        answer = await it.ask(path, stream=True)
    (line,) = await it.gateway.logged(request_id=answer.headers["x-request-id"])

    assert answer.status_code == 200
    assert line["usage_estimated"] is True
    assert line["output_tokens"] == len(BARE)
    assert len(BARE) < after.tokens < 100
    assert (after.outcomes, after.opened) == ({"ok": 1}, 0)


@pytest.mark.parametrize("path", BOTH)
async def test_a_whole_answer_beyond_the_bound_is_cut_and_costs_the_prompt(
    it: Stage, path: str
) -> None:
    it.play((Receive(), Send(whole(b" " * 1_000_000 + ANSWER)), Hang()))
    async with watched(it.gateway) as after:
        answer = await it.ask(path)
        await it.upstream.sees_end(within_seconds=2)

    assert answer.status_code == 502
    assert error_of(answer, path)["code"] == "answer_too_large"
    assert answer.headers["x-should-retry"] == "false"
    assert 0 < after.tokens < 100
    assert (after.outcomes, after.faults, after.opened) == ({"error": 1}, {}, 0)


async def test_an_answers_kind_is_what_it_says_and_not_what_was_asked_for(it: Stage) -> None:
    it.play(answers(whole(ANSWER)))
    async with watched(it.gateway) as after:
        answer = await it.ask(CHAT, stream=True)
    assert (answer.content, after.tokens) == (ANSWER, 5)

    it.play(answers(event_stream(*WORDS, DONE)))
    async with watched(it.gateway) as after:
        answer = await it.ask(CHAT)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.content.count(b"data: "), after.tokens) == (4, 6)


@pytest.mark.parametrize("path", BOTH)
async def test_nothing_of_the_upstreams_head_is_passed_on(it: Stage, path: str) -> None:
    foreign = (
        "server: uvicorn\r\nset-cookie: a=b\r\nx-secret: s\r\ntrailer: x-b\r\n"
        "connection: x-secret\r\nkeep-alive: timeout=5\r\naccess-control-allow-origin: *\r\n"
    )
    it.play(answers(whole(ANSWER, headers=foreign)))
    answer = await it.ask(path)

    assert answer.status_code == 200
    assert not {line.split(":")[0] for line in foreign.splitlines()} & set(answer.headers)
