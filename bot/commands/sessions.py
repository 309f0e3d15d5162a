"""Commands about the conversations that are kept: listing and going back to them, naming, forking, archiving."""

from adapters.messages import Choice
from bot.commands.calls import CommandContext, CommandResult, number, wrong_argument
from sessions import contents, forking, lane, lifecycle
from sessions.keys import is_archive
from sessions.lifecycle import Doer
from sessions.models import Session

SESSIONS_PAGE = 8
_REFERENCE_LENGTH = 6
_LABEL = 60
"""Characters that a button shows on every platform: the title gives way, not what stands behind it."""


def reference(session: Session) -> str:
    """How a session is named in chat: the end of its id, which stays the same whatever else comes and goes."""
    return session.id[-_REFERENCE_LENGTH:].lower()


def show_sessions(at: CommandContext, argument: str) -> CommandResult:
    word, _, rest = argument.lower().partition(" ")
    page = number(rest) if word == "page" else None
    if not argument or page is not None:
        return _list(at, page or 1)
    session = find_by_word(at, argument)
    if session is None:
        is_understood = number(argument) is not None or _is_reference(argument)
        if is_understood:
            return CommandResult(at.say("sessions_no_such", name=argument[:50]))
        return wrong_argument(at, "sessions", argument, "usage_sessions")
    return _switch(at, session)


def _list(at: CommandContext, page: int) -> CommandResult:
    found = _listed(at, limit=SESSIONS_PAGE + 1, offset=(page - 1) * SESSIONS_PAGE)
    if not found:
        return CommandResult(at.say("sessions_none" if page == 1 else "sessions_no_page"))
    shown = found[:SESSIONS_PAGE]
    choices = [Choice(_label(at, session), f"/sessions {reference(session)}") for session in shown]
    if len(found) > SESSIONS_PAGE:
        choices.append(Choice(at.say("page_older"), f"/sessions page {page + 1}"))
    if page > 1:
        choices.append(Choice(at.say("page_newer"), f"/sessions page {page - 1}"))
    return CommandResult(at.say("sessions_shared" if at.is_shared else "sessions"), choices=choices)


def _listed(at: CommandContext, *, limit: int, offset: int = 0, id_end: str | None = None) -> list[Session]:
    """The conversations of this place; where nobody else reads along, those that the person brought from elsewhere as well."""
    is_alone = at.message.channel_kind == "direct" and not at.is_shared
    return lifecycle.list_sessions(
        at.tx, at.scope, key=at.key, with_archive=is_alone, limit=limit, offset=offset, id_end=id_end
    )


def _label(at: CommandContext, session: Session) -> str:
    """A conversation on one line, with a mark for the one that goes on now."""
    mark = "● " if session.status in ("active", "paused") else ""
    if session.forked_from is not None:
        mark += "⑂ "
    last = at.near_moment(session.last_activity_at)
    title = title_of(at, session)
    room = _LABEL - len(mark + at.count("sessions_label", session.message_count, title="", time=last))
    if len(title) > room:
        title = title[: room - 1].rstrip() + "…"
    return mark + at.count("sessions_label", session.message_count, title=title, time=last)


def title_of(at: CommandContext, session: Session) -> str:
    """The session's title, or a word for one that has none."""
    return contents.titles(at.tx, [session.id], at.scope).get(session.id) or at.say("sessions_untitled")


def find_by_word(at: CommandContext, argument: str) -> Session | None:
    """One of the conversations listed here, by its place in the list or by its reference."""
    if _is_reference(argument):
        found = _listed(at, id_end=argument.upper(), limit=1)
        return found[0] if found else None
    place = number(argument)
    if place is None:
        return None
    found = _listed(at, limit=1, offset=place - 1)
    return found[0] if found else None


def _is_reference(argument: str) -> bool:
    return len(argument) == _REFERENCE_LENGTH and argument.isascii() and argument.isalnum()


def _switch(at: CommandContext, session: Session) -> CommandResult:
    title = title_of(at, session)
    if session.status == "active":
        return CommandResult(at.say("sessions_same", title=title))
    is_busy = (
        at.session is not None
        and at.session.id != session.id
        and lane.waiting(at.tx, at.session.id, person_id=at.only_of) > 0
    )
    if is_archive(session.key):  # nothing that is said here leads there
        if at.session is not None:
            lifecycle.end(at.tx, at.session, "completed", at.now, by=_doer(at), why="switched")
        text = at.count("forked", forking.bring(at.tx, session, at.begin()).copied)
    else:
        lifecycle.resume(at.tx, session, at.now, by=_doer(at))
        text = at.count("sessions_switched", session.message_count, title=title)
    return CommandResult(f"{text} {at.say('still_answering')}" if is_busy else text)


def rename(at: CommandContext, title: str) -> CommandResult:
    if at.session is None:
        return at.nothing_here()
    try:
        stored = contents.set_title(at.tx, at.session.id, title)
    except ValueError:
        return wrong_argument(at, "rename", "", "usage_rename")
    return CommandResult(at.say("renamed", title=stored))


def fork(at: CommandContext, argument: str) -> CommandResult:
    last = number(argument) if argument else None
    if argument and last is None:
        return wrong_argument(at, "fork", argument, "usage_fork")
    if at.session is None:
        return CommandResult(at.say("fork_nothing"))
    is_busy = lane.waiting(at.tx, at.session.id, person_id=at.only_of) > 0
    made = forking.fork(at.tx, at.session, at.now, last=last, by=_doer(at))
    text = at.count("forked", made.copied)
    return CommandResult(
        f"{text} {at.say('still_answering')}" if is_busy else text,
        choices=[Choice(at.say("fork_back"), f"/sessions {reference(at.session)}")],
    )


def archive(at: CommandContext, _argument: str) -> CommandResult:
    if at.session is None:
        return at.nothing_here()
    is_busy = lane.waiting(at.tx, at.session.id, person_id=at.only_of) > 0
    title = title_of(at, at.session)
    ended = lifecycle.end(at.tx, at.session, "completed", at.now, by=_doer(at), why="requested")
    lifecycle.archive(at.tx, ended, at.now, by=_doer(at))
    text = at.say("archived", title=title)
    return CommandResult(f"{text} {at.say('still_answering')}" if is_busy else text)


def _doer(at: CommandContext) -> Doer:
    return Doer("person", at.person.id)
