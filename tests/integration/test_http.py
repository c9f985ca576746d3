"""HTTP as it must be spoken: routes, framing, sizes and deadlines, on raw sockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawAnswer, RawClient, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY_BYTES_MAX = 10_000
CHAT = "/v1/chat/completions"
BODY = orjson.dumps(chat())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(
        folder=tmp_path_factory.mktemp("http"),
        VLLM_URL=simulator.url,
        MAX_BODY_BYTES=str(BODY_BYTES_MAX),
        HEADER_TIMEOUT_SECONDS="0.6",
        BODY_TIMEOUT_SECONDS="0.6",
        KEEPALIVE_TIMEOUT_SECONDS="2",
        RATE_LIMIT_PER_IP="off",
        RATE_LIMIT_PER_KEY="off",
    ) as running:
        yield running


async def asked(gateway: GatewayProcess, *parts: bytes, method: str = "GET") -> RawAnswer:
    async with RawClient(gateway.port) as raw:
        await raw.send(*parts)
        return await raw.answer(method=method)


def calls(simulator: Simulator) -> int:
    """Requests the upstream has seen besides the prober's."""
    probes = ("/health", "/v1/models")
    return sum(seen.path not in probes for seen in simulator.requests)


# Routes.

UNKNOWN_PATHS = (
    "/v1",
    "/v1/",
    "/v1/models/",
    "/load",
    "/sleep",
    "/wake_up",
    "/pause",
    "/collective_rpc",
    "/update_weights",
    "/scale_elastic_ep",
    "/invocations",
    "/ping",
    "/server_info",
    "/reset_prefix_cache",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/responses/resp_1",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/render",
    "/v1/audio/speech",
    "/v2/embed",
    "/inference/v1/generate",
    "/sim/state",
    "/docs",
    "/openapi.json",
    "/V1/Chat/Completions",
    "/v1/chat/completions/",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat%2Fcompletions",
    "/v1%2fchat%2fcompletions",
    "/v1/%63hat/completions",
    "/v1/chat/completions%00",
    "/v1/chat/completions;a=b",
    "/v1/../v1/chat/completions",
    "/v1/models/../chat/completions",
    "/health/../load",
    "/%2e%2e/load",
    "/%0d%0aset-cookie:%20a=b",
    "/metrics/",
)


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
async def test_what_is_not_on_the_list_is_a_404_and_never_reaches_the_upstream(
    gateway: GatewayProcess, simulator: Simulator, path: str
) -> None:
    before = calls(simulator)

    answer = await asked(gateway, request("POST", path, key=gateway.key, body=BODY))

    # Below /v1/models/ there are names; all other paths are unknown.
    expected = 405 if path.startswith("/v1/models/.") else 404
    assert answer.status == expected
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["code"] in ("not_found", "method_not_allowed")
    assert answer.header("set-cookie") is None
    assert calls(simulator) == before


async def test_a_traversal_below_the_models_names_a_model_that_is_not_there(
    gateway: GatewayProcess,
) -> None:
    answer = await asked(gateway, request("GET", "/v1/models/../../load", key=gateway.key))

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_a_model_id_may_be_sent_encoded(gateway: GatewayProcess) -> None:
    answer = await gateway.client.get("/v1/models/sim%2Dmodel")

    assert answer.json()["id"] == "sim-model"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST, OPTIONS"),
        ("HEAD", CHAT, "POST, OPTIONS"),
        ("PUT", CHAT, "POST, OPTIONS"),
        ("DELETE", "/v1/models/sim-model", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("TRACE", "/v1/usage", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    gateway: GatewayProcess, method: str, path: str, allow: str
) -> None:
    answer = await asked(gateway, request(method, path, key=gateway.key), method=method)

    assert (answer.status, answer.header("allow")) == (405, allow)


@pytest.mark.parametrize("path", ["/health", "/version", "/v1/models", "/v1/usage", "/metrics"])
async def test_head_is_get_without_the_body(gateway: GatewayProcess, path: str) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("HEAD", path, key=gateway.key))
        head = await raw.answer(method="HEAD")
        await raw.send(request("GET", path, key=gateway.key))
        whole = await raw.answer()

    assert (head.status, whole.status) == (200, 200)
    assert head.header("content-type") == whole.header("content-type")
    assert int(head.header("content-length") or 0) > 0


