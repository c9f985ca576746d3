"""The plain walk of a request through a whole gateway process."""

from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess, chat


async def test_a_call_is_answered_metered_and_logged_once(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    answer = await gateway.client.post(
        "/v1/chat/completions", json=chat(), headers={"x-request-id": "walk-1"}
    )

    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "walk-1"
    usage = answer.json()["usage"]
    report = await gateway.usage()
    assert report["total_tokens"] == usage["total_tokens"]
    assert report["requests"] == 1
    lines = await gateway.logged(request_id="walk-1")
    assert [line["outcome"] for line in lines] == ["ok"]
    assert lines[0]["output_tokens"] == usage["completion_tokens"]


async def test_the_clients_key_never_reaches_the_upstream(
    gateway: GatewayProcess, simulator: Simulator
) -> None:
    await gateway.client.post("/v1/chat/completions", json=chat())

    assert gateway.key not in repr(list(simulator.requests))
