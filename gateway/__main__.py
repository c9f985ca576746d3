"""The command line, and the only reader of the environment: serve, keys, usage, check."""

import os
import signal
from collections.abc import Mapping
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
from gateway.telemetry.logs import LogFileUnusable, Logging
from gateway.telemetry.stdlog import take_over_last_words
from gateway.telemetry.traces import TracingUnusable

ENV_FILE = Path("config/.env")
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: restarting will not help
EXIT_CODES = {Ending.NOT_STARTED: EXIT_CONFIGURATION, Ending.TROUBLED: 1}


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
        try:
            logging = Logging(
                level=settings.log_level, form=settings.log_format, file=settings.log_file
            )
        except LogFileUnusable as fault:
            _fail([str(fault)])
        _obey_signals(logging)
        take_over_last_words(logging.log)
        try:
            _serve(settings, logging)
        finally:
            logging.close()

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


def _serve(settings: Settings, logging: Logging) -> None:
    for warning in settings.warnings:
        logging.log.warning("settings", what=warning)
    use_all_descriptors()
    try:
        application = Application(settings, logging=logging, clock=SystemClock())
        _obey_hangup(settings, logging, application)
        listener = listen(settings.server.host, settings.server.port, variable="GATEWAY_PORT")
        side = None
        if settings.metrics_port is not None:
            port = settings.metrics_port
            side_listener = listen(settings.server.host, port, variable="METRICS_PORT")
            side = Side(application.side, side_listener)
    except (PortUnavailable, KeyConflict, TracingUnusable) as fault:
        logging.log.critical("cannot start", fault=str(fault))
        raise typer.Exit(EXIT_CONFIGURATION) from fault
    host, port = listener.getsockname()[:2]
    logging.log.info(
        "gateway is starting", version=gateway.__version__, host=host, port=port, pid=os.getpid()
    )
    ending = serve(
        application,
        application=application.lifecycle,
        config=settings.server,
        listener=listener,
        side=side,
        on_refusal=application.refused_by_protocol,
    )
    if ending is not Ending.ORDERLY:
        raise typer.Exit(EXIT_CODES[ending])


def _fail(faults: list[str], *, code: int = EXIT_CONFIGURATION) -> NoReturn:
    typer.echo(f"{len(faults)} fault(s) in the configuration:", err=True)
    for fault in faults:
        typer.echo(f"  {fault}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