async def test_options_tells_the_methods_and_needs_no_key(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("OPTIONS", CHAT))
        answer = await raw.answer()
        await raw.send(request("GET", "/health"))
        next_answer = await raw.answer()

    assert (answer.status, answer.header("allow"), answer.body) == (204, "POST, OPTIONS", b"")
    assert next_answer.status == 200


@pytest.mark.parametrize(
    "target",
    [b"CONNECT evil:443", b"OPTIONS *", b"GET health", b"GET /caf\xc3\xa9", b"PRI *"],
)
async def test_odd_targets_are_refused(gateway: GatewayProcess, target: bytes) -> None:
    answer = await asked(gateway, target, b" HTTP/1.1\r\nhost: x\r\n\r\n")

    assert 400 <= answer.status < 500


async def test_an_absolute_target_is_our_own_path_and_never_proxied(
    gateway: GatewayProcess,
) -> None:
    answer = await asked(gateway, request("GET", "http://elsewhere.example/health"))

    assert orjson.loads(answer.body) == {"status": "ok"}


# CORS.


async def test_without_configuration_no_page_of_another_origin_is_let_in(
    gateway: GatewayProcess,
) -> None:
    answer = await asked(gateway, request("GET", "/health", b"origin: https://app.example"))

    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]


# Framing.

AMBIGUOUS = {
    "no host": request("GET", "/health", host=None),
    "two hosts": request("GET", "/health", b"host: other"),
    "length and chunks": request("POST", CHAT, b"transfer-encoding: chunked", body=BODY),
    "chunks and length": request(
        "POST", CHAT, b"content-length: 5", b"transfer-encoding: chunked", body=None
    )
    + b"0\r\n\r\n",
    "two lengths": request("POST", CHAT, b"content-length: 1", body=BODY),
    "negative length": request("POST", CHAT, b"content-length: -1"),
    "length beyond 64 bits": request("POST", CHAT, b"content-length: 99999999999999999999999"),
    "length with a sign": request("POST", CHAT, b"content-length: +5") + b"12345",
    "chunked not last": request("POST", CHAT, b"transfer-encoding: chunked, gzip") + b"0\r\n\r\n",
    "bare LF": b"GET /health HTTP/1.1\nhost: x\n\n",
    "LF within the head": b"GET /health HTTP/1.1\r\nhost: x\nx-a: b\r\n\r\n",
    "CR within a field": b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\rc\r\n\r\n",
    "folded field": b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\n\r\n",
    "NUL in a field": b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\0c\r\n\r\n",
    "space before the colon": b"GET /health HTTP/1.1\r\nhost : x\r\n\r\n",
    "space in a name": b"GET /health HTTP/1.1\r\nhost: x\r\nx a: b\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
async def test_what_two_parsers_could_read_differently_is_refused_once_and_the_connection_closed(
    gateway: GatewayProcess, simulator: Simulator, case: str
) -> None:
    before = calls(simulator)

    async with RawClient(gateway.port) as raw:
        await raw.send(AMBIGUOUS[case], request("GET", "/version"))
        answer = await raw.answer()
        rest = await raw.rest()

    assert answer.status in (400, 505)
    assert answer.error["code"] == "bad_http"
    assert answer.header("connection") == "close"
    assert rest == b""
    assert calls(simulator) == before


async def test_a_transfer_coding_that_is_not_chunked_is_refused(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("POST", CHAT, b"transfer-encoding: gzip", key=gateway.key), BODY)
        answer = await raw.answer()
        rest = await raw.rest()

    assert (answer.status, answer.error["code"], rest) == (400, "bad_http", b"")


BAD_CHUNKS = {
    "no hex": b"zz\r\nhello\r\n",
    "negative": b"-5\r\nhello\r\n",
    "too long a size": b"fffffffffffffffffff\r\n",
    "longer than it says": b"2\r\nhello\r\n0\r\n\r\n",
    "bare LF": b"5\nhello\n0\n\n",
}


@pytest.mark.parametrize("case", BAD_CHUNKS)
async def test_a_bad_chunk_is_answered_with_one_400(
    gateway: GatewayProcess, simulator: Simulator, case: str
) -> None:
    before = calls(simulator)

    async with RawClient(gateway.port) as raw:
        head = request("POST", CHAT, b"transfer-encoding: chunked", key=gateway.key)
        await raw.send(head, BAD_CHUNKS[case], request("GET", "/version"))
        answer = await raw.answer()
        rest = await raw.rest()

    assert (answer.status, rest) == (400, b"")
    assert calls(simulator) == before


async def test_a_request_refused_unread_gets_no_second_answer_for_its_bad_body(
    gateway: GatewayProcess,
) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("POST", CHAT, b"transfer-encoding: chunked"), b"5\r\nhello\r\n")
        answer = await raw.answer()
        await raw.send(b"zz\r\n")
        rest = await raw.rest()

    assert (answer.status, rest) == (401, b"")


