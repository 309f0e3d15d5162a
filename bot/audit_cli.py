"""`palaver audit`: what was done to people's data and to their rights, and by whom.

Owns this command's arguments and words. What is written down is `sessions/audit.py`.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer

from bot import shell
from bot.reports import escaped, removed
from bot.shell import ConfigOption, JsonOption
from sessions import audit as audit_log
from sessions.audit import Entry
from sessions.database.base import Database


def audit(
    config: ConfigOption = None,
    person: Annotated[
        str | None,
        typer.Option(metavar="ID", help="A person's internal id, also of somebody who was forgotten."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List who was forgotten, blocked or made an operator. When, and by whom."""
    loaded = shell.load(config)

    async def work(database: Database) -> list[Entry]:
        return await database.read(lambda tx: audit_log.latest(tx, subject=person, limit=limit))

    found: list[Entry] = shell.finish(shell.beside(loaded, work))
    if as_json:
        typer.echo(orjson.dumps([asdict(entry) for entry in found]).decode())
        return
    for entry in found:
        at = datetime.fromtimestamp(entry.at / 1000, UTC)
        counts = removed(entry.counts)
        typer.echo(
            f"{at:%Y-%m-%d %H:%M:%S} UTC  by {entry.actor:<8}  {entry.action.replace('_', ' '):<14}  "
            f"{escaped(entry.subject)}{f'  {counts}' if counts else ''}"
        )
    if not found:
        typer.echo("Nothing.")
