"""What operators read of searches and statistics: lines, tables, JSON and sparklines.

Owns the layout only; the facts come from `sessions/search.py` and `sessions/statistics.py`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from sessions.search import Hit, SearchPage
from sessions.statistics import Statistics, Subject

_BARS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 16


def escaped(text: str) -> str:
    """Text of strangers for a terminal: nothing in it moves a cursor, changes a colour or turns the direction of reading."""
    return "".join(
        letter if letter.isprintable() or letter in _HARMLESS else letter.encode("unicode_escape").decode()
        for letter in text
    )


_HARMLESS: Final = "\n\u200c\u200d"
"""The line's end, and what joins or parts letters in names and emoji."""


def counted(number: int, one: str, more: str = "") -> str:
    """`1 session`, `2 sessions`; `more` is a plural that is made in another way."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def removed(counts: Mapping[str, int]) -> str:
    """How many rows of what were removed, as the audit log has it under plurals: `1 identity, 12 tool calls`."""
    return ", ".join(
        counted(number, re.sub("s$", "", re.sub("ies$", "y", word)).replace("_", " "), word.replace("_", " "))
        for word, number in counts.items()
    )


def search_text(page: SearchPage, *, mark: tuple[str, str] = ("[", "]")) -> str:
    """Two lines for each hit: where it stands, and the words in it between `mark`."""
    lines = []
    for hit in page.hits:
        at = f"{datetime.fromtimestamp(hit.message.created_at / 1000, UTC):%Y-%m-%d %H:%M}"
        who = hit.message.author or hit.message.role
        lines += [
            f"{at}  {escaped(who)} on {hit.account} in {hit.channel}, session {hit.message.session_id}",
            f"    {_marked(hit, mark)}",
        ]
    return "\n".join([*lines, *_remarks(page)])


def _marked(hit: Hit, mark: tuple[str, str]) -> str:
    marks = {
        "\x02": mark[0],
        "\x03": mark[1],
    }  # should they stand in a message themselves, it has a mark too many
    return "".join(marks.get(letter) or escaped(letter) for letter in hit.excerpt.marked(*marks))


def _remarks(page: SearchPage) -> list[str]:
    """What the search found in all, and what it could not look into."""
    if not page.total:
        remarks = ["Nothing was found."]
    else:
        number = f"more than {page.total - 1}" if page.is_cut else str(page.total)
        remarks = [f"{number} message{'s' * (page.total != 1)} found."]
    if page.is_widened:
        remarks.append("No message has these very words; these have words that begin so.")
    if page.sealed:
        remarks.append(f"{page.sealed} sealed message{'s' * (page.sealed != 1)} could not be searched.")
    if page.unread:
        remarks.append(
            f"{page.unread} message{'s are' if page.unread != 1 else ' is'} not indexed yet; search again in a moment."
        )
    return remarks


def search_json(page: SearchPage) -> str:
    found = {
        "total": page.total,
        "is_cut": page.is_cut,
        "is_widened": page.is_widened,
        "sealed": page.sealed,
        "unread": page.unread,
        "hits": [
            {
                "id": hit.id,
                "session": hit.message.session_id,
                "platform": hit.platform,
                "account": hit.account,
                "channel": hit.channel,
                "title": hit.title,
                "role": hit.message.role,
                "author": hit.message.author,
                "created_at": hit.message.created_at,
                "position": hit.message.position,
                "part": hit.message.part,
                "excerpt": hit.excerpt.text,
                "marks": hit.excerpt.marks,
            }
            for hit in page.hits
        ],
    }
    return orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()


def sparkline(numbers: Sequence[int]) -> str:
    """A bar for each number, the highest for the greatest; a dot where there is nothing."""
    greatest = max(numbers, default=0)
    return "".join(
        _BARS[-(-number * len(_BARS) // greatest) - 1] if number > 0 else "·" for number in numbers
    )


def statistics_text(read: Statistics, *, with_sparklines: bool) -> str:
    """A line for each kind of number; what there is nothing of is left out."""
    response = read.response
    lines = [
        _line("statistics of", _about(read.subject)),
        _line("sessions", _parts(read.sessions)),
        _line("on platforms", _parts(read.sessions_by_platform)),
        _line("turns", _parts(read.turns)),
        _line("messages", f"{read.messages:,}"),
        _line("tool calls", f"{read.tool_calls:,}"),
        _line("tokens", f"{read.input_tokens:,} in, {read.output_tokens:,} out"),
        _line("errors", _parts(read.errors)),
    ]
    if read.success_rate is not None:
        lines.append(_line("success", f"{read.success_rate:.1%} of the turns that ended"))
    times = (
        ("p50", response.p50_ms),
        ("p95", response.p95_ms),
        ("p99", response.p99_ms),
        ("mean", response.mean_ms),
    )
    if told := [f"{word} {_duration(time)}" for word, time in times if time is not None]:
        lines.append(_line("response time", ", ".join(told)))
    if read.mean_session_messages is not None and read.mean_session_duration_ms is not None:
        lines.append(
            _line(
                "a session has",
                f"{read.mean_session_messages:.1f} messages in {_duration(read.mean_session_duration_ms)} on average",
            )
        )
    if read.cache_hit_rate is not None:
        lines.append(_line("cache hits", f"{read.cache_hit_rate:.1%} of the turns of 14 days"))
    for word, numbers in (("last 24 hours", read.messages_by_hour), ("last 14 days", read.messages_by_day)):
        bars = f"{sparkline(numbers)}  " if with_sparklines else ""
        lines.append(_line(word, f"{bars}{sum(numbers):,} messages"))
    return "\n".join(lines)


def statistics_json(read: Statistics) -> str:
    return orjson.dumps(read, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_DATACLASS).decode()


def _about(subject: Subject) -> str:
    if subject.dimension == "all":
        return "everything"
    return f"{subject.dimension} {subject.name or '(none)'}"


def _parts(numbers: Mapping[str, int]) -> str:
    """`12: active 3, ended 9`."""
    if not numbers:
        return "0"
    return f"{sum(numbers.values()):,}: " + ", ".join(
        f"{word} {number:,}" for word, number in numbers.items()
    )


def _duration(milliseconds: float) -> str:
    """In the unit that reads best: `85 ms`, `1.4 s`, `12 min`, `3.5 h`."""
    for limit, unit, size in ((1000, "ms", 1), (60_000, "s", 1000), (3_600_000, "min", 60_000)):
        if milliseconds < limit:
            value = milliseconds / size
            return f"{value:.0f} {unit}" if size == 1 or value >= 10 else f"{value:.1f} {unit}"
    return f"{milliseconds / 3_600_000:.1f} h"


def _line(word: str, text: str) -> str:
    return f"{word:<{_WIDTH}}{text}"
