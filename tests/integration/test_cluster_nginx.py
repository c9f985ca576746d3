"""Two gateways behind a real nginx are restarted one after the other, and nobody notices."""

import asyncio
import signal
import ssl
from pathlib import Path
from typing import Any

import httpx2

from scripts.simulator.config import SimulatorConfig
from tests.harness.cluster import cluster
from tests.harness.gateway import chat
from tests.harness.nginx import NAME, NginxProcess

CALLERS = 8
CHAT = "/v1/chat/completions"


async def test_a_rolling_restart_fails_no_call_and_keeps_exact_books(tmp_path: Path) -> None:
    pace = SimulatorConfig(ttft_seconds=0.02, inter_token_seconds=0.01)
    settings: dict[str, Any] = {"TRUSTED_PROXIES": "127.0.0.1"}
    async with cluster(tmp_path, pace=pace, **settings) as shared:
        one, two = shared.gateways
        lines = "".join(
            f"server 127.0.0.1:{gateway.port} max_fails=1 fail_timeout=1s; "
            for gateway in shared.gateways
        )
        replaced = {
            f"server 127.0.0.1:{one.port};": lines,
            # As proxy.conf says for several gateways.
            "\nproxy_next_upstream error;": "",
            "\nproxy_request_buffering off;": "",
            "# proxy_next_upstream": "proxy_next_upstream",
            "# proxy_request_buffering on": "proxy_request_buffering on",
            "# client_body_buffer_size": "client_body_buffer_size",
        }
        async with NginxProcess(folder=tmp_path, gateway_port=one.port, **replaced) as nginx:
            trust = ssl.create_default_context(cafile=str(nginx.certificate))
            answers: list[httpx2.Response] = []
            is_over = asyncio.Event()
            async with httpx2.AsyncClient(
                base_url=f"https://127.0.0.1:{nginx.port}",
                verify=trust,
                headers={"host": NAME, "authorization": f"Bearer {one.key}"},
                trust_env=False,
                timeout=30,
            ) as client:

                async def call(number: int) -> None:
                    body = chat(
                        "count this",
                        max_tokens=4 + number,
                        ignore_eos=True,
                        stream=number % 2 == 0,
                    )
                    while not is_over.is_set():
                        # The name is in the certificate, the address is this machine's.
                        request = client.build_request("POST", CHAT, json=body)
                        request.extensions["sni_hostname"] = NAME
                        answers.append(await client.send(request))

                tasks = [asyncio.create_task(call(number)) for number in range(CALLERS)]
                await reached(answers, 20)
                for gateway in (one, two):
                    gateway.signal(signal.SIGTERM)
                    assert await gateway.ended() == 0
                    before = served_by(gateway)
                    await gateway.start()
                    # nginx asks it again a second later; the next one waits for that.
                    async with asyncio.timeout(40):
                        while served_by(gateway) < before + 10:
                            await asyncio.sleep(0.1)
                is_over.set()
                async with asyncio.timeout(40):
                    await asyncio.gather(*tasks)
        await shared.settled()

        assert {answer.status_code for answer in answers} == {200}, nginx.told()
        streams = [answer for answer in answers if "event-stream" in answer.headers["content-type"]]
        assert all("data: [DONE]" in answer.text for answer in streams)
        assert served_by(one) and served_by(two)


async def reached(answers: list[httpx2.Response], count: int) -> None:
    async with asyncio.timeout(40):
        while len(answers) < count:
            await asyncio.sleep(0.02)


def served_by(gateway: Any) -> int:
    return sum(line.get("outcome") == "ok" for line in gateway.log_lines())
