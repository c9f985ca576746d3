"""What every path of vLLM's server answers here."""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from hmac import compare_digest
from itertools import count
from secrets import token_hex

import orjson

from scripts.simulator import answers, metrics
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.engine import Engine, Job
from scripts.simulator.errors import ApiError, method_not_allowed, not_found, wrong_media_type
from scripts.simulator.fault_replies import MESSAGES_REPLIES, REPLIES
from scripts.simulator.faults import FAULT_HEADER, FaultBoard, FaultKind
from scripts.simulator.fields import Fields
from scripts.simulator.generation import chat_work, completion_work, responses_work
from scripts.simulator.messages import count_tokens, messages_work
from scripts.simulator.outages import Outages
from scripts.simulator.pooling import embedding_work, rerank_work, score_work
from scripts.simulator.reply import Reply
from scripts.simulator.server import Connection, Request
from scripts.simulator.sinks import StreamedAnswer, WholeAnswer
from scripts.simulator.tokenization import detokenize, tokenize
from scripts.simulator.transcription import AudioForm, transcription_work, translation_work
from scripts.simulator.work import Identity, Work

WorkOf = Callable[[Fields, SimulatorConfig], Work]
Endpoint = Callable[[Request, Reply], None]

# Small bodies that repeat, as in a load test, are read once.
_REMEMBERED_BODY_BYTES = 4096
_REMEMBERED_WORKS = 512
_RECORDED_BODY_BYTES = 65536

MESSAGES = b"/v1/messages"
COUNT_TOKENS = b"/v1/messages/count_tokens"
INFERENCE: dict[bytes, WorkOf] = {
    b"/v1/chat/completions": chat_work,
    b"/v1/completions": completion_work,
    b"/v1/responses": responses_work,
    MESSAGES: messages_work,
    b"/v1/embeddings": embedding_work,
    b"/v1/rerank": rerank_work,
    b"/v2/rerank": rerank_work,
    b"/rerank": rerank_work,
    b"/v1/score": score_work,
    b"/score": score_work,
}
FORMS: dict[bytes, Callable[[AudioForm, SimulatorConfig], Work]] = {
    b"/v1/audio/transcriptions": transcription_work,
    b"/v1/audio/translations": translation_work,
}
_AT_RISK = INFERENCE.keys() | FORMS.keys()
_GUARDED = (b"/v1", b"/v2", b"/inference", b"/cohere")
_OWN = b"/sim/"
_UNAUTHORIZED = b'{"error":"Unauthorized"}'


