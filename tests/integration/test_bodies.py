"""Request bodies: what is read twice must be read the same way, and what is not ours to pass."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from gateway.wire.openai_fields import DROPPED_FIELDS, REFUSED_FIELDS
from tests.harness.callers import Fronted, fronted
from tests.harness.gateway import chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
START = b'{"model":"sim-model","max_tokens":4,"messages":[{"role":"user","content":"hi"}]'
LOOSE: dict[str, bytes] = {
    "duplicate keys": START + b',"max_tokens":400}',
    "duplicate keys, one of them escaped": START + rb',"max_\u0074okens":400}',
    "duplicate keys deep inside": START + b',"metadata":{"a":{"b":1,"b":2}}}',
    "NaN": START + b',"temperature":NaN}',
    "Infinity": START + b',"temperature":-Infinity}',
    "number beyond a double": START + b',"temperature":1e999}',
    "integer of 5000 digits": START + b',"seed":' + b"9" * 5000 + b"}",
    "integer beyond 64 bits": START + b',"seed":18446744073709551616}',
    "lone surrogate": START + rb',"user":"\ud800"}',
    "invalid UTF-8": START + b',"user":"\xff"}',
    "overlong UTF-8": START + b',"user":"\xc0\xaf"}',
    "byte order mark": b"\xef\xbb\xbf" + START + b"}",
    "UTF-16": (START + b"}").decode().encode("utf-16"),
    "control character": START + b',"user":"a\x00b"}',
    "comment": START + b"/* */}",
    "trailing comma": START + b",}",
    "single quotes": START + b",'user':'a'}",
    "a second document": START + b"}{}",
    "half a document": START,
    "an array": b"[" + START + b"}]",
    "nothing": b"",
    "nested 100,000 deep": START + b',"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested 500 deep": START + b',"metadata":' + b"[" * 500 + b"]" * 500 + b"}",
    "100,000 open brackets": b"[" * 100_000,
}
WRONG: dict[str, list[Any]] = {
    "stream": ["true", 1, []],
    "max_tokens": ["1e6", -1, 0, 1.5, True, 10**15],
    "n": ["2", 0, 129, 1.0, True],
    "model": [7, ["sim-model"], {}],
    "messages": ["hi", [], ["hi"], {}, None],
    "stream_options": ["usage", [], {"include_usage": "yes"}],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    async with fronted(tmp_path_factory.mktemp("bodies")) as running:
        yield running


@pytest.mark.parametrize("fault", LOOSE)
async def test_a_body_that_two_parsers_could_read_differently_is_never_forwarded(
    pair: Fronted, fault: str
) -> None:
    pair.simulator.requests.clear()
    answer = await pair.gateway.client.post(CHAT, content=LOOSE[fault], headers=JSON)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert pair.paths() == []


@pytest.mark.parametrize("name", WRONG)
async def test_a_field_of_the_wrong_type_is_named_and_never_forwarded(
    pair: Fronted, name: str
) -> None:
    pair.simulator.requests.clear()
    for value in WRONG[name]:
        body = chat() | {"stream": True, name: value}
        answer = await pair.gateway.client.post(CHAT, json=body)

        assert answer.status_code == 400, value
        assert answer.json()["error"]["param"].startswith(name), value
    assert pair.paths() == []


async def test_every_refused_field_is_a_400_that_names_it(pair: Fronted) -> None:
    pair.simulator.requests.clear()
    for name in REFUSED_FIELDS:
        answer = await pair.gateway.client.post(CHAT, json=chat() | {name: "x"})

        assert answer.status_code == 400, name
        assert answer.json()["error"]["param"] == name
        assert answer.json()["error"]["code"] == "unsupported_parameter"
    assert pair.paths() == []


async def test_dropped_fields_are_dropped_and_the_call_is_served(pair: Fronted) -> None:
    pair.simulator.requests.clear()
    answer = await pair.gateway.client.post(CHAT, json=chat() | dict.fromkeys(DROPPED_FIELDS, "x"))

    assert answer.status_code == 200
    assert pair.bodies() == [chat()]


async def test_an_operator_may_let_a_field_pass(tmp_path: Path) -> None:
    refused = ",".join(REFUSED_FIELDS.keys() - {"priority"})
    async with fronted(tmp_path, REFUSED_FIELDS=refused) as pair:
        assert (await pair.gateway.client.post(CHAT, json=chat(priority=3))).status_code == 200
        assert pair.bodies()[0]["priority"] == 3


async def test_unknown_fields_pass_unchanged(pair: Fronted) -> None:
    pair.simulator.requests.clear()
    unknown: dict[str, Any] = {
        "min_p": 0.1,
        "top_k": 5,
        "of_tomorrow": {"deep": [1, None, "ö", 1.0e-7, True]},
    }
    await pair.gateway.client.post(CHAT, json=chat(**unknown))

    assert pair.bodies() == [chat(**unknown)]


async def test_what_is_forwarded_is_the_parse_serialised_again(pair: Fronted) -> None:
    pair.simulator.requests.clear()
    body = json.dumps(chat("a\u00e9 \U0001f600 \u2028 </x>"), indent=3, ensure_ascii=True).encode()
    await pair.gateway.client.post(CHAT, content=body + b" \n", headers=JSON)

    (sent,) = pair.simulator.requests
    assert sent.body == orjson.dumps(json.loads(body))
    assert sent.body != body


async def test_a_path_of_the_upstream_that_is_not_offered_is_never_reached(pair: Fronted) -> None:
    pair.simulator.requests.clear()
    for path in ("/metrics", "/sim/state", "/v1/chat/completions/batch", "//v1/chat/completions"):
        assert (await pair.gateway.client.post(path, json=chat())).status_code in (404, 405)
    assert pair.paths() == []
