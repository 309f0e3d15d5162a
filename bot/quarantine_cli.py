"""`palaver quarantine …`: looking at updates that nobody could parse, and removing them.

Owns these commands' arguments and words, and that what a stranger sent cannot drive the operator's terminal.
"""

from datetime import UTC, datetime
from typing import Annotated, NoReturn

import orjson
import typer

from bot import shell
from bot.reports import escaped
from bot.shell import NOT_FOUND, ConfigOption, JsonOption
from sessions import quarantine
from sessions.database.base import Database
from sessions.quarantine import Update

_SHOWN_BYTES = 20_000

quarantine_cli = typer.Typer(help="Look at what arrived and could not be read.", no_args_is_help=True)

NumberArgument = Annotated[
    int, typer.Argument(metavar="N", help="Its number, as `quarantine list` shows it.")
]


@quarantine_cli.command("list")
def list_all(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is set aside, the latest first. It is removed after 30 days."""
    loaded = shell.load(config)

    async def work(database: Database) -> list[Update]:
        return await database.read(lambda tx: quarantine.latest(tx, limit=limit))

    found: list[Update] = shell.finish(shell.beside(loaded, work))
    if as_json:
        typer.echo(orjson.dumps([_facts(update, with_raw=False) for update in found]).decode())
        return
    for update in found:
        typer.echo(
            f"{update.id:>6}  {_time(update.received_at)}  {update.account}  {len(update.raw)} bytes  {escaped(update.reason)}"
        )
    if not found:
        typer.echo("Nothing.")


@quarantine_cli.command("show")
def show(number: NumberArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one with its raw bytes. Whatever is not plain text in them is escaped."""
    loaded = shell.load(config)

    async def work(database: Database) -> Update | None:
        return await database.read(lambda tx: quarantine.find(tx, number))

    update: Update | None = shell.finish(shell.beside(loaded, work))
    if update is None:
        _unknown(number)
    if as_json:
        typer.echo(orjson.dumps(_facts(update, with_raw=True)).decode())
        return
    typer.echo(f"number    {update.id}\naccount   {update.account}\nreceived  {_time(update.received_at)}")
    typer.echo(f"reason    {escaped(update.reason)}\nraw       {len(update.raw)} bytes:\n")
    typer.echo(escaped(_text(update.raw[:_SHOWN_BYTES])))
    if len(update.raw) > _SHOWN_BYTES:
        typer.echo(f"\n… and {len(update.raw) - _SHOWN_BYTES} bytes more; --json has them all.")


@quarantine_cli.command("drop")
def drop(number: NumberArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Remove one. Not while a daemon runs."""
    loaded = shell.load(config)

    async def work(database: Database) -> bool:
        return await database.write(lambda tx: quarantine.drop(tx, number))

    if not shell.finish(shell.owning(loaded, work)):
        _unknown(number)
    typer.echo(orjson.dumps({"removed": number}).decode() if as_json else f"{number} is removed.")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _facts(update: Update, *, with_raw: bool) -> dict[str, object]:
    facts: dict[str, object] = {
        "id": update.id,
        "account": update.account,
        "received_at": update.received_at,
        "reason": update.reason,
        "bytes": len(update.raw),
    }
    return {**facts, "raw": _text(update.raw)} if with_raw else facts


def _unknown(number: int) -> NoReturn:
    shell.fail(
        NOT_FOUND, f"quarantine: there is no number {number}.", "`palaver quarantine list` lists them."
    )


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