class Application:
    """Routes requests; owns the record of them and the memory of prepared work."""

    def __init__(
        self, *, config: SimulatorConfig, engine: Engine, board: FaultBoard, outages: Outages
    ) -> None:
        self.config = config
        self.engine = engine
        self.board = board
        self.outages = outages
        self.requests: deque[Request] = deque(maxlen=config.recorded_requests)
        self.requests_total = 0
        self._works: dict[tuple[WorkOf, bytes], Work] = {}
        self._started = int(time.time())
        self._id_prefix = token_hex(4).encode()
        self._serial = count(1)
        self._routes: dict[bytes, dict[bytes, Endpoint]] = {
            b"/health": {b"GET": self._health},
            b"/ping": {b"GET": self._health, b"POST": self._health},
            b"/version": {b"GET": self._version},
            b"/load": {b"GET": self._load},
            b"/metrics": {b"GET": self._metrics},
            b"/v1/models": {b"GET": self._models},
            b"/tokenize": {b"POST": self._tokenize},
            b"/detokenize": {b"POST": self._detokenize},
            b"/openapi.json": {b"GET": self._openapi},
            COUNT_TOKENS: {b"POST": self._count_tokens},
        }
        for path, work_of in INFERENCE.items():
            self.add_route(b"POST", path, partial(self._infer, work_of))
        for path, form_work_of in FORMS.items():
            self.add_route(b"POST", path, partial(self._infer_form, form_work_of))

    def add_route(self, method: bytes, path: bytes, endpoint: Endpoint) -> None:
        """One more endpoint."""
        self._routes.setdefault(path, {})[method] = endpoint

    def configure(self, config: SimulatorConfig) -> None:
        """Take new settings; work prepared under the old ones is forgotten."""
        self.config = config
        self._works.clear()
        self.engine.configure(config)

    def board_changed(self) -> None:
        """Faults were armed or taken away: some of them are the engine's."""
        self.engine.freeze(frozen=self.board.stands(FaultKind.KV_FULL))
        self.engine.stall(stalled=self.board.stands(FaultKind.STALLED))

    def handle(self, request: Request, connection: Connection) -> None:
        """Answer, or begin to."""
        self._record(request)
        reply = Reply(connection, extra_headers=self._extra_headers(request))
        connection.expect(reply)
        try:
            path = request.path_bytes
            if self.config.api_key and path.startswith(_GUARDED) and not self._knows(request):
                reply.send(401, _UNAUTHORIZED)
                return
            endpoint = self._endpoint(path, request.method_bytes)
            if path in _AT_RISK and (self.board.armed or FAULT_HEADER in request.raw_headers):
                self._answer_at_risk(endpoint, request, reply)
                return
            endpoint(request, reply)
        except ApiError as error:
            reply.send(error.status, error.body(), headers=error.headers())

    def _answer_at_risk(self, endpoint: Endpoint, request: Request, reply: Reply) -> None:
        fault = self.board.take(request.path, request.headers.get(FAULT_HEADER.decode()))
        if self.outages.befalls(reply, fault):
            return
        replies = MESSAGES_REPLIES if request.path_bytes == MESSAGES else REPLIES
        faulty = replies.get(fault.kind)
        if faulty is not None:
            reply = faulty(reply.channel, fault, extra_headers=reply.extra_headers)
            reply.channel.expect(reply)
        endpoint(request, reply)

    def _endpoint(self, path: bytes, method: bytes) -> Endpoint:
        methods = self._routes.get(path)
        if path in FORMS and not self.config.transcription_models:
            raise not_found()
        if methods is None or (self.config.no_messages and path in (MESSAGES, COUNT_TOKENS)):
            raise not_found()
        endpoint = methods.get(method)
        if endpoint is None:
            raise method_not_allowed(b", ".join(methods))
        return endpoint

    def _knows(self, request: Request) -> bool:
        scheme, _, token = request.raw_headers.get(b"authorization", b"").partition(b" ")
        known = compare_digest(token, self.config.api_key.encode())
        return scheme.lower() == b"bearer" and known

    def _record(self, request: Request) -> None:
        if request.target.startswith(_OWN):
            return
        self.requests_total += 1
        if len(request.body) > _RECORDED_BODY_BYTES:
            request = request.with_body(request.body[:_RECORDED_BODY_BYTES])
        self.requests.append(request)

    def _extra_headers(self, request: Request) -> bytes:
        if not self.config.request_id_headers:
            return b""
        known = request.raw_headers.get(b"x-request-id") or token_hex(16).encode()
        return b"x-request-id: %b\r\n" % known

    def _infer(self, work_of: WorkOf, request: Request, reply: Reply) -> None:
        self._run(self._work(work_of, _json_body(request)), request, reply)

    def _infer_form(
        self, work_of: Callable[[AudioForm, SimulatorConfig], Work], request: Request, reply: Reply
    ) -> None:
        content_type = request.raw_headers.get(b"content-type", b"")
        self._run(work_of(AudioForm.parse(request.body, content_type), self.config), request, reply)

    def _run(self, work: Work, request: Request, reply: Reply) -> None:
        suffix = request.raw_headers.get(b"x-request-id")
        # The serial number keeps ids unique; the form is that of vLLM's random ones.
        identity = Identity(
            suffix or b"%b%08x" % (self._id_prefix, next(self._serial)), int(time.time())
        )
        answer = StreamedAnswer if work.stream else WholeAnswer
        sink = answer(reply, work, identity, details=self.config.prompt_tokens_details)
        job = Job(work, sink)
        reply.on_disconnect = partial(self.engine.abort, job)
        reply.on_resume = partial(self.engine.resume, job)
        self.engine.submit(job)
        reply.flush()

    def _work(self, work_of: WorkOf, body: bytes) -> Work:
        if len(body) > _REMEMBERED_BODY_BYTES:
            return work_of(Fields.parse(body), self.config)
        work = self._works.get((work_of, body))
        if work is None:
            work = work_of(Fields.parse(body), self.config)
            if len(self._works) >= _REMEMBERED_WORKS:
                self._works.clear()
            self._works[(work_of, body)] = work
        return work

    def _health(self, _request: Request, reply: Reply) -> None:
        sick = self.board.spend(FaultKind.UNHEALTHY)
        reply.send(503 if sick else 200, b"", content_type=b"")

    def _version(self, _request: Request, reply: Reply) -> None:
        reply.send(200, orjson.dumps({"version": answers.VLLM_VERSION}))

    def _load(self, _request: Request, reply: Reply) -> None:
        load = self.engine.running + self.engine.waiting
        reply.send(200, orjson.dumps({"server_load": load}))

    def _metrics(self, _request: Request, reply: Reply) -> None:
        engine = self.engine
        rows = [(name, known, engine.load_of(name)) for name, known in engine.metrics.items()]
        reply.send(200, metrics.exposition(rows), metrics.CONTENT_TYPE)

    def _models(self, _request: Request, reply: Reply) -> None:
        names = self.config.all_models
        limit = self.config.max_model_len
        body = answers.model_list(names, created=self._started, max_model_len=limit)
        reply.send(200, body)

    def _tokenize(self, request: Request, reply: Reply) -> None:
        reply.send(200, tokenize(Fields.parse(_json_body(request)), self.config))

    def _openapi(self, _request: Request, reply: Reply) -> None:
        """Of vLLM's description of itself what tells one version from another: its paths."""
        hidden = (MESSAGES, COUNT_TOKENS) if self.config.no_messages else ()
        paths: dict[str, dict[str, object]] = {
            path.decode(): {method.decode().lower(): {} for method in methods}
            for path, methods in self._routes.items()
            if path not in hidden and not path.startswith(_OWN)
        }
        reply.send(200, orjson.dumps({"openapi": "3.1.0", "paths": paths}))

    def _count_tokens(self, request: Request, reply: Reply) -> None:
        reply.send(200, count_tokens(Fields.parse(_json_body(request)), self.config))

    def _detokenize(self, request: Request, reply: Reply) -> None:
        reply.send(200, detokenize(Fields.parse(_json_body(request)), self.config))


def _json_body(request: Request) -> bytes:
    """The body, if it is announced as JSON; raises ApiError (400) as vLLM does otherwise."""
    media_type = request.raw_headers.get(b"content-type", b"").partition(b";")[0]
    if media_type.strip().lower() != b"application/json":
        raise wrong_media_type()
    return request.body
