"""/v1/audio through a whole gateway: a form held whole, sent on with the model's real name."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED, Fronted, events, fronted, settled
from tests.harness.gateway import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"
MODEL = "sim-whisper"
HEARING = SimulatorConfig(transcription_models=(MODEL,))
AUDIO = random.Random(1).randbytes(100_000) + b"\r\n--\r\n\r\n"
FILE = {"file": ("speech.wav", AUDIO, "audio/wav")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    folder = tmp_path_factory.mktemp("audio")
    async with fronted(folder, pace=HEARING, MODEL_ALIASES="whisper-*=sim-whisper") as running:
        yield running


async def post(pair: Fronted, path: str = TRANSCRIPTIONS, **fields: str) -> httpx2.Response:
    return await pair.gateway.client.post(path, data={"model": MODEL} | fields, files=FILE)


async def heard_directly(pair: Fronted, audio: bytes = AUDIO, **fields: str) -> dict[str, Any]:
    """What the upstream itself says to the same file."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        url = pair.simulator.url + TRANSCRIPTIONS
        answer = await client.post(url, data=fields, files={"file": ("a.wav", audio)})
        whole: dict[str, Any] = answer.json()
        return whole


@pytest.mark.parametrize("response_format", ["json", "text", "verbose_json"])
async def test_a_transcription_is_the_upstreams_own(pair: Fronted, response_format: str) -> None:
    answer = await post(pair, response_format=response_format)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == await heard_directly(pair, response_format=response_format)


async def test_a_translation_is_served_as_well(pair: Fronted) -> None:
    answer = await post(pair, TRANSLATIONS)
    assert list(answer.json()) == ["text"]


async def test_a_whole_answer_counts_as_a_request_and_costs_no_tokens(pair: Fronted) -> None:
    before = await settled(pair.gateway)
    await post(pair)
    after = await settled(pair.gateway)

    assert after["requests"] == before["requests"] + 1
    assert after["total_tokens"] == before["total_tokens"]


@pytest.mark.parametrize("is_asked", [True, False])
async def test_a_stream_costs_what_the_upstream_reports(pair: Fronted, is_asked: bool) -> None:
    before, generated_before = await settled(pair.gateway), pair.generated_tokens
    asked = {"stream_include_usage": "true"} if is_asked else {}
    answer = await post(pair, stream="true", **asked)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content.endswith(b"data: [DONE]\n\n")
    stated = [event["usage"] for event in events(answer.content) if "usage" in event]
    after = await settled(pair.gateway)
    spent = after["total_tokens"] - before["total_tokens"]
    assert spent == pair.generated_tokens - generated_before > 0
    assert [usage["total_tokens"] for usage in stated] == ([spent] if is_asked else [])


async def test_a_streamed_text_is_the_whole_one(pair: Fronted) -> None:
    answer = await post(pair, stream="true")
    said = "".join(event["choices"][0]["delta"]["content"] for event in events(answer.content))
    assert said == (await heard_directly(pair))["text"]


async def test_an_alias_is_sent_on_as_the_model_and_answered_as_the_alias(pair: Fronted) -> None:
    answer = await post(pair, model="whisper-1", stream="true")

    assert {event["model"] for event in events(answer.content)} == {"whisper-1"}
    assert b'name="model"\r\n\r\nsim-whisper\r\n' in pair.simulator.requests[-1].body
    assert b"whisper-1" not in pair.simulator.requests[-1].body


async def test_the_model_may_stand_behind_the_file(pair: Fronted) -> None:
    form = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % field
        for field in [(b'file"; filename="a.wav', AUDIO), (b"model", MODEL.encode())]
    )
    answer = await pair.gateway.client.post(
        TRANSCRIPTIONS,
        content=form + b"--B--\r\n",
        headers={"content-type": "multipart/form-data; boundary=B"},
    )
    assert answer.json()["text"] == (await heard_directly(pair))["text"]