async def test_http_2_without_tls_is_not_spoken(gateway: GatewayProcess) -> None:
    answer = await asked(gateway, b"GET /health HTTP/2.0\r\nhost: x\r\n\r\n")

    assert answer.status in (400, 505)


# Sizes of heads.


@pytest.mark.parametrize("pieces", [1, 8])
async def test_a_head_beyond_32_kib_is_a_431(gateway: GatewayProcess, pieces: int) -> None:
    head = request("GET", "/health", b"x-filler: " + b"a" * 34_000)

    async with RawClient(gateway.port) as raw:
        step = len(head) // pieces + 1
        for start in range(0, len(head), step):
            await raw.send(head[start : start + step])
            await asyncio.sleep(0.01)
        answer = await raw.answer()
        rest = await raw.rest()

    assert (answer.status, rest) == (431, b"")


async def test_a_path_beyond_32_kib_is_a_431(gateway: GatewayProcess) -> None:
    answer = await asked(gateway, request("GET", "/" + "a" * 60_000))

    assert answer.status == 431


async def test_more_than_100_fields_are_a_431(gateway: GatewayProcess) -> None:
    fields = [b"x-%d: a" % number for number in range(99)]

    allowed = await asked(gateway, request("GET", "/health", *fields))
    refused = await asked(gateway, request("GET", "/health", *fields, b"x-a: a"))

    assert (allowed.status, refused.status) == (200, 431)


