"""`palaver sessions context` and `resummarise`: what a model sees of a session, and making its summaries anew.

Owns their arguments and words. What is seen is chosen by `sessions/context.py`; how summaries are made is `summarising.py`, what
they are `sessions/summaries.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import orjson
import typer

from bot import app as daemon
from bot import shell
from bot.agents.base import Agent
from bot.session_cli import IdArgument, find_session, unknown_session
from bot.shell import NOT_FOUND, USAGE, ConfigOption, JsonOption, progress_bar
from bot.summarising import Summariser
from bot.windows import tool_tokens
from config.names import SessionId
from config.settings import Settings
from sessions import context, summaries, tokens, window
from sessions.context import Context
from sessions.database.base import Database, Transaction
from sessions.models import Session, Summary

Seen = tuple[Session, Context, Sequence[Summary]]


def show_context(
    session: IdArgument,
    config: ConfigOption = None,
    messages: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, help="Most messages; without it the setting agent.context_messages."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the model would see of a session now. And how many tokens each part has."""
    loaded = shell.load(config)

    def look(tx: Transaction) -> Seen | None:
        found = find_session(tx, session)
        if found is None:
            return None
        seen = context.see_session(
            tx,
            found,
            loaded.settings,
            max_messages=messages,
            tool_tokens=tool_tokens(loaded.settings, found.persona),
        )
        return found, seen, window.summaries_of(tx, found.id) if seen.notes else ()

    async def work(database: Database) -> Seen | None:
        return await database.read(look)

    seen = shell.finish(shell.beside(loaded, work))
    if seen is None:
        unknown_session(session)
    typer.echo(_context_json(*seen) if as_json else _context_text(*seen))


def _context_json(session: Session, seen: Context, stack: Sequence[Summary]) -> str:
    parts = seen.parts
    told = {
        "session": session.id,
        "limit": parts.limit,
        "tokens": {
            "instructions": parts.instructions,
            "tools": parts.tools,
            "summaries": parts.summaries,
            "messages": parts.messages,
            "tool_output": parts.tool_output,
            "total": parts.total,
        },
        "percent": parts.percent,
        "left_out": seen.left_out,
        "is_cut": seen.is_cut,
        "instructions": seen.instructions,
        "notes": seen.notes,
        "messages": [
            {
                "role": message.role,
                "author": message.author,
                "content": message.content,
                "tokens": tokens.count(message.content),
                "position": message.position,
                "created_at": message.created_at,
            }
            for message in seen.messages
        ],
        "summaries": [
            {name: value for name, value in asdict(one).items() if name != "content"} for one in stack
        ],
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def _context_text(session: Session, seen: Context, stack: Sequence[Summary]) -> str:
    """The figures. What was said is in `--json`, not on every screen."""
    parts = seen.parts
    places = ", ".join(f"{one.from_position}-{one.to_position} by {one.made_by}" for one in stack)
    lines = [
        ("session", session.id),
        ("window", f"{parts.limit:,} tokens, {parts.percent} % full"),
        ("instructions", f"{parts.instructions:,} tokens"),
        ("tools", f"{parts.tools:,} tokens, with the date and whom it talks to"),
        ("summaries", f"{parts.summaries:,} tokens" + (f", of turns {places}" if places else "")),
        ("messages", f"{parts.messages:,} tokens in {len(seen.messages)}, as they were said"),
    ]
    if seen.left_out:
        lines.append(("left out", f"{seen.left_out} messages, told in the notes"))
    if seen.is_cut:
        lines.append(("cut", "the last message is longer than the window"))
    return "\n".join(f"{word:<14}{text}" for word, text in lines)


def resummarise(
    sessions: Annotated[
        list[str] | None, typer.Argument(metavar="[ID…]", help="Ids of sessions.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every session that has summaries.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the summaries of sessions anew from their messages. By the model, if there is one."""
    wanted = [SessionId(word.upper()) for word in sessions or ()]
    if bool(wanted) == everything:
        shell.fail(USAGE, "sessions resummarise: give ids of sessions, or --all.")
    loaded = shell.load(config)

    async def work(database: Database) -> dict[SessionId, int | None]:
        chosen = wanted or await _summarised(database)
        agents = _Models(loaded.settings)
        summariser = Summariser(database, loaded.settings, agents.of, now=lambda: int(time.time() * 1000))
        made: dict[SessionId, int | None] = {}
        try:
            with progress_bar("Summarising") as bar:
                for number, session_id in enumerate(chosen):
                    bar(number, len(chosen))
                    made[session_id] = await summariser.resummarise(session_id)
        finally:
            await agents.close()
        return made

    made: dict[SessionId, int | None] = shell.finish(shell.owning(loaded, work))
    if as_json:
        typer.echo(orjson.dumps(made).decode())
    else:
        done = [count for count in made.values() if count is not None]
        typer.echo(f"{len(done)} sessions, {sum(done)} summaries.")
    missing = [session_id for session_id in wanted if made.get(session_id) is None]
    if missing:
        shell.fail(NOT_FOUND, f"sessions resummarise: no summaries in {', '.join(missing)}.")


async def _summarised(database: Database) -> list[SessionId]:
    found: list[SessionId] = []
    after = ""
    while more := await database.read(
        lambda tx, after=after: summaries.summarised_sessions(tx, after=after)  # type: ignore[misc]  # bound early
    ):
        found += more
        after = more[-1]
    return found


class _Models:
    """The models of personas, made when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str | None, Agent] = {}

    def of(self, persona: str | None) -> Agent | None:
        if self._settings.agent.kind != "llm":
            return None
        if persona not in self._made:
            self._made[persona] = daemon.make_agent(self._settings, persona)
        return self._made[persona]

    async def close(self) -> None:
        for agent in self._made.values():
            await agent.close()
