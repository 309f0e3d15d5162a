"""Continuing a conversation in a new session: all of it or its last messages are taken along, the old one stays as it was.

Owns what is taken along and what is not. The messages are copied with their places, so that what is remembered of a place fits
both; turns, tool calls, errors and counters stay with the original, where they happened.
"""

from dataclasses import dataclass
from typing import Final

from config.names import SessionId
from sessions import lifecycle
from sessions.database.base import Transaction
from sessions.lifecycle import Doer
from sessions.models import Session, new_id

MAX_COPIED: Final = 2000
"""Most messages that are taken along: more would hold up everybody else, and no model reads them."""


NOT_TWICE: Final = (
    "(m.turn_id IS NOT NULL OR s.forked_from IS NULL OR NOT EXISTS (SELECT 1 FROM sessions o"
    " WHERE o.id = s.forked_from AND COALESCE(o.end_reason, '') <> 'deleted'))"
)
"""SQL for messages `m` of sessions `s`: what a fork took along is shown where it was said, as long as that is there."""
NOT_TWICE_IN_KEY: Final = NOT_TWICE.removesuffix("))") + " AND o.key = s.key))"
"""The same for the sessions of one key alone."""


@dataclass(frozen=True, slots=True)
class Fork:
    session: Session
    """The new one, live."""
    copied: int
    """Messages it begins with."""


def fork(
    tx: Transaction, session: Session, now: int, *, last: int | None = None, by: Doer | None = None
) -> Fork:
    """Begin a session with the last messages of another (None: all, up to `MAX_COPIED`), and make it the live one.

    What waits for an answer or is being answered stays with the original and is answered there.
    """
    live = lifecycle.find_live(tx, session.key)
    if live is not None:
        lifecycle.end(tx, live, "completed", now, by=by, why="forked")
    fork_id = SessionId(new_id())
    tx.execute(
        "INSERT INTO sessions (id, key, scope, platform, account, channel, thread, person_id, persona, status, title,"
        " description, current_task, metadata, context_tokens, learned_tokens, learned_for, token_ratio,"
        " expire_after_ms, created_at, last_activity_at, forked_from)"
        " SELECT :fork, key, scope, platform, account, channel, thread, person_id, persona, 'active', title, description,"
        " current_task, metadata, context_tokens, learned_tokens, learned_for, token_ratio,"
        " expire_after_ms, :now, :now, id"
        " FROM sessions WHERE id = :id",
        {"fork": fork_id, "now": now, "id": session.id},
    )
    copied = _copy_messages(tx, session.id, fork_id, MAX_COPIED if last is None else min(last, MAX_COPIED))
    if last is None:
        _copy_summaries(tx, session.id, fork_id)
    tx.execute(
        "INSERT INTO session_variables (session_id, name, value, updated_at)"
        " SELECT :fork, name, value, updated_at FROM session_variables WHERE session_id = :id",
        {"fork": fork_id, "id": session.id},
    )
    tx.execute(
        "INSERT INTO session_links (session_id, kind, name, added_at)"
        " SELECT :fork, kind, name, added_at FROM session_links WHERE session_id = :id",
        {"fork": fork_id, "id": session.id},
    )
    tx.execute(
        "INSERT INTO session_tasks (session_id, task, set_at)"
        # By the session and not by its list: one that was abandoned with its task, and resumed, still works on it.
        " SELECT :fork, current_task, :now FROM sessions WHERE id = :id AND current_task IS NOT NULL",
        {"fork": fork_id, "id": session.id, "now": now},
    )
    made = lifecycle.find_live(tx, session.key)
    assert made is not None
    return Fork(made, copied)


def bring(tx: Transaction, session: Session, into: Session) -> Fork:
    """Let a session in which nothing was said yet begin with the messages of one from elsewhere, which stays as it was."""
    tx.execute(
        "UPDATE sessions SET forked_from = :source, title = :title WHERE id = :id",
        {"source": session.id, "title": session.title, "id": into.id},
    )
    copied = _copy_messages(tx, session.id, into.id, MAX_COPIED)
    made = lifecycle.find_live(tx, into.key)
    assert made is not None
    return Fork(made, copied)


def _copy_summaries(tx: Transaction, source: SessionId, target: SessionId) -> None:
    """What stands for older messages stands for them in the copy too, so that its model sees the same."""
    names = {"id": source, "target": target}
    tx.execute(
        "INSERT INTO summaries (session_id, version, from_position, to_position, content, tokens, made_by, created_at, level)"
        " SELECT :target, version, from_position, to_position, content, tokens, made_by, created_at, level FROM summaries"
        " WHERE session_id = :id AND replaced_by IS NULL",
        names,
    )
    tx.execute(
        "UPDATE sessions SET summarised_to = (SELECT o.summarised_to FROM sessions o WHERE o.id = :id) WHERE id = :target",
        names,
    )


def _copy_messages(tx: Transaction, source: SessionId, target: SessionId, count: int) -> int:
    """Let a session begin with the last so many messages of finished turns of another; gives how many there were."""
    unfinished = tx.row(
        "SELECT MIN(position) AS position FROM turns WHERE session_id = :id AND status IN ('queued', 'running')",
        {"id": source},
    )
    until = unfinished["position"] if unfinished else None
    limits = {"id": source, "until": until if until is not None else 2**62}
    first = tx.row(
        "SELECT position, part FROM messages WHERE session_id = :id AND position < :until"
        " ORDER BY position DESC, part DESC LIMIT 1 OFFSET :offset",
        {**limits, "offset": count - 1},
    )
    place = {"position": first["position"], "part": first["part"]} if first else {"position": 0, "part": 0}
    copied = tx.execute(
        "INSERT INTO messages (session_id, position, part, role, content, person_id, author, attachments, metadata,"
        " created_at, is_sealed)"
        " SELECT :target, position, part, role, content, person_id, author, attachments, metadata, created_at, is_sealed"
        " FROM messages WHERE session_id = :id AND position < :until"
        " AND (position > :position OR (position = :position AND part >= :part)) ORDER BY position, part",
        {**limits, **place, "target": target},
    )
    tx.execute(
        "UPDATE sessions SET copied_count = :copied, next_position = 1 + COALESCE("
        "(SELECT MAX(position) FROM messages WHERE session_id = :target), 0) WHERE id = :target",
        {"target": target, "copied": copied},
    )
    return copied
