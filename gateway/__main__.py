"""The command line, and the only reader of the environment: serve, keys, usage, check."""

import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from dotenv import dotenv_values

import gateway
from gateway.app import Application
from gateway.auth.keyring import KeyConflict, KeyEntry, static_entries
from gateway.clock import Clock, SystemClock
from gateway.commands.books import books_of
from gateway.commands.check import examine
from gateway.commands.keys import keys_app
from gateway.commands.usage import UsageSource, usage_command
from gateway.server import (
    Ending,
    PortUnavailable,
    Side,
    listen,
    serve,
    use_all_descriptors,
)
from gateway.settings import ConfigurationError, Settings
from gateway.telemetry.logs import LogFileUnusable, Logging, require_writable
from gateway.telemetry.stdlog import take_over_last_words
from gateway.telemetry.traces import TracingUnusable
from gateway.telemetry.workerlog import PlainLog, WorkerLogging
from gateway.workers.doors import Door, Doors
from gateway.workers.lifeline import end_with_the_supervisor
from gateway.workers.supervisor import Post, Supervisor
from gateway.workers.team import Team

ENV_FILE = Path("config/.env")
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: restarting will not help
EXIT_NOT_YET = 75  # EX_TEMPFAIL: what is missing may come, and starting again helps
EXIT_CODES = {Ending.ORDERLY: 0, Ending.NOT_STARTED: EXIT_CONFIGURATION, Ending.TROUBLED: 1}


