"""`make smoke-tools`: proves, step by step, that a coding agent can work through a running gateway.

    make smoke-tools                          # the gateway of config/.env on this machine
    make smoke-tools URL=https://llm.example.com API_KEY=sk-... MODEL=claude-sonnet-4-5

It speaks Anthropic's API as such agents do: looks whether anybody is there, lists the models,
counts tokens, forces the call of a tool (whole, then streamed), and gives back its result. Exit
status 0: the whole chain works; 1: a step failed; 2: there was nothing to try it on.
"""

import json
import os
import ssl
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
from dotenv import dotenv_values

from scripts.loadtest.credential import credential
from scripts.loadtest.failure import error_words
from scripts.loadtest.target import Target, TargetUnusable, target

ENV_FILE: Final = Path(__file__).parents[1] / "config" / ".env"
TIMEOUT_SECONDS: Final = 120.0
MAX_TOKENS: Final = 1024
MESSAGES: Final = "/v1/messages"
COUNT: Final = "/v1/messages/count_tokens"
QUESTION: Final = "What is the weather in Oslo? Use the tool."
RESULT: Final = "Rain, 7 degrees."
# Strict: with vLLM the arguments then keep to the schema whatever the model would have written.
TOOL: Final[Mapping[str, Any]] = {
    "name": "weather",
    "description": "The present weather of a city.",
    "strict": True,
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class StepFailed(Exception):
    """A step did not give what an agent needs; the message says what came, and what to look at."""


def main() -> int:
    try:
        server = target(os.environ.get("URL") or _default_url(os.environ))
        key = credential(os.environ, ENV_FILE, is_local=server.is_local)
        with _client(server, key) as client:
            return _prove(Chain(client), os.environ.get("MODEL", ""))
    except (TargetUnusable, ValueError) as fault:
        print(f"smoke-tools: {fault}", file=sys.stderr)
        return 2
    except httpx2.HTTPError as fault:
        print(f"smoke-tools: {server.url} does not answer: {fault!r}", file=sys.stderr)
        return 2


def _prove(chain: "Chain", wanted: str) -> int:
    try:
        _say("somebody is there", chain.look())
        _say("models", chain.choose_model(wanted))
        _say("tokens are counted", chain.count())
        _say("a forced tool is called", chain.call())
        _say("and streamed", chain.call_streamed())
        _say("its result is answered", chain.give_back())
    except StepFailed as fault:
        print(f"FAILED  {fault}", file=sys.stderr)
        return 1
    print(f"All well: point the agent at {chain.url} and at the model {chain.model}.")
    return 0


class Chain:
    """What an agent does in its first turn; each step tells what it saw, or raises StepFailed."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self._called: dict[str, Any] = {}
        self.model = ""

    @property
    def url(self) -> str:
        return str(self._client.base_url).rstrip("/")

    def look(self) -> str:
        answer = self._client.head("/")
        if answer.status_code != 200:
            raise StepFailed(f"HEAD / answers {answer.status_code}: is {self.url} the gateway?")
        return f"HEAD {self.url}/ answers 200"

    def choose_model(self, wanted: str) -> str:
        """The wanted model, else the first that can be talked to: others only embed."""
        listed = [card["id"] for card in self._sound(self._client.get("/v1/models"))["data"]]
        names = [wanted] if wanted else listed
        if not names:
            raise StepFailed("GET /v1/models lists nothing: is vLLM running behind the gateway?")
        refused = ""
        for name in names:
            trial = {"model": name, "max_tokens": 1, "messages": [_said("user", "Hello")]}
            answer = self._client.post(MESSAGES, json=trial)
            if answer.status_code == 200:
                self.model = name
                return f"{', '.join(listed)}; this one answers: {name}"
            refused = refused or _refusal(answer)
        raise StepFailed(f"no model takes a message. {refused}")

    def count(self) -> str:
        answer = self._client.post(COUNT, json=self._asked(max_tokens=None))
        counted = self._sound(answer).get("input_tokens")
        if not isinstance(counted, int) or counted < 1:
            raise StepFailed(f"{COUNT} answers no count: {answer.text[:200]}")
        return f"{counted} input tokens"

    def call(self) -> str:
        message = self._sound(self._client.post(MESSAGES, json=self._forced()))
        return self._require_call(message)

    def call_streamed(self) -> str:
        answer = self._client.post(MESSAGES, json=self._forced() | {"stream": True})
        if answer.status_code != 200:
            raise StepFailed(_refusal(answer))
        return self._require_call(_message_of(answer.text))

    def give_back(self) -> str:
        result = {"type": "tool_result", "tool_use_id": self._called["id"], "content": RESULT}
        turns = [
            _said("user", QUESTION),
            _said("assistant", [self._called]),
            _said("user", [result]),
        ]
        message = self._sound(self._client.post(MESSAGES, json=self._asked(messages=turns)))
        kinds = [block["type"] for block in message["content"]]
        return f"{', '.join(kinds)}; stop_reason {message['stop_reason']}"

    def _require_call(self, message: Mapping[str, Any]) -> str:
        reason = message.get("stop_reason")
        calls = [block for block in message["content"] if block.get("type") == "tool_use"]
        if reason == "max_tokens":
            raise StepFailed(
                f"the model did not come to the end of its call within {MAX_TOKENS} tokens "
                "(stop_reason max_tokens). Nothing is wrong with the gateway; try another model."
            )
        if reason != "tool_use" or not calls:
            raise StepFailed(
                f"the forced tool was not called: stop_reason {reason}, "
                f"{[block.get('type') for block in message['content']]}. Start vLLM with "
                "--enable-auto-tool-choice and the --tool-call-parser of this model."
            )
        self._called = calls[0]
        if calls[0]["name"] != TOOL["name"] or not isinstance(calls[0]["input"], dict):
            raise StepFailed(f"the call is not the one that was asked for: {calls[0]}")
        return f"stop_reason tool_use, {calls[0]['name']}({json.dumps(calls[0]['input'])})"

    def _asked(self, **fields: Any) -> dict[str, Any]:
        request = {
            "model": self.model,
            "max_tokens": MAX_TOKENS,
            "messages": [_said("user", QUESTION)],
            "tools": [TOOL],
            **fields,
        }
        return {name: value for name, value in request.items() if value is not None}

    def _forced(self) -> dict[str, Any]:
        return self._asked(tool_choice={"type": "tool", "name": TOOL["name"]})

    def _sound(self, answer: httpx2.Response) -> dict[str, Any]:
        """The document of an answer that went well."""
        if answer.status_code != 200:
            raise StepFailed(_refusal(answer))
        document: dict[str, Any] = answer.json()
        return document


def _message_of(stream: str) -> dict[str, Any]:
    """The message that the events of a stream make, put together as the SDK does."""
    message: dict[str, Any] = {"content": []}
    written: dict[int, str] = {}
    for event in _events(stream):
        if event["type"] == "content_block_start":
            message["content"].append(event["content_block"])
        elif event["type"] == "content_block_delta" and "partial_json" in event["delta"]:
            index = event["index"]
            written[index] = written.get(index, "") + event["delta"]["partial_json"]
        elif event["type"] == "message_delta":
            message["stop_reason"] = event["delta"]["stop_reason"]
        elif event["type"] == "error":
            raise StepFailed(f"the stream ends with an error: {event['error']['message']}")
    for index, text in written.items():
        try:
            message["content"][index]["input"] = json.loads(text)
        except ValueError:
            # A call that was cut; its stop_reason says why.
            message["content"][index]["input"] = text
    return message


def _events(stream: str) -> Iterator[dict[str, Any]]:
    for line in stream.splitlines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def _said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def _refusal(answer: httpx2.Response) -> str:
    code, message = error_words(answer.content)
    hint = " Set API_KEY to a key of this gateway." if answer.status_code == 401 else ""
    return f"{answer.request.url.path} answers {answer.status_code} {code}: {message}{hint}"


def _client(server: Target, key: str) -> httpx2.Client:
    return httpx2.Client(
        base_url=server.url,
        headers={"x-api-key": key, "anthropic-version": "2023-06-01"},
        timeout=TIMEOUT_SECONDS,
        trust_env=False,
        verify=ssl.create_default_context() if server.is_tls else False,
    )


def _default_url(environ: Mapping[str, str]) -> str:
    """Where `make gateway` listens."""
    settings = dotenv_values(ENV_FILE) if ENV_FILE.is_file() else {}
    port = environ.get("GATEWAY_PORT") or settings.get("GATEWAY_PORT") or "8080"
    return f"http://127.0.0.1:{port}"


def _say(step: str, seen: str) -> None:
    print(f"ok      {step}: {seen}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
