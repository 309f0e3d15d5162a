"""The one table of commands, published to every platform and run inside the transaction that takes the message in.

Owns names, arguments and what each command does. A command is a plain function of a transaction: it happens exactly
once, together with its reply, and never waits behind a running turn.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from adapters.messages import CommandSpec
from bot.catalogue import Catalogue
from config.names import SessionId, TurnId
from sessions import context, history, inbox, lifecycle, people
from sessions.database.base import Transaction
from sessions.models import Incoming, Person, Session
from sessions.scope import Scope

HISTORY_PAGE = 10
_SHOWN_CHARS = 300
_COMMAND = re.compile(r"/([a-zA-Z][a-zA-Z0-9_]{0,31})(?:\s+(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CommandCall:
    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class CommandContext:
    tx: Transaction
    message: Incoming
    person: Person
    key: str
    """Of the session that messages here belong to."""
    session: Session | None
    """The live one, None before the first message."""
    scope: Scope
    """What this person may read here: a shared session with everybody in the channel, else only their own."""
    catalogue: Catalogue
    language: str
    now: int
    agent: str
    """What answers here, for /status."""
    context_messages: int
    context_tokens: int

    def say(self, text: str, /, **values: object) -> str:
        return self.catalogue.say(text, self.language, **values)


@dataclass(frozen=True, slots=True)
class CommandResult:
    text: str
    stop_turns: Sequence[TurnId] = ()
    """Running turns to end once this is committed."""
    wake_sessions: Sequence[SessionId] = ()


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    run: Callable[[CommandContext, str], CommandResult] | None
    """None: not run here, its argument is a message for the agent (/ask)."""
    argument: str | None = None
    is_argument_required: bool = False
    usage: str = "usage_none"


def parse(text: str) -> CommandCall | None:
    """A command call, or None if the text is not spelt like one. Names are compared in lower case."""
    match = _COMMAND.match(text.strip())
    return CommandCall(match[1].lower(), (match[2] or "").strip()) if match else None


def _start(at: CommandContext, _payload: str) -> CommandResult:
    if at.message.channel_kind == "group":
        return CommandResult(at.say("start_group"))
    return CommandResult(at.say("start", name=at.person.display_name))


def _help(at: CommandContext, _argument: str) -> CommandResult:
    lines = [
        at.say("help_line", name=command.name, description=at.say(f"command_{command.name}"))
        for command in table_for(at.message.platform)
    ]
    return CommandResult("\n".join([at.say("help"), *lines, at.say("help_end")]))


def _reset(at: CommandContext, _argument: str) -> CommandResult:
    if at.session is None:
        return CommandResult(at.say("reset_nothing"))
    is_busy = inbox.waiting(at.tx, at.session.id) > 0
    lifecycle.end(at.tx, at.session, "reset", at.now)
    return CommandResult(at.say("reset_running" if is_busy else "reset"))


def _stop(at: CommandContext, argument: str) -> CommandResult:
    if argument.lower() not in ("", "all"):
        return _wrong_argument(at, "stop", argument)
    sessions = inbox.unfinished_sessions(at.tx, at.key)
    unfinished = sum(inbox.waiting(at.tx, session_id) for session_id in sessions)
    if not unfinished:
        return CommandResult(at.say("stop_nothing"))
    running = inbox.request_cancel(at.tx, sessions, at.now, with_queued=False)
    if argument:
        queued = inbox.request_cancel(at.tx, sessions, at.now, with_queued=True)
        if not queued:
            return CommandResult(at.say("stop_running"), running)
        text = at.say("stop_all_one") if len(queued) == 1 else at.say("stop_all", count=len(queued))
        return CommandResult(text, [*running, *queued], sessions)
    rest = unfinished - len(running)
    if not running:
        return CommandResult(
            at.say("stop_not_begun_one") if rest == 1 else at.say("stop_not_begun", count=rest)
        )
    if not rest:
        return CommandResult(at.say("stop_running"), running)
    return CommandResult(
        at.say("stop_waiting_one") if rest == 1 else at.say("stop_waiting", count=rest), running
    )


def _status(at: CommandContext, _argument: str) -> CommandResult:
    session = at.session
    if session is None:
        return CommandResult(at.say("status_none"))
    said = history.page(at.tx, session.key, at.scope, size=at.context_messages).messages
    tokens = sum(
        context.estimate_tokens(message.content) for message in said if message.session_id == session.id
    )
    busy = inbox.waiting(at.tx, session.id)
    state = (
        at.say("status_idle")
        if not busy
        else at.say("status_busy_one" if busy == 1 else "status_busy", count=busy)
    )
    return CommandResult(
        at.say(
            "status",
            since=f"{_time(session.created_at):%Y-%m-%d %H:%M} UTC",
            messages=session.message_count,
            tool_calls=session.tool_call_count,
            errors=session.error_count,
            window=at.context_tokens,
            percent=min(100, round(100 * tokens / at.context_tokens)),
            agent=at.agent,
            state=state,
        )
    )


def _history(at: CommandContext, argument: str) -> CommandResult:
    if argument and not (argument.isascii() and argument.isdecimal() and 0 < int(argument[:9]) < 10**8):
        return _wrong_argument(at, "history", argument)
    page = history.page(at.tx, at.key, at.scope, number=int(argument or 1), size=HISTORY_PAGE)
    if not page.total:
        return CommandResult(at.say("history_none"))
    pages = -(-page.total // HISTORY_PAGE)
    if page.number > pages:
        return CommandResult(
            at.say("history_one_page") if pages == 1 else at.say("history_no_page", pages=pages)
        )
    lines = [at.say("history_title", page=page.number, pages=pages)]
    for message in page.messages:
        who = (
            at.say("history_bot")
            if message.role == "assistant"
            else (message.author or at.say("history_you"))
        )
        text = " ".join(message.content.split())
        shown = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
        lines.append(
            at.say("history_line", time=f"{_time(message.created_at):%d.%m. %H:%M}", who=who, text=shown)
        )
    return CommandResult("\n\n".join(lines))


def _whoami(at: CommandContext, _argument: str) -> CommandResult:
    lines = [
        at.say("whoami", name=at.person.display_name, platform=at.message.platform, user=at.message.user_id),
    ]
    if at.person.role == "operator":
        lines.append(at.say("whoami_operator"))
    lines += [
        at.say("whoami_identity", name=identity["display_name"], platform=identity["platform"])
        for identity in people.identities(at.tx, at.person.id)
        if (identity["platform"], identity["platform_user_id"]) != (at.message.platform, at.message.user_id)
    ]
    return CommandResult("\n".join(lines))


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


TABLE: Final[Mapping[str, Command]] = {
    command.name: command
    for command in (
        Command("start", _start, argument="payload"),
        Command("help", _help),
        Command("reset", _reset),
        Command("new", _reset),
        Command("status", _status),
        Command("stop", _stop, argument="all", usage="usage_stop"),
        Command("history", _history, argument="page", usage="usage_history"),
        Command("whoami", _whoami),
        Command("ask", None, argument="question", is_argument_required=True, usage="usage_ask"),
    )
}

_ONLY_ON: Final[Mapping[str, str]] = {
    "ask": "discord"
}  # elsewhere one just writes; it works there too, but is not shown


def table_for(platform: str) -> list[Command]:
    """The commands that a platform shows."""
    return [command for command in TABLE.values() if _ONLY_ON.get(command.name, platform) == platform]


def specs(catalogue: Catalogue, platform: str, language: str) -> list[CommandSpec]:
    """The table as an adapter publishes it."""
    shown = {"page": "argument_page", "question": "argument_question"}
    return [
        CommandSpec(
            command.name,
            catalogue.say(f"command_{command.name}", language)[:100],
            catalogue.say(shown[command.argument], language) if command.argument in shown else None,
            command.is_argument_required,
        )
        for command in table_for(platform)
    ]


def run(at: CommandContext, call: CommandCall) -> CommandResult:
    """Run a command of the table; unknown names and wrong arguments get a sentence."""
    command = TABLE.get(call.name)
    if command is None:
        near = difflib.get_close_matches(call.name, TABLE, n=1, cutoff=0.6)
        if near:
            return CommandResult(at.say("unknown_command_near", name=call.name, near=near[0]))
        return CommandResult(at.say("unknown_command", name=call.name))
    if command.run is None or (call.argument and command.argument is None):
        return _wrong_argument(at, call.name, call.argument)
    return command.run(at, call.argument)


def _wrong_argument(at: CommandContext, name: str, argument: str) -> CommandResult:
    usage = at.say(TABLE[name].usage)
    if not argument:
        return CommandResult(usage)
    return CommandResult(at.say("wrong_argument", name=name, argument=argument[:50], usage=usage))
