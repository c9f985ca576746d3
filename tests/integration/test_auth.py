"""Who may come in: credentials in every shape, and what a key may use."""

import asyncio
import json
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.commands import KeyCommands
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawAnswer, RawClient, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
BODY = orjson.dumps(chat())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("auth")
    async with (
        Simulator(SimulatorConfig(models=("sim-model", "secret-model"))) as simulator,
        GatewayProcess(folder=folder, VLLM_URL=simulator.url, RATE_LIMIT_PER_IP="off") as running,
    ):
        yield running


async def asked(gateway: GatewayProcess, *fields: bytes, body: bytes = BODY) -> RawAnswer:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("POST", CHAT, *fields, body=body))
        return await raw.answer()


@pytest.mark.parametrize(
    "field", [b"authorization: Bearer %b", b"authorization: bearer   %b", b"x-api-key: %b"]
)
async def test_a_key_is_taken_from_either_header(gateway: GatewayProcess, field: bytes) -> None:
    assert (await asked(gateway, field % gateway.key.encode())).status == 200


async def test_the_same_key_in_both_headers_is_one_key(gateway: GatewayProcess) -> None:
    key = gateway.key.encode()

    assert (await asked(gateway, b"x-api-key: " + key, b"authorization: Bearer " + key)).status == (
        200
    )


BAD_CREDENTIALS: dict[str, tuple[tuple[bytes, ...], str]] = {
    "none": ((), "missing_api_key"),
    "an empty x-api-key": ((b"x-api-key:",), "missing_api_key"),
    "an empty bearer": ((b"authorization: Bearer ",), "missing_api_key"),
    "basic": ((b"authorization: Basic dXNlcjpwYXNz",), "invalid_api_key"),
    "no scheme": ((b"authorization: sk-test-12345678",), "invalid_api_key"),
    "wrong": ((b"authorization: Bearer sk-wrong",), "invalid_api_key"),
    "non-ASCII": ((b"authorization: Bearer cl\xc3\xa9",), "invalid_api_key"),
    "invalid UTF-8": ((b"x-api-key: \xff\xfe",), "invalid_api_key"),
    "8 KB": ((b"authorization: Bearer " + b"a" * 8192,), "invalid_api_key"),
    "SQL": ((b"x-api-key: ' OR 1=1 --",), "invalid_api_key"),
    "two different": ((b"x-api-key: a", b"authorization: Bearer b"), "invalid_api_key"),
    "two of the same header": ((b"x-api-key: a", b"x-api-key: b"), "invalid_api_key"),
}


@pytest.mark.parametrize("case", BAD_CREDENTIALS)
async def test_anything_but_one_known_key_is_a_401(gateway: GatewayProcess, case: str) -> None:
    fields, code = BAD_CREDENTIALS[case]

    answer = await asked(gateway, *fields)

    assert answer.status == 401
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", code)
    assert (answer.header("www-authenticate") or "").startswith("Bearer")
    assert answer.header("retry-after") is None


async def test_a_right_key_beside_a_wrong_one_does_not_count(gateway: GatewayProcess) -> None:
    answer = await asked(
        gateway, b"x-api-key: " + gateway.key.encode(), b"authorization: Bearer sk-wrong"
    )

    assert answer.status == 401


async def test_a_nul_in_a_key_does_not_get_past_the_head(gateway: GatewayProcess) -> None:
    assert (await asked(gateway, b"x-api-key: a\0b")).status == 400


@pytest.mark.parametrize("field", ["api_key", "key", "access_token"])
async def test_a_key_in_the_query_is_not_looked_at(gateway: GatewayProcess, field: str) -> None:
    async with gateway.client_with(None) as client:
        answer = await client.get("/v1/models", params={field: gateway.key})

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "missing_api_key"


async def test_a_stranger_is_refused_before_the_body_is_read(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("POST", CHAT, b"content-length: 1000", key="sk-wrong"))
        answer = await raw.answer(within=1.0)

    assert answer.status == 401


