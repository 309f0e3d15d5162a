"""`palaver people …`, `keys …`, `backup`, `restore`, `verify` and `salvage`: what an operator does for the data as a whole.

Owns arguments and words. The work is `sessions/erasure.py`, `sealing.py`, `invariants.py` and `sessions/database/`.
"""

import asyncio
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from bot import moving_cli, shell, stores
from bot import retention as forgetting
from bot.naming import person_named
from bot.reports import counted, escaped, removed
from bot.shell import UNAVAILABLE, USAGE, ConfigOption, JsonOption, progress_bar
from bot.transfer_cli import ForceOption
from config.names import PersonId
from config.settings import Settings
from sessions import audit, erasure, invariants, people, sealing
from sessions.database.base import Database
from sessions.errors import StoreUnavailable

_LEAVING_TRIES: Final = 20
"""Tenths of a second for a command that has just ended, or was killed, to be gone from the server as well."""

people_cli = typer.Typer(help="See who the bot has met, and forget them.", no_args_is_help=True)
keys_cli = typer.Typer(help="Encryption at rest: make keys and change them.", no_args_is_help=True)


@people_cli.command("list")
def list_people(
    words: Annotated[
        str, typer.Argument(metavar="[WORDS]", help="A name, username or platform id; part of it will do.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the people the bot has met, the latest seen first."""
    loaded = shell.load(config)

    async def work(database: Database) -> list[people.PersonSummary]:
        return await database.read(lambda tx: people.list_people(tx, words=words, limit=limit))

    found = shell.finish(shell.beside(loaded, work))
    if as_json:
        typer.echo(orjson.dumps([asdict(one) for one in found]).decode())
        return
    for one in found:
        who = ", ".join(
            f"{platform} {user_id}" + (f" @{username}" if username else "")
            for platform, user_id, username in one.identities
        )
        typer.echo(
            f"{one.id}  {escaped(one.display_name)} ({escaped(who) or 'no identity'})  {one.role}, {counted(one.sessions, 'session')},"
            f" {counted(one.messages, 'message')}, seen {_day(one.last_seen_at)}"
            + (", is being forgotten" if one.is_being_erased else "")
        )
    if not found:
        typer.echo("Nobody.")


@people_cli.command("erase")
def erase(
    person: Annotated[str, typer.Argument(metavar="ID", help="A person's id, as `people list` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a person and all they said.

    The database is written anew without it. It cannot be undone.

    While a daemon runs, the person can do this with /forget me.
    """
    loaded = shell.load(config)

    async def work(database: Database) -> dict[str, Any]:
        pieces: list[str] = []
        if person.upper() in await database.read(erasure.removed):  # a run before this was cut off
            person_id = PersonId(person.upper())
        else:
            person_id = await person_named(database, person, "people erase")
            if not yes:
                found = await database.read(lambda tx: people.list_people(tx, words=person_id, limit=1))
                who = escaped(found[0].display_name)
                what = f"{counted(found[0].sessions, 'session')} and {counted(found[0].messages, 'message')}"
                typer.confirm(f"Remove {who} with {what} for good?", abort=True)
            pieces = await database.read(lambda tx: erasure.samples(tx, person_id))
            await database.write(lambda tx: erasure.request(tx, person_id, shell.now(), actor="operator"))
            with progress_bar("Forgetting"):
                await forgetting.erase_people(database, shell.now, pause_s=0)
        with progress_bar("Writing the database anew"):
            await forgetting.overwrite_removed(database, whole=True)
        written = await database.read(lambda tx: audit.latest(tx, subject=person_id))
        return {
            "person": person_id,
            "removed": next((one.counts for one in written if one.action == "person_erased"), {}),
            "searched": await _searched(database, loaded.settings, pieces),
        }

    done = shell.finish(shell.owning(loaded, work))
    if as_json:
        typer.echo(orjson.dumps(done).decode())
    else:
        typer.echo(f"{done['person']} is forgotten: {removed(done['removed']) or 'there was nothing'}.")
        for line in _proof(done["searched"]):
            typer.echo(line)
        typer.echo("Backups and exports made before still have them, wherever they are kept.")
    if done["searched"] and done["searched"]["left"].get(done["searched"]["files"][0]):
        shell.fail(
            UNAVAILABLE, "people erase: not all is gone.", "Run it again; should that not help, report it."
        )


async def _searched(database: Database, settings: Settings, pieces: Sequence[str]) -> dict[str, Any] | None:
    """What a search through the database's files for pieces of what somebody said found. None on a server, or without pieces."""
    if database.dialect != "sqlite" or not pieces:
        return None
    from sessions.database import traces

    with progress_bar("Searching") as bar:
        path = stores.sqlite_path(settings.database_url)
        found = await asyncio.to_thread(lambda: traces.find(path, pieces, progress=bar))
    said = [piece for piece in found[path] if await database.read(partial(erasure.is_said, piece=piece))]
    return {
        "pieces": len(pieces),
        "files": [file.name for file in found],
        "left": {file.name: len(left) for file, pieces in found.items() if (left := set(pieces) - set(said))},
        "said_by_others": len(said),
    }


def _proof(searched: dict[str, Any] | None) -> Iterator[str]:
    if searched is None:
        return
    clean = [name for name in searched["files"] if name not in searched["left"]]
    yield f"Searched for {searched['pieces']} pieces of what they said: none is in {', '.join(clean) or 'no file'}."
    if searched["said_by_others"]:
        yield f"{searched['said_by_others']} of them were said by others, too, or quoted; those stay."
    for name, count in searched["left"].items():
        yield f"{name} still has {count} of them: remove it if you need it no more."


@keys_cli.command("new")
def new_key() -> None:
    """Print a new key for the setting store.encryption_keys. Whoever loses it loses what is encrypted with it."""
    typer.echo(sealing.new_key())


@keys_cli.command("rotate")
def rotate(
    off: Annotated[bool, typer.Option("--off", help="Decrypt everything instead.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encrypt everything with the first of the keys.

    Afterwards the others may be removed from store.encryption_keys.
    """
    loaded = shell.load(config)

    async def check_alone(database: Database) -> None:
        others = 0
        for _ in range(_LEAVING_TRIES):
            if not (others := await database.others()):
                return
            await asyncio.sleep(0.1)
        raise StoreUnavailable(
            f"others work on the database ({others} connections of Palaver's)",
            "Stop every node first: one that does not know the new key could read nothing any more.",
        )

    async def rotate_all(database: Database) -> int:
        with progress_bar("Rotating") as bar:
            return await sealing.rotate(
                database,
                stores.encryption_keys(loaded.settings),
                shell.now(),
                is_off=off,
                progress=lambda _table, changed: bar(changed, 0),
            )

    async def work() -> int:
        if not stores.is_sqlite(loaded.settings.database_url):
            # Before it is opened for writing: from then on it counts as encrypted.
            await shell.beside(loaded, check_alone)
        return int(await shell.owning(loaded, rotate_all))

    if not loaded.settings.store.encryption_keys:
        shell.fail(USAGE, "keys rotate: store.encryption_keys is empty.", "`palaver keys new` makes a key.")
    changed = shell.finish(work())
    if as_json:
        typer.echo(orjson.dumps({"changed": changed, "is_encrypted": not off}).decode())
    elif off:
        typer.echo(
            f"Decrypted: {counted(changed, 'row')}. Remove store.encryption_keys before the next start."
        )
    else:
        typer.echo(f"Encrypted anew: {counted(changed, 'row')}; only the first key is needed now.")


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes.")],
    force: ForceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the whole database to a file, also while a daemon runs. The copy is looked through."""
    loaded = shell.load(config)
    if moving_cli.is_server(loaded.settings.database_url):
        moving_cli.backup_server(loaded, file, force=force, as_json=as_json)
        return
    from sessions.database import backup as files

    async def work() -> Any:
        source = stores.sqlite_path(loaded.settings.database_url)
        with progress_bar("Copying") as bar:
            return await asyncio.to_thread(
                lambda: files.backup(source, file, replaces=force, progress=lambda share: bar(share, 1))
            )

    copy = shell.finish(work())
    if as_json:
        typer.echo(orjson.dumps({**asdict(copy), "path": str(copy.path)}).decode())
        return
    typer.echo(
        f"{copy.path}: {counted(copy.sessions, 'session')} with {counted(copy.messages, 'message')}, {copy.size_bytes:,} bytes, sound."
    )


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    force: Annotated[
        bool, typer.Option("--force", help="On a server: replace what the database holds.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the database. An old file is kept beside it. Not while a daemon runs."""
    loaded = shell.load(config)
    if moving_cli.is_server(loaded.settings.database_url):
        moving_cli.restore_server(loaded, file, force=force, as_json=as_json)
        return
    from sessions.database import backup as files

    async def work() -> Any:
        target = stores.sqlite_path(loaded.settings.database_url)
        with progress_bar("Restoring") as bar:
            return await asyncio.to_thread(
                lambda: files.restore(file, target, progress=lambda share: bar(share, 1))
            )

    copy, kept = shell.finish(work())
    if as_json:
        typer.echo(
            orjson.dumps(
                {**asdict(copy), "path": str(copy.path), "kept": str(kept) if kept else None}
            ).decode()
        )
        return
    typer.echo(
        f"{copy.path} has {counted(copy.sessions, 'session')} with {counted(copy.messages, 'message')} now."
    )
    if kept is not None:
        typer.echo(f"What was there before is {kept}.")


def verify(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check every page of the database and what must hold in it. Works beside a running daemon. Exit 69 on damage."""
    loaded = shell.load(config)
    shell.quiet()

    async def work(database: Database) -> tuple[list[str], list[invariants.Verdict]]:
        wanted = invariants.of(database.dialect)
        checks = len(wanted) + 1
        with progress_bar("Looking") as bar:
            damage = await database.read(invariants.damage)
            verdicts = []
            for number, invariant in enumerate(wanted, start=1):
                bar(number, checks)
                verdicts.append(
                    await database.read(lambda tx, chosen=invariant: invariants.verify(tx, chosen))  # type: ignore[misc]  # bound early
                )
        return damage, verdicts

    damage, verdicts = shell.finish(shell.beside(loaded, work))
    broken = [verdict for verdict in verdicts if not verdict.holds]
    if as_json:
        typer.echo(
            orjson.dumps(
                {
                    "is_sound": not damage and not broken,
                    "damage": damage,
                    "invariants": [asdict(one) for one in verdicts],
                }
            ).decode()
        )
    else:
        for line in damage:
            typer.echo(f"BAD  {line}")
        for verdict in verdicts:
            examples = f": {verdict.broken} times not, first {', '.join(verdict.examples)}"
            typer.echo(
                f"{'ok ' if verdict.holds else 'BAD'}  {verdict.claim}{'' if verdict.holds else examples}"
            )
        if not damage and stores.is_sqlite(
            loaded.settings.database_url
        ):  # a server looks after its own files
            typer.echo("ok   the file is sound")
    if damage or broken:
        shell.fail(
            UNAVAILABLE,
            "verify: the database is damaged.",
            "Stop the daemon and put back a backup (palaver restore), or save what is readable (palaver salvage).",
        )


def salvage(
    damaged: Annotated[Path, typer.Argument(metavar="DAMAGED", help="The damaged database file.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The database that is made.")],
    as_json: JsonOption = False,
) -> None:
    """Save what is readable of a damaged database into a new one. It says what was lost."""
    shell.quiet()
    from sessions.database import salvage as rescue

    async def work() -> rescue.Report:
        with progress_bar("Saving") as bar:
            return await rescue.salvage(damaged, new, shell.now(), progress=lambda _table, rows: bar(rows, 0))

    report = shell.finish(work())
    if as_json:
        typer.echo(orjson.dumps({**asdict(report), "is_complete": report.is_complete}).decode())
        return
    for table in report.tables:
        if table.rows or table.unreadable or table.refused:
            notes = [f"{counted(table.rows, 'row')} saved"]
            if table.carved:
                notes.append(f"{table.carved} of them found page by page")
            if table.refused:
                notes.append(f"{table.refused} contradict others and were left out")
            if table.is_unknown:
                notes.append("how many are missing nobody can say")
            elif table.unreadable:
                gone = sum(last - first + 1 for first, last in table.unreadable) - table.carved
                # Where even the highest number is lost, the range is a guess that says nothing.
                notes.append(
                    f"at most {max(0, gone)} lost" if gone < 10**9 else "how many are missing nobody can say"
                )
            typer.echo(f"{table.table:<18} {', '.join(notes)}")
    if report.placeholders:
        typer.echo(
            f"Lost themselves, with a stand-in: {counted(report.placeholders, 'session or person', 'sessions or people')}."
        )
    if report.orphans:
        typer.echo(f"Left out, because what they belong to is lost: {counted(report.orphans, 'row')}.")
    if report.is_complete:
        typer.echo("Nothing was lost.")
        return
    if not report.is_sound:
        typer.echo("The file's pages do not fit together: rows may be missing that no line above tells of.")
    typer.echo(f"Look before you use it: PALAVER_DATABASE_URL=sqlite:{shlex.quote(str(new))} palaver verify")


def register(cli: typer.Typer) -> None:
    """Add these commands to the program."""
    cli.add_typer(people_cli, name="people")
    cli.add_typer(keys_cli, name="keys")
    for command in (backup, restore, verify, salvage):
        cli.command(command.__name__)(command)


def _day(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d}"
