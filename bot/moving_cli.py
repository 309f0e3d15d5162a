"""`palaver migrate`, and what `backup` and `restore` do for a database on a server.

Owns arguments and words. The work is `sessions/database/moving.py`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from bot import shell, stores
from bot.reports import counted
from bot.shell import USAGE, ConfigOption, JsonOption, progress_bar
from config.settings import Settings
from config.sources import Loaded
from sessions.errors import StoreUnavailable

_SERVER = ("postgresql://", "postgres://")


def migrate(
    from_: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Move everything out of this database…")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="…into this empty one; default: database_url.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the database up to date, or move into another one. A snapshot of an old file is kept beside it."""
    if from_ is None and to is not None:
        shell.fail(USAGE, "migrate: --to needs --from.", "Name the database that everything is moved from.")
    loaded = shell.load(config)
    shell.quiet()
    if from_ is not None:
        _move(loaded, from_, to or loaded.settings.database_url, as_json=as_json)
        return

    async def work() -> None:
        database = await stores.open_database(loaded.settings)
        await database.close()

    shell.finish(work())
    typer.echo('{"is_up_to_date":true}' if as_json else "The database is up to date.")


def is_server(url: str) -> bool:
    return url.startswith(_SERVER)


def backup_server(loaded: Loaded, file: Path, *, force: bool, as_json: bool) -> None:
    """Copy a server's database to a file, also while nodes run."""
    from sessions.database import moving

    copy = _run(
        "Copying",
        lambda progress: moving.to_file(
            loaded.settings.database_url, file, replaces=force, is_backup=True, progress=progress
        ),
    )
    if as_json:
        typer.echo(
            orjson.dumps(
                {
                    "path": str(file),
                    "size_bytes": file.stat().st_size,
                    "sessions": copy.rows("sessions"),
                    "messages": copy.rows("messages"),
                    **asdict(copy),
                }
            ).decode()
        )
        return
    typer.echo(
        f"{file}: {_talk(copy.rows)}, {file.stat().st_size:,} bytes,"
        " sound; every count and checksum is that of the server."
    )


def restore_server(loaded: Loaded, file: Path, *, force: bool, as_json: bool) -> None:
    """Fill a server's database from a backup; with `force` in the place of what is there."""
    from sessions.database import moving

    done = _run(
        "Restoring",
        lambda progress: moving.to_server(
            file,
            loaded.settings.database_url,
            replaces=force,
            is_backup=True,
            reader_role=loaded.settings.store.reader_role,
            progress=progress,
        ),
    )
    if as_json:
        typer.echo(orjson.dumps(asdict(done)).decode())
        return
    typer.echo(f"{done.target} has {_talk(done.rows)} now.")
    if done.replaced_rows:
        typer.echo(f"Gone, of what was there before: {counted(done.replaced_rows, 'row')}.")


def _move(loaded: Loaded, source: str, target: str, *, as_json: bool) -> None:
    for name, url in (("--from", source), ("--to", target)):
        if not (is_server(url) or stores.is_sqlite(url)):
            shell.fail(USAGE, f"migrate: {name} is no database.", "Write sqlite:///… or postgresql://…")
    if is_server(source) == is_server(target):
        shell.fail(
            USAGE,
            "migrate: one of the two is a file, the other one on a server.",
            "Between two of a kind: `palaver backup` with the one as database_url, `palaver restore` with the other.",
        )
    started = time.monotonic()
    move = _run("Moving", _mover(loaded.settings, source, target))
    if as_json:
        typer.echo(orjson.dumps({**asdict(move), "seconds": round(time.monotonic() - started, 3)}).decode())
        return
    rows = sum(one.rows for one in move.tables)
    typer.echo(
        f"moved    {_talk(move.rows)}: {counted(rows, 'row')} of {len(move.tables)} tables,"
        " every count and checksum is equal"
    )
    typer.echo(f"from     {move.source} (not changed)")
    typer.echo(f"to       {move.target}")
    if move.unfinished_turns or move.waiting_replies:
        typer.echo(
            f"waiting  {counted(move.unfinished_turns, 'turn')} to be answered,"
            f" {counted(move.waiting_replies, 'reply', 'replies')} to be sent: they go on there"
        )
    typer.echo("next     Set database_url to the new one and start there. Do not start on the old one again:")
    typer.echo("         it would answer once more what the new one has answered.")


def _mover(settings: Settings, source: str, target: str) -> Callable[[Callable[[float, float], None]], Any]:
    from sessions.database import moving

    if is_server(target):
        return lambda progress: moving.to_server(
            _existing(source), target, reader_role=settings.store.reader_role, progress=progress
        )
    return lambda progress: moving.to_file(source, stores.sqlite_path(target), progress=progress)


def _existing(url: str) -> Path:
    path = stores.sqlite_path(url)
    if not path.exists():
        raise StoreUnavailable(f"there is no database at {path}", "Check --from.")
    return path


def _run(label: str, work: Callable[[Callable[[float, float], None]], Any]) -> Any:
    shell.quiet()

    async def run() -> Any:
        with progress_bar(label) as bar:
            return await asyncio.to_thread(lambda: work(bar))

    return shell.finish(run())


def _talk(rows: Callable[[str], int]) -> str:
    return f"{counted(rows('sessions'), 'session')} with {counted(rows('messages'), 'message')}"
