"""What every command of the command line shares: options, opening the settings and the database, how errors read.

Owns exit codes: 0 done, 1 nothing found, 2 usage, 78 configuration, 69 unavailable, 70 fault. The commands are in `cli.py` and in
what it brings in.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import structlog
import typer

from adapters.registry import AdapterUnavailable
from bot import app as daemon
from bot.catalogue import CatalogueError
from bot.web.app import PortTaken
from config import logging as logs
from config.errors import ConfigError, ConfigErrors
from config.settings import LogSettings
from config.sources import Loaded
from config.sources import load as load_sources
from sessions.database.base import Database
from sessions.errors import StoreError

NOT_FOUND, USAGE, CONFIGURATION, UNAVAILABLE, FAULT = 1, 2, 78, 69, 70

log = structlog.get_logger()

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="TOML file; default: palaver/config.toml in the user's configuration folder."
    ),
]
LevelOption = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")]
FormatOption = Annotated[str | None, typer.Option("--log-format", help="auto, json or pretty.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load(config: Path | None, log_level: str | None = None, log_format: str | None = None) -> Loaded:
    """The settings, or an end with what is wrong with them."""
    try:
        return load_sources(config, overrides={"log.level": log_level, "log.format": log_format})
    except ConfigErrors as errors:
        fail(CONFIGURATION, *errors.lines())


async def beside(loaded: Loaded, work: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
    """Read the database, whether or not a daemon owns it."""
    database = await daemon.open_beside(loaded.settings)
    try:
        return await work(database)
    finally:
        await database.close()


async def owning(loaded: Loaded, work: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
    """Change the database. Raises: StoreUnavailable, with what to do, while a daemon owns it."""
    logs.configure(LogSettings(level="error"))  # what is printed is the command's own
    database = await daemon.open_database(loaded.settings)
    try:
        return await work(database)
    finally:
        await database.close()


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; what is wrong is said in a line or two, with the exit code of its kind."""
    try:
        return asyncio.run(work)
    except StoreError as error:
        fail(UNAVAILABLE, f"database: {error.reason}", error.hint)
    except PortTaken as error:
        fail(
            UNAVAILABLE,
            f"http: {error}",
            "Set http.port (PALAVER_HTTP__PORT) to a free one, or http.enabled to false.",
        )
    except (CatalogueError, ConfigError, AdapterUnavailable) as error:
        fail(CONFIGURATION, str(error))
    except (typer.Exit, typer.Abort, BrokenPipeError):  # said already, or nobody is there to be told
        raise
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:  # the last resort: a fault is said plainly and logged whole
        log.exception("daemon.failed")
        fail(
            FAULT,
            f"fault: {type(error).__name__}: {error}",
            "This is a mistake in Palaver; please report it.",
        )


def fail(code: int, first: str, *more: str) -> NoReturn:
    """Say on stderr what is wrong and what to do, and end with that exit code."""
    typer.echo(f"palaver: {first}", err=True)
    for line in more:
        if line:
            typer.echo(f"         {line}", err=True)
    logs.flush()
    raise typer.Exit(code)
