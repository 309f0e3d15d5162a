"""`palaver people show`, `block`, `unblock`, `operator` and `member`: who somebody is, and what they may do.

Owns these commands' arguments and words. What a role allows is `bot/policy.py`; the list and forgetting are
`keeping_cli.py`.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer

from bot import shell
from bot.keeping_cli import people_cli
from bot.naming import person_named
from bot.reports import counted, escaped
from bot.shell import ConfigOption, JsonOption
from sessions import audit, people
from sessions.database.base import Database, Transaction
from sessions.models import PersonRole
from sessions.people import PersonSummary

PersonArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A person's id, or a name or platform id that only they have.")
]


def show(person: PersonArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one person: platforms, role, and what there is of theirs."""
    loaded = shell.load(config)

    async def work(database: Database) -> PersonSummary:
        return await _find(database, person, "people show")

    one: PersonSummary = shell.finish(shell.beside(loaded, work))
    if as_json:
        typer.echo(orjson.dumps(asdict(one)).decode())
        return
    lines = [
        ("person", one.id),
        ("name", escaped(one.display_name)),
        ("role", one.role),
        *(
            ("known as", escaped(f"{platform} {user_id}" + (f" @{username}" if username else "")))
            for platform, user_id, username in one.identities
        ),
        ("sessions", f"{one.sessions:,} with {counted(one.messages, 'message')}"),
        ("first seen", _time(one.created_at)),
        ("last seen", _time(one.last_seen_at)),
    ]
    if one.is_being_erased:
        lines.append(("erasure", "is being forgotten"))
    typer.echo("\n".join(f"{word:<12}{text}" for word, text in lines))


def block(person: PersonArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Block somebody: the bot never answers them, on any platform. Not while a daemon runs."""
    _change(person, config, as_json, "people block", "blocked")


def unblock(person: PersonArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Let somebody who was blocked talk again. Not while a daemon runs."""
    _change(person, config, as_json, "people unblock", "member", only_if="blocked")


def operator(person: PersonArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Make somebody an operator. They may always talk, and stop other people's answers. Not while a daemon runs."""
    _change(person, config, as_json, "people operator", "operator")


def member(person: PersonArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Make somebody a member like everybody else. Not while a daemon runs."""
    _change(person, config, as_json, "people member", "member")


def register() -> None:
    """Add these commands to `palaver people`."""
    for command in (show, block, unblock, operator, member):
        people_cli.command(command.__name__)(command)


def _change(
    word: str,
    config: Path | None,
    as_json: bool,
    command: str,
    role: PersonRole,
    *,
    only_if: PersonRole | None = None,
) -> None:
    loaded = shell.load(config)

    async def work(database: Database) -> tuple[PersonSummary, bool]:
        one = await _find(database, word, command)
        is_due = one.role != role and only_if in (None, one.role)
        if is_due:
            await database.write(lambda tx: _set_role(tx, one, role))
        return one, is_due

    one, is_changed = shell.finish(shell.owning(loaded, work))
    if as_json:
        facts = {"person": one.id, "role": role if is_changed else one.role, "is_changed": is_changed}
        typer.echo(orjson.dumps(facts).decode())
    elif is_changed:
        typer.echo(f"{escaped(one.display_name)} ({one.id}) was {one.role} and is {role} now.")
    else:
        typer.echo(f"{escaped(one.display_name)} ({one.id}) is {one.role}; nothing to change.")


def _set_role(tx: Transaction, one: PersonSummary, role: PersonRole) -> None:
    people.set_role(tx, one.id, role)
    audit.record(tx, "operator", f"role_{role}", one.id, {}, shell.now())


async def _find(database: Database, word: str, command: str) -> PersonSummary:
    person_id = await person_named(database, word, command)
    return (await database.read(lambda tx: people.list_people(tx, words=person_id, limit=1)))[0]


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"
