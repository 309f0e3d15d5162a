"""`palaver search WORDS` and `palaver stats`: the operator's look over everything that was said.

Owns their arguments. Searching is `sessions/search.py`, counting `sessions/statistics.py`, the layout `reports.py`.
"""

import re
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from bot import app as daemon
from bot import reports, shell
from bot.naming import PersonOption, person_named
from bot.session_cli import SessionOption, session_named
from bot.shell import NOT_FOUND, USAGE, ConfigOption, JsonOption
from config.names import AccountId
from config.settings import Settings
from sessions import search as searching
from sessions import semantic, statistics
from sessions.database.base import Database, Transaction
from sessions.models import Role
from sessions.scope import OperatorScope
from sessions.search import SearchPage, SearchQuery
from sessions.statistics import Dimension, Statistics, Subject

_UNITS_MS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_ROLES: Final[Mapping[str, Role]] = {"user": "user", "assistant": "assistant", "system": "system"}
_ASSISTANT_WORDS: Final = {"bot": "assistant", "person": "user"}
_BOLD: Final = ("\x1b[1m", "\x1b[0m")


def search(
    words: Annotated[
        list[str],
        typer.Argument(help="""Words; in quotes for the shell 'with -without "in a row" begin*'."""),
    ],
    config: ConfigOption = None,
    person: PersonOption = None,
    account: Annotated[str | None, typer.Option(help="As in telegram.main.")] = None,
    platform: Annotated[str | None, typer.Option(help="As in telegram.")] = None,
    role: Annotated[str | None, typer.Option(help="user, assistant or system.")] = None,
    session: SessionOption = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="2026-11-20, 2026-11-20T14:30 (UTC), or 7d for a week ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="The same; not itself included.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Search what was said in all sessions, the best first."""
    chosen: Role | None = None
    if role is not None:
        chosen = _ROLES.get(_ASSISTANT_WORDS.get(role.lower(), role.lower()))
        if chosen is None:
            shell.fail(USAGE, f"search: {role!r} is no role; there are {', '.join(_ROLES)}.")
    now = int(time.time() * 1000)
    query = SearchQuery(
        " ".join(words),
        since=_moment("--since", since, now),
        until=_moment("--until", until, now),
        platform=platform,
        account=AccountId(account) if account is not None else None,
        role=chosen,
        size=limit,
    )
    loaded = shell.load(config)

    async def work(database: Database) -> SearchPage:
        chosen = query
        if person is not None:
            chosen = replace(chosen, person_id=await person_named(database, person, "search"))
        if session is not None:
            chosen = replace(chosen, session_id=(await session_named(database, session, "search")).id)
        return await database.read(lambda tx: _search(tx, chosen, loaded.settings))

    page: SearchPage = shell.finish(shell.beside(loaded, work))
    if as_json:
        typer.echo(reports.search_json(page))
    else:
        typer.echo(reports.search_text(page, mark=_BOLD if sys.stdout.isatty() else ("[", "]")))
    if not page.total:
        raise typer.Exit(NOT_FOUND)


def stats(
    config: ConfigOption = None,
    person: PersonOption = None,
    session: SessionOption = None,
    persona: Annotated[str | None, typer.Option(help="A persona's name.")] = None,
    platform: Annotated[str | None, typer.Option(help="As in telegram.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Count sessions, turns, tokens, errors and response times. Of everything, or of one person, session, persona or platform."""
    given: dict[Dimension, str | None] = {
        "person": person,
        "session": session,
        "persona": persona,
        "platform": platform,
    }
    subjects = [Subject(dimension, name) for dimension, name in given.items() if name is not None]
    if len(subjects) > 1:
        shell.fail(USAGE, "stats: give one of --person, --session, --persona and --platform.")
    subject = subjects[0] if subjects else statistics.EVERYTHING
    loaded = shell.load(config)

    async def work(database: Database) -> Statistics:
        about = subject
        if subject.dimension == "person":
            about = Subject("person", await person_named(database, subject.name, "stats"))
        elif subject.dimension == "session":
            about = Subject("session", (await session_named(database, subject.name, "stats")).id)
        return await database.read(
            lambda tx: statistics.read(tx, OperatorScope(), about, int(time.time() * 1000))
        )

    found: Statistics = shell.finish(shell.beside(loaded, work))
    if as_json:
        typer.echo(reports.statistics_json(found))
    else:
        typer.echo(reports.statistics_text(found, with_sparklines=sys.stdout.isatty()))


def _search(tx: Transaction, query: SearchQuery, settings: Settings) -> SearchPage:
    encoder = daemon.make_encoder(settings)
    if encoder is None:
        return searching.search(tx, OperatorScope(), query)
    return semantic.search_both(tx, OperatorScope(), query, encoder.encode([query.text])[0])


def _moment(option: str, text: str | None, now: int) -> int | None:
    """Milliseconds of a time as it is written; one without a zone is UTC."""
    if text is None:
        return None
    if ago := re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower()):
        return now - int(ago[1]) * _UNITS_MS[ago[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        shell.fail(
            USAGE, f"search: {option} {text!r} is no time.", "Write 2026-11-20, 2026-11-20T14:30 or 7d."
        )
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
