"""`palaver sessions …`: looking at sessions, and changing them while no daemon runs.

Owns these commands' arguments and words. What a step means is `sessions/lifecycle.py`, when sessions are cleaned up
`sessions/cleanup.py`; tables and stories are laid out in `story.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, NoReturn

import orjson
import typer
from pydantic import TypeAdapter, ValidationError

from bot import retention, shell
from bot.naming import PersonOption, person_named
from bot.shell import NOT_FOUND, USAGE, ConfigOption, JsonOption
from bot.story import sessions_as_json, sessions_table
from config.names import SessionId
from config.settings import DURATION_WANTED, DurationOrNever, spell_duration
from sessions import contents, context, lifecycle, window
from sessions.database.base import Database, Transaction
from sessions.errors import IllegalTransition, SessionNotFound
from sessions.lifecycle import Doer
from sessions.models import Session
from sessions.scope import OperatorScope

EVERYTHING = OperatorScope()
OPERATOR = Doer("operator")
_DURATION: Final[TypeAdapter[timedelta | None]] = TypeAdapter(DurationOrNever)

sessions_cli = typer.Typer(help="Look at sessions and change them.", no_args_is_help=True)

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A session's id, or its end as /sessions shows it.")
]
SessionOption = Annotated[
    str | None, typer.Option(metavar="ID", help="A session's id, or its end as /sessions shows it.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@sessions_cli.command("list")
def list_all(
    config: ConfigOption = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="active, paused, ended, archived; other systems' words work too.",
            autocompletion=lambda: list(lifecycle.TRANSITIONS),
        ),
    ] = None,
    person: PersonOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List sessions, the latest active first. A person's are those that are theirs alone."""
    statuses: tuple[Any, ...] = ()
    if status is not None:
        word = status.lower()
        statuses = tuple(lifecycle.SEED_WORDS.get(word, (word,)))
        if not set(statuses) <= set(lifecycle.TRANSITIONS):
            known = ", ".join(lifecycle.TRANSITIONS)
            shell.fail(USAGE, f"sessions list: {status!r} is no status; there are {known}.")
    loaded = shell.load(config)

    async def work(database: Database) -> list[Session]:
        whose = None if person is None else await person_named(database, person, "sessions list")
        return await database.read(
            lambda tx: lifecycle.list_sessions(
                tx, EVERYTHING, statuses=statuses, person_id=whose, limit=limit
            )
        )

    found = shell.finish(shell.beside(loaded, work))
    typer.echo(sessions_as_json(found) if as_json else sessions_table(found))


