"""The command line, each flag of which is an environment variable too."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import orjson

from scripts.loadtest.arrivals import Arrivals
from scripts.loadtest.distribution import SHAPES, distribution
from scripts.loadtest.plan import Endpoint, Slo
from scripts.loadtest.prompts import read_prompts

_ON: Final = frozenset({"1", "on", "true", "yes"})
_OFF: Final = frozenset({"0", "off", "false", "no"})
_DEFAULT_SLO: Final = "ttft:2.5 tpot:0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; `url` and `model` are empty where they are to be found out."""

    url: str
    model: str
    endpoint: Endpoint
    stream: bool
    concurrency: int
    rate: float
    arrivals: Arrivals
    max_outstanding: int
    duration: float
    warm_up: float
    ramp: float
    drain: float
    timeout: float
    connect_timeout: float
    prompt_tokens: str
    output_tokens: str
    prompts: str
    ignore_eos: bool
    body: str
    think_time: str
    failure_pause: float
    slo: Slo
    max_error_ratio: float
    seed: int | None
    workers: int
    json: str
    html: str
    yes_remote: bool


def options(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Flags win over variables, these over the defaults; exits 2 on what makes no sense."""
    parser = _parser()
    flags = vars(parser.parse_args(argv))
    given: dict[str, object] = {}
    for option in OPTIONS:
        flag = flags[option.name]
        raw = " ".join(flag) if isinstance(flag, list) else flag
        if raw is None:
            raw = environ.get(option.variable, "").strip()
        if raw:
            given[option.name] = _read(parser, option, raw)
    _refuse_contradictions(given, parser.error)
    values = {option.name: option.kind(option.default) for option in OPTIONS} | given
    if values["endpoint"] is Endpoint.EMBEDDINGS:
        values["stream"] = False
    if "slo" not in given and not values["stream"]:
        values["slo"] = Slo()
    return Options(**values, yes_remote=flags["yes_remote"])  # type: ignore[arg-type]  # read one by one


def _read(parser: argparse.ArgumentParser, option: "Option", raw: str) -> object:
    try:
        return option.kind(raw)
    except (ValueError, OSError) as error:
        parser.error(f"--{option.flag} ({option.variable}): {error}")


def _refuse_contradictions(given: Mapping[str, object], refuse: Callable[[str], NoReturn]) -> None:
    """An option that would do nothing is a mistake worth a word."""
    if "rate" in given:
        for name in ("concurrency", "think_time"):
            if name in given:
                refuse(f"{_flag(name)} is for a closed loop, --rate for an open one: choose")
    elif "arrivals" in given or "max_outstanding" in given:
        refuse("--arrivals and --max-outstanding are for an open loop: they need --rate")
    if "prompts" in given and "prompt_tokens" in given:
        refuse("--prompts says what is asked, so --prompt-tokens would do nothing: choose")
    if given.get("endpoint") is Endpoint.EMBEDDINGS:
        if given.get("stream"):
            refuse("embeddings are not streamed")
        if "output_tokens" in given or "ignore_eos" in given:
            refuse("embeddings generate nothing: leave --output-tokens and --ignore-eos out")
    is_streamed = given.get("stream", given.get("endpoint") is not Endpoint.EMBEDDINGS)
    slo = given.get("slo")
    if isinstance(slo, Slo) and not is_streamed and (slo.ttft_seconds or slo.tpot_seconds):
        refuse("without a stream there is no first token to see: use --slo e2el:SECONDS")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _words(raw: str) -> str:
    return raw


def _seconds(raw: str) -> float:
    number = float(raw)
    if not 0 <= number < 1e9:
        raise ValueError(f"'{raw}' is no number of seconds")
    return number


def _some_seconds(raw: str) -> float:
    seconds = _seconds(raw)
    if seconds == 0:
        raise ValueError("must be above 0")
    return seconds


def _count(raw: str) -> int:
    number = int(raw)
    if not 1 <= number <= 1_000_000:
        raise ValueError(f"'{raw}' is no number from 1 to 1,000,000")
    return number


def _workers(raw: str) -> int:
    return 0 if raw == "auto" else _count(raw)


def _rate(raw: str) -> float:
    number = float(raw)
    if not 0 < number <= 1_000_000:
        raise ValueError(f"'{raw}' is no rate: write requests per second, above 0")
    return number


def _no_rate_or(raw: str) -> float:
    return _rate(raw) if raw else 0.0


def _ratio(raw: str) -> float:
    number = float(raw)
    if not 0 <= number <= 1:
        raise ValueError(f"'{raw}' is no ratio from 0 to 1")
    return number


def _seed(raw: str) -> int | None:
    return int(raw) if raw else None


def _switch(raw: str) -> bool:
    if raw.lower() not in _ON | _OFF:
        raise ValueError(f"'{raw}' is neither on nor off")
    return raw.lower() in _ON


def _distribution(raw: str) -> str:
    return distribution(raw).text


def _prompt_file(raw: str) -> str:
    if raw:
        read_prompts(Path(raw))
    return raw


def _new_file(raw: str) -> str:
    if raw and not Path(raw).absolute().parent.is_dir():
        raise ValueError(f"there is no folder for '{raw}'")
    return raw


def _fields(raw: str) -> str:
    if raw:
        try:
            is_object = isinstance(orjson.loads(raw), dict)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from None
        if not is_object:
            raise ValueError("must be a JSON object")
    return raw


def _slo(raw: str) -> Slo:
    limits: dict[str, float] = {}
    for part in raw.replace(",", " ").split():
        name, colon, number = part.partition(":")
        if not colon or name not in ("ttft", "tpot", "e2el"):
            raise ValueError(f"'{part}': write ttft:SECONDS, tpot:SECONDS or e2el:SECONDS")
        limits[f"{name}_seconds"] = _some_seconds(number)
    return Slo(**limits)


@dataclass(frozen=True, slots=True)
class Option:
    """One flag, and how its text is read; raises ValueError where that fails."""

    flag: str
    kind: Callable[[str], object]
    default: str
    help: str

    @property
    def name(self) -> str:
        return self.flag.replace("-", "_")

    @property
    def variable(self) -> str:
        return self.name.upper()


OPTIONS: Final = (
    Option("url", _words, "", "base URL without /v1 (http://127.0.0.1:$GATEWAY_PORT)"),
    Option("model", _words, "", "model to ask for (the first of /v1/models)"),
    Option("endpoint", Endpoint, "chat", "chat, completions or embeddings"),
    Option("stream", _switch, "on", "on or off"),
    Option("concurrency", _count, "32", "closed loop: users who each wait for their answer"),
    Option("rate", _no_rate_or, "", "open loop: requests per second, whatever the server does"),
    Option("arrivals", Arrivals, "poisson", "open loop: poisson or constant"),
    Option("max-outstanding", _count, "4096", "open loop: beyond it nothing is sent but counted"),
    Option("duration", _some_seconds, "60", "seconds that are measured"),
    Option("warm-up", _seconds, "2", "seconds of load before, not measured"),
    Option("ramp", _seconds, "0", "seconds until all users are there or the rate is reached"),
    Option("drain", _seconds, "30", "seconds to wait at the end for answers under way"),
    Option("timeout", _some_seconds, "300", "seconds for a whole answer"),
    Option("connect-timeout", _some_seconds, "5", "seconds for a connection"),
    Option("prompt-tokens", _distribution, "256", f"length of prompts, about: {SHAPES}"),
    Option("output-tokens", _distribution, "128", f"length of answers: {SHAPES}"),
    Option("prompts", _prompt_file, "", "file of prompts, one a line: text, or JSON with prompt "
           "or messages and perhaps output_tokens"),
    Option("ignore-eos", _switch, "on", "on: answers have exactly the asked length (vLLM)"),
    Option("body", _fields, "", "JSON object whose fields are added to each request"),
    Option("think-time", _distribution, "0", "closed loop: seconds between answer and question"),
    Option("failure-pause", _seconds, "0.1", "closed loop: seconds a user waits after a failure"),
    Option("slo", _slo, _DEFAULT_SLO, "limits in seconds of a good answer: ttft:2.5 tpot:0.1 "
           "e2el:30, quoted or with commas"),
    Option("max-error-ratio", _ratio, "0.01", "share of failures and refusals that is still fine"),
    Option("seed", _seed, "", "makes lengths, prompts and arrivals repeat (a new one each time)"),
    Option("workers", _workers, "auto", "processes that make the load (half the cores, at most 8)"),
    Option("json", _new_file, "", "file to write the result to as JSON"),
    Option("html", _new_file, "", "file to write a report to that a browser opens"),
)  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.loadtest",
        allow_abbrev=False,
        description="Load on an OpenAI-compatible server, measured from outside. Every flag is "
        "also an environment variable: --warm-up is WARM_UP. The key comes from API_KEY, else from "
        "GATEWAY_API_KEYS or config/.env.",
        epilog="Exit code: 0 fine; 1 more failures than --max-error-ratio; 2 nothing was measured.",
    )
    for option in OPTIONS:
        shown = option.help.replace("%", "%%")
        if option.default:
            shown += f" ({option.default})"
        nargs = "+" if option.name == "slo" else None
        parser.add_argument(f"--{option.flag}", metavar="X", nargs=nargs, help=shown)
    parser.add_argument(
        "--yes-remote", action="store_true", help="the target is another machine, and may be loaded"
    )
    return parser
