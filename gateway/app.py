"""The composition root: makes every part, nests the layers, owns the lifespan."""

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress
from functools import lru_cache, partial

import httpx2
from starlette.middleware.cors import CORSMiddleware

from gateway.admission import AdmissionGate
from gateway.breaker import BreakerState, CircuitBreaker
from gateway.clock import Clock
from gateway.database import DatabaseUnusable
from gateway.dispatch import Dispatcher
from gateway.edge import operations
from gateway.edge.asgi import ASGIApp, Receive, Scope, Send
from gateway.edge.authenticate import Authenticate
from gateway.edge.body import LARGEST_AT_ONCE, BodyMemory
from gateway.edge.dialects import Dialects
from gateway.edge.inference import InferenceEndpoint
from gateway.edge.lifecycle import Lifecycle
from gateway.edge.limits import LimitHeaders
from gateway.edge.observe import Observe
from gateway.edge.origin import Origin, lies_in
from gateway.edge.page import dashboard_routes
from gateway.edge.rescue import Rescue
from gateway.edge.router import Route, Router, not_found
from gateway.edge.throttle import ThrottleAddress, ThrottleKey
from gateway.edge.upload import UPLOADS, UploadEndpoint
from gateway.exchange import Exchange, Operation
from gateway.ratelimit import ConcurrencyLimiter, MemoryRateLimiter
from gateway.readings import show_parts, show_team
from gateway.routing.definition import UpstreamDefinition
from gateway.routing.fleet import Fleet, Member
from gateway.routing.health import HealthProber
from gateway.routing.policy import Available, LeastBurden, Picker, Policy, TwoChoices
from gateway.routing.pool import UpstreamPool
from gateway.routing.standing import standing_of
from gateway.routing.sticky import Sticky
from gateway.routing.upstream import Upstream
from gateway.routing.watcher import FleetWatcher
from gateway.settings import Settings
from gateway.shared.config import RedisUnusable
from gateway.state import state_of
from gateway.telemetry.logs import Logging
from gateway.telemetry.looplag import LoopLag
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.streams import StreamTallies
from gateway.telemetry.traces import open_tracing
from gateway.transport.client import UpstreamClient
from gateway.transport.probe import HttpProbe
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIDialect
from gateway.workers.siblings import Siblings
from gateway.workers.team import Team

PROBE_TIMEOUT_SECONDS = 5.0
FIRST_LOOK_SECONDS = 2.0
NO_KEYS = (
    "no API key exists: set GATEWAY_API_KEYS, or make one with `gateway keys create --name NAME`; "
    "an empty list never means open"
)


class StartupFault(Exception):
    """The application cannot start; the message names the variable and the cure."""


