"""The one checker: what must hold after every fault test, read from the database file and from what people saw.

Each message that a test lets somebody write carries a marker (`#17`), and a long one another at its end (`end-of-17`); the
scripted agent echoes both. So what people saw can be compared with what was said without trusting the daemon's own books,
and then the books are compared with themselves.
"""

import itertools
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
from psycopg.rows import dict_row

from tests.process.counterparties import Chat, Platform

FILLER: Final = "quokka"
"""Stands in every message; a log that has it has told what people said."""
_MARKER: Final = re.compile(r"#(\d+)\b")
_TAIL: Final = re.compile(r"\bend-of-(\d+)\b")
_ALARMS: Final = frozenset(
    {
        "daemon.failed",
        "gateway.intake_faulted",
        "lanes.lane_failed",
        "delivery.sender_failed",
        "delivery.adapter_failed",
        "text",
    }
)
"""Events that no fault outside of the daemon excuses; `text` is a traceback that went past the log."""


@dataclass(frozen=True)
class Said:
    """A message somebody wrote, and what must become of it."""

    chat: Chat
    message_id: str
    number: int
    outcome: Literal["turn", "command", "declined"] = "turn"
    tool_calls: int = 0
    has_tail: bool = False
    shows: str = ""
    """For a command or a declined message: what the reply must contain."""


@dataclass
class Findings:
    messages: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    marked_repeats: int = 0

    @property
    def violations(self) -> list[str]:
        return self.lost + self.twice + self.disorder + self.other

    def figures(self) -> str:
        return (
            f"messages {self.messages}  lost {len(self.lost)}  twice {len(self.twice)}"
            f"  marked repeats {self.marked_repeats}  disorder {len(self.disorder)}  other {len(self.other)}"
        )


Store = Path | str
"""A database file, or the URL of a database on a PostgreSQL server."""


def read_rows(database: Store, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """Look into the database beside whoever owns it. Parameters are SQLite's: `?`, or `?1` to use one twice."""
    if isinstance(database, str):
        return _read_server(database, sql, parameters)
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, parameters)]
    finally:
        connection.close()


