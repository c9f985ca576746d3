"""The metrics page: the format that was agreed on, and made in slices."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from prometheus_client.exposition import choose_encoder

from gateway.telemetry.exposition import negotiate, render, sliced
from gateway.telemetry.tallies import Counters

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        BROWSER,
        PROMETHEUS_2,
        PROMETHEUS_3,
        "application/openmetrics-text",
        "application/openmetrics-text; version=1.0.0",
        "application/openmetrics-text; version=0.0.1",
        "application/openmetrics-text;version=0.0.1,text/plain;version=1.0.0",
        "text/plain;version=0.0.4",
        "text/plain;version=1.0.0;escaping=underscores",
        "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0",
    ],
)
def test_a_scraper_gets_the_format_that_prometheus_client_would_choose(accept: str) -> None:
    _, theirs = choose_encoder(accept)

    assert negotiate(accept).content_type == theirs
    assert negotiate(accept).is_openmetrics == theirs.startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=x",
        "application/openmetrics-text; version=1.0.0\u00e9",
        "application/openmetrics-text; version=" + "9" * 5000,
        "text/plain; version=\u0661",
        ";;;,,,=;=",
    ],
)
def test_nonsense_in_the_header_is_answered_all_the_same(accept: str) -> None:
    assert negotiate(accept).content_type.isascii()


def test_an_escaping_is_promised_only_if_it_is_kept() -> None:
    dots = negotiate("application/openmetrics-text; version=1.0.0; escaping=dots")

    assert dots.content_type.endswith("escaping=underscores")


async def test_others_have_their_turn_while_a_long_page_is_made() -> None:
    family = Counters("a", "Help.", ("b",))
    for number in range(30_000):
        family.child(str(number)).value += 1
    gaps: list[float] = []

    async def look() -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - before)
            before = now

    watching = asyncio.create_task(look())
    body = await render([family], negotiate(""))
    watching.cancel()

    assert body.count(b"\n") == 30_002
    assert len(gaps) >= 5


async def test_nothing_is_lost_between_the_slices() -> None:
    def slow() -> Iterator[int]:
        for number in range(5):
            until = time.perf_counter() + 0.001
            while time.perf_counter() < until:
                pass
            yield number

    assert [number async for some in sliced(slow()) for number in some] == [0, 1, 2, 3, 4]
