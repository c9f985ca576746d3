"""What a probe concludes from an upstream's answers, and from its silence."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from gateway.exchange import ServedModel
from gateway.transport.probe import SILENT_PROBES_MAX, HttpProbe
from tests.fakes.upstream import Close, Drip, Hang, Receive, Script, ScriptedUpstream, Send, whole

TIMEOUT_SECONDS = 0.05
HEALTH, MODELS, MESSAGES = "GET /health", "GET /v1/models", "GET /v1/messages"


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    # As in production, no proxy of the environment stands between the two.
    async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        yield client


def probe_of(
    upstream: ScriptedUpstream, http: httpx2.AsyncClient, *, patience_seconds: float = 10.0
) -> HttpProbe:
    return HttpProbe(
        url=upstream.url, client=http, api_key="secret", patience_seconds=patience_seconds
    )


def unanswered(upstream: ScriptedUpstream, *probes: str) -> None:
    """From now on these are requests like any other: the script has them."""
    for probe in probes:
        del upstream.probe_answers[probe]


async def test_an_upstream_that_is_well_brings_its_models(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream(listing={"a": 4096, "b": 8192}) as upstream:
        health = await probe_of(upstream, http).check()
        assert health.is_healthy
        assert health.models == (ServedModel("a", 4096), ServedModel("b", 8192))


async def test_a_lora_adapter_has_the_context_of_its_parent(http: httpx2.AsyncClient) -> None:
    listing = b"""{"data": [
        {"id": "lora", "parent": "base"}, {"id": "orphan", "parent": "gone"},
        {"id": "odd", "parent": ["base"]}, {"id": "base", "max_model_len": 4096, "parent": null}
    ]}"""
    async with ScriptedUpstream() as upstream:
        upstream.probe_answers[MODELS] = whole(listing)
        health = await probe_of(upstream, http).check()
        assert {m.name: m.context_tokens for m in health.models} == {
            "lora": 4096,
            "orphan": None,
            "odd": None,
            "base": 4096,
        }


async def test_the_upstreams_own_key_is_shown(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream((Receive(), Send(whole()))) as upstream:
        unanswered(upstream, HEALTH, MODELS)
        await probe_of(upstream, http).check()
        keys = [dict(request.headers)["authorization"] for request in upstream.requests]
        assert keys == ["Bearer secret"] * 2


async def test_a_dead_engine_is_known_at_once(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream() as upstream:
        probe = probe_of(upstream, http)
        await probe.check()
        upstream.probe_answers[HEALTH] = whole(status=503)
        health = await probe.check()
        assert not health.is_healthy
        assert "says 503" in health.reason


async def test_a_wrong_key_is_named_as_the_cause(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.probe_answers[MODELS] = whole(status=401)
        health = await probe_of(upstream, http).check()
        assert not health.is_healthy
        assert "VLLM_API_KEY" in health.reason


@pytest.mark.parametrize(
    "listing",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b"\xff\xfe",
        b"{}",
        b'{"data":null}',
        b'{"data":[]}',
        b'{"data":[1,null,{"id":7},{"id":""},{}]}',
    ],
)
async def test_a_listing_without_models_is_ill_health(
    http: httpx2.AsyncClient, listing: bytes
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.probe_answers[MODELS] = whole(listing)
        health = await probe_of(upstream, http).check()
        assert not health.is_healthy
        assert "lists no model" in health.reason


@pytest.mark.parametrize("length", ["null", "0", "-5", '"4096"', "4096.5", "true"])
async def test_a_context_length_that_is_none_is_unknown(
    http: httpx2.AsyncClient, length: str
) -> None:
    listing = f'{{"data":[{{"id":"m","max_model_len":{length}}}]}}'
    async with ScriptedUpstream() as upstream:
        upstream.probe_answers[MODELS] = whole(listing.encode())
        assert (await probe_of(upstream, http).check()).models == (ServedModel("m", None),)


async def test_a_refused_connection_counts_at_once(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream() as upstream:
        probe = probe_of(upstream, http)
        assert (await probe.check()).is_healthy
    health = await probe.check()
    assert not health.is_healthy
    assert "nothing answers" in health.reason


SILENCES: dict[str, Script] = {
    "says nothing": (Receive(), Hang()),
    "drips": (Receive(), Drip(whole(b"x" * 10_000_000))),
}


@pytest.mark.parametrize("silence", SILENCES)
async def test_silence_counts_only_after_several_probes(
    http: httpx2.AsyncClient, silence: str
) -> None:
    async with ScriptedUpstream(SILENCES[silence]) as upstream:
        probe = probe_of(upstream, http, patience_seconds=0.1)
        await probe.check()
        unanswered(upstream, HEALTH)
        verdicts = [(await probe.check()).is_healthy for _ in range(SILENT_PROBES_MAX)]
        assert verdicts == [True] * (SILENT_PROBES_MAX - 1) + [False]


async def test_one_answer_ends_the_count_of_silent_probes(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream((Receive(), Hang())) as upstream:
        probe = probe_of(upstream, http)
        well = upstream.probe_answers[HEALTH]
        for _ in range(SILENT_PROBES_MAX):
            upstream.probe_answers[HEALTH] = well
            assert (await probe.check()).is_healthy
            unanswered(upstream, HEALTH)
            assert (await probe.check()).is_healthy


async def test_silence_of_an_upstream_never_heard_is_ill_health(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream((Receive(), Hang())) as upstream:
        unanswered(upstream, HEALTH)
        health = await probe_of(upstream, http).check()
        assert not health.is_healthy
        assert "does not answer in time" in health.reason


@pytest.mark.parametrize("script", [(Receive(), Close()), (Receive(), Send(b"SSH-2.0\r\n"))])
async def test_an_upstream_that_speaks_no_http_is_unhealthy(
    http: httpx2.AsyncClient, script: Script
) -> None:
    async with ScriptedUpstream(script) as upstream:
        unanswered(upstream, HEALTH)
        assert not (await probe_of(upstream, http).check()).is_healthy


@pytest.mark.parametrize(("status", "speaks"), [(405, True), (404, False)])
async def test_whether_it_speaks_anthropic_is_found_out_once(
    http: httpx2.AsyncClient, status: int, speaks: bool
) -> None:
    """A path that only takes POST answers GET with 405; one that is not there, with 404."""
    async with ScriptedUpstream() as upstream:
        upstream.probe_answers[MESSAGES] = whole(status=status)
        probe = HttpProbe(url=upstream.url, client=http, api_key=None, asks_for_messages=True)
        assert (await probe.check()).speaks_messages is speaks
        upstream.probe_answers[MESSAGES] = whole(status=500)
        assert (await probe.check()).speaks_messages is speaks


async def test_what_comes_back_is_asked_again_whether_it_speaks_anthropic(
    http: httpx2.AsyncClient,
) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.probe_answers[MESSAGES] = whole(status=405)
        probe = HttpProbe(url=upstream.url, client=http, api_key=None, asks_for_messages=True)
        assert (await probe.check()).speaks_messages is True
        upstream.probe_answers |= {HEALTH: whole(status=503), MESSAGES: whole(status=404)}
        assert (await probe.check()).speaks_messages is None
        upstream.probe_answers[HEALTH] = whole()
        assert (await probe.check()).speaks_messages is False


async def test_nobody_is_asked_who_need_not_speak_anthropic(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.probe_answers[MESSAGES] = whole(status=405)
        assert (await probe_of(upstream, http).check()).speaks_messages is None


async def test_the_path_of_the_health_check_can_be_another(http: httpx2.AsyncClient) -> None:
    async with ScriptedUpstream((Receive(), Send(whole(status=503)))) as upstream:
        probe = HttpProbe(url=upstream.url, client=http, api_key=None, health_path="/healthz")
        health = await probe.check()
        assert health.reason == f"{upstream.url}/healthz says 503: its engine is not running"