@sessions_cli.command("show")
def show(session: IdArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one session: what it is and what became of it."""
    loaded = shell.load(config)

    async def work(database: Database) -> Mapping[str, Any] | None:
        return await database.read(lambda tx: _facts(tx, session))

    facts = shell.finish(shell.beside(loaded, work))
    if facts is None:
        unknown_session(session)
    typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode() if as_json else _told(facts))


@sessions_cli.command("end")
def end(session: IdArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """End a session. What waits for an answer is still answered; the next message begins a new one."""
    _change(
        session,
        config,
        as_json,
        lambda tx, found, now: lifecycle.end(tx, found, "completed", now, by=OPERATOR),
    )


@sessions_cli.command("archive")
def archive(session: IdArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Put a session away. One that is live is ended first."""

    def step(tx: Transaction, found: Session, now: int) -> Session:
        if found.status in ("active", "paused"):
            found = lifecycle.end(tx, found, "completed", now, by=OPERATOR)
        return lifecycle.archive(tx, found, now, by=OPERATOR)

    _change(session, config, as_json, step)


@sessions_cli.command("delete")
def delete(session: IdArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Hide a session from everybody but operators. It is removed for good a day later, and `resume` saves it until then."""
    _change(session, config, as_json, lambda tx, found, now: lifecycle.delete(tx, found, now, by=OPERATOR))


@sessions_cli.command("resume")
def resume(session: IdArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Make a session the live one again. The one that took its place is ended."""
    _change(session, config, as_json, lambda tx, found, now: lifecycle.resume(tx, found, now, by=OPERATOR))


@sessions_cli.command("pause")
def pause(session: IdArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Decline messages to a session until it is resumed. Who writes is told."""
    _change(session, config, as_json, lambda tx, found, now: lifecycle.pause(tx, found, now, by=OPERATOR))


@sessions_cli.command("set")
def set_values(
    session: IdArgument,
    config: ConfigOption = None,
    title: Annotated[str | None, typer.Option(help="A title; empty gives it back its own.")] = None,
    description: Annotated[str | None, typer.Option(help="A description; empty takes it away.")] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Most tokens that its model sees; default is what is set for all.")
    ] = None,
    expire_after: Annotated[
        str | None, typer.Option(help="Idle time after which it ends: 12h, never, or default.")
    ] = None,
) -> None:
    """Give a session a title, description, window or idle time."""
    changes: list[Callable[[Transaction, SessionId], object]] = []
    if title is not None:
        changes.append(lambda tx, found: contents.set_title(tx, found, title.strip() or None))
    if description is not None:
        changes.append(lambda tx, found: contents.set_description(tx, found, description.strip() or None))
    if tokens is not None:
        limit = _tokens(tokens)
        changes.append(lambda tx, found: window.set_limit(tx, found, limit))
    if expire_after is not None:
        idle_ms = _idle_ms(expire_after)
        changes.append(lambda tx, found: lifecycle.set_expiry(tx, found, idle_ms))
    if not changes:
        shell.fail(USAGE, "sessions set: give --title, --description, --tokens or --expire-after.")

    def change(tx: Transaction) -> bool:
        found = find_session(tx, session)
        if found is not None:
            for one in changes:
                one(tx, found.id)
        return found is not None

    async def work(database: Database) -> bool | str:
        try:
            return await database.write(change)
        except ValueError as error:
            return str(error)

    done = shell.finish(shell.owning(shell.load(config), work))
    if isinstance(done, str):
        shell.fail(USAGE, f"sessions set: {done}.")
    if not done:
        unknown_session(session)
    typer.echo("Done. `palaver sessions show` has it.")


def _tokens(word: str) -> int | None:
    if word.lower() == "default":
        return None
    if not word.isdecimal():
        shell.fail(USAGE, f"sessions set: --tokens {word!r} is no number of tokens, nor default.")
    return int(word[:9])


def _idle_ms(word: str) -> int | None:
    if word.lower() == "default":
        return None
    try:
        read = _DURATION.validate_python(word.lower())
    except ValidationError:
        shell.fail(
            USAGE,
            f"sessions set: --expire-after {word!r} is no time.",
            f"Write {DURATION_WANTED}, never or default.",
        )
    return 0 if read is None else max(1, int(read.total_seconds() * 1000))


@sessions_cli.command("cleanup")
def clean_up(config: ConfigOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """End, archive and remove what is due by the settings. Old messages too, as the daemon does every hour."""
    loaded = shell.load(config)

    async def look(database: Database) -> Mapping[str, int]:
        return await retention.due(database, loaded.settings, shell.now())

    async def work(database: Database) -> Mapping[str, int]:
        found = await look(database)
        with shell.progress_bar("Cleaning up") as bar:
            await retention.clean_up(
                database,
                loaded.settings,
                shell.now,
                pause_s=0,
                progress=lambda touched: bar(touched, sum(found.values())),
            )
        return found

    found = shell.finish(shell.beside(loaded, look) if dry_run else shell.owning(loaded, work))
    if as_json:
        typer.echo(orjson.dumps(found).decode())
        return
    counts = ", ".join(
        f"{count} old messages" if word == "messages" else f"{count} {word}"
        for word, count in found.items()
        if count
    )
    typer.echo(f"{'Due' if dry_run else 'Done'}: {counts or 'nothing'}.")


def find_session(tx: Transaction, word: str) -> Session | None:
    """By the whole id, or by the end of it if only one session has it."""
    try:
        return lifecycle.find(tx, SessionId(word.upper()), EVERYTHING)
    except SessionNotFound:
        if not 6 <= len(word) < 26:
            return None
        found = lifecycle.list_sessions(tx, EVERYTHING, id_end=word.upper(), limit=2)
        return found[0] if len(found) == 1 else None


def _change(
    word: str, config: Any, as_json: bool, step: Callable[[Transaction, Session, int], Session]
) -> None:
    loaded = shell.load(config)

    def change(tx: Transaction) -> Session | None:
        found = find_session(tx, word)
        return None if found is None else step(tx, found, shell.now())

    async def work(database: Database) -> Session | str | None:
        try:
            return await database.write(change)
        except IllegalTransition as error:
            return str(error)

    changed = shell.finish(shell.owning(loaded, work))
    if changed is None:
        unknown_session(word)
    if isinstance(changed, str):
        shell.fail(USAGE, f"sessions: {changed}.", "`palaver sessions show` tells how it came there.")
    if as_json:
        facts = {"id": changed.id, "status": changed.status, "end_reason": changed.end_reason}
        typer.echo(orjson.dumps(facts).decode())
        return
    typer.echo(f"{changed.id} is {_status(changed.status, changed.end_reason)} now.")


async def session_named(database: Database, word: str, command: str) -> Session:
    """The one session meant, whoever's it is."""
    found = await database.read(lambda tx: find_session(tx, word))
    return unknown_session(word, command) if found is None else found


def unknown_session(word: str, command: str = "sessions") -> NoReturn:
    shell.fail(
        NOT_FOUND,
        f"{command}: there is no session {word}.",
        "`palaver sessions list` lists them; an end must be of six letters or more, and of one session only.",
    )


def _status(status: str, reason: str | None) -> str:
    return f"{status} ({reason})" if reason else status


def _facts(tx: Transaction, word: str) -> dict[str, Any] | None:
    session = find_session(tx, word)
    if session is None:
        return None
    title = contents.titles(tx, [session.id], EVERYTHING).get(session.id)
    return {
        **asdict(session),
        "title": title,
        "is_title_given": session.title is not None,
        "context_tokens": context.read_window(tx, session).own_tokens,
        "variables": contents.variables(tx, session.id, EVERYTHING),
        "notebooks": contents.links(tx, session.id, EVERYTHING, "notebook"),
        "integrations": contents.links(tx, session.id, EVERYTHING, "integration"),
        "tasks": [asdict(task) for task in contents.tasks(tx, session.id, EVERYTHING)],
        "devices": contents.devices(tx, session.id, EVERYTHING),
        "events": [asdict(event) for event in lifecycle.events(tx, session.id, EVERYTHING)],
        "exchanges": [asdict(one) for one in contents.exchanges(tx, session.id, EVERYTHING, limit=10)],
    }


def _told(facts: Mapping[str, Any]) -> str:
    """A session's facts, for people to read. What was said is in `--json` and in the exports, not on every screen."""
    of_one = f" of person {facts['person_id']}" if facts["person_id"] else ""
    lines = [
        ("session", facts["id"]),
        ("title", (facts["title"] or "none") + ("" if facts["is_title_given"] else " (of its own)")),
        ("status", _status(facts["status"], facts["end_reason"])),
        ("where", f"{facts['account']}, channel {facts['channel']}, per {facts['scope']}{of_one}"),
        ("persona", facts["persona"]),
        ("forked from", facts["forked_from"]),
        (
            "counted",
            ", ".join(
                [
                    f"{facts['message_count']} messages",
                    f"{facts['tool_call_count']} tool calls",
                    f"{facts['error_count']} errors",
                    f"{facts['input_tokens']} in / {facts['output_tokens']} out tokens",
                ]
            ),
        ),
        ("window", _of_its_own(facts["context_tokens"], "{:,} tokens of its own")),
        ("ends after", _idle(facts["expire_after_ms"])),
        ("task", facts["current_task"]),
        ("description", facts["description"]),
        ("variables", ", ".join(facts["variables"])),
        ("notebooks", ", ".join(facts["notebooks"])),
        ("integrations", ", ".join(facts["integrations"])),
        ("devices", ", ".join(facts["devices"])),
        ("made", _time(facts["created_at"])),
        *(
            (
                "then",
                f"{_time(event['happened_at'])}  {event['to_status']} ({event['reason']}, by {event['made_by']})",
            )
            for event in facts["events"]
        ),
        ("last active", _time(facts["last_activity_at"])),
    ]
    return "\n".join(f"{word:<13}{text}" for word, text in lines if text)


def _of_its_own(number: int | None, words: str) -> str | None:
    return None if number is None else words.format(number)


def _idle(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return f"{spell_duration(timedelta(milliseconds=milliseconds))} idle" if milliseconds else "never"


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
