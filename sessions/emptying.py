"""Turns that are forgotten, because a person is or because they are old.

Owns what goes with a turn and what stays: its bare numbers (when, how long, tokens), never a word. Who asks for it and in which
steps is the affair of `erasure.py` and `retention.py`.
"""

from collections.abc import Sequence
from typing import Final

import orjson

from config.names import SessionId
from sessions import queue
from sessions.database.base import Transaction

SLICE: Final = 100
"""Turns that are emptied at a time."""


def empty_turns(tx: Transaction, session_id: SessionId, positions: Sequence[int], now: int) -> dict[str, int]:
    """Remove what was said and done in some turns of a session; gives how many rows of what. The turns keep their numbers.

    A turn that waits or runs is ended: whoever runs it can store nothing any more.
    """
    within: dict[str, object] = {"id": session_id}
    within |= {f"position_{number}": position for number, position in enumerate(positions)}
    listed = ", ".join(f":position_{number}" for number in range(len(positions)))
    turns = f"SELECT id FROM turns WHERE session_id = :id AND position IN ({listed})"
    tx.execute(
        "UPDATE turns SET status = 'cancelled', epoch = epoch + 1, finished_at = :now WHERE session_id = :id"
        f" AND position IN ({listed}) AND status IN ('queued', 'running')",
        {**within, "now": now},
    )
    if tx.dialect == "postgresql":
        queue.drop(tx, [row["id"] for row in tx.rows(turns, within)])
    failed = tx.row(
        f"SELECT COUNT(*) AS n FROM tool_calls WHERE outcome = 'error' AND turn_id IN ({turns})", within
    )
    # What a tool was told to remember in a shared session is under the name that it was given.
    remembered = {
        name
        for row in tx.rows(
            f"SELECT arguments FROM tool_calls WHERE name = 'remember' AND turn_id IN ({turns})", within
        )
        if isinstance(name := orjson.loads(row["arguments"]).get("name"), str)
    }
    for name in remembered:
        tx.execute(
            "DELETE FROM session_variables WHERE session_id = :id AND LOWER(name) = LOWER(:name)",
            {"id": session_id, "name": name},
        )
    copied = tx.row(
        f"SELECT COUNT(*) AS n FROM messages m JOIN sessions s ON s.id = m.session_id WHERE m.session_id = :id"
        f" AND m.position IN ({listed}) AND m.turn_id IS NULL AND s.forked_from IS NOT NULL",
        within,
    )
    removed = {
        "steps": tx.execute(f"DELETE FROM steps WHERE turn_id IN ({turns})", within),
        "tool_calls": tx.execute(f"DELETE FROM tool_calls WHERE turn_id IN ({turns})", within),
        "errors": tx.execute(f"DELETE FROM errors WHERE turn_id IN ({turns})", within),
        "replies": tx.execute(f"DELETE FROM outbox WHERE turn_id IN ({turns})", within),
        "messages": tx.execute(
            f"DELETE FROM messages WHERE session_id = :id AND position IN ({listed})", within
        ),
        # Made anew from what is left, as soon as it is needed.
        "summaries": tx.execute("DELETE FROM summaries WHERE session_id = :id", {"id": session_id}),
    }
    tx.execute(
        f"UPDATE turns SET error_ref = NULL WHERE session_id = :id AND position IN ({listed}) AND error_ref IS NOT NULL",
        within,
    )
    tx.execute(
        "UPDATE sessions SET message_count = message_count - :messages, copied_count = copied_count - :copied,"
        " tool_call_count = tool_call_count - :calls,"
        " error_count = CASE WHEN error_count > :errors THEN error_count - :errors ELSE 0 END, summarised_to = 0 WHERE id = :id",
        {
            "id": session_id,
            "messages": removed["messages"] - (int(copied["n"]) if copied else 0),
            "copied": int(copied["n"]) if copied else 0,
            "calls": removed["tool_calls"],
            "errors": removed["errors"] + (int(failed["n"]) if failed else 0),
        },
    )
    return removed
