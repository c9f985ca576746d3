"""Those who call the gateway: most as they should, some who leave, dawdle or send nonsense."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final

from tests.harness.commands import MadeKey
from tests.soak.nonsense import NONSENSE
from tests.soak.plant import ALIAS, EMBEDDING_MODEL, MODEL, Plant
from tests.soak.talk import Talk
from tests.soak.told import Story, Told

CHAT: Final = "/v1/chat/completions"
STUCK_SECONDS: Final = 60.0
_WORDS: Final = ("quick", "brown", "foxes", "jump", "over", "lazy", "dogs")
_PROMPTS: Final = tuple(
    " ".join(_WORDS[n % 7] for n in range(3 + 2 * number)) for number in range(12)
)
_ERRED: Final = re.compile(rb'"error": ?{')
# One token each: in chat, Anthropic's and the responses' streams.
_TOKENS: Final = (b'"delta":{"content":"', b'"type":"text_delta"', b'"response.output_text.delta"')
_NO_TOKEN: Final = b'"delta":{"content":""'
_LONGEST_DAWDLE_SECONDS: Final = 15.0
_NARROW_BYTES: Final = 4096


class Callers:
    """Makes one call after the other, of a kind that chance picks, with a key that chance picks."""

    def __init__(self, plant: Plant, story: Story, chance: Random) -> None:
        self._plant = plant
        self._story = story
        self._chance = chance
        self._count = 0
        self._kinds: Mapping[Callable[[MadeKey], Awaitable[None]], int] = {
            self._stream: 40,
            self._whole: 20,
            self._anthropic: 6,
            self._responds: 6,
            self._embeds: 5,
            self._counts: 3,
            self._leaves_a_stream: 9,
            self._leaves_early: 5,
            self._dawdles: 4,
            self._nonsense: 6,
            self._says_nothing: 2,
        }

    async def call(self, key: MadeKey | None = None) -> None:
        """One call to its end. Nothing may last for ever."""
        (kind,) = self._chance.choices([*self._kinds], [*self._kinds.values()])
        name = kind.__name__.strip("_")
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                await kind(key or self._chance.choice(self._plant.keys))
        except TimeoutError:
            self._story.faults[f"{name}: no end within {STUCK_SECONDS:g} s"] += 1
        except OSError as error:
            self._story.faults[f"{name}: cannot connect: {error}"] += 1

    async def _stream(self, key: MadeKey) -> None:
        told, body = self._chat(key, "stream", stream=True)
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(self._request(told, key, body))
            self._hear(told, talk, await talk.body())

    async def _whole(self, key: MadeKey) -> None:
        told, body = self._chat(key, "whole", stream=False)
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(self._request(told, key, body))
            self._hear(told, talk, await talk.body())

    async def _anthropic(self, key: MadeKey) -> None:
        told, body = self._chat(key, "anthropic", stream=self._chance.random() < 0.5)
        body = {name: body[name] for name in ("model", "messages", "max_tokens", "stream")}
        told.most_tokens = body["max_tokens"]
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(self._request(told, key, body, path="/v1/messages"))
            self._hear(told, talk, await talk.body())

    async def _responds(self, key: MadeKey) -> None:
        told, chat = self._chat(key, "responses", stream=self._chance.random() < 0.5)
        body = {
            "model": chat["model"],
            "input": told.prompt,
            "max_output_tokens": told.most_tokens,
            "stream": chat["stream"],
        }
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(self._request(told, key, body, path="/v1/responses"))
            self._hear(told, talk, await talk.body())

    async def _embeds(self, key: MadeKey) -> None:
        told, _ = self._chat(key, "embeddings", stream=False)
        told.most_tokens = 0
        body = {"model": EMBEDDING_MODEL, "input": self._chance.choice(_PROMPTS)}
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(self._request(told, key, body, path="/v1/embeddings"))
            self._hear(told, talk, await talk.body())

    async def _counts(self, key: MadeKey) -> None:
        told, _ = self._chat(key, "tokenize", stream=False)
        told.most_tokens = 0
        body = {"model": MODEL, "prompt": self._chance.choice(_PROMPTS)}
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(self._request(told, key, body, path="/tokenize"))
            self._hear(told, talk, await talk.body())

    async def _leaves_a_stream(self, key: MadeKey) -> None:
        """After so many bytes of a stream, by FIN or RST."""
        told, body = self._chat(key, "leaves a stream", stream=True)
        enough = self._chance.randrange(1, 6000)
        heard = b""
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(self._request(told, key, body))
            async for piece in talk.pieces():
                heard += piece
                if len(heard) > enough:
                    break
            self._hear(told, talk, heard)
            if self._chance.random() < 0.5:
                talk.reset()

    async def _leaves_early(self, key: MadeKey) -> None:
        """Before any answer: with half a head, half a body, or all of it sent."""
        told, body = self._chat(key, "leaves early", stream=self._chance.random() < 0.5)
        request = self._request(told, key, body)
        sent = self._chance.choice((0, 40, len(request) - 20, len(request), len(request)))
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(request[:sent])
            await asyncio.sleep(self._chance.random() * 0.3)
            self._hear(told, talk, b"")
            if self._chance.random() < 0.5:
                talk.reset()

    async def _dawdles(self, key: MadeKey) -> None:
        """Reads a broad answer through a narrow window; some never read on, some lose patience."""
        told, body = self._chat(key, "dawdles", stream=True, choices=16)
        pause_seconds = self._chance.choice((0.001, 0.02, 6.0))
        until = asyncio.get_running_loop().time() + _LONGEST_DAWDLE_SECONDS
        heard = b""
        async with Talk(self._plant.gateway.port, receive_buffer_bytes=_NARROW_BYTES) as talk:
            await talk.send(self._request(told, key, body))
            async for piece in talk.pieces():
                heard += piece
                await asyncio.sleep(pause_seconds)
                if pause_seconds > 1 or asyncio.get_running_loop().time() > until:
                    break
            self._hear(told, talk, heard)

    async def _nonsense(self, key: MadeKey) -> None:
        """What no gateway may take, each with what it has to say to it."""
        each = self._chance.choice(NONSENSE)
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(each.request(key.secret))
            await talk.body()
            status = talk.status
        self._story.outcomes[f"nonsense {status}"] += 1
        if status not in each.statuses:
            self._story.faults[f"{each.name}: answered {status}"] += 1

    async def _says_nothing(self, key: MadeKey) -> None:
        async with Talk(self._plant.gateway.port) as talk:
            await talk.send(self._chance.choice((b"", b"POST /v1/chat/completions HTTP/1.1\r\n")))
            await talk.silence()

    def _chat(
        self, key: MadeKey, kind: str, *, stream: bool, choices: int = 1
    ) -> tuple[Told, dict[str, Any]]:
        self._count += 1
        prompt = self._chance.choice(_PROMPTS)
        most = self._chance.randrange(1, 60)
        told = Told(
            request_id=f"soak-{self._count}",
            key_id=key.key_id,
            kind=kind,
            prompt=prompt,
            most_tokens=most * choices,
        )
        body: dict[str, Any] = {
            "model": self._chance.choice((MODEL, MODEL, MODEL, ALIAS)),
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": most,
            "n": choices,
            "stream": stream,
            "ignore_eos": True,
        }
        if stream and self._chance.random() < 0.7:
            body["stream_options"] = {"include_usage": True}
        return told, body

    def _request(
        self, told: Told, key: MadeKey, body: Mapping[str, Any], *, path: str = CHAT
    ) -> bytes:
        self._story.told.append(told)
        payload = json.dumps(body).encode()
        return (
            f"POST {path} HTTP/1.1\r\nhost: soak\r\nauthorization: Bearer {key.secret}\r\n"
            f"x-request-id: {told.request_id}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(payload)}\r\n\r\n"
        ).encode() + payload

    def _hear(self, told: Told, talk: Talk, body: bytes) -> None:
        told.status = talk.status
        told.seen_tokens = sum(body.count(mark) for mark in _TOKENS) - body.count(_NO_TOKEN)
        is_whole = talk.is_whole and talk.status == 200 and _ERRED.search(body) is None
        if is_whole:
            told.usage = _usage_in(body)
        how = "whole" if is_whole else "left or cut" if talk.status in (0, 200) else talk.status
        self._story.outcomes[f"{told.kind} {how}"] += 1


def _usage_in(body: bytes) -> tuple[int, int] | None:
    """Input and output tokens, where the answer says so; the last word counts."""
    usages: list[dict[str, Any]] = []
    for line in body.splitlines():
        if b'"usage"' not in line:
            continue
        event = json.loads(line.removeprefix(b"data: "))
        within = (event, event.get("message", {}), event.get("response", {}))
        usages += [each["usage"] for each in within if each.get("usage")]
    if not usages:
        return None
    merged = {name: value for usage in usages for name, value in usage.items()}
    if "prompt_tokens" in merged:
        return merged["prompt_tokens"], merged.get("completion_tokens", 0)
    return merged["input_tokens"], merged["output_tokens"]
