"""The life of a session: resolved or created, paused, resumed, ended, archived, expired, deleted, cleaned up.

Owns the table of transitions; nothing else changes a session's status. Queued turns do not die with their session: what
was accepted before the end is still answered, in the old session.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import orjson

from config.names import Json, SessionId
from sessions.database.base import Row, Transaction
from sessions.errors import IllegalTransition, SessionNotFound
from sessions.keys import session_key
from sessions.models import EndReason, Incoming, Person, Session, SessionScope, SessionStatus, new_id
from sessions.scope import Scope, condition

Step = Literal["pause", "resume", "end", "archive", "delete"]

TRANSITIONS: Final[Mapping[SessionStatus, Mapping[Step, SessionStatus]]] = {
    "active": {"pause": "paused", "end": "ended", "delete": "ended"},
    "paused": {"resume": "active", "end": "ended", "delete": "ended"},
    "ended": {"resume": "active", "archive": "archived", "delete": "ended"},
    "archived": {"resume": "active", "delete": "ended"},
}
"""From each status, the steps there are and where they lead. Anything else raises."""

SEED_WORDS: Final[Mapping[str, Sequence[SessionStatus]]] = {
    "inactive": ("paused", "ended", "archived"),
    "expired": ("ended",),
    "abandoned": ("ended",),
    "completed": ("ended",),
    "is_active": ("active",),
}
"""Words that other systems use for states, accepted as filters (case does not matter)."""


def resolve(
    tx: Transaction,
    message: Incoming,
    person: Person,
    scope: SessionScope,
    *,
    separate_threads: bool,
    expire_after_ms: int,
    persona: str | None,
    now: int,
) -> tuple[Session, bool]:
    """The live session a message belongs to, and whether it was made now. One idle for too long is expired first."""
    thread = message.thread if separate_threads else None
    key = session_key(scope, message.account, message.channel, thread, person.id)
    row = tx.row("SELECT * FROM sessions WHERE key = :key AND status IN ('active', 'paused')", {"key": key})
    if row is not None:
        session = read_session(row)
        if expire_after_ms <= 0 or now - session.last_activity_at <= expire_after_ms:
            return session, False
        _move(tx, session, "end", "expired", now)
    session_id = SessionId(new_id())
    inserted = tx.row(
        "INSERT INTO sessions (id, key, scope, platform, account, channel, thread, person_id, persona, status,"
        " created_at, last_activity_at)"
        " VALUES (:id, :key, :scope, :platform, :account, :channel, :thread, :person, :persona, 'active', :now, :now)"
        " RETURNING *",
        {
            "id": session_id,
            "key": key,
            "scope": scope,
            "platform": message.platform,
            "account": message.account,
            "channel": message.channel,
            "thread": thread,
            "person": None if scope == "channel" else person.id,
            "persona": persona,
            "now": now,
        },
    )
    assert inserted is not None
    return read_session(inserted), True


def find_live(tx: Transaction, key: str) -> Session | None:
    """The live session under a key, if there is one."""
    row = tx.row("SELECT * FROM sessions WHERE key = :key AND status IN ('active', 'paused')", {"key": key})
    return read_session(row) if row else None


def find(tx: Transaction, session_id: SessionId, scope: Scope) -> Session:
    """Raises: SessionNotFound, also when the scope may not see it."""
    where, parameters = condition(scope)
    row = tx.row(f"SELECT s.* FROM sessions s WHERE s.id = :id AND {where}", {"id": session_id, **parameters})
    if row is None:
        raise SessionNotFound(session_id)
    return read_session(row)


def list_sessions(
    tx: Transaction, scope: Scope, *, statuses: Sequence[SessionStatus] = (), limit: int = 50, offset: int = 0
) -> list[Session]:
    """Sessions within the scope, the latest active first."""
    where, parameters = condition(scope)
    chosen = [
        status for status in ("active", "paused", "ended", "archived") if not statuses or status in statuses
    ]
    names = ", ".join(f"'{status}'" for status in chosen)
    return [
        read_session(row)
        for row in tx.rows(
            f"SELECT s.* FROM sessions s WHERE {where} AND s.status IN ({names})"
            " ORDER BY s.last_activity_at DESC, s.id DESC LIMIT :limit OFFSET :offset",
            {**parameters, "limit": limit, "offset": offset},
        )
    ]


def pause(tx: Transaction, session: Session, now: int) -> Session:
    """Raises: IllegalTransition."""
    return _move(tx, session, "pause", None, now)


def resume(tx: Transaction, session: Session, now: int) -> Session:
    """Make a session the live one again; another live one under the same key is ended. Raises: IllegalTransition."""
    other = find_live(tx, session.key)
    if other is not None and other.id != session.id:
        _move(tx, other, "end", "completed", now)
    return _move(tx, session, "resume", None, now)


def end(tx: Transaction, session: Session, reason: EndReason, now: int) -> Session:
    """Raises: IllegalTransition."""
    return _move(tx, session, "end", reason, now)


def archive(tx: Transaction, session: Session, now: int) -> Session:
    """Raises: IllegalTransition."""
    return _move(tx, session, "archive", session.end_reason, now)


def delete(tx: Transaction, session: Session, now: int) -> Session:
    """Hide a session from everybody but the operator; `clean_up` removes its rows later."""
    return _move(tx, session, "delete", "deleted", now)


def _move(tx: Transaction, session: Session, step: Step, reason: EndReason | None, now: int) -> Session:
    target = TRANSITIONS[session.status].get(step)
    if target is None:
        msg = f"a session that is {session.status} cannot {step}"
        raise IllegalTransition(msg)
    row = tx.row(
        "UPDATE sessions SET status = :target, end_reason = :reason, last_activity_at = :active,"
        " paused_at = :paused, ended_at = :ended, archived_at = :archived"
        " WHERE id = :id AND status = :source RETURNING *",
        {
            "target": target,
            "source": session.status,
            "reason": reason,
            # Being resumed is activity: otherwise the clean-up would expire the session at once.
            "active": now if step == "resume" else session.last_activity_at,
            "paused": now if target == "paused" else None,
            "ended": now
            if step in ("end", "delete")
            else (session.ended_at if target == "archived" else None),
            "archived": now if target == "archived" else None,
            "id": session.id,
        },
    )
    if row is None:
        msg = f"the session is no longer {session.status}"
        raise IllegalTransition(msg)
    return read_session(row)


def clean_up(
    tx: Transaction,
    now: int,
    *,
    expire_after_ms: int,
    archive_after_ms: int,
    delete_after_ms: int | None,
    batch: int = 50,
) -> int:
    """Do one small batch of what is due: expire, archive, remove. Gives how many sessions it touched; 0 means done.

    Small, because it shares the writer with people who are chatting. A session with unfinished turns is left alone.
    """
    idle = " AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.session_id = s.id AND t.status IN ('queued', 'running'))"
    due = tx.rows(
        "SELECT s.* FROM sessions s WHERE s.status IN ('active', 'paused') AND s.last_activity_at < :limit"
        f"{idle} ORDER BY s.last_activity_at LIMIT :batch",
        {"limit": now - expire_after_ms, "batch": batch},
    )
    if due:
        for row in due:
            _move(tx, read_session(row), "end", "expired", now)
        return len(due)
    due = tx.rows(
        "SELECT s.* FROM sessions s WHERE s.status = 'ended' AND s.end_reason <> 'deleted' AND s.ended_at < :limit"
        " ORDER BY s.ended_at LIMIT :batch",
        {"limit": now - archive_after_ms, "batch": batch},
    )
    if due:
        for row in due:
            archive(tx, read_session(row), now)
        return len(due)
    if delete_after_ms is None:
        return 0
    gone = tx.rows(
        "SELECT s.id FROM sessions s WHERE s.status IN ('ended', 'archived')"
        " AND (s.ended_at < :limit OR (s.end_reason = 'deleted' AND s.ended_at < :soon))"
        f"{idle} ORDER BY s.ended_at LIMIT :batch",
        {"limit": now - delete_after_ms, "soon": now - 86_400_000, "batch": max(1, batch // 5)},
    )
    for row in gone:
        purge(tx, row["id"])
    return len(gone)


def purge(tx: Transaction, session_id: SessionId) -> None:
    """Remove a session's rows for good. The inbox keeps the bare fact that its messages came, so that none is taken twice."""
    parameters = {"id": session_id}
    tx.execute("DELETE FROM errors WHERE session_id = :id", parameters)
    tx.execute("DELETE FROM outbox WHERE session_id = :id", parameters)
    tx.execute(
        "UPDATE inbox SET person_id = NULL, reply_handle = NULL, session_id = NULL WHERE session_id = :id",
        parameters,
    )
    tx.execute(
        "DELETE FROM sessions WHERE id = :id", parameters
    )  # messages, turns, steps, calls, summaries go with it