async def test_no_path_but_the_open_ones_answers_without_a_key(gateway: GatewayProcess) -> None:
    async with gateway.client_with(None) as client:
        got = {
            path: (await client.get(path)).status_code
            for path in ("/health", "/ready", "/readyz", "/version", "/v1/models", "/v1/usage")
        }
        posted = {
            path: (await client.post(path, json={})).status_code
            for path in (CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses", "/tokenize")
        }

    assert got == dict.fromkeys(("/health", "/ready", "/readyz", "/version"), 200) | dict.fromkeys(
        ("/v1/models", "/v1/usage"), 401
    )
    assert set(posted.values()) == {401}


# Keys of the store.


@pytest.fixture
def keys(gateway: GatewayProcess) -> KeyCommands:
    return KeyCommands(gateway.settings)


async def test_a_running_gateway_honours_a_new_key_within_two_seconds(
    gateway: GatewayProcess, keys: KeyCommands
) -> None:
    made = await keys.create("fresh")

    await _becomes(gateway, made.secret, 200)


async def test_a_revoked_key_is_refused_within_two_seconds_by_a_code_of_its_own(
    gateway: GatewayProcess, keys: KeyCommands
) -> None:
    made = await keys.create("leaver")
    await _becomes(gateway, made.secret, 200)

    await keys.run("revoke", made.key_id)

    assert await _becomes(gateway, made.secret, 401) == "api_key_revoked"


async def test_an_expired_key_has_a_code_of_its_own(
    gateway: GatewayProcess, keys: KeyCommands
) -> None:
    made = await keys.create("short", "--expires", "1s")

    await asyncio.sleep(1.1)

    assert await _becomes(gateway, made.secret, 401, code="api_key_expired") == "api_key_expired"


async def test_a_rotated_key_lives_on_with_its_new_secret_alone(
    gateway: GatewayProcess, keys: KeyCommands
) -> None:
    made = await keys.create("rotated")
    await _becomes(gateway, made.secret, 200)

    rotated = json.loads(await keys.run("rotate", made.key_id, "--json"))

    await _becomes(gateway, rotated["secret"], 200)
    assert await _becomes(gateway, made.secret, 401) == "api_key_revoked"


async def test_a_rotation_with_grace_leaves_the_old_secret_in_force_for_a_while(
    gateway: GatewayProcess, keys: KeyCommands
) -> None:
    made = await keys.create("graceful")
    await _becomes(gateway, made.secret, 200)

    rotated = json.loads(await keys.run("rotate", made.key_id, "--grace", "1h", "--json"))

    await _becomes(gateway, rotated["secret"], 200)
    await _becomes(gateway, made.secret, 200)


# Models of a key.


async def test_a_key_sees_and_uses_only_its_models(
    gateway: GatewayProcess, keys: KeyCommands
) -> None:
    made = await keys.create("narrow", "--models", "sim-model")
    await _becomes(gateway, made.secret, 200)

    async with gateway.client_with(made.secret) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        allowed = await client.post(CHAT, json=chat())
        refused = await client.post(CHAT, json=chat(model="secret-model"))
        hidden = await client.get("/v1/models/secret-model")
        unknown = await client.post(CHAT, json=chat(model="secret-mode"))

    assert [model["id"] for model in listed] == ["sim-model"]
    assert allowed.status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "model_not_found")
    # Whether a model exists is not told by the difference between refusals.
    assert unknown.status_code == 403
    assert "secret-model" not in unknown.text


async def test_a_suggestion_names_only_what_the_key_may_use(
    gateway: GatewayProcess, keys: KeyCommands
) -> None:
    made = await keys.create("guesser", "--models", "sim-model,sim-modle")
    await _becomes(gateway, made.secret, 200)

    async with gateway.client_with(made.secret) as client:
        answer = await client.post(CHAT, json=chat(model="sim-modle"))

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "Did you mean sim-model?" in answer.text
    assert "secret" not in answer.text


async def _becomes(
    gateway: GatewayProcess, secret: str, status: int, *, code: str | None = None
) -> str | None:
    """The error code of the first answer with this status, which must come within two seconds."""
    async with asyncio.timeout(2.0), gateway.client_with(secret) as client:
        while True:
            answer = await client.get("/v1/models")
            found = answer.json().get("error", {}).get("code")
            if answer.status_code == status and code in (None, found):
                return str(found) if found else None
            await asyncio.sleep(0.05)
