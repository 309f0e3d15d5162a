"""What becomes of sessions in time: idle ones end, ended ones are archived, old ones are hidden and then removed for good.

Owns the policy and the small batches it works in, since it shares the writer with people who are chatting. The steps themselves
are `lifecycle.py`'s. A session with unfinished turns is left alone, however old.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from config.names import SessionId
from sessions import lifecycle, outbox
from sessions.database.base import Transaction, row_lock
from sessions.lifecycle import Doer
from sessions.models import Session, SessionStatus

REMOVED_AFTER_MS: Final = 86_400_000
"""How long something stays that was deleted (by a person, or because it was old), and what may quote it."""

SLICE: Final = 500
"""Messages of a long session that are removed at a time."""

_Step = Literal["expire", "archive", "delete"]
_BY: Final = Doer("clean-up")
_IDLE: Final = (
    " AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.session_id = s.id AND t.status IN ('queued', 'running'))"
)
_LIVE: Final[Sequence[SessionStatus]] = ("active", "paused")
_OVER: Final[Sequence[SessionStatus]] = ("ended", "archived")
_INACTIVE: Final = f"s.expire_after_ms IS NULL AND s.last_activity_at < :inactive{_IDLE}"
_OWN_TIME_OVER: Final = f"s.expire_after_ms > 0 AND s.last_activity_at + s.expire_after_ms < :now{_IDLE}"
_FINISHED: Final = f"s.end_reason <> 'deleted' AND s.ended_at < :finished{_IDLE}"
_OLD: Final = f"s.end_reason <> 'deleted' AND s.ended_at < :old{_IDLE}"
_DELETED: Final = f"s.end_reason = 'deleted' AND s.ended_at < :deleted{_IDLE}"


@dataclass(frozen=True, slots=True)
class Due:
    """How many sessions the clean-up would touch now."""

    expired: int
    abandoned: int
    archived: int
    deleted: int
    """Hidden, and removed a day later."""
    removed: int


def clean_up(
    tx: Transaction,
    now: int,
    *,
    expire_after_ms: int,
    archive_after_ms: int,
    delete_after_ms: int | None,
    batch: int = 50,
) -> int:
    """Do one small batch of what is due. Gives how many rows it touched; 0 means done.

    `expire_after_ms` 0 and `delete_after_ms` None mean never; what was deleted on request is removed all the same, and a session
    with an idle time of its own ends after that.
    """
    touched = 0
    steps: list[tuple[_Step, Sequence[SessionStatus], str, str, dict[str, int]]] = [
        ("expire", _LIVE, _OWN_TIME_OVER, "s.last_activity_at", {"now": now})
    ]
    if expire_after_ms > 0:
        inactive = {"inactive": now - expire_after_ms}
        steps.append(("expire", _LIVE, _INACTIVE, "s.last_activity_at", inactive))
    if delete_after_ms is not None:  # before the archive, where what is old already need not go first
        steps.append(("delete", _OVER, _OLD, "s.ended_at", {"old": now - delete_after_ms}))
    steps.append(("archive", _OVER[:1], _FINISHED, "s.ended_at", {"finished": now - archive_after_ms}))
    for step, statuses, where, order, limits in steps:
        for session in _waiting(tx, statuses, where, order, limits, batch):
            _take(tx, session, step, now)
            touched += 1
        if touched:
            return touched
    deleted = {"deleted": now - REMOVED_AFTER_MS}
    gone = _waiting(tx, _OVER, _DELETED, "s.ended_at", deleted, max(1, batch // 5))
    if gone:
        return _remove(tx, [session.id for session in gone])
    return outbox.forget_passing(tx, now - REMOVED_AFTER_MS, batch)


def _waiting(
    tx: Transaction,
    statuses: Sequence[SessionStatus],
    where: str,
    order: str,
    limits: Mapping[str, int],
    batch: int,
) -> list[Session]:
    """Sessions that are due, the longest waiting first; but for one that somebody is talking in.

    One status after the other: only so does an index give them in order, and a batch costs the same however many are due.
    """
    found: list[Session] = []
    for status in statuses:
        rows = tx.rows(
            f"SELECT s.* FROM sessions s WHERE s.status = :status AND {where} ORDER BY {order} LIMIT :batch"
            + row_lock(tx, "s", skips_locked=True),
            {**limits, "status": status, "batch": batch - len(found)},
        )
        found += [lifecycle.read_session(row) for row in rows]
        if len(found) == batch:
            break
    return found


def _take(tx: Transaction, session: Session, step: _Step, now: int) -> None:
    if step == "expire":
        lifecycle.expire(tx, session, now, by=_BY)
    elif step == "archive":
        lifecycle.archive(tx, session, now, by=_BY)
    else:
        lifecycle.delete(tx, session, now, by=_BY)


def due(
    tx: Transaction,
    now: int,
    *,
    expire_after_ms: int,
    archive_after_ms: int,
    delete_after_ms: int | None,
) -> Due:
    """What a whole clean-up would do now, without doing it."""

    def count(statuses: Sequence[SessionStatus], where: str, **limits: int) -> int:
        names = ", ".join(f"'{status}'" for status in statuses)
        row = tx.row(f"SELECT COUNT(*) AS n FROM sessions s WHERE s.status IN ({names}) AND {where}", limits)
        return int(row["n"]) if row else 0

    def idle(task: str) -> int:
        found = count(_LIVE, f"{_OWN_TIME_OVER} AND s.current_task {task}", now=now)
        if expire_after_ms > 0:
            found += count(_LIVE, f"{_INACTIVE} AND s.current_task {task}", inactive=now - expire_after_ms)
        return found

    old = {"old": now - delete_after_ms} if delete_after_ms is not None else None
    kept = " AND s.ended_at >= :old" if old else ""
    return Due(
        expired=idle("IS NULL"),
        abandoned=idle("IS NOT NULL"),
        archived=count(_OVER[:1], f"{_FINISHED}{kept}", finished=now - archive_after_ms, **(old or {})),
        deleted=count(_OVER, _OLD, **old) if old else 0,
        removed=count(_OVER, _DELETED, deleted=now - REMOVED_AFTER_MS),
    )


def _remove(tx: Transaction, session_ids: Sequence[SessionId]) -> int:
    """Remove sessions for good until enough was removed for once; of a long one a slice, so that chat need not wait."""
    removed = 0
    for number, session_id in enumerate(session_ids, 1):
        place = tx.row(
            "SELECT position FROM messages WHERE session_id = :id ORDER BY position LIMIT 1 OFFSET :slice",
            {"id": session_id, "slice": SLICE},
        )
        if place is not None:
            _remove_until(tx, session_id, place["position"])
            return number
        removed += tx.execute("DELETE FROM messages WHERE session_id = :id", {"id": session_id})
        purge(tx, session_id)
        if removed >= SLICE:
            return number
    return len(session_ids)


def _remove_until(tx: Transaction, session_id: SessionId, position: int) -> None:
    """Remove the turns before a position with all that hangs on them. The session itself is hidden already."""
    parameters = {"id": session_id, "position": position}
    inbox = "SELECT inbox_id FROM turns WHERE session_id = :id AND position < :position"
    turns = "SELECT id FROM turns WHERE session_id = :id AND position < :position"
    tx.execute(f"DELETE FROM errors WHERE turn_id IN ({turns})", parameters)
    tx.execute(f"DELETE FROM outbox WHERE inbox_id IN ({inbox})", parameters)
    tx.execute(
        "UPDATE inbox SET person_id = NULL, reply_handle = NULL, session_id = NULL, turn_id = NULL"
        f" WHERE id IN ({inbox})",
        parameters,
    )
    tx.execute("DELETE FROM messages WHERE session_id = :id AND position < :position", parameters)
    tx.execute("DELETE FROM turns WHERE session_id = :id AND position < :position", parameters)


def purge(tx: Transaction, session_id: SessionId) -> None:
    """Remove a session's rows for good. The inbox keeps the bare fact that its messages came, so that none is taken twice."""
    parameters = {"id": session_id}
    tx.execute("DELETE FROM errors WHERE session_id = :id", parameters)
    tx.execute(
        "DELETE FROM outbox WHERE session_id = :id OR inbox_id IN (SELECT id FROM inbox WHERE session_id = :id)",
        parameters,
    )
    tx.execute(
        "UPDATE inbox SET person_id = NULL, reply_handle = NULL, session_id = NULL, turn_id = NULL WHERE session_id = :id",
        parameters,
    )
    # Messages, turns, steps, calls, variables, summaries and all else go with it.
    tx.execute("DELETE FROM sessions WHERE id = :id", parameters)