async def test_a_head_without_end_is_cut_before_it_fills_memory(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: ", b"a" * 300_000)
        answer = await raw.answer()

    assert answer.status == 431


# Deadlines.


async def test_a_head_that_drips_is_ended_at_its_deadline(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        drip = asyncio.create_task(_drip(raw, b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: aaaaaaaaa"))
        answer = await raw.answer(within=2.0)
        rest = await raw.rest()
        drip.cancel()

    assert (answer.status, rest) == (408, b"")


async def test_the_second_head_of_a_connection_has_a_deadline_too(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("GET", "/health"))
        await raw.answer()
        await raw.send(b"GET /health HT")
        answer = await raw.answer(within=2.0)

    assert answer.status == 408


async def test_a_silent_connection_is_closed_without_a_word(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        assert await raw.rest(within=2.0) == b""


async def test_empty_lines_do_not_keep_a_connection_for_ever(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("GET", "/health"))
        await raw.answer()
        await raw.send(b"\r\n")
        rest = await raw.rest(within=4.0)

    assert rest == b""


async def test_a_body_that_drips_is_a_408_and_is_never_forwarded(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    before = calls(simulator)

    async with RawClient(gateway.port) as raw:
        whole = request("POST", CHAT, key=gateway.key, body=BODY)
        await raw.send(whole[:-30])
        drip = asyncio.create_task(_drip(raw, whole[-30:]))
        answer = await raw.answer(within=2.0)
        rest = await raw.rest()
        drip.cancel()

    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert (answer.header("connection"), rest) == ("close", b"")
    assert calls(simulator) == before


async def test_slow_clients_do_not_delay_others(gateway: GatewayProcess) -> None:
    async with asyncio.timeout(5):
        clients = [RawClient(gateway.port) for _ in range(50)]
        for client in clients:
            await client.__aenter__()
            await client.send(b"GET /hea")
        answer = await asked(gateway, request("GET", "/health"))
        for client in clients:
            await client.__aexit__(None, None, None)

    assert answer.status == 200


# Bodies.


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 10**12])
async def test_a_body_too_large_is_refused_on_its_header_unread(
    gateway: GatewayProcess, size: int
) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("POST", CHAT, b"content-length: %d" % size, key=gateway.key))
        answer = await raw.answer(within=0.5)

    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert answer.header("x-should-retry") == "false"


async def test_a_chunked_body_too_large_is_refused_while_it_comes(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    before = calls(simulator)

    async with RawClient(gateway.port) as raw:
        await raw.send(request("POST", CHAT, b"transfer-encoding: chunked", key=gateway.key))
        for _ in range(BODY_BYTES_MAX // 1000 + 1):
            await raw.send(b"3e8\r\n", b" " * 1000, b"\r\n")
        answer = await raw.answer(within=0.5)

    assert answer.status == 413
    assert calls(simulator) == before


async def test_a_body_of_exactly_the_limit_is_taken(gateway: GatewayProcess) -> None:
    body = BODY + b" " * (BODY_BYTES_MAX - len(BODY))

    answer = await asked(gateway, request("POST", CHAT, key=gateway.key, body=body))

    assert answer.status == 200


async def test_a_body_in_one_byte_chunks_is_understood(gateway: GatewayProcess) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    head = request("POST", CHAT, b"transfer-encoding: chunked", key=gateway.key)

    answer = await asked(gateway, head, chunks)

    assert answer.status == 200


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"content-encoding": "gzip"}, 415, "unsupported_media_type"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content-type": "multipart/form-data; boundary=a"}, 415, "unsupported_media_type"),
        ({"content-type": ""}, 415, "unsupported_media_type"),
    ],
)
async def test_only_plain_json_is_read(
    gateway: GatewayProcess, fields: dict[str, str], status: int, code: str
) -> None:
    headers = {"content-type": "application/json", **fields}
    answer = await gateway.client.post(CHAT, content=BODY, headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_json_may_name_its_charset(gateway: GatewayProcess) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}

    assert (await gateway.client.post(CHAT, content=BODY, headers=headers)).status_code == 200


async def test_no_body_is_a_400(gateway: GatewayProcess) -> None:
    answer = await asked(gateway, request("POST", CHAT, key=gateway.key))

    assert (answer.status, answer.error["code"]) == (400, "invalid_json")


# Expect: 100-continue.


async def test_who_asks_first_is_told_to_go_on(gateway: GatewayProcess) -> None:
    head, body = _parted(request("POST", CHAT, EXPECT, key=gateway.key, body=BODY))

    async with RawClient(gateway.port) as raw:
        await raw.send(head)
        interim = await raw.answer()
        await raw.send(body)
        answer = await raw.answer()

    assert (interim.status, answer.status) == (100, 200)


EXPECT = b"expect: 100-continue"
HOPELESS = {
    "without a key": (request("POST", CHAT, EXPECT, body=BODY), 401),
    "with a wrong key": (request("POST", CHAT, EXPECT, key="sk-wrong", body=BODY), 401),
    "unknown path": (request("POST", "/load", EXPECT, body=BODY), 404),
    "wrong method": (request("PUT", CHAT, EXPECT, body=BODY), 405),
}


@pytest.mark.parametrize("case", HOPELESS)
async def test_who_asks_first_and_will_be_refused_is_not_told_to_go_on(
    gateway: GatewayProcess, case: str
) -> None:
    whole, status = HOPELESS[case]

    async with RawClient(gateway.port) as raw:
        await raw.send(_parted(whole)[0])
        answer = await raw.answer()
        rest = await raw.rest()

    # Nobody knows whether the body still comes, so the connection cannot be kept.
    assert (answer.status, answer.header("connection"), rest) == (status, "close", b"")


async def test_a_body_too_large_is_not_asked_for(gateway: GatewayProcess) -> None:
    head = request("POST", CHAT, EXPECT, b"content-length: 999999", key=gateway.key)

    assert (await asked(gateway, head)).status == 413


# Connections.


async def test_five_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    ids = [b"pipelined-%d" % number for number in range(5)]
    requests = [
        request("POST", CHAT, b"x-request-id: " + name, key=gateway.key, body=BODY) for name in ids
    ]

    async with RawClient(gateway.port) as raw:
        await raw.send(*requests)
        answers = [await raw.answer() for _ in ids]

    assert [answer.status for answer in answers] == [200] * 5
    assert [answer.header("x-request-id") for answer in answers] == [i.decode() for i in ids]


async def test_a_stream_whose_head_came_in_two_parts_outlives_the_keep_alive(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    stream = orjson.dumps(chat(stream=True, max_tokens=25))
    second = request("POST", CHAT, key=gateway.key, body=stream)
    simulator.configure(replace(simulator.config, inter_token_seconds=0.1))

    async with RawClient(gateway.port) as raw:
        # The first answer ends, and would arm the keep-alive, within the second head.
        await raw.send(request("GET", "/health"), second[:20])
        await raw.answer()
        await raw.send(second[20:])
        answer = await raw.answer()
    simulator.configure(replace(simulator.config, inter_token_seconds=0.0))

    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_a_pipeline_without_end_is_cut(gateway: GatewayProcess) -> None:
    stream = orjson.dumps(chat(stream=True, max_tokens=2000))

    async with RawClient(gateway.port) as raw:
        await raw.send(request("POST", CHAT, key=gateway.key, body=stream))
        await raw.send(request("GET", "/health") * 1000)
        rest = await raw.rest()

    assert rest.count(b"HTTP/1.1 200") < 100


async def test_one_connection_serves_fifty_requests(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        for _ in range(50):
            await raw.send(request("POST", CHAT, key=gateway.key, body=BODY))
            assert (await raw.answer()).status == 200


async def test_a_refused_request_whose_body_is_read_leaves_the_connection_usable(
    gateway: GatewayProcess,
) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(request("POST", CHAT, key="sk-wrong", body=BODY))
        refused = await raw.answer()
        await raw.send(request("POST", CHAT, key=gateway.key, body=BODY))
        answered = await raw.answer()

    assert (refused.status, answered.status) == (401, 200)


async def test_http_1_0_gets_its_stream_without_chunks_until_the_end(
    gateway: GatewayProcess,
) -> None:
    stream = orjson.dumps(chat(stream=True))
    whole = request("POST", CHAT, key=gateway.key, body=stream).replace(b"HTTP/1.1", b"HTTP/1.0", 1)

    answer = await asked(gateway, whole)

    assert answer.status == 200
    assert answer.header("transfer-encoding") is None
    assert answer.body.startswith(b"data: {")
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("path", ["/health", CHAT, "/v1/realtime"])
async def test_an_upgrade_is_never_granted(gateway: GatewayProcess, path: str) -> None:
    fields = (
        b"connection: Upgrade",
        b"upgrade: websocket",
        b"sec-websocket-version: 13",
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    )

    async with RawClient(gateway.port) as raw:
        await raw.send(request("GET", path, *fields, key=gateway.key))
        answer = await raw.answer()
        rest = await raw.rest(within=1.0)

    assert answer.status in (200, 404, 405)
    assert rest == b""


async def test_an_h2c_upgrade_with_a_body_is_an_ordinary_request(gateway: GatewayProcess) -> None:
    fields = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk")

    answer = await asked(gateway, request("POST", CHAT, *fields, key=gateway.key, body=BODY))

    assert answer.status in (200, 400)


# Ids.


@pytest.mark.parametrize("offered", ["a", "req_1.2:3-x", "A" * 128])
async def test_a_valid_request_id_is_kept(gateway: GatewayProcess, offered: str) -> None:
    answer = await gateway.client.get("/health", headers={"x-request-id": offered})

    assert answer.headers["x-request-id"] == offered


@pytest.mark.parametrize(
    "offered",
    [b"", b"a" * 200, b"a b", b"caf\xc3\xa9", b"<script>", b'a"b', b"a%0d%0ab", b"\x1b[31m"],
)
async def test_any_other_request_id_is_replaced(gateway: GatewayProcess, offered: bytes) -> None:
    answer = await asked(gateway, request("GET", "/health", b"x-request-id: " + offered))

    if answer.status == 400:
        return  # The head itself was refused.
    assert (answer.header("x-request-id") or "").startswith("req-")
    assert [name for name, _ in answer.headers].count("x-request-id") == 1


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_the_upstream_gets_the_request_id_and_the_trace(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    headers = {"x-request-id": "trace-1", "traceparent": PARENT, "tracestate": "a=b"}
    await gateway.client.post(CHAT, json=chat(), headers=headers)

    seen = simulator.requests[-1].headers
    assert {name: seen.get(name) for name in headers} == headers


@pytest.mark.parametrize(
    "parent", ["nonsense", PARENT.upper(), PARENT.replace("4", "g"), "00-" + "0" * 32 + PARENT[35:]]
)
async def test_an_invalid_trace_goes_no_further(
    gateway: GatewayProcess, simulator: Simulator, parent: str
) -> None:
    answer = await gateway.client.post(
        CHAT, json=chat(), headers={"traceparent": parent, "tracestate": "a=b"}
    )

    seen = simulator.requests[-1].headers
    assert answer.status_code == 200
    assert "traceparent" not in seen
    assert "tracestate" not in seen


async def _drip(raw: RawClient, octets: bytes) -> None:
    for octet in octets:
        await asyncio.sleep(0.1)
        await raw.send(bytes([octet]))


def _parted(whole: bytes) -> tuple[bytes, bytes]:
    head, _, body = whole.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", body
