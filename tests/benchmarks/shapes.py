"""The bytes of the benchmark: one request, and answers as vLLM 0.32 writes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import orjson

MODEL: Final = "bench-model"
CHAT_PATH: Final = "/v1/chat/completions"
CONTEXT_TOKENS: Final = 131_072
PROMPT_TOKENS: Final = 57
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_HEAD: Final = (
    b'data: {"id":"chatcmpl-93ff1042a3ae3205","object":"chat.completion.chunk",'
    b'"created":1795207469,"model":"bench-model","choices":['
)
_PIECES: Final = (b" the", b" quick", b" brown", b" fox", b" jumps", b" over", b" a", b" dog")
_DONE: Final = b"data: [DONE]\n\n"
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 20:44:29 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\nvary: Origin\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How many tokens each stream has, one event each, and the pause between two in seconds.

    An interval of 0 sends one event per turn of the event loop: as fast as it goes.
    """

    tokens: int
    interval_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamScript:
    """One stream as the upstream sends it: a write for each of `writes`, the head in the first."""

    writes: tuple[bytes, ...]
    payload: bytes


def request(
    *, host: str, key: str, is_stream: bool, tokens: int, headers: Mapping[str, str] = NO_HEADERS
) -> bytes:
    """A small chat request, head and body in one piece."""
    document = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer in one sentence."},
            {
                "role": "user",
                "content": "Which pangram do people type to try out a keyboard, and why does it "
                "still serve, now that nobody has to test the hammers of a typewriter?",
            },
        ],
        "max_tokens": tokens,
        "temperature": 0.7,
    }
    body = orjson.dumps(document | {"stream": True} if is_stream else document)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\nuser-agent: bench\r\n{more}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def json_response(document: object) -> bytes:
    """A whole answer of status 200."""
    return _json_head(body := orjson.dumps(document)) + body


def plain_body() -> bytes:
    """A chat completion of vLLM's size and order of keys."""
    message = {
        "role": "assistant",
        "content": "The quick brown fox jumps over the lazy dog.",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
    }
    return orjson.dumps(
        {
            "id": "chatcmpl-b97974a3740e4e71",
            "object": "chat.completion",
            "created": 1795207465,
            "model": MODEL,
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": "vllm-0.32.0-5f88307c",
            "usage": _usage(11) | {"prompt_tokens_details": None},
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )


def plain_response() -> bytes:
    return _json_head(body := plain_body()) + body


@lru_cache(maxsize=8)
def script(tokens: int, *, has_usage: bool) -> StreamScript:
    """A stream of `tokens` content events; with `has_usage` as continuous_usage_stats has it."""
    role = _event(
        b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
        b'"finish_reason":null}]',
        _continuous(0, has_usage=has_usage) + b',"prompt_token_ids":null,"prompt_text":null',
    )
    contents = [_content(count, tokens, has_usage=has_usage) for count in range(1, tokens + 1)]
    end = [_event(b"]", b',"usage":' + orjson.dumps(_usage(tokens)))] if has_usage else []
    writes = [_STREAM_HEAD + _chunk(role) + _chunk(contents[0]), *map(_chunk, contents[1:])]
    writes[-1] += b"".join(map(_chunk, [*end, _DONE])) + b"0\r\n\r\n"
    return StreamScript(tuple(writes), b"".join([role, *contents, *end, _DONE]))


def _content(count: int, tokens: int, *, has_usage: bool) -> bytes:
    finish = b'"stop","stop_reason":null' if count == tokens else b"null"
    piece = _PIECES[count % len(_PIECES)]
    choice = (
        b'{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":%b,'
        b'"token_ids":null}]' % (piece, finish)
    )
    return _event(choice, _continuous(count, has_usage=has_usage))


def _continuous(count: int, *, has_usage: bool) -> bytes:
    return b',"usage":' + orjson.dumps(_usage(count)) if has_usage else b""


def _usage(completion_tokens: int) -> dict[str, int | None]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "total_tokens": PROMPT_TOKENS + completion_tokens,
        "completion_tokens": completion_tokens,
        "completion_tokens_details": None,
    }


def _event(choices: bytes, rest: bytes) -> bytes:
    return _HEAD + choices + rest + b"}\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _json_head(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 20:44:25 GMT\r\nserver: uvicorn\r\n"
        b"content-length: %d\r\ncontent-type: application/json\r\nvary: Origin\r\n\r\n" % len(body)
    )