async def test_a_large_file_arrives_whole_even_in_pieces(pair: Fronted) -> None:
    audio = random.Random(2).randbytes(20 * 2**20)
    files = {"file": ("long.wav", audio, "audio/wav")}
    answer = await pair.gateway.client.post(TRANSCRIPTIONS, data={"model": MODEL}, files=files)

    assert answer.status_code == 200
    assert answer.json() == await heard_directly(pair, audio)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"data": {"model": MODEL}, "files": {"x": (None, "1")}}, 400, "file"),
        ({"data": {"model": MODEL, "stream": "maybe"}, "files": FILE}, 400, "stream"),
        ({"data": {"model": MODEL, "use_beam_search": "1"}, "files": FILE}, 400, "use_beam_search"),
        ({"data": {"model": MODEL, "file": "text"}, "files": {"x": (None, "1")}}, 400, "file"),
        ({"json": {"model": MODEL}}, 415, None),
        ({"data": {"model": "nobody"}, "files": FILE}, 404, "model"),
        ({"data": {"model": MODEL, "response_format": "srt"}, "files": FILE}, 400, None),
    ],
)
async def test_a_wrong_request_is_refused_in_openais_envelope(
    pair: Fronted, fields: dict[str, Any], status: int, param: str | None
) -> None:
    answer = await pair.gateway.client.post(TRANSCRIPTIONS, **fields)

    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


async def test_an_upstream_that_hears_nothing_is_no_fault_of_its_own(tmp_path: Path) -> None:
    async with fronted(tmp_path) as pair:
        for _ in range(6):
            answer = await post(pair, model="sim-model")
            assert answer.status_code == 404
            assert answer.json()["error"]["message"].endswith("does not offer this operation.")
        chat = {"model": "sim-model", "messages": [{"role": "user", "content": "still there?"}]}
        assert (await pair.gateway.client.post("/v1/chat/completions", json=chat)).is_success


async def test_another_upstream_gets_the_whole_file_again(tmp_path: Path) -> None:
    async with (
        Simulator(HEARING) as first,
        Simulator(HEARING) as second,
        GatewayProcess(
            folder=tmp_path, VLLM_URL=f"{first.url},{second.url}", **UNLIMITED
        ) as gateway,
    ):
        while await gateway.metric("gateway_upstream_healthy") < 2:
            await asyncio.sleep(0.02)
        first.arm(Fault(FaultKind.ERROR_500))
        answers = [
            await gateway.client.post(TRANSCRIPTIONS, data={"model": MODEL}, files=FILE)
            for _ in range(8)
        ]
        expected = await heard_directly(Fronted(gateway, second))

    assert [answer.json() for answer in answers] == [expected] * 8


async def test_uploads_are_bounded_each_and_together(tmp_path: Path) -> None:
    slow = SimulatorConfig(transcription_models=(MODEL,), ttft_seconds=0.5)
    async with fronted(tmp_path, pace=slow, MAX_BODY_BYTES="200000") as pair:
        file = {"file": ("a.wav", b"x" * 200_001, "audio/wav")}
        client = pair.gateway.client
        too_large = await client.post(TRANSCRIPTIONS, data={"model": MODEL}, files=file)
        assert too_large.status_code == 413

        # Each is held twice, as it came and as it goes on, and 16 times the largest is the bound.
        answers = await asyncio.gather(*(post(pair) for _ in range(40)))
        statuses = [answer.status_code for answer in answers]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 10 <= statuses.count(200) <= 16
        assert {answer.json()["error"]["code"] for answer in refused} == {"server_is_overloaded"}

        assert (await post(pair)).status_code == 200


async def test_a_key_whose_tokens_are_used_up_is_refused(tmp_path: Path) -> None:
    async with fronted(tmp_path, pace=HEARING, DAILY_TOKEN_QUOTA="20") as pair:
        assert (await post(pair, stream="true")).status_code == 200
        answer = await post(pair)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "insufficient_quota"


async def test_the_openai_sdk_transcribes_and_streams(pair: Fronted) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{pair.gateway.url}/v1", api_key=pair.gateway.key, max_retries=0
    ) as client:
        sound = ("speech.mp3", AUDIO)
        whole = await client.audio.transcriptions.create(model=MODEL, file=sound, language="en")
        assert whole.text == (await heard_directly(pair))["text"]

        stream = await client.audio.transcriptions.create(model=MODEL, file=sound, stream=True)
        assert len([event async for event in stream]) > 3

        with pytest.raises(openai.BadRequestError) as refused:
            await client.audio.transcriptions.create(model=MODEL, file=("empty.mp3", b""))
        assert refused.value.param == "file"
