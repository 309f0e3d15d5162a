"""Conversations for people and spreadsheets: Markdown to read, CSV to count.

Owns these two layouts. Neither can be imported again; the complete one is JSONL.
"""

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import orjson

from sessions.database.base import Database, Row, Transaction
from sessions.scope import OperatorScope, Scope
from sessions.transfer.exporting import Exported, Progress, in_batches

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
    """Write conversations as they are read, the oldest first."""
    sessions = messages = 0
    for group in await in_batches(database, scope or OperatorScope(), ids):
        for session_id in group:
            text, count = await database.read(lambda tx, chosen=session_id: _as_markdown(tx, chosen))  # type: ignore[misc]  # bound early
            if text:
                write(text.encode("utf-8", "replace"))
                sessions, messages = sessions + 1, messages + count
                progress(messages, messages)
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
    for group in await in_batches(database, scope or OperatorScope(), ids):
        lines = await database.read(lambda tx, chosen=group: [_figures(tx, one) for one in chosen])  # type: ignore[misc]  # bound early
        found = [line for line in lines if line is not None]
        write(b"".join(map(_csv_line, found)))
        sessions += len(found)
        messages += sum(int(line[COLUMNS.index("message_count")]) for line in found)
        progress(messages, messages)
    return Exported(0, sessions, messages, 0)


def _as_markdown(tx: Transaction, session_id: str) -> tuple[str, int]:
    session = tx.row("SELECT * FROM sessions WHERE id = :id", {"id": session_id})
    if session is None:
        return "", 0
    heading = session["title"] or f"Conversation {session['id']}"
    parts = [f"# {_one_line(heading)}\n"]
    facts = [
        f"- Session: `{session['id']}`, {session['status']}",
        f"- Where: {session['account']}, channel {_one_line(session['channel'])}",
        f"- From {_time(session['created_at'])} to {_time(session['last_activity_at'])} UTC",
    ]
    if session["description"]:
        facts.append(f"- About: {_one_line(session['description'])}")
    parts.append("\n".join(facts) + "\n")
    calls: dict[str, list[Row]] = {}
    for call in tx.rows(
        "SELECT turn_id, name, outcome, duration_ms FROM tool_calls WHERE session_id = :id ORDER BY id",
        {"id": session_id},
    ):
        calls.setdefault(call["turn_id"], []).append(call)
    messages = tx.rows(
        "SELECT role, content, author, turn_id, part, attachments, created_at FROM messages WHERE session_id = :id"
        " ORDER BY position, part",
        {"id": session_id},
    )
    for message in messages:
        who = message["author"] or {"user": "Person", "assistant": "Bot"}.get(message["role"], "System")
        parts.append(f"## {_one_line(who)}, {_time(message['created_at'])}\n")
        if message["role"] == "assistant" and message["turn_id"] in calls:
            used = [
                f"{call['name']} ({call['duration_ms']} ms{'' if call['outcome'] == 'ok' else ', failed'})"
                for call in calls[message["turn_id"]]
            ]
            parts.append(f"*Tools: {', '.join(used)}*\n")
        if message["content"]:
            parts.append(_shifted(message["content"]) + "\n")
        for attachment in orjson.loads(message["attachments"]):
            parts.append(
                f"*Attachment: {_one_line(str(attachment.get('name') or attachment.get('kind')))}*\n"
            )
    return "\n".join(parts) + "\n", len(messages)


def _shifted(text: str) -> str:
    """The text with its own headings below ours; code between fences stays."""
    lines, is_code = [], False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
        lines.append(f"##{line}" if line.startswith("#") and not is_code else line)
    return "\n".join([*lines, "```"] if is_code else lines)


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


def _csv_line(values: Sequence[str]) -> bytes:
    """One line. A cell that a spreadsheet would run as a formula is made a text."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(
        [f"'{value}" if value[:1] in ("=", "+", "@", "\t", "\r") else value for value in values]
    )
    return line.getvalue().encode("utf-8", "replace")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _time(at: int | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}"
