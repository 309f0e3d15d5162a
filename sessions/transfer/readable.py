"""Conversations for people and spreadsheets: Markdown to read, CSV to count.

Owns these two layouts. Neither can be imported again; the complete one is JSONL.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from sessions import contents
from sessions.database.base import Database, Row, Transaction
from sessions.scope import OperatorScope, Scope
from sessions.transfer.exporting import PAGE, Exported, Progress, in_batches

COLUMNS = (
    "id platform account channel person_id persona status end_reason title created_at last_activity_at ended_at"
    " message_count tool_call_count error_count input_tokens output_tokens"
).split()
"""Of the CSV; after them: turns, completed, failed, and the median and longest time to an answer in milliseconds."""

_TIMES = ("created_at", "last_activity_at", "ended_at")


async def export_markdown(
    database: Database,
    write: Callable[[bytes], object],
    *,
    scope: Scope | None = None,
    ids: Sequence[str] | None = None,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Write conversations as they are read, the oldest first; a page of messages at a time, for nothing is ever changed in them."""
    sessions = messages = 0
    groups, total = await in_batches(database, scope or OperatorScope(), ids)
    for group in groups:
        for session_id in group:
            heading = await database.read(lambda tx, chosen=session_id: _heading(tx, chosen))  # type: ignore[misc]  # bound early
            if not heading:
                continue
            write(heading.encode("utf-8", "replace"))
            sessions += 1
            after = (-1, 0)
            while True:
                texts, after = await database.read(
                    lambda tx, chosen=session_id, after=after: _messages(tx, chosen, after)  # type: ignore[misc]  # bound early
                )
                if not texts:
                    break
                write("".join(f"\n{text}" for text in texts).encode("utf-8", "replace"))
                messages += len(texts)
                progress(messages, max(total, messages))
            write(b"\n")
    return Exported(0, sessions, messages, 0)


