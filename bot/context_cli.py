"""`palaver sessions resummarise`: making the summaries of sessions anew from their messages.

Owns its arguments. How summaries are made is `summarising.py`, what they are `sessions/summaries.py`.
"""

import time
from typing import Annotated

import orjson
import typer

from bot import app as daemon
from bot import shell
from bot.agents.base import Agent
from bot.shell import NOT_FOUND, USAGE, ConfigOption, JsonOption, progress_bar
from bot.summarising import Summariser
from config.names import SessionId
from config.settings import Settings
from sessions import summaries
from sessions.database.base import Database


def resummarise(
    sessions: Annotated[
        list[str] | None, typer.Argument(metavar="[ID…]", help="Ids of sessions.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every session that has summaries.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the summaries of sessions anew from their messages, by the model if there is one."""
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
