"""`python -m scripts.loadtest` as the operator runs it: a real process, its words and its files."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from playwright.async_api import async_playwright

from scripts.simulator import Fault, FaultKind, Simulator, SimulatorConfig
from tests.harness.programs import installed

KEY = "sk-of-the-load-test-0123456789"
PACE = SimulatorConfig(ttft_seconds=0.2, inter_token_seconds=0.02, api_key=KEY)
SHORT = {"WARM_UP": "0.2", "OUTPUT_TOKENS": "6"}
VOID = {"meta"}


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that is over."""

    code: int
    out: str
    err: str


class Tool:
    """The load test as a child."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, url: str, *arguments: str, **environ: str) -> "Tool":
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts.loadtest", *arguments,
            env={**kept, "URL": url, "API_KEY": KEY, "COLUMNS": "200", **SHORT, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return cls(process)

    async def ended(self) -> Ended:
        async with asyncio.timeout(30):
            out, err = await self.process.communicate()
        return Ended(self.process.returncode or 0, out.decode(), err.decode())

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


async def run(url: str, *arguments: str, **environ: str) -> Ended:
    return await (await Tool.start(url, *arguments, **environ)).ended()


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(PACE) as running:
        yield running


class Elements(HTMLParser):
    """Every element with its attributes; fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_a_run_measures_what_the_server_was_told_to_do(
    simulator: Simulator, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"

    ended = await run(
        simulator.url, "--json", str(file),
        DURATION="2", CONCURRENCY="8", SEED="5", SLO="ttft:1,tpot:0.1", WORKERS="2",
    )  # fmt: skip

    assert (ended.code, ended.err) == (0, "")
    assert "Time to first token" in ended.out
    assert KEY not in ended.out
    result: dict[str, Any] = orjson.loads(file.read_bytes())
    assert KEY.encode() not in file.read_bytes()
    assert set(result) == {
        "version", "started_at", "url", "plan", "window_seconds", "interrupted", "requests",
        "error_ratio", "fine", "throughput", "goodput", "latency_seconds", "errors", "timeline",
        "generator", "warnings", "percentile_error_ratio",
    }  # fmt: skip
    assert (result["version"], result["fine"], result["window_seconds"]) == (1, True, 2.0)
    assert (result["plan"]["seed"], result["generator"]["workers"]) == (5, 2)
    latency = result["latency_seconds"]
    assert latency["time_to_first_token"]["p50"] == pytest.approx(0.2, rel=0.1)
    assert latency["inter_token"]["p50"] == pytest.approx(0.02, rel=0.1)
    assert latency["time_per_output_token"]["p50"] == pytest.approx(0.02, rel=0.1)
    assert latency["end_to_end"]["p50"] == pytest.approx(0.3, rel=0.1)
    assert set(latency["end_to_end"]) == {"count", "mean", "p50", "p90", "p95", "p99", "max"}
    assert result["throughput"]["requests"] == pytest.approx(8 / 0.3, rel=0.2)
    assert result["goodput"]["requests"] == result["requests"]["ok"] == result["requests"]["begun"]
    assert result["timeline"]["slots"]


async def test_failures_above_the_allowed_ratio_are_exit_code_1(
    simulator: Simulator, tmp_path: Path
) -> None:
    simulator.arm(Fault(FaultKind.ERROR_429, ratio=0.5))
    page = tmp_path / "report.html"

    ended = await run(simulator.url, "--html", str(page), "--concurrency", "4", "--duration", "1")

    assert ended.code == 1
    assert "http 429 Too Many Requests" in ended.out
    assert "above the 1.00% of --max-error-ratio" in ended.out
    text = page.read_text()
    elements = Elements()
    elements.feed(text)
    assert elements.open == []
    assert KEY not in text
    assert "http 429 Too Many Requests" in text
    assert not [tag for tag, _ in elements.seen if tag in ("script", "link", "img", "iframe")]
    refers = {"src", "href", "xlink:href", "srcset", "data", "action"}
    assert not [attributes for _, attributes in elements.seen if refers & set(attributes)]
    assert not re.search(r"url\(|@import", text)
    plots = [attributes for tag, attributes in elements.seen if attributes.get("role") == "img"]
    assert len(plots) == 8
    assert all(plot["aria-label"] for plot in plots)


async def test_the_report_opens_in_a_browser_without_a_word_of_complaint(
    simulator: Simulator, tmp_path: Path
) -> None:
    chromium = installed("chromium", package="chromium")
    page_file = tmp_path / "report.html"
    await run(simulator.url, "--html", str(page_file), "--rate", "30", "--duration", "1")
    said: list[str] = []
    asked: list[str] = []

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(page_file.as_uri())
        width = await page.evaluate("document.documentElement.scrollWidth")
        drawn = await page.locator("svg[role=img] path.line").count()
        await browser.close()

    assert said == []
    assert asked == [page_file.as_uri()]
    assert width <= 390
    assert drawn >= 8


async def test_ctrl_c_prints_what_was_measured(simulator: Simulator, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    tool = await Tool.start(simulator.url, "--json", str(file), "--duration", "600")
    async with asyncio.timeout(10):
        while simulator.state.finished_total["length"] < 100:
            await asyncio.sleep(0.02)
    workers = tool.workers()

    tool.process.send_signal(signal.SIGINT)
    ended = await tool.ended()

    assert ended.code == 0
    assert "interrupted" in ended.out
    assert "End to end" in ended.out
    result = orjson.loads(file.read_bytes())
    assert result["interrupted"] is True
    assert result["requests"]["ok"] > 0
    assert 0 < result["window_seconds"] < 30
    assert workers
    assert not [worker for worker in workers if worker.is_running()]


async def test_workers_do_not_outlive_a_killed_tool(simulator: Simulator) -> None:
    tool = await Tool.start(simulator.url, "--duration", "600")
    async with asyncio.timeout(10):
        while simulator.state.running < 32:
            await asyncio.sleep(0.02)
    workers = tool.workers()

    tool.process.kill()
    await tool.ended()

    gone, alive = await asyncio.to_thread(psutil.wait_procs, workers, 5)
    assert (len(gone), alive) == (1, [])


async def test_the_key_stands_in_no_command_line(simulator: Simulator) -> None:
    tool = await Tool.start(simulator.url, "--duration", "600")
    async with asyncio.timeout(10):
        while simulator.state.running < 32:
            await asyncio.sleep(0.02)

    shown = [word for worker in tool.workers() for word in worker.cmdline()]
    environ = [worker.environ() for worker in tool.workers()]
    tool.process.send_signal(signal.SIGTERM)
    await tool.ended()

    assert shown
    assert not [word for word in shown if KEY in word]
    assert environ


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://10.255.255.1:8080", "--yes-remote"),
        ("http://127.0.0.1:1", "does not answer"),
        ("gopher://127.0.0.1", "no base URL"),
    ],
)
async def test_nothing_measured_is_exit_code_2_with_the_cure(url: str, words: str) -> None:
    ended = await run(url)

    assert ended.code == 2
    assert words in ended.err