async def export_csv(
    database: Database,
    write: Callable[[bytes], object],
    *,
    scope: Scope | None = None,
    ids: Sequence[str] | None = None,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Write a line of figures for each session; times are UTC."""
    write(_csv_line([*COLUMNS, "turns", "completed", "failed", "median_ms", "longest_ms"]))
    sessions = messages = 0
    groups, total = await in_batches(database, scope or OperatorScope(), ids)
    for group in groups:
        lines = await database.read(lambda tx, chosen=group: [_figures(tx, one) for one in chosen])  # type: ignore[misc]  # bound early
        found = [line for line in lines if line is not None]
        write(b"".join(map(_csv_line, found)))
        sessions += len(found)
        messages += sum(int(line[COLUMNS.index("message_count")]) for line in found)
        progress(messages, max(total, messages))
    return Exported(0, sessions, messages, 0)


def _heading(tx: Transaction, session_id: str) -> str:
    """What stands above the messages; empty if the session was removed meanwhile."""
    session = tx.row("SELECT * FROM sessions WHERE id = :id", {"id": session_id})
    if session is None:
        return ""
    title = contents.titles(tx, [session["id"]], OperatorScope()).get(session["id"])
    facts = [
        f"- Session: `{session['id']}`, {session['status']}",
        f"- Where: {session['account']}, channel {_one_line(session['channel'])}",
        f"- From {_time(session['created_at'])} to {_time(session['last_activity_at'])} UTC",
    ]
    if session["description"]:
        facts.append(f"- About: {_one_line(session['description'])}")
    heading = _one_line(title or f"Conversation {session['id']}")
    return f"# {heading}\n\n" + "\n".join(facts) + "\n"


def _messages(tx: Transaction, session_id: str, after: tuple[int, int]) -> tuple[list[str], tuple[int, int]]:
    """The next messages as they are read, and where to go on."""
    rows = tx.rows(
        "SELECT role, content, author, turn_id, position, part, attachments, created_at FROM messages"
        " WHERE session_id = :id AND (position, part) > (:position, :part) ORDER BY position, part LIMIT :page",
        {"id": session_id, "position": after[0], "part": after[1], "page": PAGE},
    )
    if not rows:
        return [], after
    calls: dict[str, list[Row]] = {}
    for call in tx.rows(
        "SELECT c.turn_id, c.name, c.outcome, c.duration_ms FROM turns t JOIN tool_calls c ON c.turn_id = t.id"
        " WHERE t.session_id = :id AND t.position >= :first AND t.position <= :last ORDER BY c.id",
        {"id": session_id, "first": rows[0]["position"], "last": rows[-1]["position"]},
    ):
        calls.setdefault(call["turn_id"], []).append(call)
    return [_message(row, calls) for row in rows], (rows[-1]["position"], rows[-1]["part"])


def _message(message: Row, calls: Mapping[str, Sequence[Row]]) -> str:
    who = message["author"] or {"user": "Person", "assistant": "Bot"}.get(message["role"], "System")
    parts = [f"## {_one_line(who)}, {_time(message['created_at'])}\n"]
    if message["role"] == "assistant" and message["turn_id"] in calls:
        used = [
            f"{call['name']} ({call['duration_ms']} ms{'' if call['outcome'] == 'ok' else ', failed'})"
            for call in calls[message["turn_id"]]
        ]
        parts.append(f"*Tools: {', '.join(used)}*\n")
    if message["content"]:
        parts.append(_shifted(message["content"]) + "\n")
    for attachment in orjson.loads(message["attachments"]):
        parts.append(f"*Attachment: {_one_line(str(attachment.get('name') or attachment.get('kind')))}*\n")
    return "\n".join(parts)


_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING: Final = re.compile(r" {0,3}(#{1,6})([ \t].*)?")


def _shifted(text: str) -> str:
    """The text with its own headings below ours; code between fences stays, and a fence left open is closed."""
    lines, fence = [], ""
    for line in text.split("\n"):
        mark = _FENCE.fullmatch(line)
        if mark is None:
            heading = None if fence else _HEADING.fullmatch(line)
            if heading is not None:
                line = "#" * min(6, len(heading[1]) + 2) + (heading[2] or "")
            lines.append(line)
            continue
        lines.append(line)
        ticks, rest = mark.groups()
        if not fence:
            fence = "" if "`" in ticks and "`" in rest else ticks  # `code` on a line of its own is no fence
        elif ticks.startswith(fence) and not rest.strip():
            fence = ""
    return "\n".join([*lines, fence] if fence else lines)


def _figures(tx: Transaction, session_id: str) -> list[str] | None:
    session = tx.row(f"SELECT {', '.join(COLUMNS)} FROM sessions WHERE id = :id", {"id": session_id})
    if session is None:
        return None
    turns = tx.rows(
        "SELECT status, finished_at - queued_at AS took FROM turns WHERE session_id = :id", {"id": session_id}
    )
    took = sorted(row["took"] for row in turns if row["took"] is not None and row["status"] == "completed")
    values = [_time(session[name]) if name in _TIMES else session[name] for name in COLUMNS]
    return [
        *("" if value is None else str(value) for value in values),
        str(len(turns)),
        str(sum(row["status"] == "completed" for row in turns)),
        str(sum(row["status"] in ("failed", "timeout") for row in turns)),
        str(took[(len(took) - 1) // 2]) if took else "",
        str(took[-1]) if took else "",
    ]


_FORMULA: Final = re.compile(r"[=+@\t\r]|-(?![0-9.]+$)")


def _csv_line(values: Sequence[str]) -> bytes:
    """One line. A cell that a spreadsheet would run as a formula is made a text; a number, as channels often are, is none."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(
        [f"'{value}" if _FORMULA.match(value) else value for value in values]
    )
    return line.getvalue().encode("utf-8", "replace")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _time(at: int | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}"