class Application:
    """Every part of one gateway process: cold until its lifespan opens them, in order.

    `side` serves /metrics alone, for METRICS_PORT; one of a `team` shows the metrics of all.
    Raises auth.keyring.KeyConflict.
    """

    def __init__(
        self, settings: Settings, *, logging: Logging, clock: Clock, team: Team | None = None
    ) -> None:
        self._settings = settings
        self._log = logging.log
        self._clock = clock
        self.lifecycle = Lifecycle()
        self.may_start_later = False
        self._has_seen_one = asyncio.Event()
        self._origin = Origin(settings.origin)
        self._dialects = Dialects(
            openai=OpenAIDialect(settings.dialect), anthropic=AnthropicDialect(settings.dialect)
        )
        largest = settings.inference.max_body_bytes
        self._bodies = BodyMemory(max_bytes=largest and LARGEST_AT_ONCE * largest)
        self._metrics = Metrics(settings.metrics)
        self._siblings = None if team is None else Siblings(team, own=self._metrics.render)
        if team is not None:
            show_team(self._metrics, restarts=team.restarts)
        self._streams = StreamTallies(self._metrics.gaps, clock=clock)
        self._lag = LoopLag(self._metrics.lag, clock=clock)
        self._logging = logging
        trusts = lru_cache(maxsize=4096)(partial(lies_in, networks=settings.trusted_traces))
        self._tracing = open_tracing(settings.otel, trusts=trusts, log=logging.log)
        self._recorder = Recorder(
            logging=logging, metrics=self._metrics, tracing=self._tracing, clock=clock
        )
        self._state = state_of(settings, metrics=self._metrics, log=self._log, clock=clock)
        self._ledger, self._keys = self._state.ledger, self._state.keys
        self._build_upstreams()
        self._gate = AdmissionGate(settings.admission, clock=clock, rooms=self._pool)
        self._limit_headers = LimitHeaders(ledger=self._ledger, clock=clock)
        show_parts(
            self._metrics,
            pool=self._pool,
            fleet=self._fleet,
            watcher=self._fleet_watcher,
            gate=self._gate,
            admission=settings.admission,
            streams=self._streams,
            ledger=self._ledger,
            flushes=self._state.flushes,
            keys=self._keys,
            logs=logging,
            tracing=self._tracing,
        )
        self._layers = self._observed(self._router())
        self.side = self._observed(Router([self._metrics_route()], elsewhere=not_found))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._layers(scope, receive, send)

    def refused_by_protocol(self, status: int) -> None:
        """A request that was no valid HTTP: no layer saw it."""
        self._metrics.count_protocol_refusal(status)
        self._log.debug("request refused as no valid HTTP", status=status)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open the parts, tell the server, wait for the end, close them in reverse.

        What goes wrong is said here: the server is told only that it did.
        """
        await receive()
        opened = await self._opened()
        if opened is None:
            await send({"type": "lifespan.startup.failed"})
            return
        try:
            async with opened:
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as fault:
            self._log.critical("did not end in good order", fault=str(fault), exc_info=fault)
            await send({"type": "lifespan.shutdown.failed"})
            return
        self._log.info("stopped")
        await send({"type": "lifespan.shutdown.complete"})

    async def _opened(self) -> AsyncExitStack | None:
        """All parts, open; None if one cannot be, which the log has heard then."""
        try:
            async with AsyncExitStack() as opening:
                await self._open(opening)
                return opening.pop_all()
        except (DatabaseUnusable, StartupFault) as fault:
            self.may_start_later = isinstance(fault, RedisUnusable)
            self._log.critical("cannot start", fault=str(fault))
        except Exception as fault:
            self._log.critical("cannot start", fault=repr(fault), exc_info=fault)
        return None

    async def _open(self, opened: AsyncExitStack) -> None:
        opened.callback(self._tracing.close)
        if self._siblings:
            await opened.enter_async_context(self._siblings)
        await self._state.open(opened)
        if len(self._keys.ring) == 0:
            raise StartupFault(NO_KEYS)
        await opened.enter_async_context(self._probe_client)
        await opened.enter_async_context(self._fleet)
        await opened.enter_async_context(self._prober)
        self._say_fleet()
        if self._settings.redis is not None:
            await self._until_seen()
        if self._fleet_watcher:
            await opened.enter_async_context(self._fleet_watcher)
        await opened.enter_async_context(self._lag)

    async def _until_seen(self) -> None:
        """Others take calls meanwhile: one of several gateways or workers takes none before it
        knows an upstream, or has looked for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._has_seen_one.wait()

    # Parts.

    def _build_upstreams(self) -> None:
        settings = self._settings
        self._probe_client = httpx2.AsyncClient(timeout=PROBE_TIMEOUT_SECONDS, trust_env=False)
        picker: Picker = TwoChoices()
        if settings.inference.session_header is not None:
            picker = Sticky(picker)
        policy = Policy(filtered=Available(), scored=LeastBurden(), picked=picker)
        self._pool = UpstreamPool(policy=policy, default_model=settings.default_model)
        self._prober = HealthProber(config=settings.prober, on_change=self._upstream_changed)
        self._fleet = Fleet(
            settings.fleet,
            pool=self._pool,
            prober=self._prober,
            member=self._member,
            on_gone=self._metrics.forget_upstream,
        )
        self._fleet_watcher = None
        if settings.upstreams_file is not None:
            self._fleet_watcher = FleetWatcher(
                settings.upstreams_file,
                fleet=self._fleet,
                on_reload=self._say_fleet,
                on_failure=self._fleet_unusable,
            )

    def _member(self, definition: UpstreamDefinition) -> Member:
        """A new upstream, cold."""
        settings = self._settings
        api_key = definition.api_key.reveal() or None
        client = UpstreamClient(
            url=definition.url,
            api_key=api_key,
            config=settings.transport.for_upstream(
                connect_timeout_seconds=definition.connect_timeout_seconds,
                first_byte_timeout_seconds=definition.first_byte_timeout_seconds,
                idle_timeout_seconds=definition.idle_timeout_seconds,
            ),
        )
        upstream = Upstream(
            definition,
            transport=client,
            probe=HttpProbe(
                url=definition.url,
                client=self._probe_client,
                api_key=api_key,
                health_path=definition.health_path,
                asks_for_messages=definition.asks_for_messages,
            ),
            breaker=CircuitBreaker(
                settings.breaker,
                clock=self._clock,
                on_transition=lambda before, after: self._circuit_changed(upstream, before, after),
            ),
            clock=self._clock,
            slow_start_seconds=settings.slow_start_seconds,
        )
        states = [state.value for state in BreakerState]
        self._metrics.expect_upstream(definition.name, circuit_states=states)
        return Member(upstream, client)

    # Layers, the outermost last.

    def _router(self) -> ASGIApp:
        dispatch = Dispatcher(
            ledger=self._ledger,
            pool=self._pool,
            gate=self._gate,
            clock=self._clock,
            config=self._settings.dispatch,
            streams=self._streams,
        )
        # One each: a flood of addresses must not evict what is known of the keys.
        addresses = MemoryRateLimiter(clock=self._clock)
        keys = MemoryRateLimiter(clock=self._clock)
        running = ConcurrencyLimiter()

        def throttled(app: ASGIApp) -> ASGIApp:
            return ThrottleAddress(app, limiter=addresses, limits=self._settings.address_limits)

        def authenticated(app: ASGIApp) -> ASGIApp:
            return Authenticate(app, ring=lambda: self._keys.ring)

        def behind_address_limit(app: ASGIApp) -> ASGIApp:
            return throttled(self._state.asks_address(app))

        def behind_key(app: ASGIApp) -> ASGIApp:
            return behind_address_limit(authenticated(app))

        def behind_key_limits(app: ASGIApp) -> ASGIApp:
            app = self._state.carries_limits(app)
            app = ThrottleKey(app, limiter=keys, running=running, ledger=self._ledger)
            return throttled(self._state.asks_strangers(authenticated(app)))

        checks = [self._unready, self._no_upstream, self._state.trouble]
        ready = operations.Ready(checks, weaknesses=[self._state.weakness])
        models = "/v1/models"
        routes = [
            Route("/health", "GET", operations.health),
            Route("/ready", "GET", ready),
            Route("/readyz", "GET", ready),
            Route("/version", "GET", operations.version),
            Route("/health/upstreams", "GET", self._upstreams_page()),
            # Where coding agents look (with HEAD) whether anybody is there.
            Route("/", "GET", operations.version),
            Route("/api/hello", "GET", operations.health),
            Route(models, "GET", behind_key(operations.Models(self._pool))),
            Route(
                f"{models}/",
                "GET",
                behind_key(operations.Model(self._pool, prefix=f"{models}/")),
                is_prefix=True,
            ),
            Route("/v1/usage", "GET", behind_key(operations.Usage(self._ledger))),
        ]
        if self._settings.has_dashboard:
            routes += dashboard_routes(guard=behind_address_limit)
        if self._settings.metrics_port is None:
            routes.append(self._metrics_route())
        for operation in Operation:
            endpoint = self._endpoint(operation, dispatch)
            routes.append(Route(operation.value, "POST", behind_key_limits(endpoint)))
        return Router(routes, elsewhere=behind_address_limit(not_found))

    def _endpoint(self, operation: Operation, dispatch: Dispatcher) -> ASGIApp:
        endpoint = InferenceEndpoint(
            operation,
            dispatch=dispatch,
            lifecycle=self.lifecycle,
            limit_headers=self._limit_headers,
            memory=self._bodies,
            clock=self._clock,
            config=self._settings.inference,
        )
        if operation not in UPLOADS:
            return endpoint
        return UploadEndpoint(
            operation,
            parse=OpenAIDialect(self._settings.dialect).parse_form,
            inference=endpoint,
            lifecycle=self.lifecycle,
            memory=self._bodies,
            clock=self._clock,
            config=self._settings.inference,
        )

    def _upstreams_page(self) -> ASGIApp:
        return operations.UpstreamsPage(
            lambda: standing_of(self._pool.upstreams, generation=self._fleet.generation),
            origin=self._origin,
            access=self._settings.metrics_access,
        )

    def _metrics_route(self) -> Route:
        page = operations.MetricsPage(
            self._siblings or self._metrics,
            origin=self._origin,
            access=self._settings.metrics_access,
        )
        return Route("/metrics", "GET", page)

    def _observed(self, app: ASGIApp) -> ASGIApp:
        app = Rescue(
            app,
            limit_headers=self._limit_headers,
            on_fault=self._fault,
        )
        if self._settings.cors_origins:
            app = CORSMiddleware(
                app,
                allow_origins=sorted(self._settings.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["*"],
            )
        return Observe(
            app,
            recorder=self._recorder,
            clock=self._clock,
            origin=self._origin,
            dialects=self._dialects,
        )

    def reload(self) -> None:
        """Read the upstreams file anew; for a signal's handler."""
        if self._fleet_watcher:
            self._fleet_watcher.reload_soon()

    # Readiness: None, or what is missing.

    def _unready(self) -> str | None:
        return "draining: shutting down" if self.lifecycle.is_draining else None

    def _no_upstream(self) -> str | None:
        if any(upstream.health.is_healthy for upstream in self._pool.upstreams):
            return None
        return "; ".join(f"upstream {u.name}: {u.health.reason}" for u in self._pool.upstreams)

    # What the log hears.

    def _upstream_changed(self, upstream: Upstream) -> None:
        health = upstream.health
        if health.is_healthy:
            self._has_seen_one.set()
        else:
            self._log.warning("upstream is unhealthy", upstream=upstream.name, reason=health.reason)
            return
        self._log.info("upstream is healthy", upstream=upstream.name, models=list(upstream.models))
        if upstream.unlisted_models:
            self._log.warning(
                "upstream does not list models it is said to serve",
                upstream=upstream.name,
                models=sorted(upstream.unlisted_models),
            )

    def _circuit_changed(
        self, upstream: Upstream, before: BreakerState, after: BreakerState
    ) -> None:
        if after is BreakerState.CLOSED:
            upstream.warm_up()
        self._metrics.count_transition(upstream.name, after.value)
        self._log.warning("circuit", upstream=upstream.name, before=before.value, after=after.value)

    def _say_fleet(self) -> None:
        self._log.info(
            "upstreams",
            generation=self._fleet.generation,
            upstreams=[upstream.definition.summary for upstream in self._pool.upstreams],
            aliases=len(self._pool.aliases),
        )

    def _fleet_unusable(self, faults: tuple[str, ...]) -> None:
        self._log.error(
            "the upstreams file cannot be used; the upstreams stay as they were",
            faults=list(faults),
            generation=self._fleet.generation,
        )

    def _fault(self, exchange: Exchange, fault: Exception) -> None:
        self._log.error("internal error", request_id=exchange.request_id, exc_info=fault)
