"""Filters in a search: `train from:me since:7d in:telegram`. What is no filter is a word to look for.

Owns how they are written, in every language we speak at once, and what is said of one that cannot be understood. What they mean in
the database is `sessions/search.py`.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bot.commands.calls import CommandContext, CommandResult
from bot.commands.sessions import find_by_word
from sessions import search
from sessions.search import SearchQuery
from sessions.statistics import DAY_MS

_NAMES: Final[Mapping[str, str]] = {
    "from": "from",
    "von": "from",
    "since": "since",
    "seit": "since",
    "until": "until",
    "bis": "until",
    "in": "in",
}
_ELSEWHERE: Final[Mapping[str, str]] = {
    "role": "from",
    "author": "from",
    "user": "from",
    "after": "since",
    "before": "until",
    "platform": "in",
    "session": "in",
}
"""What other searches call the same."""
_AUTHORS: Final[Mapping[str, str]] = {
    "me": "me",
    "mir": "me",
    "ich": "me",
    "bot": "bot",
    "you": "bot",
    "dir": "bot",
}
_HERE: Final = frozenset({"here", "hier"})
_DAYS: Final[Mapping[str, int]] = {"today": 0, "heute": 0, "yesterday": 1, "gestern": 1}
_UNITS_MS: Final[Mapping[str, int]] = {"m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}

_FILTER: Final = re.compile(r"([^\W\d_]{2,12}):(\S+)")
_PIECE: Final = re.compile(r'-?"[^"]*(?:"|\Z)|\S+')
_AGO: Final = re.compile(r"(\d{1,6})([mhdw])")


@dataclass(frozen=True, slots=True)
class Written:
    """A search as somebody wrote it: the words, and what stands behind the name of each filter."""

    words: str
    filters: Mapping[str, tuple[str, str]]
    """By what it means: its name and its value as written."""
    twice: str | None = None
    near: tuple[str, str] | None = None
    """Something spelt like a filter that nearly is one or is one elsewhere, and that one."""


def read(argument: str) -> Written:
    """Take filters and words apart. In quotes, everything is a word."""
    words: list[str] = []
    filters: dict[str, tuple[str, str]] = {}
    twice: str | None = None
    near: tuple[str, str] | None = None
    for piece in _PIECE.findall(argument):
        match = _FILTER.fullmatch(piece)
        name = match[1].lower() if match else ""
        if match is None:
            words.append(piece)
        elif meant := _NAMES.get(name):
            twice = name if meant in filters else twice
            filters[meant] = (name, match[2])
        else:
            words.append(piece)  # 12:30, https://…
            like = _ELSEWHERE.get(name) or next(iter(difflib.get_close_matches(name, _NAMES, 1, 0.75)), None)
            if like is not None:
                near = (name, like)
    return Written(" ".join(words), filters, twice, near)


def query(at: CommandContext, written: Written, size: int) -> SearchQuery | CommandResult:
    """What is to be looked for, or what to say about a filter that does not fit."""
    if written.near is not None:
        return CommandResult(at.say("search_near", name=written.near[0], near=written.near[1]))
    if written.twice is not None:
        return CommandResult(at.say("search_twice", name=written.twice))
    if not written.words:
        return CommandResult(at.say("usage_search"))
    fields: dict[str, object] = {"text": written.words, "size": size}
    for meant, (name, value) in written.filters.items():
        if meant == "from":
            author = _AUTHORS.get(value.lower())
            if author is None:
                return CommandResult(at.say("search_no_author", name=name, value=value[:50]))
            fields["role"] = "user" if author == "me" else "assistant"
            if author == "me" and at.is_shared:
                fields["author_id"] = at.person.id
        elif meant == "in":
            place = _place(at, value)
            if place is None:
                known = ", ".join(search.platforms(at.tx, at.scope))
                return CommandResult(at.say("search_no_place", value=value[:50], known=known or "-"))
            fields |= place
        else:
            moment = _moment(value, at.now, is_end=meant == "until")
            if moment is None:
                return CommandResult(at.say("search_no_time", name=name, value=value[:50]))
            fields[meant] = moment
    since, until = fields.get("since"), fields.get("until")
    if isinstance(since, int) and isinstance(until, int) and since >= until:
        return CommandResult(at.say("search_no_span"))
    return SearchQuery(**fields)  # type: ignore[arg-type]  # each by its own name


def _place(at: CommandContext, value: str) -> Mapping[str, object] | None:
    """A platform, this conversation, or one of those that /sessions lists."""
    word = value.lower()
    if word in _HERE:
        return None if at.session is None else {"session_id": at.session.id}
    if word in search.platforms(at.tx, at.scope):
        return {"platform": word}
    session = find_by_word(at, word)
    return None if session is None else {"session_id": session.id}


def _moment(value: str, now: int, *, is_end: bool) -> int | None:
    """Milliseconds of a time as it is written, in UTC; None for what is none. A day is meant whole, also as an end."""
    word = value.lower()
    if word in _DAYS:
        return now - now % DAY_MS + (is_end - _DAYS[word]) * DAY_MS
    if ago := _AGO.fullmatch(word):
        return now - int(ago[1]) * _UNITS_MS[ago[2]]
    try:
        moment = datetime.fromisoformat(value)
        at = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return at + DAY_MS if is_end and len(value) <= len("2026-11-01") else at
