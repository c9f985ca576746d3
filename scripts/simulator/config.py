"""The simulator's settings, from keywords, the command line or the environment."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """What the stand-in pretends to be; every field may be left at its default.

    `output_tokens` is the length of an answer nobody limits, its end-of-text token
    included. With both `ttft_seconds` and `inter_token_seconds` at 0 the simulator
    answers at once. `jitter_ratio` 0.2 spreads each wait over 80 to 120 %.
    """

    host: str = "127.0.0.1"
    port: int = 0
    models: tuple[str, ...] = ("sim-model",)
    embedding_models: tuple[str, ...] = ("sim-embedding",)
    transcription_models: tuple[str, ...] = ()
    api_key: str = ""
    max_model_len: int = 32768
    max_num_seqs: int = 256
    output_tokens: int = 32
    ttft_seconds: float = 0.0
    inter_token_seconds: float = 0.0
    jitter_ratio: float = 0.0
    seed: int = 0
    embedding_dimensions: int = 16
    prompt_tokens_details: bool = False
    force_include_usage: bool = False
    request_id_headers: bool = False
    no_messages: bool = False
    keep_alive_seconds: float = 5.0
    kv_cache_tokens: int = 1_000_000
    prefix_cache_blocks: int = 65536
    recorded_requests: int = 1000

    @property
    def all_models(self) -> tuple[str, ...]:
        return (*self.models, *self.embedding_models, *self.transcription_models)


@dataclass(frozen=True, slots=True)
class Option:
    """One command-line flag and the environment variable that stands in for it."""

    flag: str
    field: str
    kind: type
    help: str

    @property
    def variable(self) -> str:
        return f"SIM_{self.flag.replace('-', '_').upper()}"


# Flags named as vLLM names them where vLLM has them.
OPTIONS = (
    Option("host", "host", str, "address to listen on"),
    Option("port", "port", int, "port to listen on; 0 picks a free one"),
    Option("api-key", "api_key", str, "bearer key that guards /v1 (also VLLM_API_KEY)"),
    Option("max-model-len", "max_model_len", int, "context length in tokens"),
    Option("max-num-seqs", "max_num_seqs", int, "sequences generated at once; the rest wait"),
    Option("output-tokens", "output_tokens", int, "length of an answer nobody limits"),
    Option("ttft", "ttft_seconds", float, "seconds until the first token"),
    Option("inter-token", "inter_token_seconds", float, "seconds between tokens"),
    Option("jitter", "jitter_ratio", float, "spread of both waits, 0 to 1"),
    Option("seed", "seed", int, "seed of the jitter and of random faults"),
    Option("embedding-dimensions", "embedding_dimensions", int, "length of an embedding"),
    Option("keep-alive", "keep_alive_seconds", float, "seconds an idle connection is kept"),
    Option("kv-cache-tokens", "kv_cache_tokens", int, "tokens that fill the KV cache"),
    Option("prefix-cache-blocks", "prefix_cache_blocks", int, "16-token blocks remembered"),
)
SWITCHES = (
    Option("enable-prompt-tokens-details", "prompt_tokens_details", bool, "show cached_tokens"),
    Option("enable-force-include-usage", "force_include_usage", bool, "usage in every stream"),
    Option("enable-request-id-headers", "request_id_headers", bool, "answer with X-Request-Id"),
    Option("no-messages", "no_messages", bool, "know nothing of /v1/messages, as old versions"),
)
RUNTIME_FIELDS = frozenset(
    {
        "api_key",
        "max_model_len",
        "max_num_seqs",
        "output_tokens",
        "ttft_seconds",
        "inter_token_seconds",
        "jitter_ratio",
        "embedding_dimensions",
        "prompt_tokens_details",
        "force_include_usage",
        "request_id_headers",
        "no_messages",
        "kv_cache_tokens",
    }
)
DEFAULT_PORT = 8000


def from_arguments(argv: Sequence[str], environ: Mapping[str, str]) -> SimulatorConfig:
    """Flags win over SIM_* variables, these over the defaults; exits 2 on a bad one."""
    parser = _parser(environ)
    values = vars(parser.parse_args(argv))
    models = values.pop("models") or _names(environ.get("SIM_MODEL", ""))
    embedders = values.pop("embedding_models") or _names(environ.get("SIM_EMBEDDING_MODEL", ""))
    if models:
        values["models"] = tuple(models)
    transcribers = values.pop("transcription_models") or _names(
        environ.get("SIM_TRANSCRIPTION_MODEL", "")
    )
    values["transcription_models"] = tuple(transcribers)
    if embedders:
        values["embedding_models"] = tuple(embedders)
    return SimulatorConfig(**values)


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    defaults = {field.name: field.default for field in fields(SimulatorConfig)}
    defaults["port"] = DEFAULT_PORT
    defaults["api_key"] = environ.get("VLLM_API_KEY", "")
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulator",
        description="An OpenAI-compatible stand-in for vLLM. Every flag is also SIM_<FLAG>.",
    )
    parser.add_argument("--model", dest="models", action="append", help="served name; repeatable")
    parser.add_argument(
        "--embedding-model", dest="embedding_models", action="append", help="likewise, pooling"
    )
    parser.add_argument(
        "--transcription-model",
        dest="transcription_models",
        action="append",
        help="likewise, speech to text; without one those paths are not there, as in vLLM",
    )
    for option in OPTIONS:
        # argparse converts string defaults too, so a bad variable is refused like a bad flag.
        default = environ.get(option.variable, defaults[option.field])
        parser.add_argument(
            f"--{option.flag}",
            dest=option.field,
            type=option.kind,
            default=default,
            help=option.help,
        )
    for switch in SWITCHES:
        parser.add_argument(
            f"--{switch.flag}",
            dest=switch.field,
            action="store_true",
            default=environ.get(switch.variable, "") in ("1", "true", "yes"),
            help=switch.help,
        )
    return parser


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]
