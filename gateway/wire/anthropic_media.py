"""Images inside an Anthropic request: whom they would be fetched from, what they weigh."""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.wire.anthropic_fields import text_in
from gateway.wire.openai_media import NO_MEDIA, MediaLoad, inspect_media

# A body without this has no media and is not walked; see openai_media.
_MARK: Final = b'"source"'
_URL_MARK: Final = b'"image_url"'
# What a tool was called with is the model's own text: nobody fetches a URL in it.
_NO_MEDIA_KEYS: Final = frozenset({"input"})


def inspect_sources(
    fields: Mapping[str, object], canonical: bytes, *, allowed_domains: frozenset[str]
) -> MediaLoad:
    """Weigh the images of a request and refuse those that may not be fetched.

    Raises InvalidRequest (`media_url_not_allowed`), by the same rule as for OpenAI requests.
    """
    if _MARK not in canonical:
        return NO_MEDIA
    images = encoded_bytes = 0
    urls: list[str] = []
    for name in ("messages", "system"):
        for kind, source in _sources_in(fields.get(name)):
            # Whatever the source calls itself: another server may read its URL all the same.
            url, encoded = text_in(source.get("url")), text_in(source.get("data"))
            if url:
                urls.append(url)
            if kind == "image":
                images += 1
                encoded_bytes += len(url) + len(encoded)
    parts = {"messages": [{"image_url": url} for url in urls]}
    inspect_media(parts, _URL_MARK, allowed_domains=allowed_domains, refused_fields=frozenset())
    return MediaLoad(images=images, encoded_bytes=encoded_bytes) if images else NO_MEDIA


def image_url(source: object) -> str:
    """An image's source as the URL that chat takes; empty where it has neither URL nor data."""
    if not isinstance(source, dict):
        return ""
    if source.get("type") == "url":
        return text_in(source.get("url"))
    encoded = text_in(source.get("data"))
    media_type = text_in(source.get("media_type")) or "image/jpeg"
    return f"data:{media_type};base64,{encoded}" if encoded else ""


def _sources_in(root: object) -> Iterator[tuple[object, Mapping[str, object]]]:
    """The (type of block, source) of all blocks at any depth."""
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            source = node.get("source")
            if isinstance(source, dict):
                yield node.get("type"), source
            pending.extend(node[key] for key in node if key not in _NO_MEDIA_KEYS)
