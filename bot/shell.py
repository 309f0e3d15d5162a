"""What every command of the command line shares: options, opening the settings and the database, how errors read.

Owns exit codes: 0 done, 1 nothing found, 2 usage, 78 configuration, 69 unavailable, 70 fault. The commands are in `cli.py` and in
what it brings in.
"""

import asyncio
import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import structlog
import typer

from adapters.registry import AdapterUnavailable
from bot import stores
from bot.catalogue import CatalogueError
from bot.web.app import PortTaken
from config import logging as logs
from config.errors import ConfigError, ConfigErrors
from config.redaction import redact_url
from config.settings import LogSettings
from config.sources import Loaded
from config.sources import load as load_sources
from sessions.database.base import Database
from sessions.errors import StoreError

NOT_FOUND, USAGE, CONFIGURATION, UNAVAILABLE, FAULT = 1, 2, 78, 69, 70

_SURROUNDINGS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}
"""What files and disks can do to us that is no mistake in Palaver."""

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


def load(
    config: Path | None,
    log_level: str | None = None,
    log_format: str | None = None,
    roles: str | None = None,
) -> Loaded:
    """The settings, or an end with what is wrong with them."""
    words = None if roles is None else [word.strip() for word in roles.split(",") if word.strip()]
    try:
        return load_sources(
            config, overrides={"log.level": log_level, "log.format": log_format, "node.roles": words}
        )
    except ConfigErrors as errors:
        fail(CONFIGURATION, *errors.lines())


async def beside(loaded: Loaded, work: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
    """Read the database, whether or not a daemon owns it."""
    quiet()
    database = await stores.open_beside(loaded.settings)
    try:
        return await work(database)
    finally:
        await database.close()


async def owning(
    loaded: Loaded, work: Callable[[Database], Coroutine[Any, Any, Any]], *, may_be_new: bool = False
) -> Any:
    """Change the database. Raises: StoreUnavailable, with what to do, while a daemon owns it, or if there is none to change."""
    quiet()
    database = await stores.open_database(loaded.settings, may_be_new=may_be_new)
    try:
        return await work(database)
    finally:
        await database.close()


def database_place(database_url: str) -> str:
    """Where the database is, as people read it: `~/palaver.db (new)`, or a server's address without its password."""
    if not stores.is_sqlite(database_url):
        return redact_url(database_url)
    path = stores.sqlite_path(database_url)
    return in_home(path) + ("" if path.exists() else " (new)")


def in_home(path: Path) -> str:
    """A path as people write it: `~/…` for what is in their home."""
    with contextlib.suppress(ValueError, RuntimeError):  # it is elsewhere, or nobody knows where home is
        return f"~/{path.relative_to(Path.home())}"
    return str(path)


def now() -> int:
    """In milliseconds, as the store has it."""
    return int(time.time() * 1000)


def quiet() -> None:
    """What is printed is the command's own; only errors are logged, and not into its output."""
    logs.configure(LogSettings(level="error"), beside_output=True)


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float, float], None]]:
    """A bar on stderr where that is a terminal; gives what is called with (done, of how many; 0 if nobody knows)."""
    if not sys.stderr.isatty():  # not rich's own opinion, which FORCE_COLOR and the like change
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; what is wrong is said in a line or two, with the exit code of its kind."""
    try:
        return asyncio.run(work)
    except StoreError as error:
        fail(UNAVAILABLE, f"database: {error.reason}", error.hint)
    except PortTaken as error:
        fail(UNAVAILABLE, f"http: {error}", error.hint)
    except (CatalogueError, ConfigError, AdapterUnavailable) as error:
        fail(CONFIGURATION, str(error))
    except (typer.Exit, typer.Abort, BrokenPipeError):  # said already, or nobody is there to be told
        raise
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except OSError as error:
        if error.errno not in _SURROUNDINGS:
            _fault(error)
        where = error.filename2 or error.filename
        fail(
            UNAVAILABLE,
            f"{f'{where}: ' if where else ''}{error.strerror}.",
            "Look at the disk and the rights there.",
        )
    except Exception as error:  # noqa: BLE001 - the last resort
        _fault(error)


def give_up_stdout() -> None:
    """Nobody can be given the rest; what is still buffered must not be tried again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fault(error: Exception) -> NoReturn:
    """Said plainly and logged whole."""
    log.error("daemon.failed", exc_info=error)
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
