"""The vocabulary every room shares: who asks, what is asked, what was used, how it ended.

Values made or hashed for every request are named tuples: a frozen dataclass is made in three times
the time and hashed by a Python function.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol

from gateway.errors import GatewayError, UpstreamFault


class Operation(Enum):
    """What a caller may ask of an upstream. `path` is the upstream's, a constant."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"
    COUNT_TOKENS = "/v1/messages/count_tokens"
    EMBEDDINGS = "/v1/embeddings"
    RERANK = "/v1/rerank"
    SCORE = "/v1/score"
    TRANSCRIPTIONS = "/v1/audio/transcriptions"
    TRANSLATIONS = "/v1/audio/translations"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"

    # Members are singletons; Enum's own hash and `value` are Python functions, too slow for
    # every request.
    __hash__ = object.__hash__

    def __init__(self, path: str) -> None:
        self.path = path


STAND_INS: Final[Mapping[Operation, Operation]] = {
    Operation.MESSAGES: Operation.CHAT,
    Operation.COUNT_TOKENS: Operation.TOKENIZE,
}
"""In whose words the gateway can put an operation that an upstream does not serve itself."""


JSON_TYPE: Final = b"application/json"


class Outcome(Enum):
    """How an exchange ended; a closed set, used as a metric label."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    REJECTED = "rejected"
    ERROR = "error"
    CANCELLED = "cancelled"
    TRUNCATED = "truncated"

    __hash__ = object.__hash__

    def __init__(self, word: str) -> None:
        self.word = word


class RateLimit(NamedTuple):
    """`amount` requests per `window_seconds`."""

    amount: int
    window_seconds: float


class Allowance(NamedTuple):
    """What a caller has left of a limit, and in how many seconds all of it is back."""

    limit: int
    remaining: int
    reset_after_seconds: float


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `key_id` is public and stable; the secret is nowhere here.

    `daily_token_quota` and `max_concurrent` are None where there is no limit,
    `rate_limits` is empty where there is none, `allowed_models` None allows all.
    """

    key_id: str
    name: str
    daily_token_quota: int | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    max_concurrent: int | None = None
    allowed_models: frozenset[str] | None = None

    def may_use(self, model: str) -> bool:
        return self.allowed_models is None or model in self.allowed_models


class TokenUsage(NamedTuple):
    """Tokens as the upstream counts them; `is_estimated` where it did not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    is_estimated: bool = False

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


NO_USAGE = TokenUsage()


class PromptSize(NamedTuple):
    """How long a prompt is before anybody has counted it, in tokens.

    `estimate` is the best cheap guess, `ceiling` a bound it cannot exceed. They are equal
    where the caller sent token ids, which need no guess.
    """

    estimate: int
    ceiling: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model's public name and, where the upstream tells, its context length in tokens."""

    name: str
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The prober's last word. `reason` says what is wrong and what to do, for people.

    `speaks_messages` says whether it answers Anthropic's /v1/messages itself; None: not asked.
    """

    is_healthy: bool
    reason: str = ""
    models: tuple[ServedModel, ...] = ()
    speaks_messages: bool | None = None


class ResponseReader(Protocol):
    """What one streamed answer tells while it passes. Pure: bytes in, bytes out.

    `usage` is what is known so far; `saw_content` turns true at the first content event;
    `is_complete` when the dialect's terminator has passed.
    """

    @property
    def usage(self) -> TokenUsage: ...
    @property
    def saw_content(self) -> bool: ...
    @property
    def is_complete(self) -> bool: ...

    def feed(self, chunk: bytes) -> bytes:
        """Take one read of the upstream, return what the client is to get (maybe nothing).

        Raises UpstreamFailed when the upstream reports a failure inside the stream, and
        UpstreamRejected when it blames the request; what is to be sent before the error is
        then in `rescued`.
        """
        ...

    @property
    def rescued(self) -> bytes:
        """Whole events that stood before the failure and were not returned by `feed`."""
        ...

    def finish(self) -> bytes:
        """The upstream closed its answer: the rest for the client.

        Raises UpstreamTruncated if the terminator never came.
        """
        ...


class InferenceCall(Protocol):
    """One parsed request, in no dialect: all that dispatch, quota and routing need to know.

    `shown_model` is the name the client is to read in the answer; empty: as the upstream has it.
    """

    @property
    def operation(self) -> Operation: ...
    @property
    def model(self) -> str:
        """The model the caller named; empty where it named none."""
        ...

    @property
    def is_stream(self) -> bool: ...
    @property
    def is_metered(self) -> bool:
        """False for calls that cost no tokens (tokenize, detokenize)."""
        ...

    @property
    def choices(self) -> int:
        """How many answers are generated for the one request: prompts x n."""
        ...

    @property
    def prompt(self) -> PromptSize: ...
    @property
    def output_limit(self) -> int | None:
        """Output tokens per choice that the request allows; None: as far as the context goes."""
        ...

    def as_served_by(self, operations: Container[Operation]) -> "InferenceCall":
        """This call in the form that an upstream with these operations understands: itself, or
        one whose operation, bodies and answers are those of its stand-in (STAND_INS).

        Raises InvalidRequest for what the stand-in has no words for.
        """
        ...

    @property
    def content_type(self) -> bytes:
        """The media type of what `encode` gives."""
        ...

    def encode(self, *, model: str, output_limit: int | None) -> bytes:
        """The body for the upstream: this parse serialised again, and nothing else.

        `output_limit` bounds the output per choice where it is not None.
        """
        ...

    def forget(self) -> None:
        """Let go of what only `encode` and `tokenize_bodies` need: the answer has begun, may last
        for minutes, and a prompt can be megabytes."""
        ...

    def tokenize_bodies(self, *, model: str) -> tuple[bytes, ...]:
        """Bodies for the upstream's /tokenize that count the prompt exactly; empty: cannot."""
        ...

    def new_reader(self, shown_model: str = "") -> ResponseReader: ...

    def read_rejection(
        self, status: int, body: bytes, *, retry_after_seconds: float | None
    ) -> GatewayError:
        """What an upstream's answer other than 2xx means to the caller."""
        ...

    def read_token_count(self, body: bytes) -> int:
        """The count in /tokenize's answer. Raises UpstreamFailed if there is none."""
        ...

    def mend_answer(self, body: bytes, shown_model: str = "") -> tuple[TokenUsage, bytes]:
        """Usage of a whole (not streamed) answer, and the answer as the client is to get it.

        Raises UpstreamFailed if it is no JSON object.
        """
        ...


