"""The text of the metrics page, made on the event loop in slices that no stream notices.

A thread would do it worse: it holds the interpreter for 5 ms at a time while streams wait.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, Protocol, TypeVar

SLICE_SECONDS: Final = 0.0005
AT_ONCE: Final = 16
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1: Final = "text/plain; version=1.0.0; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Item = TypeVar("Item")


class Family(Protocol):
    """One metric with all its series. `kind` is counter, gauge or histogram; a counter's name
    stands here without its `_total`."""

    @property
    def name(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def kind(self) -> str: ...
    def texts(self, *, is_openmetrics: bool) -> Iterator[str]:
        """Whole lines, a few at a time."""
        ...


class Format(NamedTuple):
    """What a scraper and we agreed on."""

    content_type: str
    is_openmetrics: bool


def negotiate(accept: str) -> Format:
    """The first format in the Accept header that we speak, else the text format of old.

    As prometheus_client does it: order decides, not `q`. All our names are valid in the legacy
    character set, so that the escaping schemes that leave those alone can be promised.
    """
    for accepted in accept.split(","):
        media_type, *rest = (part.strip() for part in accepted.split(";"))
        options = dict(part.partition("=")[::2] for part in rest)
        version = options.get("version", "")
        if media_type == "application/openmetrics-text" and not version:
            return Format(OPENMETRICS, is_openmetrics=True)
        if not _is_modern(version):
            continue
        escaping = options.get("escaping", "")
        promise = f"; escaping={'allow-utf-8' if escaping == 'allow-utf-8' else 'underscores'}"
        if media_type == "application/openmetrics-text":
            return Format(OPENMETRICS + promise, is_openmetrics=True)
        if media_type == "text/plain":
            return Format(TEXT_1 + promise, is_openmetrics=False)
    return Format(TEXT, is_openmetrics=False)


async def render(families: Iterable[Family], form: Format) -> bytes:
    """The whole page. A family's lines are those of one moment, two families' are not."""
    texts = _texts(families, is_openmetrics=form.is_openmetrics)
    parts = ["".join(some).encode("utf-8", "replace") async for some in sliced(texts)]
    if form.is_openmetrics:
        parts.append(b"# EOF\n")
    return b"".join(parts)


async def sliced(items: Iterable[Item]) -> AsyncIterator[list[Item]]:
    """The items of a long iteration, some at a time; between two slices others have their turn."""
    remaining = iter(items)
    # Also before the first: several iterations in a row must not add up.
    await asyncio.sleep(0)
    pause_at = time.perf_counter() + SLICE_SECONDS
    while some := list(islice(remaining, AT_ONCE)):
        yield some
        if time.perf_counter() > pause_at:
            await asyncio.sleep(0)
            pause_at = time.perf_counter() + SLICE_SECONDS


def number(value: float) -> str:
    """As both formats write it."""
    if value == math.inf:
        return "+Inf"
    return repr(float(value)) if value != -math.inf else "-Inf"


def _texts(families: Iterable[Family], *, is_openmetrics: bool) -> Iterator[str]:
    for family in families:
        name, help_text = family.name, family.help.replace("\\", r"\\").replace("\n", r"\n")
        if is_openmetrics:
            help_text = help_text.replace('"', r"\"")
        elif family.kind == "counter":
            name += "_total"
        yield f"# HELP {name} {help_text}\n# TYPE {name} {family.kind}\n"
        yield from family.texts(is_openmetrics=is_openmetrics)


def _is_modern(version: str) -> bool:
    """1.0.0 or later; what is no version is not."""
    major = version.partition(".")[0]
    return major.isascii() and major.isdigit() and len(major) < 4 and int(major) >= 1