async def test_a_wrong_key_is_said_before_any_load(simulator: Simulator) -> None:
    ended = await run(simulator.url, API_KEY="sk-wrong")

    assert ended.code == 2
    assert "set API_KEY" in ended.err
    assert simulator.state.requests_total == 1


async def test_a_worker_that_dies_ends_the_run(simulator: Simulator) -> None:
    tool = await Tool.start(simulator.url, "--duration", "600")
    async with asyncio.timeout(10):
        while simulator.state.running < 32:
            await asyncio.sleep(0.02)

    for worker in tool.workers():
        worker.kill()
    ended = await tool.ended()

    assert ended.code == 2
    assert "ended too early" in ended.err


async def test_a_model_that_answers_on_the_endpoint_is_found() -> None:
    async with Simulator(SimulatorConfig(models=("talker",), embedding_models=("a",))) as simulator:
        chat = await run(simulator.url, "--duration", "0.2")
        embeddings = await run(
            simulator.url, "--duration", "0.2", "--endpoint", "embeddings", OUTPUT_TOKENS=""
        )

    assert "chat, streamed, talker" in chat.out
    assert "embeddings, whole answers, a" in embeddings.out


async def test_a_model_nobody_has_is_said_before_any_load(simulator: Simulator) -> None:
    ended = await run(simulator.url, "--model", "nobody")

    assert ended.code == 2
    assert "404" in ended.err
    assert simulator.state.requests_total == 1
