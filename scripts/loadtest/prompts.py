"""What is asked: words at random in the wished length, or the prompts of a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import orjson

from scripts.loadtest.distribution import Distribution

# Short common words: about one token each for every usual tokenizer.
_TEXT: Final = (
    "the of and to in is that it was for on are as with they be at one have this from by hot but "
    "some what there we can out other were all your when up use word how said an each she which "
    "do their time if will way about many then them would like so these her long make thing see "
    "him two has look more day could go come did my sound no most number who over know water than "
    "call first people may down side been now find any new work part take get place made live "
    "where after back little only round man year came show every good me give our under name very "
    "through just form much great think say help low line before turn cause same mean move right "
    "boy old too does tell three want air well also play small end put home read hand large spell"
)
_POOL_WORDS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as JSON: a string for completions, a list of messages for chat.

    `output_tokens` None leaves the length of the answer to the run.
    """

    text: bytes
    messages: bytes
    output_tokens: int | None = None


def synthetic(lengths: Distribution, *, random: Random, salt: str) -> Iterator[Prompt]:
    """Prompts without end, each of about as many tokens as `lengths` draws.

    Every one begins with a number of its own, so that no prefix cache makes the server look
    faster than it is.
    """
    pool = random.choices([word.encode() for word in _TEXT.split()], k=_POOL_WORDS)
    for serial in count():
        words = lengths.whole(random, least=1)
        own = b"%b-%x " % (salt.encode(), serial)
        start = random.randrange(_POOL_WORDS)
        taken = pool[start : start + words]
        while len(taken) < words:
            taken += pool[: words - len(taken)]
        yield _prompt(b'"%b%b"' % (own, b" ".join(taken)))


def from_file(path: Path, *, first: int, step: int) -> Iterator[Prompt]:
    """The prompts of a file in turn and over again, every `step`-th from `first` on."""
    known = read_prompts(path)
    for number in count(first, step):
        yield known[number % len(known)]


def read_prompts(path: Path) -> list[Prompt]:
    """One prompt a line: plain text, or an object with `prompt` or `messages`, and perhaps
    `output_tokens`. Raises ValueError with the line that is neither, OSError without a file."""
    lines = path.read_text().splitlines()
    prompts = [_read(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise ValueError(f"{path} holds no prompt")
    return prompts


def _read(line: str, number: int) -> Prompt:
    if not line.startswith("{"):
        return _prompt(orjson.dumps(line.strip()))
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"line {number} begins with {{ and is not JSON: {error}") from None
    tokens = document.get("output_tokens")
    if tokens is not None and (not isinstance(tokens, int) or tokens < 1):
        raise ValueError(f"line {number}: output_tokens is no number above 0")
    messages, text = document.get("messages"), document.get("prompt")
    if isinstance(messages, list) and messages:
        words = " ".join(str(message.get("content", "")) for message in messages)
        return Prompt(orjson.dumps(words), orjson.dumps(messages), tokens)
    if isinstance(text, str) and text:
        return _prompt(orjson.dumps(text), tokens)
    raise ValueError(f"line {number} has neither a prompt nor messages")


def _prompt(text: bytes, output_tokens: int | None = None) -> Prompt:
    return Prompt(text, b'[{"role":"user","content":%b}]' % text, output_tokens)
