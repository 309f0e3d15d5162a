"""The one table of commands: what each is called, what it takes, where it is shown, and how a call finds its function."""

import difflib
from collections.abc import Mapping
from typing import Final

from adapters.messages import CommandSpec
from bot.catalogue import Catalogue
from bot.commands import conversation, finding, forgetting, sessions
from bot.commands.calls import Command, CommandCall, CommandContext, CommandResult, wrong_argument


def _help(at: CommandContext, argument: str) -> CommandResult:
    if argument:
        name = nearest(argument.removeprefix("/").casefold())
        if name is None:
            return wrong_argument(at, "help", argument, "usage_none")
        return CommandResult(f"{_line(at, TABLE[name])}\n{at.say(TABLE[name].usage)}")
    lines = [_line(at, command) for command in table_for(at.message.platform)]
    end = at.say("help_end_group" if at.message.channel_kind == "group" else "help_end")
    return CommandResult("\n".join([at.say("help"), *lines, "", end]))


def _line(at: CommandContext, command: Command) -> str:
    return at.say("help_line", name=command.name, description=at.say(f"command_{command.name}"))


TABLE: Final[Mapping[str, Command]] = {
    command.name: command
    for command in (
        Command("start", conversation.start, argument="payload"),
        Command("help", _help, argument="command", is_personal=True),
        Command("reset", conversation.reset),
        Command("new", conversation.reset),
        Command("status", conversation.status, is_personal=True),
        Command("stop", conversation.stop, argument="all", usage="usage_stop"),
        Command(
            "history", conversation.show_history, argument="page", usage="usage_history", is_personal=True
        ),
        Command("sessions", sessions.show_sessions, argument="number", usage="usage_sessions"),
        Command("rename", sessions.rename, argument="title", is_argument_required=True, usage="usage_rename"),
        Command("fork", sessions.fork, argument="messages", usage="usage_fork"),
        Command("archive", sessions.archive),
        Command(
            "search",
            finding.find,
            argument="words",
            is_argument_required=True,
            usage="usage_search",
            is_personal=True,
        ),
        Command("stats", finding.stats, is_personal=True),
        Command("forget", forgetting.forget, argument="what", usage="usage_forget", is_personal=True),
        Command("whoami", conversation.whoami, is_personal=True),
        Command("ask", None, argument="question", is_argument_required=True, usage="usage_ask"),
    )
}

_ONLY_ON: Final[Mapping[str, str]] = {
    "ask": "discord"
}  # elsewhere one just writes; it works there too, but is not shown

_SHOWN_ARGUMENTS: Final[Mapping[str, tuple[str, str]]] = {
    "all": ("argument_all", "hint_all"),
    "messages": ("argument_messages", "hint_messages"),
    "number": ("argument_number", "hint_number"),
    "page": ("argument_page", "hint_page"),
    "question": ("argument_question", "hint_question"),
    "title": ("argument_title", "hint_title"),
    "what": ("argument_what", "hint_what"),
    "words": ("argument_words", "hint_words"),
}
"""Arguments that a menu asks for: their names in the person's language, and what may stand there. The others are for those
who know them."""

_VALUES: Final[Mapping[str, tuple[str, ...]]] = {"all": ("all",), "what": ("session", "me", "yes", "no")}
"""Arguments that take nothing else, so that a menu can offer them: a slash command is no text that one can add to."""


def table_for(platform: str) -> list[Command]:
    """The commands that a platform shows."""
    return [command for command in TABLE.values() if _ONLY_ON.get(command.name, platform) == platform]


def specs(catalogue: Catalogue, platform: str, language: str) -> list[CommandSpec]:
    """The table as an adapter publishes it."""
    return [_spec(catalogue, command, language) for command in table_for(platform)]


def _spec(catalogue: Catalogue, command: Command, language: str) -> CommandSpec:
    name = argument = command.argument or ""
    hint = ""
    if argument in _SHOWN_ARGUMENTS:
        name, hint = (catalogue.say(text, language) for text in _SHOWN_ARGUMENTS[argument])
    return CommandSpec(
        command.name,
        catalogue.say(f"command_{command.name}", language)[:100],
        name if hint else None,
        command.is_argument_required,
        is_personal=command.is_personal,
        argument_hint=hint[:100],
        argument_values=_VALUES.get(argument, ()),
    )


def nearest(name: str) -> str | None:
    """The command that somebody may have meant."""
    near = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.6)
    return near[0] if near else None


def is_for_us(name: str) -> bool:
    """Whether a command in a group is ours, or was meant to be. Others are for one of the other bots there."""
    return name in TABLE or nearest(name) is not None


def run(at: CommandContext, call: CommandCall) -> CommandResult:
    """Run a command of the table; unknown names and wrong arguments get a sentence."""
    command = TABLE.get(call.name)
    if command is None:
        near = nearest(call.name)
        if near is not None:
            return CommandResult(at.say("unknown_command_near", name=call.name, near=near))
        return CommandResult(at.say("unknown_command", name=call.name))
    is_surplus = bool(call.argument) and command.argument is None
    is_missing = not call.argument and command.is_argument_required
    if command.run is None or is_surplus or is_missing:
        return wrong_argument(at, call.name, call.argument, command.usage)
    return command.run(at, call.argument)
