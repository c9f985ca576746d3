"""The vLLM dashboard's queries, put to a real Prometheus that watches a real vLLM."""

import asyncio
from pathlib import Path
from typing import Final

from openai import AsyncOpenAI

from tests.harness.dashboards import answers, names_in, not_numbers, refused, scraped_anew, silent
from tests.harness.gateway import GatewayProcess
from tests.harness.prometheus import PrometheusProcess, quick_config
from tests.harness.vllm import VllmProcess

RULES: Final = Path("monitoring/prometheus/rules")
UID: Final = "vllm-engine"
# A question about one of these may stay without an answer here, and why that is no fault.
EXCUSED: Final = {
    "vllm:spec_decode_num_accepted_tokens_total": "no speculative decoding",
    "vllm:spec_decode_num_draft_tokens_total": "no speculative decoding",
    "vllm:external_prefix_cache_hits_total": "no cache outside of the engine",
    "ALERTS": "annotations: nothing is wrong",
}


async def test_every_query_of_the_engines_dashboard_has_an_answer_from_a_real_vllm(
    vllm: VllmProcess, gateway: GatewayProcess, openai: AsyncOpenAI, tmp_path: Path
) -> None:
    jobs = {
        "gateway": [f"127.0.0.1:{gateway.port}"],
        "vllm": [vllm.url.removeprefix("http://")],
    }
    async with PrometheusProcess(
        folder=tmp_path, config=quick_config(list(jobs)), rules=RULES, targets=jobs
    ) as prometheus:
        await prometheus.until_scraped()
        for _ in range(2):
            await asyncio.gather(*(_stream(openai) for _ in range(4)))
            await scraped_anew(prometheus)
        answered = await answers(prometheus, UID)
        exposed = await names_in(prometheus)

    faults = refused(answered) + not_numbers(answered) + silent(answered, excused=EXCUSED)
    assert not faults, "\n".join(faults)
    asked = {name for answer in answered for name in answer.question.metrics}
    assert asked - exposed - EXCUSED.keys() == set(), "replaced by zero, for it is not there"


async def _stream(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "the same beginning " * 20}],
        max_tokens=16,
        stream=True,
    )
    async for _ in stream:
        pass