def set_variable(tx: Transaction, session_id: SessionId, name: str, value: Json, now: int) -> None:
    """Set a state variable to any JSON value."""
    tx.execute(
        "INSERT INTO session_variables (session_id, name, value, updated_at) VALUES (:id, :name, :value, :now)"
        " ON CONFLICT (session_id, name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        {"id": session_id, "name": name, "value": orjson.dumps(value).decode(), "now": now},
    )


def variables(
    tx: Transaction, session_id: SessionId, scope: Scope, name: str | None = None
) -> dict[str, Json]:
    """The state variables of a session within the scope, or the one named."""
    where, parameters = condition(scope)
    rows = tx.rows(
        "SELECT v.name, v.value FROM session_variables v JOIN sessions s ON s.id = v.session_id"
        f" WHERE v.session_id = :id AND {where}"
        + (" AND v.name = :name" if name is not None else "")
        + " ORDER BY v.name",
        {"id": session_id, **parameters} | ({"name": name} if name is not None else {}),
    )
    return {row["name"]: orjson.loads(row["value"]) for row in rows}


def delete_variable(tx: Transaction, session_id: SessionId, name: str) -> bool:
    """False if there was none of that name."""
    return (
        tx.execute(
            "DELETE FROM session_variables WHERE session_id = :id AND name = :name",
            {"id": session_id, "name": name},
        )
        == 1
    )


