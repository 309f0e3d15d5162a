"""`palaver sessions export` and `import`: conversations to a file and from one.

Owns arguments, files and progress. What a file holds and what becomes of it is `sessions/transfer/`.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated, Final, Literal

import orjson
import typer

from bot import shell
from bot.naming import PersonOption, person_named
from bot.reports import counted
from bot.session_cli import session_named, sessions_cli
from bot.shell import UNAVAILABLE, USAGE, ConfigOption, JsonOption, progress_bar
from sessions.database.base import Database
from sessions.errors import TransferError
from sessions.scope import OperatorScope, PersonScope, Scope
from sessions.transfer import exporting, foreign, importing, readable
from sessions.transfer.exporting import Exported
from sessions.transfer.storing import Imported

Format = Literal["jsonl", "markdown", "csv"]
ImportFormat = Literal["auto", "jsonl", "openai", "claude", "telegram"]

ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]


@sessions_cli.command("export")
def export(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Sessions; all of them by default.")
    ] = None,
    person: PersonOption = None,
    format: Annotated[
        Format, typer.Option(help="jsonl is complete, markdown to read, csv figures.")
    ] = "jsonl",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of stdout.")] = None,
    force: ForceOption = False,
    config: ConfigOption = None,
) -> None:
    """Write conversations to stdout or a file. Everything, one person's, or those named. Works beside a running daemon."""
    if ids and person is not None:
        shell.fail(USAGE, "sessions export: name sessions or a person, not both.")
    if output is not None and str(output) == "-":
        output = None
    if output is not None and output.is_dir():
        shell.fail(USAGE, f"sessions export: {output} is a folder.", "Name a file in it.")
    if output is not None and output.is_file() and not force:
        shell.fail(
            USAGE, f"sessions export: {output} is there already.", "Choose another name, or add --force."
        )
    loaded = shell.load(config)
    run = {
        "jsonl": exporting.export,
        "markdown": readable.export_markdown,
        "csv": readable.export_csv,
    }[format]

    async def work(database: Database) -> Exported:
        scope: Scope = OperatorScope()
        if person is not None:
            scope = PersonScope(await person_named(database, person, "sessions export"))
        chosen = (
            None if not ids else [(await session_named(database, word, "sessions export")).id for word in ids]
        )
        with progress_bar("Exporting") as bar, _target(output) as file:
            return await run(database, file.write, scope=scope, ids=chosen, progress=bar)

    try:
        done = shell.finish(shell.beside(loaded, work))
    except BrokenPipeError:  # whoever read has seen enough
        shell.give_up_stdout()
        raise typer.Exit(0) from None
    if output is not None or sys.stderr.isatty():
        typer.echo(
            f"{counted(done.sessions, 'session')} with {counted(done.messages, 'message')} written.", err=True
        )
    if done.unsent_replies:
        typer.echo(
            f"{done.unsent_replies} replies still wait to be sent; they are not part of an export.", err=True
        )