class UpstreamAnswer(Protocol):
    """An upstream's answer whose head has arrived. Closing it before its end aborts the call."""

    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> bytes: ...
    @property
    def retry_after_seconds(self) -> float | None: ...

    async def deliver(self, take: Callable[[bytes], bool]) -> bool:
        """Hand each read to `take` until that returns False, then return True; False at the end.

        `take` is called the moment a read comes, by the event loop and not by the waiting task:
        to wake a task for each read costs as much as all else that is done with it. It must not
        block. Raises what `take` raises, UpstreamTruncated when the connection ends early,
        UpstreamTimeout when the upstream is silent for too long, UpstreamFailed when it does not
        speak HTTP.
        """
        ...

    async def read(self, *, limit_bytes: int) -> bytes:
        """The whole body. Raises AnswerTooLarge beyond the limit, and as `deliver` does."""
        ...

    def take_unread(self) -> bytes:
        """What has arrived and was not read, without waiting; for counting what nobody took."""
        ...

    def see_out(self) -> None:
        """Close an answer whose rest is of no interest, but let it end, so that the connection
        can be kept: the terminator of a stream has passed."""
        ...

    def close(self) -> None:
        """Give the connection back if the answer is complete, cut it otherwise. Idempotent."""
        ...


class Client(Protocol):
    """Whoever asked, as dispatch sees them: one whole answer, or a stream of chunks."""

    async def answer(self, *, content_type: bytes, body: bytes) -> None:
        """Send a whole answer, status 200."""
        ...

    async def send(self, chunk: bytes) -> None:
        """Send a piece of an event stream, its head before the first. Waits for slow readers."""
        ...

    def send_now(self, chunk: bytes) -> bool:
        """Send a piece of a stream that has begun, if nobody need be waited for; False: use
        `send`."""
        ...

    async def finish(self, last: bytes) -> None:
        """Send the last piece and end the stream well."""
        ...


class Trace(Protocol):
    """The trace of one exchange, told of each call to an upstream: what goes to that upstream
    names the call as the parent of whatever the upstream does."""

    def begin_call(
        self,
        exchange: "Exchange",
        *,
        upstream: str,
        url: str,
        path: str,
        output_limit: int | None,
        at: float,
    ) -> None:
        """Puts the call into `exchange.trace_headers`. `at` is on the clock of the exchange."""
        ...

    def end_call(self, error: BaseException | None, *, at: float) -> None: ...


