"""Which request fields may pass: the policy over what vLLM reads beyond OpenAI's parameters."""

from collections.abc import Mapping
from typing import Final

from gateway.errors import InvalidRequest

# Each with the reason why a stranger should not decide it. Read in vLLM's request classes.
REFUSED_FIELDS: Final[Mapping[str, str]] = {
    "api_base": "another proxy's routing: where requests go is the operator's decision",
    "api_key": "a credential of another proxy; in a body it would reach logs",
    "audio_embeds": "a pickled tensor that the engine loads",
    "base_url": "another proxy's routing: where requests go is the operator's decision",
    "cache_salt": "decides which callers share a prefix cache",
    "chat_template": "a Jinja program that runs in the upstream",
    "ec_transfer_params": "addresses of other engines in a disaggregated set-up",
    "image_embeds": "a pickled tensor that the engine loads",
    "kv_transfer_params": "addresses of other engines in a disaggregated set-up",
    "logits_processors": "names Python code for the upstream to import",
    "media_io_kwargs": "decoder options, e.g. the number of video frames held in memory",
    "mm_processor_kwargs": "processor options that multiply the tokens of an image",
    "previous_response_id": "reads a stored conversation that may be another caller's",
    "priority": "jumps the engine's queue",
    "prompt_embeds": "a pickled tensor that the engine loads, and no tokens to count",
    "request_id": "collides with other callers' requests inside the engine",
    "use_beam_search": "works far beyond the tokens that it reports",
    "video_embeds": "a pickled tensor that the engine loads",
    "vllm_xargs": "arguments of the operator's own extensions",
}

# Not worth an error: the request means the same without them.
DROPPED_FIELDS: Final[Mapping[str, str]] = {
    "mm_payload": "only render endpoints read it, and those are not offered",
    "return_mm_kwargs": "only render endpoints read it, and those are not offered",
    "stream_interval": "hides tokens between events from whoever counts them",
    "session_id": "an engine-side affinity key that callers could share or guess",
}


def refuse_fields(fields: Mapping[str, object], refused: frozenset[str]) -> None:
    """Raises InvalidRequest (`unsupported_parameter`) for a field in `refused` that asks for
    something: null and false ask for nothing."""
    if refused.isdisjoint(fields):
        return
    for name in sorted(refused & fields.keys()):
        if fields[name] is not None and fields[name] is not False:
            raise unsupported(name)


def unsupported(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"The parameter {name!r} is not allowed here; the operator can allow it by taking it "
        "out of REFUSED_FIELDS.",
        code="unsupported_parameter",
        param=name,
    )