def main() -> None:
    """The console command `gateway`."""
    # gRPC's core writes past every logger, "Got goaway" for one; what fails is an error to us.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    clock = SystemClock()
    line = CommandLine()
    cli = typer.Typer(
        name="gateway",
        help="An API gateway for self-hosted vLLM: keys, limits, token quotas, a circuit breaker.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    cli.callback()(line.environment)
    cli.command("serve")(line.serve)
    cli.command("check")(line.check)
    cli.command("version")(line.version)
    cli.add_typer(
        keys_app(
            books=lambda: books_of(line.settings(), clock=clock),
            static_keys=line.static_keys,
            clock=clock,
        )
    )
    cli.command("usage")(usage_command(source=lambda: line.usage_source(clock), clock=clock))
    cli()


class CommandLine:
    """The commands, and the settings file they read first."""

    def __init__(self) -> None:
        self._base = Path()

    def environment(
        self,
        env_file: Annotated[
            Path | None, typer.Option(help="Settings file; variables already set win over it.")
        ] = None,
    ) -> None:
        """Read the settings file into the environment before any command runs."""
        path = env_file or ENV_FILE
        if env_file is not None and not env_file.is_file():
            _fail([f"--env-file {env_file}: there is no such file"])
        if not path.is_file():
            return
        folder = path.resolve().parent
        if folder.name == ENV_FILE.parent.name:
            # Relative paths in config/.env are the project's, wherever the command is run.
            self._base = folder.parent
        try:
            listed = dotenv_values(path)
        except OSError as cause:
            cure = "let this user read it, or start elsewhere"
            _fail([f"{path}: cannot be read ({cause.strerror}); {cure}"])
        for name, value in listed.items():
            if value is not None:
                os.environ.setdefault(name, value)

    def serve(self) -> None:
        """Run the gateway until SIGTERM or Ctrl-C."""
        settings = self.settings()
        code = _supervise(settings) if settings.workers > 1 else _serve_alone(settings)
        if code:
            raise typer.Exit(code)

    def check(self) -> None:
        """Validate the settings and look at keys and upstreams; list all faults.

        Exit 78 if a setting cannot be read, 1 for any other fault. Keys or upstreams are not
        looked at while a variable that names them cannot be read.
        """
        found = examine(os.environ, base=self._base)
        for warning in found.warnings:
            typer.echo(f"warning: {warning}", err=True)
        if found.settings or found.others:
            code = EXIT_CONFIGURATION if found.settings else 1
            _fail([*found.settings, *found.others], code=code)
        typer.echo("The settings are valid and every upstream answers.")

    def version(self) -> None:
        """Print the version."""
        typer.echo(gateway.__version__)

    def settings(self) -> Settings:
        environ: Mapping[str, str] = os.environ
        try:
            return Settings.from_env(environ, base=self._base)
        except ConfigurationError as error:
            _fail(error.faults)

    def static_keys(self) -> tuple[KeyEntry, ...]:
        """The keys of GATEWAY_API_KEYS."""
        settings = self.settings()
        keys = ((name, key.reveal()) for name, key in settings.static_keys)
        try:
            return static_entries(keys, defaults=settings.key_defaults)
        except KeyConflict as fault:
            _fail([f"GATEWAY_API_KEYS: {fault}"])

    def usage_source(self, clock: Clock) -> UsageSource:
        settings = self.settings()
        return UsageSource(books=books_of(settings, clock=clock), zone=settings.quota_zone)


def _obey_signals(logging: Logging) -> None:
    """What an operator can change while the gateway runs; the server has its own for the end."""
    signal.signal(signal.SIGUSR1, lambda *_: logging.say_more())
    signal.signal(signal.SIGUSR2, lambda *_: logging.say_less())


def _obey_hangup(settings: Settings, logging: Logging, application: Application) -> None:
    """SIGHUP: look anew at the files that may have changed. It ends nothing, not even where there
    is no such file: a reload by habit or a terminal that goes away must not cut answers."""

    def look_anew(*_: object) -> None:
        if settings.log_file is None and settings.upstreams_file is None:
            logging.log.info("hangup ignored", reason="neither LOG_FILE nor an upstreams file")
        if settings.log_file is not None:
            logging.reopen()
        application.reload()

    signal.signal(signal.SIGHUP, look_anew)


def _serve_alone(settings: Settings) -> int:
    logging = _logging(Logging, settings)
    with closing(logging):
        try:
            door = _door(settings, is_shared=False)
        except PortUnavailable as fault:
            logging.log.critical("cannot start", fault=str(fault))
            return EXIT_CONFIGURATION
        return _serve(settings, logging, door)


def _supervise(settings: Settings) -> int:
    """WORKERS processes on one listening socket, and this one to keep them."""
    with tempfile.TemporaryDirectory(prefix="gateway-workers-") as place:
        folder = Path(place)
        try:
            _require_writable_log(settings)
            # Alone at first: a port that somebody else shares among his own is not ours to share.
            _door(settings, is_shared=False).close()
            shared = partial(_door, settings, is_shared=True)
            doors = Doors(count=settings.workers, open_door=shared)
        except (PortUnavailable, LogFileUnusable) as fault:
            _fail([str(fault)])
        lock_path = folder / "log.lock"

        def work(post: Post, door: Door) -> int:
            kind = partial(WorkerLogging, number=post.number, lock_path=lock_path)
            end_with_the_supervisor(post.lifeline)
            team = Team(post.number, settings.workers, post.restarts, folder)
            with closing(_logging(kind, settings)) as logging:
                return _serve(settings, logging, door, team=team)

        supervisor = Supervisor(
            count=settings.workers,
            doors=doors,
            work=work,
            notes=PlainLog(form=settings.log_format, file=settings.log_file, lock_path=lock_path),
            hopeless_code=EXIT_CONFIGURATION,
        )
        return supervisor.run()


def _require_writable_log(settings: Settings) -> None:
    if settings.log_file is not None:
        require_writable(settings.log_file)


def _door(settings: Settings, *, is_shared: bool) -> Door:
    """Raises PortUnavailable."""
    host, side_port = settings.server.host, settings.metrics_port
    main = listen(host, settings.server.port, variable="GATEWAY_PORT", shares_port=is_shared)
    if side_port is None:
        return Door(main, None)
    try:
        side = listen(host, side_port, variable="METRICS_PORT", shares_port=is_shared)
    except PortUnavailable:
        main.close()
        raise
    return Door(main, side)


def _logging(kind: Callable[..., Logging], settings: Settings) -> Logging:
    try:
        logging = kind(level=settings.log_level, form=settings.log_format, file=settings.log_file)
    except LogFileUnusable as fault:
        _fail([str(fault)])
    _obey_signals(logging)
    take_over_last_words(logging.log)
    return logging


def _serve(settings: Settings, logging: Logging, door: Door, *, team: Team | None = None) -> int:
    """The exit code."""
    for warning in settings.warnings:
        logging.log.warning("settings", what=warning)
    use_all_descriptors()
    try:
        application = Application(settings, logging=logging, clock=SystemClock(), team=team)
    except (KeyConflict, TracingUnusable) as fault:
        logging.log.critical("cannot start", fault=str(fault))
        return EXIT_CONFIGURATION
    _obey_hangup(settings, logging, application)
    host, port = door.main.getsockname()[:2]
    logging.log.info(
        "gateway is starting", version=gateway.__version__, host=host, port=port, pid=os.getpid()
    )
    ending = serve(
        application,
        application=application.lifecycle,
        config=settings.server,
        listener=door.main,
        side=Side(application.side, door.side) if door.side else None,
        on_refusal=application.refused_by_protocol,
        is_supervised=team is not None,
    )
    if ending is Ending.NOT_STARTED and application.may_start_later:
        return EXIT_NOT_YET
    return EXIT_CODES[ending]


def _fail(faults: list[str], *, code: int = EXIT_CONFIGURATION) -> NoReturn:
    typer.echo(f"{len(faults)} fault(s) in the configuration:", err=True)
    for fault in faults:
        typer.echo(f"  {fault}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
