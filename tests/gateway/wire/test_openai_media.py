"""Nobody outside decides what the upstream fetches."""

from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest
from gateway.exchange import Operation
from gateway.wire.openai import OpenAIConfig, OpenAIDialect

ALLOWED = frozenset({"images.example.org"})


def ask(
    part: Any, *, operation: Operation = Operation.CHAT, domains: frozenset[str] = ALLOWED
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]
    field = "messages" if operation is Operation.CHAT else "input"
    dialect = OpenAIDialect(OpenAIConfig(allowed_media_domains=domains))
    dialect.parse(operation, orjson.dumps({"model": "tiny", field: messages}))


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,AAAA",
        "DATA:image/png;base64,AAAA",
        "https://images.example.org/a.png?b=c#d",
        "HTTP://Images.Example.ORG:8080/a",
        "https://images.example.org",
        "https://images.example.org/@b",
    ],
)
def test_data_and_allowed_hosts_pass(url: str) -> None:
    ask(image(url))


HOSTILE = [
    "https://evil.example/a.png",
    "https://images.example.org.evil.example/",
    "https://evilimages.example.org/",
    "https://images.example.org./",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]/",
    "http://2130706433/",
    "https://images.example.org@evil.example/",
    "https://images.example.org:80@evil.example/",
    "https://evil.example\\@images.example.org/",
    "https://images.example.org\\.evil.example/",
    "https:\\\\images.example.org/",
    "https:///images.example.org/",
    "https:images.example.org",
    "//images.example.org/",
    " https://images.example.org/",
    "https://images.example.org/ ",
    "https://images.example.org\t/",
    "https://images.example.org\n.evil.example/",
    "https://images.example.org/a b",
    "https://imag\u0435s.example.org/",
    "https://images.example.org\uff0f.evil.example/",
    "https://images%2eexample.org/",
    "https://images.example.org:999999/",
    " data:image/png;base64,AAAA",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://images.example.org/",
    "images.example.org/a.png",
    "",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        ask(image(url))
    assert (refusal.value.param, refusal.value.code) == ("messages", "media_url_not_allowed")


def test_a_refusal_names_the_setting() -> None:
    with pytest.raises(InvalidRequest, match="ALLOWED_MEDIA_DOMAINS"):
        ask(image("https://evil.example/"))


URL = "https://evil.example/"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": URL},
        {"image_url": URL},
        {"image_url": {"url": URL}, "uuid": "1"},
        {"type": "input_image", "image_url": URL},
        {"type": "audio_url", "audio_url": {"url": URL}},
        {"type": "video_url", "video_url": {"url": URL}},
        {"audio_url": URL},
        {"video_url": URL},
        {"type": "input_file", "file_url": URL},
        {"type": "tool_result", "content": [{"image_url": URL}]},
    ],
)
@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.RESPONSES, Operation.EMBEDDINGS])
def test_every_place_for_a_url_is_watched(operation: Operation, part: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ask(part, operation=operation)


def test_an_escaped_key_is_the_same_key() -> None:
    body = b'{"messages":[{"content":[{"imag\\u0065\\u005furl":"https://evil.example/"}]}]}'
    with pytest.raises(InvalidRequest):
        OpenAIDialect(OpenAIConfig()).parse(Operation.CHAT, body)


def test_documents_to_rank_are_watched() -> None:
    body = {"query": "q", "documents": {"content": [image(URL)]}}
    with pytest.raises(InvalidRequest) as refusal:
        OpenAIDialect(OpenAIConfig()).parse(Operation.RERANK, orjson.dumps(body))
    assert refusal.value.param == "documents"


@pytest.mark.parametrize("kind", ["prompt_embeds", "image_embeds", "audio_embeds", "video_embeds"])
def test_embeddings_are_refused_as_parts_too(kind: str) -> None:
    for part in ({"type": kind, kind: "AAAA"}, {"type": kind, "data": "A"}, {kind: {"x": "A"}}):
        with pytest.raises(InvalidRequest) as refusal:
            ask(part)
        assert refusal.value.param == kind


def test_a_star_allows_every_host_but_no_other_scheme() -> None:
    everything = frozenset({"*"})
    ask(image("https://evil.example/"), domains=everything)
    for url in ("file:///etc/passwd", "https://a\\@b/", "gopher://a/"):
        with pytest.raises(InvalidRequest):
            ask(image(url), domains=everything)


def test_a_schema_may_speak_of_urls() -> None:
    schema = {"properties": {"image_url": {"type": "string", "default": URL}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    body = {"messages": [{"role": "user", "content": '{"image_url":"' + URL}], "tools": tools}
    OpenAIDialect(OpenAIConfig()).parse(Operation.CHAT, orjson.dumps(body))


TEXT = {"role": "user", "content": "Look at https://elsewhere.example/a.png"}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [TEXT, {"role": "user", "image_url": "http://elsewhere.example/a.png"}]},
        {"messages": [TEXT, {"role": {"image_url": "http://elsewhere.example/a.png"}}]},
        {"messages": [TEXT, {**TEXT, "name": {"images": ["http://elsewhere.example/a.png"]}}]},
        {"messages": [TEXT], "image_url": "http://elsewhere.example/a.png"},
        {"messages": [TEXT], "extra": [{"video_url": "http://elsewhere.example/a.mp4"}]},
        {"messages": [TEXT], "mm": {"deep": [{"audio_url": "http://elsewhere.example/a.wav"}]}},
    ],
)
def test_media_beside_plain_texts_are_found(fields: dict[str, Any]) -> None:
    dialect = OpenAIDialect(OpenAIConfig(allowed_media_domains=ALLOWED))
    with pytest.raises(InvalidRequest, match="not fetched here"):
        dialect.parse(Operation.CHAT, orjson.dumps({"model": "tiny", **fields}))


def test_plain_texts_may_speak_of_media() -> None:
    dialect = OpenAIDialect(OpenAIConfig(allowed_media_domains=ALLOWED))
    fields = {
        "messages": [TEXT, {"role": "assistant", "content": '{"image_url":"http://e.example"}'}],
        "tools": [{"function": {"parameters": {"image_url": "http://e.example"}}}],
        "stream_options": {"include_usage": True},
        "stream": True,
    }
    assert not dialect.parse(Operation.CHAT, orjson.dumps(fields)).has_media
