"""Speech to text as the simulator plays it: vLLM's shapes, and only where a model is named."""

import json
from typing import Any

import pytest

from tests.scripts.simulated import simulated

PATH = "/v1/audio/transcriptions"
FILE = {"file": ("a.wav", b"\x00\xff" * 40_000)}
HEARING: dict[str, Any] = {"transcription_models": ("sim-whisper",), "output_tokens": 4}


async def test_without_a_model_the_paths_are_not_there() -> None:
    async with simulated() as (_, client):
        answer = await client.post(PATH, data={"model": "x"}, files=FILE)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


async def test_the_model_is_listed_and_the_answer_states_seconds() -> None:
    async with simulated(**HEARING) as (_, client):
        listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        answer = (await client.post(PATH, data={"model": "sim-whisper"}, files=FILE)).json()
    assert "sim-whisper" in listed
    assert list(answer) == ["text", "usage"]
    assert answer["usage"] == {"type": "duration", "seconds": 3}
    assert len(answer["text"].split()) == 3


async def test_a_verbose_answer_has_segments_and_no_usage() -> None:
    form = {"model": "sim-whisper", "response_format": "verbose_json"}
    async with simulated(**HEARING) as (_, client):
        answer = (await client.post(PATH, data=form, files=FILE)).json()
    assert list(answer) == ["duration", "language", "text", "segments", "words"]
    assert answer["segments"][0]["text"] == answer["text"]


async def test_a_stream_counts_as_it_is_asked_to() -> None:
    form = {"model": "sim-whisper", "stream": "true", "stream_include_usage": "true"}
    async with simulated(**HEARING) as (_, client):
        answer = await client.post(PATH, data=form, files=FILE)
    *events, done, _ = answer.text.split("\n\n")
    final = json.loads(events[-1].removeprefix("data: "))
    first = json.loads(events[0].removeprefix("data: "))
    assert done == "data: [DONE]"
    assert first["object"] == "transcription.chunk"
    assert list(first["choices"][0]) == ["delta"]
    assert "usage" not in first
    assert final["choices"] == []
    assert final["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("form", "files", "param"),
    [
        ({"model": "sim-whisper"}, {"x": (None, "1")}, "body.file"),
        ({"model": "sim-whisper", "stream_include_usage": "false"}, FILE, "stream_include_usage"),
        ({"model": "sim-whisper", "response_format": "srt"}, FILE, None),
    ],
)
async def test_a_wrong_form_is_refused_as_vllm_does(
    form: dict[str, str], files: dict[str, Any], param: str | None
) -> None:
    async with simulated(**HEARING) as (_, client):
        answer = await client.post(PATH, data=form, files=files)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
