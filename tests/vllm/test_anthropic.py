"""The official anthropic SDK through the gateway to a real vLLM, and the two ways compared.

Differences between an answer of vLLM's own /v1/messages and the gateway's translation of its chat
answer to the same request, each of which is asserted or taken out here:

- ids of messages, calls and thoughts, which differ between any two answers;
- a `ping` after message_start, which Anthropic sends and vLLM does not;
- where one delta ends and the next begins: vLLM joins what it generates while nobody reads;
- a count of a conversation longer than the context: vLLM's endpoint refuses it, /tokenize counts;
  who asks wants to know by how much to shorten.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anthropic
import httpx2
import pytest
import pytest_asyncio

from tests.harness.anthropic import COUNT, PATH, events, only, sdk
from tests.harness.gateway import GatewayProcess
from tests.harness.vllm import VllmProcess

NATIVE, TRANSLATED = "native", "translate"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
# Strict, because the random model writes no JSON of its own will.
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": CITY,
    "strict": True,
}
FORCED = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}}
CALLED = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
GREEDY = {"temperature": 0}


def question(content: Any = "Say hi.", **fields: Any) -> dict[str, Any]:
    """A request with one possible answer."""
    conversation = [{"role": "user", "content": content}]
    return {"model": "tiny", "max_tokens": 20, "messages": conversation, **GREEDY, **fields}


def result(**fields: Any) -> dict[str, Any]:
    """A request that gives back the result of a tool."""
    content = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain", **fields}]
    turns = [
        {"role": "user", "content": "rain?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, CALLED]},
        {"role": "user", "content": [*content, {"type": "text", "text": "in short"}]},
    ]
    return question(messages=turns, tools=[WEATHER])


LONG_PROMPT = "Count the words. " * 40
REQUESTS: dict[str, dict[str, Any]] = {
    "text": question(),
    "cached prompt": question(LONG_PROMPT),
    "system": question(system="Be brief."),
    "system in blocks": question(
        system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    ),
    "system inside": question(
        messages=[
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "three"},
        ]
    ),
    "blocks": question([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]),
    "stop sequence": question(max_tokens=30, stop_sequences=["cur"]),
    "prefilled": question(
        messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ),
    "forced call": question("weather now", max_tokens=100, **FORCED),
    "forced call cut": question("weather now", max_tokens=40, **FORCED),
    "any call": question("x1", max_tokens=100, tools=[WEATHER], tool_choice={"type": "any"}),
    "call left to the model": question(
        "x1",
        tools=[WEATHER],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    ),
    "no call": question("x1", tools=[WEATHER], tool_choice={"type": "none"}),
    "tool result": result(),
    "tool result in blocks": result(content=[{"type": "text", "text": "rain"}]),
    "failed tool": result(is_error=True),
    "failed tool in blocks": result(is_error=True, content=[{"type": "text", "text": "gone"}]),
    "thoughts of before": question(
        messages=[
            {"role": "user", "content": "why?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "yes"},
                ],
            },
            {"role": "user", "content": "and?"},
        ]
    ),
    "thinking": question(
        max_tokens=1500,
        stop_sequences=["cur"],
        thinking={"type": "enabled", "budget_tokens": 1024},
    ),
    "answer by a schema": question(
        "one two",
        max_tokens=100,
        output_config={"format": {"type": "json_schema", "schema": CITY}},
    ),
    "sampling": question(top_p=0.5, top_k=3),
    "unknown model": question(model="nobody"),
    "too long": question("the " * 3000),
    "wrong value": question(temperature=-1),
}
# What count_tokens does not take.
UNCOUNTED = ("max_tokens", "temperature", "stop_sequences", "top_p", "top_k", "output_config")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ways(
    vllm: VllmProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, GatewayProcess]]:
    """Two gateways before the same vLLM, of which one keeps from its /v1/messages."""
    async with AsyncExitStack() as opened:
        running = {}
        for way in (NATIVE, TRANSLATED):
            folder = tmp_path_factory.mktemp(way)
            fleet = folder / "upstreams.toml"
            fleet.write_text(
                f'[[upstream]]\nname = "tiny"\nurl = "{vllm.url}"\nmessages = "{way}"\n'
                '[aliases]\n"claude-*" = "tiny"\n'
            )
            gateway = GatewayProcess(folder=folder, UPSTREAMS_FILE=str(fleet))
            running[way] = await opened.enter_async_context(gateway)
        yield running


@pytest.fixture(params=[NATIVE, TRANSLATED])
def way(request: pytest.FixtureRequest, ways: dict[str, GatewayProcess]) -> GatewayProcess:
    return ways[request.param]


@pytest_asyncio.fixture(loop_scope="session")
async def client(way: GatewayProcess) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(way) as opened:
        yield opened


async def charged(gateway: GatewayProcess) -> tuple[int, int]:
    report = await gateway.usage()
    return report["input_tokens"], report["output_tokens"]


async def spent(vllm: VllmProcess, before: tuple[int, int]) -> tuple[int, int]:
    """What vLLM counted since then; its counters lag an engine step behind its answers."""
    await asyncio.sleep(0.3)
    now = await vllm.tokens()
    return now[0] - before[0], now[1] - before[1]


def sdk_arguments(request: dict[str, Any]) -> dict[str, Any]:
    """The SDK has no parameter for what newer models do not take."""
    known = {name: value for name, value in request.items() if name not in GREEDY}
    return {**known, "extra_body": GREEDY}


# The two ways, event by event.


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_translated_stream_has_the_events_of_a_native_one(
    ways: dict[str, GatewayProcess], name: str
) -> None:
    request = REQUESTS[name] | {"stream": True}
    native, translated = [
        comparable_stream(await answered(ways[way], request)) for way in (NATIVE, TRANSLATED)
    ]

    assert translated == native


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_translated_answer_is_that_of_the_native_endpoint(
    ways: dict[str, GatewayProcess], name: str
) -> None:
    native, translated = [
        comparable(await answered(ways[way], REQUESTS[name])) for way in (NATIVE, TRANSLATED)
    ]

    assert translated == native


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "too long"])
async def test_both_ways_count_the_same_tokens_and_those_that_are_charged(
    ways: dict[str, GatewayProcess], name: str
) -> None:
    request = REQUESTS[name]
    asked = {field: request[field] for field in request if field not in UNCOUNTED}
    counts = [await ways[way].client.post(COUNT, json=asked) for way in (NATIVE, TRANSLATED)]

    native, translated = [answer.json().get("input_tokens") for answer in counts]
    assert translated == native
    answer = await ways[NATIVE].client.post(PATH, json=request)
    if answer.status_code == 200:
        assert prompt_of(answer.json()["usage"]) == native


async def test_the_model_is_told_of_a_failed_tool_on_either_way(way: GatewayProcess) -> None:
    failed, well = [
        (await answered(way, result(is_error=is_error))).json()["usage"]
        for is_error in (True, False)
    ]

    assert prompt_of(failed) > prompt_of(well)


async def test_what_is_longer_than_the_context_is_counted_by_the_tokenizer_alone(
    ways: dict[str, GatewayProcess],
) -> None:
    asked = {"model": "tiny", "messages": REQUESTS["too long"]["messages"]}
    native, translated = [
        await ways[way].client.post(COUNT, json=asked) for way in (NATIVE, TRANSLATED)
    ]

    assert native.status_code == 400
    assert translated.json()["input_tokens"] > 3000


# The SDK, on either way.


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name", ["text", "cached prompt", "forced call", "tool result"])
async def test_the_charge_is_what_vllm_counts_and_the_client_sees(
    way: GatewayProcess, vllm: VllmProcess, name: str, is_stream: bool
) -> None:
    before, charged_before = await vllm.tokens(), await charged(way)
    answer = await way.client.post(PATH, json=REQUESTS[name] | {"stream": is_stream})

    usage = events(answer.content)[-2]["usage"] if is_stream else answer.json()["usage"]
    now = await charged(way)
    charge = now[0] - charged_before[0], now[1] - charged_before[1]
    assert charge == (prompt_of(usage), usage["output_tokens"])
    assert charge == await spent(vllm, before)


async def test_the_sdk_converses(client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(**sdk_arguments(REQUESTS["text"]))
    async with client.messages.stream(**sdk_arguments(REQUESTS["text"])) as stream:
        pieces = [piece async for piece in stream.text_stream]
        final = await stream.get_final_message()

    block = only(answer)
    assert block.type == "text"
    assert "".join(pieces) == block.text
    assert final.usage.output_tokens == answer.usage.output_tokens == 20


async def test_the_sdk_calls_a_tool_and_gives_back_its_result(
    client: anthropic.AsyncAnthropic,
) -> None:
    asked = sdk_arguments(REQUESTS["forced call"])
    answer = await client.messages.create(**asked)
    async with client.messages.stream(**asked) as stream:
        streamed = await stream.get_final_message()

    for told in (answer, streamed):
        call = only(told)
        assert call.type == "tool_use"
        assert told.stop_reason == "tool_use"
        assert call.input == {"city": "Rome"}
    given = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    turns = [
        *asked["messages"],
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [given]},
    ]
    after = await client.messages.create(**sdk_arguments(question(messages=turns, tools=[WEATHER])))
    assert after.stop_reason == "max_tokens"


async def test_an_answer_carries_the_name_that_was_asked_for(
    client: anthropic.AsyncAnthropic,
) -> None:
    asked = sdk_arguments(question(model="claude-of-any-kind"))

    answer = await client.messages.create(**asked)
    async with client.messages.stream(**asked) as stream:
        streamed = await stream.get_final_message()

    assert answer.model == streamed.model == "claude-of-any-kind"


async def test_errors_are_the_sdks_own_classes(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        await client.messages.create(**sdk_arguments(REQUESTS["too long"]))
    with pytest.raises(anthropic.BadRequestError, match="multimodal"):
        await client.messages.create(**sdk_arguments(question([picture()])))
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.create(**sdk_arguments(REQUESTS["unknown model"]))


async def test_a_call_that_the_model_wrote_wrongly_is_said_without_vllms_schema(
    ways: dict[str, GatewayProcess],
) -> None:
    loose = {name: WEATHER[name] for name in WEATHER if name != "strict"}
    request = question("Rome", max_tokens=100, **FORCED | {"tools": [loose]})
    before = await charged(ways[NATIVE])

    answer = await ways[NATIVE].client.post(PATH, json=request)

    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (502, "api_error")
    assert "pydantic" not in answer.text
    assert (await charged(ways[NATIVE]))[0] > before[0]


async def test_who_leaves_stops_vllm(way: GatewayProcess, vllm: VllmProcess) -> None:
    request = question(max_tokens=1900, stream=True) | {"ignore_eos": True}
    before, charged_before = await vllm.tokens(), await charged(way)
    async with way.client.stream("POST", PATH, json=request) as stream:
        lines = stream.aiter_lines()
        for _ in range(90):
            await anext(lines)

    async with asyncio.timeout(5):
        while await vllm.metric("vllm:num_requests_running"):
            await asyncio.sleep(0.1)
    generated = (await spent(vllm, before))[1]
    output = (await charged(way))[1] - charged_before[1]
    assert generated < 1000
    assert generated * 0.7 <= output <= generated


async def answered(gateway: GatewayProcess, request: dict[str, Any]) -> httpx2.Response:
    """The second answer, so that both ways find the same prompt in the cache."""
    await gateway.client.post(PATH, json=request)
    return await gateway.client.post(PATH, json=request)


def prompt_of(usage: dict[str, Any]) -> int:
    """The whole prompt, read from the cache or not."""
    cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
    total: int = usage["input_tokens"] + sum(usage.get(name) or 0 for name in cached)
    return total


def comparable(answer: httpx2.Response) -> tuple[int, Any]:
    """An answer without what differs between any two."""
    return answer.status_code, without_ids(answer.json())


def comparable_stream(answer: httpx2.Response) -> tuple[int, Any]:
    """The events likewise, and deltas of one block that follow each other joined."""
    if answer.status_code != 200:
        return comparable(answer)
    kept: list[Any] = []
    for event in events(answer.content):
        if event["type"] == "ping":
            continue
        if not (kept and _joins(kept[-1], event)):
            kept.append(without_ids(event))
    return 200, kept


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        hidden = ("id", "signature", "request_id")
        return {key: without_ids(value[key]) for key in value if key not in hidden}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


def _joins(before: dict[str, Any], event: dict[str, Any]) -> bool:
    """True where the event only goes on with what the one before it said; it is added there."""
    if event["type"] != "content_block_delta" or before["type"] != event["type"]:
        return False
    said, more = before["delta"], event["delta"]
    for key in ("text", "thinking", "partial_json"):
        if key in said and key in more:
            said[key] += more[key]
            return True
    return False


def picture() -> dict[str, Any]:
    """An image, which the tiny model cannot see."""
    source = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}
    return {"type": "image", "source": source}
