"""The command line, and the only reader of the environment: serve, keys, usage, check."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from dotenv import dotenv_values

import gateway
from gateway.app import Application
from gateway.auth.keyring import KeyConflict
from gateway.clock import SystemClock
from gateway.commands.check import check_upstreams
from gateway.commands.keys import keys_app
from gateway.commands.usage import UsageSource, usage_command
from gateway.server import PortUnavailable, Side, listen, serve
from gateway.settings import ConfigurationError, Settings
from gateway.telemetry.logs import Logging

ENV_FILE = Path("config/.env")
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: restarting will not help
cli = typer.Typer(
    name="gateway",
    help="An API gateway for self-hosted vLLM: keys, limits, token quotas, a circuit breaker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The console command `gateway`."""
    clock = SystemClock()
    cli.add_typer(keys_app(database_path=lambda: _settings().journal.path, clock=clock))
    cli.command("usage")(usage_command(source=_usage_source, clock=clock))
    cli()


@cli.callback()
def environment(
    env_file: Annotated[
        Path | None, typer.Option(help="Settings file; variables already set win over it.")
    ] = None,
) -> None:
    """Read the settings file into the environment before any command runs."""
    path = env_file or ENV_FILE
    if env_file is not None and not env_file.is_file():
        _fail([f"--env-file {env_file}: there is no such file"])
    for name, value in dotenv_values(path).items() if path.is_file() else ():
        if value is not None:
            os.environ.setdefault(name, value)


@cli.command("serve")
def serve_command() -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    settings = _settings()
    logging = Logging(level=settings.log_level, form=settings.log_format)
    try:
        _serve(settings, logging)
    finally:
        logging.close()


@cli.command("check")
def check_command() -> None:
    """Validate the settings and look at the upstreams; list all faults, exit 1 if there are any."""
    settings = _settings()
    faults = check_upstreams(settings)
    for warning in settings.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if faults:
        _fail(faults, code=1)
    typer.echo("The settings are valid and every upstream answers.")


@cli.command("version")
def version_command() -> None:
    """Print the version."""
    typer.echo(gateway.__version__)


def _serve(settings: Settings, logging: Logging) -> None:
    for warning in settings.warnings:
        logging.log.warning("unknown setting", what=warning)
    try:
        application = Application(settings, logging=logging, clock=SystemClock())
        listener = listen(settings.server.host, settings.server.port)
        side = None
        if settings.metrics_port is not None:
            side = Side(application.side, listen(settings.server.host, settings.metrics_port))
    except (PortUnavailable, KeyConflict) as fault:
        logging.log.critical("cannot start", fault=str(fault))
        raise typer.Exit(EXIT_CONFIGURATION) from fault
    host, port = listener.getsockname()[:2]
    logging.log.info(
        "gateway is starting", version=gateway.__version__, host=host, port=port, pid=os.getpid()
    )
    if not serve(
        application,
        application=application.lifecycle,
        config=settings.server,
        listener=listener,
        side=side,
    ):
        raise typer.Exit(EXIT_CONFIGURATION)


def _settings() -> Settings:
    environ: Mapping[str, str] = os.environ
    try:
        return Settings.from_env(environ)
    except ConfigurationError as error:
        _fail(error.faults)


def _usage_source() -> UsageSource:
    settings = _settings()
    return UsageSource(path=settings.journal.path, zone=settings.quota_zone)


def _fail(faults: list[str], *, code: int = EXIT_CONFIGURATION) -> NoReturn:
    typer.echo(f"{len(faults)} fault(s) in the configuration:", err=True)
    for fault in faults:
        typer.echo(f"  {fault}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
