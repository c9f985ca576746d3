"""The bytes of the requests, head and body; built without a JSON encoder, to be quick."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import orjson

from scripts.loadtest.distribution import distribution
from scripts.loadtest.plan import PATHS, Endpoint, Plan
from scripts.loadtest.prompts import Prompt, from_file, synthetic


def requests(plan: Plan) -> Iterator[bytes]:
    """Requests without end, the same for the same seed and worker."""
    random = Random(f"{plan.seed}:{plan.worker}")
    head = _head(plan)
    fields = _fields(plan)
    lengths = distribution(plan.output_tokens)
    for prompt in _prompts(plan, random):
        tokens = prompt.output_tokens or lengths.whole(random, least=1)
        body = _body(plan.endpoint, prompt, tokens, fields)
        yield b"%b%d\r\n\r\n%b" % (head, len(body), body)


def _prompts(plan: Plan, random: Random) -> Iterator[Prompt]:
    if plan.prompt_file:
        return from_file(Path(plan.prompt_file), first=plan.worker, step=plan.workers)
    salt = f"{plan.seed:x}.{plan.worker}"
    return synthetic(distribution(plan.prompt_tokens), random=random, salt=salt)


def _head(plan: Plan) -> bytes:
    lines = [
        f"POST {plan.prefix}{PATHS[plan.endpoint]} HTTP/1.1",
        f"host: {plan.authority}",
        "content-type: application/json",
        "accept-encoding: identity",
        "user-agent: vllm-gateway-loadtest",
    ]
    if plan.api_key:
        lines.append(f"authorization: Bearer {plan.api_key}")
    lines.append("content-length: ")
    return "\r\n".join(lines).encode("ascii")


def _fields(plan: Plan) -> bytes:
    """What all bodies end with: everything but the prompt and the length of the answer."""
    fields: dict[str, object] = {"model": plan.model}
    if plan.is_stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    if plan.ignores_eos and plan.endpoint is not Endpoint.EMBEDDINGS:
        fields["ignore_eos"] = True
    if plan.extra_body:
        fields |= orjson.loads(plan.extra_body)
    return orjson.dumps(fields)[1:]


def _body(endpoint: Endpoint, prompt: Prompt, tokens: int, fields: bytes) -> bytes:
    if endpoint is Endpoint.CHAT:
        return b'{"messages":%b,"max_tokens":%d,%b' % (prompt.messages, tokens, fields)
    if endpoint is Endpoint.COMPLETIONS:
        return b'{"prompt":%b,"max_tokens":%d,%b' % (prompt.text, tokens, fields)
    return b'{"input":%b,%b' % (prompt.text, fields)
