"""`/forget`: what is said is removed, once its person has confirmed it.

Owns the question and its answer. What is removed when is `sessions/cleanup.py` for a conversation and `sessions/erasure.py` for
a person. Everything that cannot be undone is asked for first, and the answer counts for the person who was asked and no other:
in a group anybody may press the button.
"""

from typing import Final

from adapters.messages import Choice
from bot.commands.calls import CommandContext, CommandResult, wrong_argument
from bot.commands.sessions import title_of
from config.names import SessionId
from sessions import erasure, lane, lifecycle, questions
from sessions.errors import SessionNotFound
from sessions.lifecycle import Doer

ANSWER_WITHIN_MS: Final = 600_000


def forget(at: CommandContext, argument: str) -> CommandResult:
    match argument.lower():
        case "":
            return _offer(at)
        case "session":
            return _ask_session(at)
        case "me":
            questions.ask(at.tx, at.person.id, at.message, "me", None, at.now)
            return CommandResult(at.say("forget_ask_me"), choices=_confirmation(at))
        case "yes":
            return _confirmed(at)
        case "no":
            questions.take(at.tx, at.person.id, at.message, at.now - ANSWER_WITHIN_MS)
            return CommandResult(at.say("forget_kept"))
        case _:
            return wrong_argument(at, "forget", argument, "usage_forget")


def _offer(at: CommandContext) -> CommandResult:
    choices = [Choice(at.say("forget_me"), "/forget me")]
    if at.session is not None and _may_delete(at):
        choices.insert(0, Choice(at.say("forget_session"), "/forget session"))
    return CommandResult(at.say("forget"), choices=choices)


def _may_delete(at: CommandContext) -> bool:
    """A conversation that others share is not one person's to remove."""
    return not at.is_shared or at.person.role == "operator"


def _ask_session(at: CommandContext) -> CommandResult:
    if not _may_delete(at):
        return CommandResult(at.say("forget_shared"), choices=[Choice(at.say("forget_me"), "/forget me")])
    if at.session is None:
        return CommandResult(at.say("forget_nothing"))
    questions.ask(at.tx, at.person.id, at.message, "session", at.session.id, at.now)
    text = at.count("forget_ask_session", at.session.message_count, title=title_of(at, at.session))
    return CommandResult(text, choices=_confirmation(at))


def _confirmation(at: CommandContext) -> list[Choice]:
    return [Choice(at.say("forget_yes"), "/forget yes"), Choice(at.say("forget_no"), "/forget no")]


def _confirmed(at: CommandContext) -> CommandResult:
    question = questions.take(at.tx, at.person.id, at.message, at.now - ANSWER_WITHIN_MS)
    if question is None:
        return CommandResult(at.say("forget_unasked"))
    if question.subject == "me":
        stopped = (
            lane.request_cancel(at.tx, lane.unfinished_sessions(at.tx, at.key), at.now, with_queued=True)
            if not at.is_shared
            else []
        )
        erasure.request(at.tx, at.person.id, at.now)
        return CommandResult(at.say("forgotten_me"), stopped)
    return _delete(at, question.session_id)


def _delete(at: CommandContext, session_id: SessionId | None) -> CommandResult:
    try:
        session = lifecycle.find(at.tx, session_id or SessionId(""), at.scope)
    except SessionNotFound:
        return CommandResult(at.say("forget_nothing"))
    stopped = lane.request_cancel(at.tx, [session.id], at.now, with_queued=True)
    lifecycle.delete(at.tx, session, at.now, by=Doer("person", at.person.id))
    return CommandResult(at.say("forgotten_session"), stopped, [session.id])
