"""Every query of every dashboard, put to a real Prometheus that watches a live box."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.harness.dashboards import (
    UIDS,
    Answer,
    Question,
    answers,
    dashboard,
    filled,
    names_in,
    not_numbers,
    panels,
    refused,
    scraped_anew,
    silent,
)
from tests.monitoring.box import Box, running_box
from tests.monitoring.traffic import clients_of, wave

pytestmark = pytest.mark.asyncio(loop_scope="module")
every_dashboard = pytest.mark.parametrize("uid", UIDS)

# A question about one of these may stay without an answer here, and why that is no fault.
EXCUSED: Final[Mapping[str, str]] = {
    "gpu_process_memory_bytes": "names of processes are shown on request only",
    "gpu_mig_memory_used_bytes": "the simulated GPUs are not divided",
    "vllm:spec_decode_num_accepted_tokens_total": "no speculative decoding",
    "vllm:spec_decode_num_draft_tokens_total": "no speculative decoding",
    "vllm:external_prefix_cache_hits_total": "no cache outside of the engine",
    "vllm:external_prefix_cache_queries_total": "no cache outside of the engine",
    "http_requests_total": "counted by vLLM's HTTP library; tests/vllm asks the real one",
}
# No alert of these dashboards is old enough to fire: annotations may be empty.
ANNOTATIONS: Final = "ALERTS"


@dataclass(frozen=True, slots=True)
class Seen:
    """The answers to all questions, by dashboard: before any traffic, and after it."""

    idle: Mapping[str, list[Answer]]
    busy: Mapping[str, list[Answer]]
    exposed: frozenset[str]
    exemplars: Sequence[list[Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seen]:
    async with running_box(tmp_path_factory.mktemp("box")) as box:
        idle = {uid: await answers(box.prometheus, uid) for uid in UIDS}
        await _gpus_fail(box)
        async with clients_of(box.gateway) as clients:
            for _ in range(2):
                await wave(box, clients)
                await scraped_anew(box.prometheus)
        # The exporter looks every five seconds.
        await box.prometheus.wait_until(lambda: box.prometheus.query("gpu_up == 0"))
        await scraped_anew(box.prometheus)
        busy = {uid: await answers(box.prometheus, uid) for uid in UIDS}
        exposed = await names_in(box.prometheus)
        exemplars = [await box.prometheus.exemplars(each.expr) for each in linked()]
    yield Seen(idle, busy, exposed, exemplars)


@every_dashboard
async def test_prometheus_understands_every_query(seen: Seen, uid: str) -> None:
    faults = refused(seen.idle[uid] + seen.busy[uid])

    assert not faults, "\n".join(faults)


@every_dashboard
async def test_every_query_has_an_answer_under_traffic(seen: Seen, uid: str) -> None:
    faults = silent(seen.busy[uid], excused={*EXCUSED, ANNOTATIONS})

    assert not faults, "\n".join(faults)


@every_dashboard
async def test_no_answer_is_ever_not_a_number(seen: Seen, uid: str) -> None:
    faults = not_numbers(seen.idle[uid] + seen.busy[uid])

    assert not faults, "\n".join(faults)


async def test_first_tokens_lead_to_their_traces(seen: Seen) -> None:
    assert seen.exemplars
    for found in seen.exemplars:
        ids = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
        assert ids
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


@every_dashboard
async def test_every_metric_asked_for_is_there(seen: Seen, uid: str) -> None:
    """What a query replaces by zero would otherwise hide that it does not exist."""
    asked = {name for answer in seen.busy[uid] for name in answer.question.metrics}

    assert asked - seen.exposed - EXCUSED.keys() - {ANNOTATIONS} == set()


async def test_no_excuse_outlives_its_reason(seen: Seen) -> None:
    assert EXCUSED.keys() & seen.exposed == set()


def linked() -> list[Question]:
    """The questions whose answers lead from a graph to traces."""
    board = dashboard("gateway-overview")
    return [
        Question(panel["title"], target["refId"], filled(target["expr"], board))
        for panel in panels(board)
        for target in panel["targets"]
        if target.get("exemplar")
    ]


async def _gpus_fail(box: Box) -> None:
    """One gets too hot, one reports a fault, one falls off the bus."""
    for fault in (
        {"gpu": 1, "kind": "thermal"},
        {"gpu": 0, "kind": "xid", "xid": 48},
        {"gpu": 2, "kind": "lost"},
    ):
        (await box.exporter.client.post("/sim/faults", json=fault)).raise_for_status()
