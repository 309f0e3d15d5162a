"""Commands that look into what is kept: words in what was said, and numbers."""

from bot.commands import filters
from bot.commands.calls import CommandContext, CommandResult
from bot.reports import sparkline
from sessions import search, semantic, statistics
from sessions.statistics import Subject

SEARCH_HITS = 5
_COMPARED = 5_000
"""Messages whose meaning is compared: fewer than for operators, since others wait for this transaction."""


def find(at: CommandContext, argument: str) -> CommandResult:
    query = filters.query(at, filters.read(argument), SEARCH_HITS)
    if isinstance(query, CommandResult):
        return query
    if at.meaning is None:
        page = search.search(at.tx, at.scope, query)
    else:
        page = semantic.search_both(at.tx, at.scope, query, at.meaning, compared=_COMPARED)
    lines = []
    for hit in page.hits:
        who = (
            at.say("history_bot")
            if hit.message.role == "assistant"
            else (hit.message.author or at.say("history_you"))
        )
        lines.append(
            at.say(
                "history_line",
                time=at.moment(hit.message.created_at),
                who=who,
                text=hit.excerpt.marked("**", "**"),
            )
        )
    if not lines:
        lines.append(at.say("search_none"))
    else:
        title = "search_begun" if page.is_widened else "search_found"
        lines.insert(0, at.count(title, page.total))
        if page.total > len(page.hits):
            lines.append(at.say("search_more", shown=len(page.hits)))
    if page.sealed:
        lines.append(at.say("search_sealed"))
    return CommandResult("\n\n".join(lines))


def stats(at: CommandContext, _argument: str) -> CommandResult:
    """The person's own numbers; in a shared conversation, those of the conversation."""
    if at.is_shared and at.session is None:
        return at.nothing_here()
    subject = Subject("person", at.person.id)
    if at.is_shared and at.session is not None:
        subject = Subject("session", at.session.id)
    read = statistics.read(at.tx, at.scope, subject, at.now)
    if not read.messages:
        return at.nothing_here()
    lines = [
        at.say(
            "stats_shared" if at.is_shared else "stats",
            sessions=at.count("counted_sessions", sum(read.sessions.values())),
            messages=at.count("counted_messages", read.messages),
            tool_calls=at.count("counted_tool_calls", read.tool_calls),
            errors=at.count("counted_errors", sum(read.errors.values())),
        )
    ]
    if (
        read.success_rate is not None
        and read.response.p50_ms is not None
        and read.response.p95_ms is not None
    ):
        lines.append(
            at.say(
                "stats_answers",
                percent=round(100 * read.success_rate),
                half=_seconds(at, read.response.p50_ms),
                most=_seconds(at, read.response.p95_ms),
            )
        )
    if read.input_tokens or read.output_tokens:  # the built-in agent has none
        lines.append(
            at.say("stats_tokens", input=at.figure(read.input_tokens), output=at.figure(read.output_tokens))
        )
    if any(read.messages_by_day):
        lines.append(at.say("stats_days", days=sparkline(read.messages_by_day)))
    return CommandResult("\n".join(lines))


def _seconds(at: CommandContext, milliseconds: int) -> str:
    return at.figure(max(milliseconds, 100) / 1000, 1 if milliseconds < 10_000 else 0)
