"""The life of a session: resolved or created, paused, resumed, ended, archived, deleted, moved.

Owns the table of transitions; nothing else changes a session's status, and each change leaves a row in `session_events`. Queued
turns do not die with their session: what was accepted before the end is still answered, in the old session. When what is due is
`cleanup.py`'s affair, what a session holds is `contents.py`'s, and continuing one in another is `forking.py`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from config.names import AccountId, ChannelId, PersonId, SessionId
from sessions import lane, outbox
from sessions.database.base import Row, Transaction, row_lock
from sessions.errors import IllegalTransition, LostRace, SessionNotFound
from sessions.keys import ARCHIVE_KEYS, is_archive, session_key
from sessions.models import EndReason, Incoming, Person, Session, SessionScope, SessionStatus, new_id
from sessions.scope import Scope, condition, within

Step = Literal["pause", "resume", "end", "archive", "delete"]
Actor = Literal["person", "operator", "clean-up", "daemon"]
EventReason = Literal["resumed", "switched", "forked", "moved", "requested", "overdue"]
"""Why a status changed, beside the end reasons."""

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


@dataclass(frozen=True, slots=True)
class Doer:
    """Who changes a session's status."""

    kind: Actor
    person_id: PersonId | None = None


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One change of a session's status."""

    happened_at: int
    from_status: SessionStatus
    to_status: SessionStatus
    reason: EndReason | EventReason | None
    made_by: Actor
    person_id: PersonId | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The session of a message."""

    session: Session
    is_new: bool
    """Whether it was made now."""
    waiting: int
    """Its unfinished turns."""


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
) -> Resolved:
    """The live session a message belongs to. One idle for too long is expired first."""
    thread = message.thread if separate_threads else None
    key = session_key(scope, message.account, message.channel, thread, person.id)
    found, unfinished = tx.together(
        [
            (
                "SELECT * FROM sessions WHERE key = :key AND status IN ('active', 'paused')" + row_lock(tx),
                {"key": key},
            ),
            lane.counting_under(key),  # once the row is locked, nobody queues another
        ]
    )
    if found.rows:
        session = read_session(found.rows[0])
        idle_ms = expire_after_ms if session.expire_after_ms is None else session.expire_after_ms
        if idle_ms <= 0 or now - session.last_activity_at <= idle_ms:
            return Resolved(session, is_new=False, waiting=unfinished.rows[0]["n"])
        expire(tx, session, now)
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
    return Resolved(read_session(inserted), is_new=True, waiting=0)


def find_live(tx: Transaction, key: str) -> Session | None:
    """The live session under a key, if there is one."""
    row = tx.row("SELECT * FROM sessions WHERE key = :key AND status IN ('active', 'paused')", {"key": key})
    return read_session(row) if row else None


def find(tx: Transaction, session_id: SessionId, scope: Scope) -> Session:
    """Raises: SessionNotFound, also when the scope may not see it."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    row = tx.row(f"SELECT s.* FROM sessions s WHERE s.id = :id AND {where}", {"id": session_id, **parameters})
    if row is None:
        raise SessionNotFound(session_id)
    return read_session(row)


def list_sessions(
    tx: Transaction,
    scope: Scope,
    *,
    statuses: Sequence[SessionStatus] = (),
    key: str | None = None,
    with_archive: bool = False,
    id_end: str | None = None,
    person_id: PersonId | None = None,
    limit: int = 50,
    offset: int = 0,
) -> list[Session]:
    """Sessions within the scope, the latest active first; those of a key, of a person, or whose id ends so.

    `with_archive` adds to those of a key what was brought along from other programs.
    """
    tx = within(tx, scope)
    where, parameters = condition(scope)
    chosen = [status for status in TRANSITIONS if not statuses or status in statuses]
    names = ", ".join(f"'{status}'" for status in chosen)
    chosen_by = ""
    values: dict[str, object] = {}
    if key is not None:
        chosen_by, values["key"] = " AND s.key = :key", key
        if with_archive:
            chosen_by, values["archive"] = " AND (s.key = :key OR s.key LIKE :archive)", ARCHIVE_KEYS
    if id_end is not None:
        chosen_by += f" AND SUBSTR(s.id, {27 - len(id_end)}) = :end"  # a ULID has 26 letters
        values["end"] = id_end
    if person_id is not None:
        chosen_by += " AND s.person_id = :person"
        values["person"] = person_id
    return [
        read_session(row)
        for row in tx.rows(
            f"SELECT s.* FROM sessions s WHERE {where} AND s.status IN ({names}){chosen_by}"
            " ORDER BY s.last_activity_at DESC, s.id DESC LIMIT :limit OFFSET :offset",
            {**parameters, **values, "limit": limit, "offset": offset},
        )
    ]


def pause(tx: Transaction, session: Session, now: int, *, by: Doer | None = None) -> Session:
    """Raises: IllegalTransition."""
    return _move(tx, session, "pause", None, now, by, "requested")


def resume(
    tx: Transaction, session: Session, now: int, *, by: Doer | None = None, why: EventReason = "switched"
) -> Session:
    """Make a session the live one again; another live one under the same key is ended, `why` says in its history.

    Raises: IllegalTransition.
    """
    if is_archive(session.key) and session.end_reason != "deleted":
        raise IllegalTransition(
            "a session from another program goes on in a copy: /sessions in a private chat begins one"
        )
    other = find_live(tx, session.key)
    if other is not None and other.id != session.id:
        _move(tx, other, "end", "completed", now, by, why)
    return _move(tx, session, "resume", None, now, by, "resumed")