def set_current_task(tx: Transaction, session_id: SessionId, task: str | None) -> None:
    """Say what the session is working on; None clears it."""
    tx.execute("UPDATE sessions SET current_task = :task WHERE id = :id", {"task": task, "id": session_id})


def merge_metadata(tx: Transaction, session_id: SessionId, patch: Mapping[str, Json]) -> dict[str, Json]:
    """Apply a JSON merge patch (RFC 7396) and give the result. Raises: SessionNotFound."""
    row = tx.row("SELECT metadata FROM sessions WHERE id = :id", {"id": session_id})
    if row is None:
        raise SessionNotFound(session_id)
    merged = _merge(orjson.loads(row["metadata"]), patch)
    tx.execute(
        "UPDATE sessions SET metadata = :metadata WHERE id = :id",
        {"metadata": orjson.dumps(merged).decode(), "id": session_id},
    )
    return merged


def _merge(target: Json, patch: Mapping[str, Json]) -> dict[str, Json]:
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            merged[name] = _merge(merged.get(name), value)
        else:
            merged[name] = value
    return merged


def move_channel(tx: Transaction, account: str, old: str, new: str, now: int) -> int:
    """A channel got another id: sessions, waiting replies and its own row follow. Gives how many sessions moved."""
    rows = tx.rows(
        "SELECT s.* FROM sessions s WHERE s.account = :account AND s.channel = :old",
        {"account": account, "old": old},
    )
    for row in rows:
        session = read_session(row)
        key = session_key(session.scope, session.account, new, session.thread, session.person_id or "")  # type: ignore[arg-type]  # plain strings
        if session.status in ("active", "paused"):
            other = find_live(tx, key)
            if (
                other is not None and other.id != session.id
            ):  # somebody was quicker to write in the new channel
                _move(tx, session, "end", "completed", now)
        tx.execute(
            "UPDATE sessions SET channel = :new, key = :key WHERE id = :id",
            {"new": new, "key": key, "id": session.id},
        )
    names = {"account": account, "old": old, "new": new}
    tx.execute(
        "UPDATE outbox SET channel = :new WHERE account = :account AND channel = :old"
        " AND state IN ('ready', 'sending', 'uncertain')",
        names,
    )
    tx.execute(
        "INSERT INTO channels (account, channel, kind, title, watermark, last_heard_at)"
        " SELECT account, :new, kind, title, NULL, last_heard_at FROM channels WHERE account = :account AND channel = :old"
        " ON CONFLICT (account, channel) DO NOTHING",
        names,
    )
    tx.execute("DELETE FROM channels WHERE account = :account AND channel = :old", names)
    return len(rows)


def read_session(row: Row) -> Session:
    """A row of `sessions` as a record."""
    return Session(
        id=row["id"],
        key=row["key"],
        scope=row["scope"],
        platform=row["platform"],
        account=row["account"],
        channel=row["channel"],
        thread=row["thread"],
        person_id=row["person_id"],
        persona=row["persona"],
        status=row["status"],
        end_reason=row["end_reason"],
        title=row["title"],
        description=row["description"],
        current_task=row["current_task"],
        metadata=orjson.loads(row["metadata"]),
        message_count=row["message_count"],
        tool_call_count=row["tool_call_count"],
        error_count=row["error_count"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        created_at=row["created_at"],
        last_activity_at=row["last_activity_at"],
        paused_at=row["paused_at"],
        ended_at=row["ended_at"],
        archived_at=row["archived_at"],
    )