class NoTrace:
    """Nothing is traced, or not this exchange; what travels on stays as it is."""

    __slots__ = ()

    def begin_call(
        self,
        exchange: "Exchange",
        *,
        upstream: str,
        url: str,
        path: str,
        output_limit: int | None,
        at: float,
    ) -> None:
        return

    def end_call(self, error: BaseException | None, *, at: float) -> None:
        return


NO_TRACE = NoTrace()


class SharedLimits(Protocol):
    """Limits of a call that several gateways share, asked about in one question with its tokens.

    `windows` are names and rates, `most` is how many calls of the key may run at once. What was
    counted is told to `counted` as (allowed, debt) of each window; `skipped` hears that nobody
    could be asked. The other two make the error of a call that was refused.
    """

    @property
    def asks(self) -> bool: ...
    @property
    def windows(self) -> tuple[tuple[str, RateLimit], ...]: ...
    @property
    def most(self) -> int | None: ...
    def counted(self, debts: Sequence[tuple[int, int]]) -> None: ...
    def skipped(self) -> None: ...
    def window_refusal(self, debts: Sequence[tuple[int, int]]) -> GatewayError: ...
    def concurrency_refusal(self) -> GatewayError: ...


class Exchange:
    """The facts of one request as they become known. Owned by the observing layer.

    Times are `Clock.monotonic` seconds, None until they happen. `model` and `upstream` are
    names from configuration or discovery, never a client's text, so they are safe as labels.

    `upstream_seconds` is the time from sending to an upstream's end, over all that was asked of
    any; `heard_at` when the last of them had said all. `faults` and `aborts` name the upstreams
    that failed, and those whose answer was cut before its end.
    """

    __slots__ = (
        "aborts",
        "attempts",
        "bytes_sent",
        "choices",
        "client_address",
        "error_code",
        "faults",
        "first_token_at",
        "heard_at",
        "is_stream",
        "limit",
        "method",
        "model",
        "outcome",
        "principal",
        "queue_seconds",
        "request_id",
        "request_window",
        "route",
        "session",
        "shared_limits",
        "started_at",
        "status",
        "trace",
        "trace_headers",
        "upload_seconds",
        "upstream",
        "upstream_seconds",
        "usage",
        "was_counted",
        "was_sent",
    )

    def __init__(
        self, *, request_id: str, method: str, started_at: float, client_address: str
    ) -> None:
        self.request_id = request_id
        self.method = method
        self.client_address = client_address
        self.started_at = started_at
        self.route = "other"
        self.principal: Principal | None = None
        self.model = ""
        self.upstream = ""
        self.is_stream = False
        # What the client names to come back to the same replica by; a secret of its own, maybe.
        self.session: bytes | None = None
        self.choices = 1
        self.status = 0
        self.outcome: Outcome | None = None
        self.error_code: str | None = None
        self.limit: str | None = None
        self.usage = NO_USAGE
        self.attempts = 0
        # An upstream's tokenizer has worked on the prompt: no later refusal is for nothing.
        self.was_counted = False
        # An upstream may have the request: until then it can cost nothing.
        self.was_sent = False
        self.upload_seconds = 0.0
        self.queue_seconds = 0.0
        self.upstream_seconds = 0.0
        self.first_token_at: float | None = None
        self.heard_at: float | None = None
        self.faults: tuple[tuple[str, UpstreamFault], ...] = ()
        self.aborts: tuple[str, ...] = ()
        self.bytes_sent = 0
        self.request_window: Allowance | None = None
        # Where several gateways share limits: those still to be asked about, with the tokens.
        self.shared_limits: SharedLimits | None = None
        self.trace: Trace = NO_TRACE
        self.trace_headers: list[tuple[bytes, bytes]] = []

    def note_sent(self) -> None:
        """There is a connection, and the request is being written to it."""
        self.was_sent = True

    def upstream_headers(self) -> list[tuple[bytes, bytes]]:
        """What travels on to the upstream besides the body: ids that join logs and traces."""
        return [(b"x-request-id", self.request_id.encode("ascii")), *self.trace_headers]

    @property
    def caller(self) -> Principal:
        """The authenticated caller; only rooms behind `authenticate` ask."""
        if self.principal is None:
            raise LookupError("asked for the caller before authentication")
        return self.principal