@sessions_cli.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An export; - reads stdin.")],
    person: PersonOption = None,
    format: Annotated[
        ImportFormat, typer.Option(help="auto looks at the file; the others name whose export it is.")
    ] = "auto",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read conversations from a file. Palaver's own export, or a chat export of OpenAI, Claude or Telegram Desktop.

    Those of other programs need --person, into whose archive they go. A second time changes nothing.
    """
    if str(file) != "-" and not file.is_file():
        shell.fail(USAGE, f"sessions import: there is no file {file}.")
    loaded = shell.load(config)

    async def work(database: Database) -> Imported | TransferError:
        try:
            with progress_bar("Importing") as bar, _source(file) as source:
                return await _import(database, source, format, person, bar)
        except TransferError as error:
            return error

    done = shell.finish(shell.owning(loaded, work, may_be_new=True))
    if isinstance(done, TransferError):
        shell.fail(
            USAGE,
            f"sessions import: {done}.",
            "Sessions before that are in; a second run changes none of them.",
        )
    if as_json:
        typer.echo(orjson.dumps(vars(done)).decode())
        return
    typer.echo(
        f"{counted(done.sessions, 'session')} with {counted(done.messages, 'message')}"
        f" and {counted(done.persons, 'person', 'people')} came in."
    )
    if done.skipped:
        typer.echo(f"{counted(done.skipped, 'session')} of the file {_was(done.skipped)} there already.")
    if done.ended:
        typer.echo(
            f"{counted(done.ended, 'live session')} came in as ended: another is live in the same place."
        )
    if done.left_out:
        left_out = counted(done.left_out, "message")
        typer.echo(
            f"{left_out} {_was(done.left_out)} left out: of tools, of the system, or with nothing in them."
        )


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


_PROGRAMS: Final = {"openai": "OpenAI", "claude": "Claude", "telegram": "Telegram Desktop"}


async def _import(
    database: Database,
    source: IO[bytes],
    format: ImportFormat,
    person: str | None,
    bar: Callable[[float, float], None],
) -> Imported:
    size = os.fstat(source.fileno()).st_size if source.seekable() else 0
    if format in ("auto", "jsonl") and _is_own(source):
        if person is not None:
            shell.fail(
                USAGE,
                "sessions import: --person is for exports of other programs; this one says whose its sessions are.",
            )
        _check_end(source, size)
        return await importing.load(
            database, source, shell.now, progress=lambda _: bar(source.tell() if size else 0, size)
        )
    if format == "jsonl":
        shell.fail(USAGE, "sessions import: this is no export of Palaver's.")
    try:
        document = await asyncio.to_thread(lambda: foreign.read(source.read()))
        name = foreign.recognise(document) if format == "auto" else format
        if person is None:
            shell.fail(
                USAGE,
                f"sessions import: an export of {_PROGRAMS[name]} belongs to nobody here yet.",
                "--person ID says into whose archive it goes; `palaver people list` lists them.",
            )
        owner = await person_named(database, person, "sessions import")
        found, left_out = foreign.records(document, name, owner)
    except TransferError as error:  # of such a file nothing is in before all of it is understood
        shell.fail(USAGE, f"sessions import: {error}.")
    done = await importing.store(database, found, shell.now, progress=lambda seen: bar(seen, 0))
    done.left_out = left_out
    return done


def _is_own(source: IO[bytes]) -> bool:
    """Whether a file begins as ours does; nothing is taken from it by looking."""
    head: bytes = source.peek(200)[:200]  # type: ignore[attr-defined]  # a buffered reader has it
    return head.lstrip().startswith(b'{"type":"header"')


def _check_end(source: IO[bytes], size: int) -> None:
    """A file that was cut off is refused before anything of it is in. From a pipe, that is only seen at the end."""
    if not source.seekable():
        return
    source.seek(max(0, size - 4096))
    lines = source.read().splitlines()
    source.seek(0)
    if not lines or not lines[-1].startswith(b'{"type":"end"'):
        shell.fail(
            USAGE, "sessions import: the file has no end: it was cut off while it was written or copied."
        )


@contextlib.contextmanager
def _target(output: Path | None) -> Iterator[IO[bytes]]:
    """Where an export goes. A file appears under its name when it is whole and on disk."""
    try:
        if output is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif output.exists() and not output.is_file():  # a pipe or a device, which nothing takes the place of
            with output.open("wb") as file:
                yield file
        else:
            with _whole_file(output) as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        if output is None:
            shell.give_up_stdout()
        shell.fail(
            UNAVAILABLE,
            f"sessions export: cannot write {output or 'to stdout'}: {error.strerror}.",
            "" if output is None else "Nothing half written is left there.",
        )


@contextlib.contextmanager
def _whole_file(output: Path) -> Iterator[IO[bytes]]:
    half = output.with_name(f"{output.name}.part")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        half.replace(output)
    finally:
        half.unlink(missing_ok=True)


@contextlib.contextmanager
def _source(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    with file.open("rb") as opened:
        yield opened