def _read_server(url: str, sql: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
    numbers = itertools.count(1)
    numbered = re.sub(r"\?(\d*)", lambda found: f"${found[1] or next(numbers)}", sql)
    with psycopg.connect(
        url, row_factory=dict_row, cursor_factory=psycopg.RawCursor, autocommit=True
    ) as connection:
        return list(connection.execute(numbered.encode(), parameters).fetchall())


def is_idle(database: Store) -> bool:
    """No turn to run and nothing to send."""
    busy = read_rows(
        database,
        "SELECT 1 FROM turns WHERE status IN ('queued', 'running')"
        " UNION ALL SELECT 1 FROM outbox WHERE state IN ('ready', 'sending', 'uncertain') LIMIT 1",
    )
    return not busy


def unanswered(said: Iterable[Said], shown: Mapping[str, Sequence[str]]) -> list[Said]:
    """Whose reply nobody has seen yet."""
    texts = {channel: "\n".join(lines) for channel, lines in shown.items()}
    return [
        one
        for one in said
        if (
            not re.search(rf"#{one.number}\b", texts[one.chat.channel])
            or (one.has_tail and not re.search(rf"\bend-of-{one.number}\b", texts[one.chat.channel]))
            if one.outcome == "turn"
            else one.shows not in texts[one.chat.channel]
        )
    ]


def check(
    database: Store,
    account: str,
    platform: Platform,
    said: Sequence[Said],
    shown: Mapping[str, Sequence[str]],
    *,
    logs: Sequence[Path] = (),
    secrets: Sequence[str] = (),
    statuses: Sequence[str] = ("completed",),
    excused: Sequence[str] = (),
) -> Findings:
    """All invariants at once; `excused` names alarms in the log that the test's own fault causes.

    A turn that did not complete (where `statuses` allows that) must have shown its reference, as others their marker.
    """
    findings = Findings(messages=len(said))
    _check_file(database, findings)
    _check_books(database, account, said, findings, statuses)
    for channel in {one.chat.channel for one in said}:
        own = [one for one in said if one.chat.channel == channel]
        _check_screen(database, account, platform, channel, own, shown[channel], findings)
    for log in logs:
        _check_log(log, [*secrets, FILLER], excused, findings)
    return findings


def _check_file(database: Store, findings: Findings) -> None:
    if isinstance(database, str):
        return  # a server looks after its files, and keeps its constraints, by itself
    for pragma in ("integrity_check", "foreign_key_check"):
        result = [tuple(row.values()) for row in read_rows(database, f"PRAGMA {pragma}")]
        if result not in ([], [("ok",)]):
            findings.other.append(f"{pragma}: {result[:3]}")


def _check_books(
    database: Store, account: str, said: Sequence[Said], findings: Findings, statuses: Sequence[str]
) -> None:
    for table, busy in (("turns", "('queued', 'running')"), ("outbox", "('ready', 'sending', 'uncertain')")):
        column = "status" if table == "turns" else "state"
        for row in read_rows(database, f"SELECT * FROM {table} WHERE {column} IN {busy}"):
            findings.other.append(f"not idle: {table} {row['id']} is {row[column]}")
    for row in read_rows(
        database, "SELECT key, state, error FROM outbox WHERE state IN ('failed', 'skipped')"
    ):
        findings.lost.append(f"chunk {row['key']} {row['state']}: {row['error']}")
    for row in read_rows(database, "SELECT id, reason FROM quarantine"):
        findings.lost.append(f"quarantined {row['id']}: {row['reason']}")
    inbox = read_rows(database, "SELECT * FROM inbox WHERE account = ?", account)
    turns = read_rows(database, "SELECT * FROM turns")
    by_message: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in inbox:
        by_message.setdefault((row["channel"], row["message_id"]), []).append(row)
    by_inbox = Counter(turn["inbox_id"] for turn in turns)
    turn_of = {turn["inbox_id"]: turn for turn in turns}
    calls = Counter(row["turn_id"] for row in read_rows(database, "SELECT turn_id FROM tool_calls"))
    accepted_at: dict[str, list[int]] = {}
    for one in said:
        rows = by_message.get((one.chat.channel, one.message_id), [])
        if len(rows) != 1:
            (findings.twice if rows else findings.lost).append(
                f"#{one.number}: {len(rows)} times in the inbox"
            )
            continue
        row = rows[0]
        wanted = "accepted" if one.outcome == "turn" else one.outcome
        if row["outcome"] != wanted:
            findings.other.append(f"#{one.number}: {row['outcome']} ({row['reason']}), not {wanted}")
            continue
        if one.outcome != "turn":
            continue
        accepted_at.setdefault(one.chat.channel, []).append(row["id"])
        if by_inbox[row["id"]] != 1:
            findings.twice.append(f"#{one.number}: {by_inbox[row['id']]} turns")
            continue
        turn = turn_of[row["id"]]
        if turn["status"] not in statuses:
            findings.other.append(f"#{one.number}: its turn is {turn['status']} ({turn['error_ref']})")
        if turn["status"] == "completed" and calls[turn["id"]] != one.tool_calls:
            findings.twice.append(f"#{one.number}: {calls[turn['id']]} tool calls, not {one.tool_calls}")
    for channel, ids in accepted_at.items():
        if ids != sorted(ids):
            findings.disorder.append(f"{channel}: accepted in another order than written")
    _check_lanes(database, turns, findings)


def _check_lanes(database: Store, turns: Sequence[Mapping[str, Any]], findings: Findings) -> None:
    """Within every session: results in order of acceptance, one answer each, counters that agree with the rows."""
    lanes: dict[str, list[Mapping[str, Any]]] = {}
    for turn in sorted(turns, key=lambda turn: turn["position"]):
        lanes.setdefault(turn["session_id"], []).append(turn)
    for session_id, lane in lanes.items():
        if [turn["inbox_id"] for turn in lane] != sorted(turn["inbox_id"] for turn in lane):
            findings.disorder.append(f"session {session_id}: positions and acceptance disagree")
        ends = [turn["finished_at"] for turn in lane if turn["finished_at"] is not None]
        if ends != sorted(ends):
            findings.disorder.append(f"session {session_id}: turns ended out of order")
    for session in read_rows(
        database,
        "SELECT id, message_count + copied_count AS message_count, tool_call_count, error_count FROM sessions",
    ):
        for name, sql in (
            ("message_count", "SELECT COUNT(*) AS n FROM messages WHERE session_id = ?"),
            ("tool_call_count", "SELECT COUNT(*) AS n FROM tool_calls WHERE session_id = ?"),
            (
                "error_count",
                """SELECT (SELECT COUNT(*) FROM errors WHERE session_id = ?1)
                + (SELECT COUNT(*) FROM tool_calls WHERE session_id = ?1 AND outcome = 'error') AS n""",
            ),
        ):
            counted = read_rows(database, sql, session["id"])[0]["n"]
            if session[name] != counted:
                findings.twice.append(f"session {session['id']}: {name} {session[name]}, rows {counted}")
    answers = Counter(
        row["turn_id"] for row in read_rows(database, "SELECT turn_id FROM messages WHERE role = 'assistant'")
    )
    for row in read_rows(
        database,
        "SELECT c.turn_id, c.name, c.result, m.content FROM tool_calls c JOIN messages m ON m.turn_id = c.turn_id"
        " AND m.role = 'assistant'",
    ):
        if row["result"] not in row["content"]:  # the scripted agent cites every result
            findings.twice.append(
                f"turn {row['turn_id']}: {row['name']} ran again although its result was recorded"
            )
    for turn in turns:
        if turn["status"] == "completed" and answers[turn["id"]] != 1:
            findings.twice.append(f"turn {turn['id']}: {answers[turn['id']]} answers in the conversation")


def _check_screen(
    database: Store,
    account: str,
    platform: Platform,
    channel: str,
    said: Sequence[Said],
    shown: Sequence[str],
    findings: Findings,
) -> None:
    order = {one.number: place for place, one in enumerate(said)}
    references = _references(database, account, channel, said)
    pieces = {1: _MARKER, 2: _TAIL}

    def told(text: str, *patterns: re.Pattern[str]) -> list[int]:
        """Whose reply this text is (a part of)."""
        found = [int(number) for pattern in patterns for number in pattern.findall(text)]
        found += [number for number, reference in references.items() if reference in text]
        return [number for number in dict.fromkeys(found) if number in order]

    allowed = {
        row["part"]: row["repeats"]
        for row in read_rows(
            database,
            "SELECT CASE WHEN part = 0 THEN 1 ELSE 2 END AS part, SUM(repeats) AS repeats FROM outbox"
            " WHERE account = ? AND channel = ? GROUP BY 1",
            account,
            channel,
        )
    }
    repeats_here = sum(allowed.values())
    marked_here = 0
    places = [order[number] for text in shown for number in told(text, _MARKER, _TAIL)]
    if places != sorted(places):
        findings.disorder.append(f"{channel}: shown out of order: {_first_disorder(places, said)}")
    for part, pattern in pieces.items():
        copies: dict[int, list[str]] = {}
        for text in shown:
            for number in told(text, pattern):
                copies.setdefault(number, []).append(text)
        for one in said:
            if one.outcome != "turn" or (part == 2 and not one.has_tail):
                continue
            texts = copies.get(one.number, [])
            if not texts:
                findings.lost.append(
                    f"#{one.number}: its reply was never shown{' whole' if part == 2 else ''}"
                )
            extra = texts[1:]
            marked = [text for text in extra if platform.repeat_mark and platform.repeat_mark in text]
            marked_here += len(marked)
            if platform.shows_once and extra:
                findings.twice.append(f"#{one.number}: shown {len(texts)} times")
            elif len(marked) != len(extra):
                findings.twice.append(f"#{one.number}: shown {len(texts)} times, {len(marked)} marked")
    if marked_here > repeats_here:
        findings.twice.append(f"{channel}: {marked_here} repeats shown, {repeats_here} counted in the outbox")
    findings.marked_repeats += marked_here
    for one in said:
        if one.outcome != "turn":
            times = sum(one.shows in text for text in shown)
            if times == 0:
                findings.lost.append(f"#{one.number} ({one.outcome}): {one.shows!r} was never shown")


def _references(database: Store, account: str, channel: str, said: Sequence[Said]) -> Mapping[int, str]:
    """The reference that a failed turn's person was told, by the message's number."""
    number_of = {one.message_id: one.number for one in said}
    rows = read_rows(
        database,
        "SELECT i.message_id, t.error_ref FROM turns t JOIN inbox i ON i.id = t.inbox_id"
        " WHERE i.account = ? AND i.channel = ? AND t.error_ref IS NOT NULL",
        account,
        channel,
    )
    return {number_of[row["message_id"]]: row["error_ref"] for row in rows if row["message_id"] in number_of}


def _first_disorder(places: Sequence[int], said: Sequence[Said]) -> str:
    at = next(index for index in range(1, len(places)) if places[index] < places[index - 1])
    return f"#{said[places[at]].number} after #{said[places[at - 1]].number}"


def _check_log(log: Path, forbidden: Sequence[str], excused: Sequence[str], findings: Findings) -> None:
    content = log.read_text(errors="replace")
    for word in forbidden:
        if word in content:
            findings.other.append(f"{log.name} tells {word[:6]}…")
    for line in content.splitlines():
        event: dict[str, Any] = {}
        try:
            event = json.loads(line)
            name = event.get("event", "")
        except ValueError:
            if not line.strip() or line == content.splitlines()[-1]:
                continue  # cut off by a kill
            name = "text"
        is_alarm = name in _ALARMS or "never retrieved" in name or event.get("logger") == "asyncio"
        if is_alarm and name not in excused:
            findings.other.append(f"{log.name}: {line[:300]}")
