"""Embeddings, rerank and score: prompts go in, numbers that depend only on them come out."""

import struct
from base64 import b64encode
from dataclasses import replace
from math import sqrt
from random import Random
from zlib import crc32

from scripts.simulator import prompts
from scripts.simulator.answers import CREATED, ID, template, usage
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.errors import bad_request
from scripts.simulator.fields import Fields
from scripts.simulator.generation import served_model
from scripts.simulator.work import Dialect, Prompt, Work


def embedding_work(fields: Fields, config: SimulatorConfig) -> Work:
    """Raises ApiError (400 or 404) as vLLM refuses."""
    model = served_model(fields, config.embedding_models, None)
    if fields.get("messages") is None:
        asked = prompts.from_member("input", fields, config)
    else:
        asked = (prompts.from_chat(fields, config),)
    length = fields.at_least(1, "dimensions", config.embedding_dimensions)
    if length > 65536:
        raise bad_request(f"dimensions={length} is more than this model has.", "dimensions")
    encode = _base64 if fields.text("encoding_format") == "base64" else _plain
    work = Work(Dialect.EMBEDDING, model, asked)
    answer: dict[str, object] = {
        "id": f"embd-{ID}",
        "object": "list",
        "created": CREATED,
        "model": model,
        "data": [
            {"index": i, "object": "embedding", "embedding": encode(embedding(prompt.text, length))}
            for i, prompt in enumerate(asked)
        ],
        "usage": usage(work.prompt_tokens, 0) | {"prompt_tokens_details": None},
    }
    return replace(work, answer=template(answer))


def rerank_work(fields: Fields, config: SimulatorConfig) -> Work:
    """Raises ApiError (400 or 404) as vLLM refuses."""
    model = served_model(fields, config.embedding_models, None)
    query = fields.text("query")
    documents = prompts.from_member("documents", fields, config)
    pairs = tuple(_pair(query, document, fields, config) for document in documents)
    work = Work(Dialect.RERANK, model, pairs)
    ranked = sorted(
        ((relevance(query, document.text), i) for i, document in enumerate(documents)),
        reverse=True,
    )
    results = [
        {
            "index": i,
            "document": {"text": documents[i].text, "multi_modal": None},
            "relevance_score": score,
        }
        for score, i in ranked
    ]
    shown = fields.at_least(0, "top_n", 0) or len(results)
    spent = {"prompt_tokens": work.prompt_tokens, "total_tokens": work.prompt_tokens}
    answer: dict[str, object] = {
        "id": f"score-{ID}",
        "model": model,
        "usage": spent,
        "results": results[:shown],
    }
    return replace(work, answer=template(answer))


def score_work(fields: Fields, config: SimulatorConfig) -> Work:
    """Raises ApiError (400 or 404) as vLLM refuses."""
    model = served_model(fields, config.embedding_models, None)
    named = ("text_1", "text_2") if fields.get("queries") is None else ("queries", "documents")
    lefts, rights = (prompts.from_member(name, fields, config) for name in named)
    if len(lefts) == 1:
        lefts *= len(rights)
    if len(lefts) != len(rights):
        raise bad_request("Input lengths must be either 1:1, 1:N or N:N")
    pairs = tuple(
        _pair(left.text, right, fields, config) for left, right in zip(lefts, rights, strict=True)
    )
    work = Work(Dialect.SCORE, model, pairs)
    answer: dict[str, object] = {
        "id": f"score-{ID}",
        "object": "list",
        "created": CREATED,
        "model": model,
        "data": [
            {"index": i, "object": "score", "score": relevance(left.text, right.text)}
            for i, (left, right) in enumerate(zip(lefts, rights, strict=True))
        ],
        "usage": usage(work.prompt_tokens, 0) | {"prompt_tokens_details": None},
    }
    return replace(work, answer=template(answer))


def embedding(text: str, length: int) -> list[float]:
    """A unit vector that depends on the text alone."""
    random = Random(crc32(text.encode()))
    raw = [random.uniform(-1, 1) for _ in range(length)]
    norm = sqrt(sum(value * value for value in raw)) or 1.0
    return [round(value / norm, 8) for value in raw]


def relevance(query: str, document: str) -> float:
    """The share of the query's words the document holds, nudged so that ties are rare."""
    wanted = set(query.lower().split())
    shared = len(wanted & set(document.lower().split())) / (len(wanted) or 1)
    nudge = crc32(f"{query}\n{document}".encode()) / 2**32
    return round(0.01 + 0.9 * shared + 0.08 * nudge, 8)


def _pair(left: str, right: Prompt, fields: Fields, config: SimulatorConfig) -> Prompt:
    return prompts.from_text(f"{left}\n{right.text}", fields, config)


def _plain(vector: list[float]) -> object:
    return vector


def _base64(vector: list[float]) -> object:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