def end(
    tx: Transaction,
    session: Session,
    reason: EndReason,
    now: int,
    *,
    by: Doer | None = None,
    why: EventReason | None = None,
) -> Session:
    """Raises: IllegalTransition."""
    return _move(tx, session, "end", reason, now, by, why)


def expire(tx: Transaction, session: Session, now: int, *, by: Doer | None = None) -> Session:
    """End a session that was idle for too long: as abandoned if it left a task unfinished, else as expired.

    Raises: IllegalTransition.
    """
    if session.current_task is None:
        return _move(tx, session, "end", "expired", now, by)
    tx.execute(
        "UPDATE session_tasks SET ended_at = :now, outcome = 'abandoned' WHERE session_id = :id AND ended_at IS NULL",
        {"id": session.id, "now": now},
    )
    return _move(tx, session, "end", "abandoned", now, by)


def set_expiry(tx: Transaction, session_id: SessionId, expire_after_ms: int | None) -> None:
    """Give a session an idle time of its own after which it ends; 0 is never, None takes it away. Raises: ValueError below 0."""
    if expire_after_ms is not None and expire_after_ms < 0:
        raise ValueError("a session cannot expire before its last message")
    tx.execute(
        "UPDATE sessions SET expire_after_ms = :ms WHERE id = :id", {"ms": expire_after_ms, "id": session_id}
    )


def archive(tx: Transaction, session: Session, now: int, *, by: Doer | None = None) -> Session:
    """Raises: IllegalTransition."""
    return _move(
        tx, session, "archive", session.end_reason, now, by, "overdue" if by is None else "requested"
    )


def delete(tx: Transaction, session: Session, now: int, *, by: Doer | None = None) -> Session:
    """Hide a session from everybody but the operator; `cleanup.py` removes its rows later. Raises: IllegalTransition."""
    return _move(tx, session, "delete", "deleted", now, by)


def events(tx: Transaction, session_id: SessionId, scope: Scope) -> list[SessionEvent]:
    """Every change of a session's status, the first one first. It was made at its `created_at`."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    return [
        SessionEvent(
            row["happened_at"],
            row["from_status"],
            row["to_status"],
            row["reason"],
            row["made_by"],
            row["person_id"],
        )
        for row in tx.rows(
            "SELECT e.happened_at, e.from_status, e.to_status, e.reason, e.made_by, e.person_id FROM session_events e"
            f" JOIN sessions s ON s.id = e.session_id WHERE e.session_id = :id AND {where} ORDER BY e.id",
            {"id": session_id, **parameters},
        )
    ]


def _move(
    tx: Transaction,
    session: Session,
    step: Step,
    reason: EndReason | None,
    now: int,
    by: Doer | None = None,
    why: EventReason | None = None,
) -> Session:
    """`reason` is kept with the session while it is over, `why` (or else the reason) in its history for ever."""
    target = TRANSITIONS[session.status].get(step)
    is_deleted = session.end_reason == "deleted"
    if target is None or (is_deleted and step == "archive"):  # what is to be removed is not put away
        msg = f"a session that is {'deleted' if is_deleted else session.status} cannot be {step.removesuffix('e')}ed"
        raise IllegalTransition(msg)
    row = tx.row(
        "UPDATE sessions SET status = :target, end_reason = :reason, last_activity_at = :active,"
        " paused_at = :paused, ended_at = :ended, archived_at = :archived"
        " WHERE id = :id AND status = :source AND COALESCE(end_reason, '') = :known RETURNING *",
        {
            "target": target,
            "source": session.status,
            "known": session.end_reason or "",
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
        msg = f"the session is no longer {session.status}, or for another reason"
        raise LostRace(msg)
    tx.execute(
        "INSERT INTO session_events (session_id, happened_at, from_status, to_status, reason, made_by, person_id)"
        " VALUES (:id, :now, :source, :target, :why, :kind, :person)",
        {
            "id": session.id,
            "now": now,
            "source": session.status,
            "target": target,
            "why": why or reason,
            "kind": by.kind if by else "daemon",
            "person": by.person_id if by else None,
        },
    )
    return read_session(row)


def move_channel(tx: Transaction, account: AccountId, old: ChannelId, new: ChannelId, now: int) -> int:
    """A channel got another id: sessions, waiting replies and its own row follow. Gives how many sessions moved."""
    if old == new:
        return 0
    rows = tx.rows(
        "SELECT s.* FROM sessions s WHERE s.account = :account AND s.channel = :old" + row_lock(tx),
        {"account": account, "old": old},
    )
    for row in rows:
        session = read_session(row)
        key = session_key(
            session.scope, session.account, new, session.thread, session.person_id or PersonId("")
        )
        if session.status in ("active", "paused"):
            other = find_live(tx, key)
            if other is not None and other.id != session.id:  # somebody was quicker to write in the new one
                _move(tx, session, "end", "completed", now, why="moved")
        tx.execute(
            "UPDATE sessions SET channel = :new, key = :key WHERE id = :id",
            {"new": new, "key": key, "id": session.id},
        )
    names = {"account": account, "old": old, "new": new}
    outbox.readdress(tx, account, old, new)
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
        message_count=row["message_count"] + row["copied_count"],
        tool_call_count=row["tool_call_count"],
        error_count=row["error_count"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        created_at=row["created_at"],
        last_activity_at=row["last_activity_at"],
        paused_at=row["paused_at"],
        ended_at=row["ended_at"],
        archived_at=row["archived_at"],
        forked_from=row["forked_from"],
        expire_after_ms=row["expire_after_ms"],
    )
