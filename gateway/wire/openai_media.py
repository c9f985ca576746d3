"""Images, audio and video inside a request: whom they would be fetched from, what they weigh."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.errors import InvalidRequest
from gateway.wire.openai_fields import unsupported

_URL_KEYS: Final = frozenset({"image_url", "audio_url", "video_url", "file_url"})
_IMAGE_KEYS: Final = frozenset({"image_url", "images"})
_EMBEDS_KEYS: Final = frozenset({"prompt_embeds", "image_embeds", "audio_embeds", "video_embeds"})
_MEDIA_KEYS: Final = _URL_KEYS | _IMAGE_KEYS | _EMBEDS_KEYS | {"input_audio", "file_data"}

# Schemas and examples may speak of URLs that nobody fetches.
_NO_MEDIA_FIELDS: Final = frozenset(
    {"tools", "functions", "response_format", "text", "structured_outputs", "metadata"}
)

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})

# Deliberately narrower than RFC 3986: no user, no backslash, no space and nothing beyond ASCII
# in the authority, so that no two parsers can see two hosts in it (CVE-2026-24779).
_REMOTE_URL: Final = re.compile(
    r"https?://([a-z0-9.\-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][^\s\\\x00-\x20\x7f]*)?",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class MediaLoad:
    """What the media of one request weigh: parts by kind, and their bytes within the body."""

    images: int = 0
    others: int = 0
    encoded_bytes: int = 0


NO_MEDIA: Final = MediaLoad()


def inspect_media(
    fields: Mapping[str, object],
    canonical: bytes,
    *,
    allowed_domains: frozenset[str],
    refused_fields: frozenset[str],
) -> MediaLoad:
    """Weigh the media of a request and refuse what it may not ask the upstream to fetch.

    Raises InvalidRequest: `media_url_not_allowed` for a URL that is neither `data:` nor http(s)
    to one of `allowed_domains` ("*" is all), `unsupported_parameter` for refused embeddings.
    """
    if _is_plain_chat(fields) or not _may_have_media(canonical):
        return NO_MEDIA
    images = others = encoded_bytes = 0
    for name, field in fields.items():
        if name in _NO_MEDIA_FIELDS:
            continue
        for key, content in _media_in({name: field}):
            if key in _EMBEDS_KEYS and key in refused_fields:
                raise unsupported(key)
            if key in _URL_KEYS or key in _IMAGE_KEYS:
                _require_allowed(content, name, allowed_domains)
            encoded_bytes += len(content)
            if key in _IMAGE_KEYS:
                images += 1
            else:
                others += 1
    return MediaLoad(images, others, encoded_bytes)


def _is_plain_chat(fields: Mapping[str, object]) -> bool:
    """True for a conversation of nothing but texts, as most are: told without looking at every
    byte of it, which costs more than parsing it did."""
    for name, value in fields.items():
        if name == "messages" and type(value) is list:
            if not all(map(_is_plain_message, value)):
                return False
        elif type(value) in _SCALARS:
            if name in _MEDIA_KEYS:
                return False
        elif name not in _NO_MEDIA_FIELDS and name != "stream_options":
            return False
    return True


def _is_plain_message(message: object) -> bool:
    if type(message) is not dict:
        return False
    for key, text in message.items():
        # A `type` can say that what stands beside it is an embedding.
        if type(text) is not str or key in _MEDIA_KEYS or key == "type":
            return False
    return True


def _may_have_media(canonical: bytes) -> bool:
    """False: it has none, and need not be walked. Canonical JSON has no other spelling for these
    marks: a quote inside a string is always escaped. One line, because it is the hot path."""
    return (
        b'_url"' in canonical
        or b'"input_audio"' in canonical
        or b'"file_data"' in canonical
        or b'_embeds"' in canonical
        or b'"images"' in canonical
    )


def _media_in(root: object) -> Iterator[tuple[str, str]]:
    """All (key, text) of media parts at any depth; the text is a URL, base64 or an embedding."""
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            for key, value in node.items():
                if key in _MEDIA_KEYS:
                    yield from _texts_of(key, value)
                elif key == "type" and isinstance(value, str) and value in _EMBEDS_KEYS:
                    yield value, ""
                else:
                    pending.append(value)


def _texts_of(key: str, value: object) -> Iterator[tuple[str, str]]:
    """A part is the text itself, a list of texts, or an object around it, e.g. {"url": ...}."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts_of(key, item)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, str) and (name in ("url", "data") or key in _EMBEDS_KEYS):
                yield key, inner


def _require_allowed(url: str, field: str, allowed_domains: frozenset[str]) -> None:
    if url[:5].lower() == "data:":
        return
    match = _REMOTE_URL.fullmatch(url)
    if match is None:
        raise _refusal("Media must be data: URLs or plain http(s) URLs.", field)
    if "*" in allowed_domains:
        return
    host = match.group(1).lower()
    if host not in allowed_domains:
        raise _refusal(
            f"Media from {host[:253]!r} are not fetched here: send a data: URL, or the operator "
            "can add the host to ALLOWED_MEDIA_DOMAINS.",
            field,
        )


def _refusal(message: str, field: str) -> InvalidRequest:
    return InvalidRequest(message, code="media_url_not_allowed", param=field)
