"""What an operator says of the upstreams: where each is, what it is for, how much it may take."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from gateway.exchange import STAND_INS, Operation
from gateway.routing.secret import NO_SECRET, Secret

HEALTH_PATH: Final = "/health"


class Kind(Enum):
    """What the model behind an upstream is made for."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"
    TRANSCRIBE = "transcribe"


class MessagesMode(Enum):
    """Who speaks Anthropic: the upstream, the gateway in its stead, or whoever the prober finds."""

    AUTO = "auto"
    NATIVE = "native"
    TRANSLATE = "translate"


_TOKENIZER: Final = frozenset({Operation.TOKENIZE, Operation.DETOKENIZE})
_MESSAGES: Final = frozenset({Operation.MESSAGES, Operation.COUNT_TOKENS})

# An embedding model of vLLM scores and ranks as well, by the likeness of embeddings.
_OPERATIONS: Final[Mapping[Kind, frozenset[Operation]]] = {
    Kind.GENERATE: _TOKENIZER
    | _MESSAGES
    | {Operation.CHAT, Operation.COMPLETIONS, Operation.RESPONSES},
    Kind.EMBED: _TOKENIZER | {Operation.EMBEDDINGS, Operation.SCORE, Operation.RERANK},
    Kind.RERANK: _TOKENIZER | {Operation.SCORE, Operation.RERANK},
    Kind.TRANSCRIBE: frozenset({Operation.TRANSCRIPTIONS, Operation.TRANSLATIONS}),
}
_DOES: Final[Mapping[Kind, str]] = {
    Kind.GENERATE: "text generation",
    Kind.EMBED: "embeddings",
    Kind.RERANK: "reranking",
    Kind.TRANSCRIBE: "transcription",
}


@dataclass(frozen=True, slots=True)
class UpstreamDefinition:
    """One upstream as it was configured.

    `kinds` empty: anything may be asked of it. `models` empty: those it lists itself. None stands
    for the general setting: of the time-outs in seconds, and of no bound for `max_in_flight`.
    """

    name: str
    url: str
    kinds: frozenset[Kind] = frozenset()
    models: frozenset[str] = frozenset()
    weight: int = 1
    max_in_flight: int | None = None
    connect_timeout_seconds: float | None = None
    first_byte_timeout_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    api_key: Secret = NO_SECRET
    health_path: str = HEALTH_PATH
    messages: MessagesMode = MessagesMode.AUTO

    @property
    def summary(self) -> str:
        """One line for the log: what is where and for what."""
        words = [f"{self.name}={self.url}", *(kind.value for kind in Kind if kind in self.kinds)]
        if self.models:
            words.append(f"models {', '.join(sorted(self.models))}")
        if self.weight != 1:
            words.append(f"weight {self.weight}")
        if self.max_in_flight is not None:
            words.append(f"at most {self.max_in_flight}")
        return " ".join(words)

    @property
    def asks_for_messages(self) -> bool:
        """Whether the prober is to find out if this upstream speaks Anthropic itself."""
        generates = not self.kinds or Kind.GENERATE in self.kinds
        return generates and self.messages is MessagesMode.AUTO

    @property
    def purpose(self) -> str:
        """What its kinds do, in words."""
        return " and ".join(_DOES[kind] for kind in Kind if kind in self.kinds)

    def operations(self, *, speaks_messages: bool | None) -> frozenset[Operation]:
        """What it answers in its own words; `speaks_messages` is what the prober found out."""
        kinds = self.kinds or frozenset(Kind)
        served = frozenset[Operation]().union(*(_OPERATIONS[kind] for kind in kinds))
        is_native = self.messages is MessagesMode.NATIVE or (
            self.messages is MessagesMode.AUTO and speaks_messages is True
        )
        return served if is_native else served - _MESSAGES

    def is_same_place(self, other: "UpstreamDefinition") -> bool:
        """Whether the other one is reached and asked in the same way, so that connections, health
        and breaker stay what they are."""
        ours = replace(
            self,
            kinds=other.kinds,
            models=other.models,
            weight=other.weight,
            max_in_flight=other.max_in_flight,
        )
        return ours == other and self.asks_for_messages == other.asks_for_messages


def accepted(operations: frozenset[Operation]) -> frozenset[Operation]:
    """What can be asked of an upstream that answers these: also what is put in their words."""
    translated = {asked for asked, served in STAND_INS.items() if served in operations}
    return operations | translated


@dataclass(frozen=True, slots=True)
class FleetDefinition:
    """All upstreams and the names that clients may use for their models, as one generation."""

    upstreams: tuple[UpstreamDefinition, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(upstream.name for upstream in self.upstreams)


def require_url(url: str) -> str:
    """A base URL as we keep it. Raises ValueError with the rule that it breaks."""
    url = url.strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://host:port or https://host:port")
    if parts.username or parts.password:
        raise ValueError("must hold no credentials; use VLLM_API_KEY")
    if parts.query or parts.fragment:
        raise ValueError("must end with the host or a path prefix")
    if parts.path.endswith("/v1"):
        raise ValueError("must not end in /v1; the gateway adds the path")
    _ = parts.port  # raises ValueError with its own words when out of range
    return url


def place_of(url: str) -> str:
    """The name of an upstream that was given none: host, port and prefix."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}"
