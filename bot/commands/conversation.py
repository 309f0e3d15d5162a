"""Commands about the conversation at hand: saying hello, starting anew, stopping, what stands and what was said."""

from adapters.messages import Choice
from bot.commands.calls import CommandContext, CommandResult, number, wrong_argument
from bot.windows import tool_tokens
from sessions import context, history, lane, lifecycle, people

HISTORY_PAGE = 10
_SHOWN_CHARS = 300


def start(at: CommandContext, _payload: str) -> CommandResult:
    if at.message.channel_kind == "group":
        return CommandResult(at.say("start_group"))
    return CommandResult(at.say("start", name=at.person.display_name))


def reset(at: CommandContext, _argument: str) -> CommandResult:
    if at.session is None:
        return CommandResult(at.say("reset_nothing"))
    is_busy = lane.waiting(at.tx, at.session.id, person_id=at.only_of) > 0
    lifecycle.end(at.tx, at.session, "reset", at.now)
    return CommandResult(at.say("reset_running" if is_busy else "reset"))


def stop(at: CommandContext, argument: str) -> CommandResult:
    if argument.lower() not in ("", "all"):
        return wrong_argument(at, "stop", argument, "usage_stop")
    sessions = lane.unfinished_sessions(at.tx, at.key)
    whose = at.only_of
    unfinished = sum(lane.waiting(at.tx, session_id, person_id=whose) for session_id in sessions)
    if not unfinished:
        return CommandResult(at.say("stop_others" if sessions else "stop_nothing"))
    running = lane.request_cancel(at.tx, sessions, at.now, with_queued=False, person_id=whose)
    if argument:
        queued = lane.request_cancel(at.tx, sessions, at.now, with_queued=True, person_id=whose)
        if not queued:
            return CommandResult(at.say("stop_running"), running)
        text = at.say("stop_all_one") if len(queued) == 1 else at.say("stop_all", count=len(queued))
        return CommandResult(text, [*running, *queued], sessions)
    rest = unfinished - len(running)
    where = "_here" if at.is_shared and whose is None else ""
    if not running:
        return CommandResult(at.count(f"stop_not_begun{where}", rest))
    if not rest:
        return CommandResult(at.say("stop_running"), running)
    return CommandResult(at.count(f"stop_waiting{where}", rest), running)


def status(at: CommandContext, _argument: str) -> CommandResult:
    session = at.session
    if session is None:
        return at.nothing_here()
    seen = context.see_session(
        at.tx,
        session,
        at.settings,
        at.agent,
        tool_tokens=tool_tokens(at.settings, session.persona),
    ).parts
    busy = lane.waiting(at.tx, session.id)
    state = (
        at.count("status_busy_here" if at.is_shared else "status_busy", busy)
        if busy
        else at.say("status_idle")
    )
    return CommandResult(
        at.say(
            "status",
            since=f"{at.moment(session.created_at)} UTC",
            messages=at.count("counted_messages", session.message_count),
            tool_calls=at.count("counted_tool_calls", session.tool_call_count),
            errors=at.count("counted_errors", session.error_count),
            window=at.figure(seen.limit),
            percent=seen.percent,
            agent=at.say("agent_offline") if at.agent == "offline" else at.agent,
            state=state,
        )
    )


def show_history(at: CommandContext, argument: str) -> CommandResult:
    page_number = number(argument or "1")
    if page_number is None:
        return wrong_argument(at, "history", argument, "usage_history")
    page = history.page(at.tx, at.key, at.scope, number=page_number, size=HISTORY_PAGE)
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
        lines.append(at.say("history_line", time=at.moment(message.created_at), who=who, text=shown))
    return CommandResult("\n\n".join(lines), choices=_pages(at, "history", page.number, pages))


def whoami(at: CommandContext, _argument: str) -> CommandResult:
    lines = [
        at.say(
            "whoami",
            name=at.person.display_name,
            platform=at.message.platform.capitalize(),
            user=at.message.user_id,
        ),
    ]
    if at.person.role == "operator":
        lines.append(at.say("whoami_operator"))
    lines += [
        at.say("whoami_identity", name=identity["display_name"], platform=identity["platform"].capitalize())
        for identity in people.identities(at.tx, at.person.id)
        if (identity["platform"], identity["platform_user_id"]) != (at.message.platform, at.message.user_id)
    ]
    return CommandResult("\n".join(lines))


def _pages(at: CommandContext, command: str, page: int, pages: int) -> list[Choice]:
    """The way to the pages beside this one."""
    choices = []
    if page < pages:
        choices.append(Choice(at.say("page_older"), f"/{command} {page + 1}"))
    if page > 1:
        choices.append(Choice(at.say("page_newer"), f"/{command} {page - 1}"))
    return choices
