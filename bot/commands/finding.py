"""Commands that look into what is kept: words in what was said, and numbers."""

from bot.commands.calls import CommandContext, CommandResult, utc
from sessions import search
from sessions.search import SearchQuery

SEARCH_HITS = 5


def find(at: CommandContext, words: str) -> CommandResult:
    page = search.search(at.tx, at.scope, SearchQuery(words, size=SEARCH_HITS))
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
                time=f"{utc(hit.message.created_at):%d.%m.%Y %H:%M}",
                who=who,
                text=hit.excerpt.marked("**", "**"),
            )
        )
    if not lines:
        lines.append(at.say("search_none"))
    else:
        title = "search_begun" if page.is_widened else "search_found"
        lines.insert(0, at.count(title, page.total, shown=len(page.hits)))
    if page.sealed:
        lines.append(at.say("search_sealed"))
    return CommandResult("\n\n".join(lines))
