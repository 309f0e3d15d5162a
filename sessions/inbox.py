"""Messages that arrived: known already or new, recorded with what was decided, accepted into their session's lane, edited.

Owns the inbox, and what an adapter keeps across restarts: channels, cursors, what nobody could parse. What becomes of a turn in
its lane is `sessions/lane.py`; who may talk is `bot/policy.py`.
"""

from dataclasses import dataclass
from typing import Literal

import orjson

from config.names import AccountId, ChannelId, PersonId, SessionId, TurnId
from sessions import queue, window
from sessions.database.base import Statement, Transaction, row_lock
from sessions.database.values import as_json, escape_like, storable
from sessions.errors import LostRace, SessionClosed
from sessions.hot import Tail
from sessions.lane import end_of_conversation, summaries_in_force
from sessions.models import Address, Claim, Incoming, Message, Person, Session, Window, new_id

_WINDOW_COLUMNS = ", ".join(window.COLUMNS)
_LANE_IS_FREE = (
    " WHERE NOT EXISTS (SELECT 1 FROM turns WHERE session_id = :session AND status IN ('queued', 'running'))"
)
_IS_ACTIVE = "status NOT IN ('paused', 'ended', 'archived')"
"""Said so that no index over statuses fits: as long as PostgreSQL takes the table for small, it would rather look through all
sessions that are active than find this one by its id."""


@dataclass(frozen=True, slots=True)
class QueuedTurn:
    """What `accept` made of a message."""

    turn_id: TurnId
    session_id: SessionId
    inbox_id: int
    ahead: int
    """Unfinished turns of the session before this one."""


def is_known(tx: Transaction, message: Incoming) -> bool:
    """True if this very message (or edit) was taken in before, whatever became of it."""
    return (
        tx.row(
            "SELECT 1 AS x FROM inbox WHERE account = :account AND channel = :channel AND message_id = :id",
            {"account": message.account, "channel": message.channel, "id": message.dedupe_id},
        )
        is not None
    )


def is_first_contact(tx: Transaction, message: Incoming) -> bool:
    """True if nothing of this channel was accepted or run before, as far as it is kept; a stranger's tries do not count."""
    return (
        tx.row(
            "SELECT 1 AS x FROM inbox WHERE account = :account AND channel = :channel AND outcome <> 'declined' LIMIT 1",
            {"account": message.account, "channel": message.channel},
        )
        is None
    )


def record(
    tx: Transaction,
    message: Incoming,
    outcome: Literal["accepted", "command", "declined"],
    reason: str,
    now: int,
    *,
    person_id: PersonId | None,
    session_id: SessionId | None = None,
    turn_id: TurnId | None = None,
) -> Address:
    """Write down that a message came and what was decided. The unique key refuses a second one."""
    row = tx.row(*_recording(message, outcome, reason, now, person_id, session_id, turn_id))
    assert row is not None
    return _address(message, row["id"])


def _recording(
    message: Incoming,
    outcome: str,
    reason: str,
    now: int,
    person_id: PersonId | None,
    session_id: SessionId | None,
    turn_id: TurnId | None,
) -> Statement:
    return (
        (
            "INSERT INTO inbox (account, channel, message_id, channel_kind, thread, person_id, reply_handle, sent_at, received_at,"
            " outcome, reason, session_id, turn_id) VALUES (:account, :channel, :message, :kind, :thread, :person, :handle, :sent,"
            " :now, :outcome, :reason, :session, :turn) RETURNING id"
        ),
        {
            "account": message.account,
            "channel": message.channel,
            "message": message.dedupe_id,
            "kind": message.channel_kind,
            "thread": message.thread,
            "person": person_id,
            "handle": as_json(message.reply_handle) if message.reply_handle is not None else None,
            "sent": message.sent_at,
            "now": now,
            "outcome": outcome,
            "reason": reason,
            "session": session_id,
            "turn": turn_id,
        },
    )


def _address(message: Incoming, inbox_id: int) -> Address:
    """Where the reply to a message goes."""
    return Address(
        account=message.account,
        channel=message.channel,
        channel_kind=message.channel_kind,
        thread=message.thread,
        reply_to=message.message_id,
        reply_handle=message.reply_handle,
        inbox_id=inbox_id,
    )


def hear(tx: Transaction, message: Incoming, now: int) -> None:
    """Keep the channel's row and, in the same commit as the message, how far its feed was read."""
    tx.defer(
        "INSERT INTO channels (account, channel, kind, title, watermark, last_heard_at)"
        " VALUES (:account, :channel, :kind, :title, :watermark, :now)"
        " ON CONFLICT (account, channel) DO UPDATE SET title = COALESCE(excluded.title, channels.title),"
        " watermark = COALESCE(excluded.watermark, channels.watermark), last_heard_at = excluded.last_heard_at"
        " WHERE excluded.watermark IS NOT NULL OR excluded.last_heard_at - channels.last_heard_at > 60000"
        " OR COALESCE(excluded.title, '') <> COALESCE(channels.title, '')",
        {
            "account": message.account,
            "channel": message.channel,
            "kind": message.channel_kind,
            "title": message.channel_title,
            "watermark": message.watermark,
            "now": now,
        },
    )


def accept(
    tx: Transaction, message: Incoming, session: Session, person: Person, now: int, *, ahead: int
) -> QueuedTurn:
    """Store the message and queue its turn at the end of the session's lane, where `ahead` turns are unfinished.

    Raises: SessionClosed when the session is not active (any more).
    """
    stored = _store(tx, message, session, person, now, is_running=False)
    return QueuedTurn(stored.turn_id, session.id, stored.address.inbox_id, ahead)


def accept_and_claim(
    tx: Transaction,
    message: Incoming,
    session: Session,
    person: Person,
    now: int,
    *,
    context_messages: int,
    recent: Tail | None = None,
    node: str | None = None,
    lease_ms: int = 10_000,
) -> Claim:
    """`accept` in a lane where nothing is unfinished, and `claim` of that turn; `recent` as there.

    Nearly every message meets such a lane. Its turn is running from the beginning, and nothing is read that was just written.

    Raises: SessionClosed when the session is not active (any more), LostRace when something is unfinished in it by now.
    """
    stored = _store(tx, message, session, person, now, is_running=True, node=node, lease_ms=lease_ms)
    messages, is_from_memory = end_of_conversation(
        tx, session.id, stored.position, context_messages, stored.window, recent, own=stored.message
    )
    return Claim(
        turn_id=stored.turn_id,
        session_id=session.id,
        position=stored.position,
        epoch=1,
        attempts=1,
        queued_at=now,
        is_cancelled=False,
        address=stored.address,
        persona=session.persona,
        person_id=person.id,
        person_name=stored.message.author,
        is_blocked=person.role == "blocked",
        language=person.language,
        is_shared=session.person_id is None,
        messages=messages,
        steps=(),
        summaries=summaries_in_force(tx, session.id, stored.window, recent),
        window=stored.window,
        is_from_memory=is_from_memory,
        msg_id=stored.msg_id,
    )


@dataclass(frozen=True, slots=True)
class _Stored:
    """A message in its place."""

    turn_id: TurnId
    position: int
    address: Address
    message: Message
    window: Window
    msg_id: int | None


def _store(
    tx: Transaction,
    message: Incoming,
    session: Session,
    person: Person,
    now: int,
    *,
    is_running: bool,
    node: str | None = None,
    lease_ms: int = 0,
) -> _Stored:
    """The rows of a message and its turn, which waits or is claimed at once (by that node). Raises: SessionClosed."""
    turn_id = TurnId(new_id())
    place = tx.row(
        "UPDATE sessions SET next_position = next_position + 1, message_count = message_count + 1, last_activity_at = :now"
        f" WHERE id = :id AND {_IS_ACTIVE} RETURNING next_position - 1 AS position, {_WINDOW_COLUMNS}",
        {"now": now, "id": session.id},
    )
    if place is None:
        raise SessionClosed(session.id)
    said = Message(
        session_id=session.id,
        position=place["position"],
        part=0,
        role="user",
        content=storable(message.text),
        author=storable(person.display_name),
        created_at=now,
        turn_id=turn_id,
        attachments=list(message.attachments) if message.attachments else (),
        metadata={"origin": dict(message.origin)} if message.origin else {},
    )
    statements = [
        _recording(message, "accepted", "", now, person.id, session.id, turn_id),
        (
            (
                "INSERT INTO turns (id, session_id, position, inbox_id, status, epoch, attempts, queued_at, started_at, node)"
                " SELECT :id, :session, :position,"
                " (SELECT id FROM inbox WHERE account = :account AND channel = :channel AND message_id = :message),"
                " :status, :claims, :claims, :now, :started, :node"
            )
            + (_LANE_IS_FREE if is_running else ""),
            {
                "id": turn_id,
                "session": session.id,
                "position": said.position,
                "account": message.account,
                "channel": message.channel,
                "message": message.dedupe_id,
                "status": "running" if is_running else "queued",
                "claims": int(is_running),
                "now": now,
                "started": now if is_running else None,
                "node": node,
            },
        ),
        (
            (
                "INSERT INTO messages (session_id, position, part, role, content, person_id, author, turn_id, platform_message_id,"
                " attachments, metadata, created_at, is_sealed) VALUES (:session, :position, 0, 'user', :content, :person, :author,"
                " :turn, :message, :attachments, :metadata, :now, :sealed)"
            ),
            {
                "session": session.id,
                "position": said.position,
                "content": tx.seal.seal(said.content),
                "sealed": int(tx.seal.is_on),
                "person": person.id,
                "author": said.author,
                "turn": turn_id,
                "message": message.message_id,
                "attachments": tx.seal.seal(as_json(said.attachments)) if said.attachments else "[]",
                "metadata": as_json(said.metadata),
                "now": now,
            },
        ),
    ]
    if tx.dialect == "postgresql":
        statements.append(
            queue.adding_held(turn_id, session.id, lease_ms)
            if is_running
            else queue.adding(turn_id, session.id)
        )
    ran = tx.together(statements)
    if ran[1].count != 1:
        # Another message of the session came between, which was not there when the lane was looked at.
        raise LostRace(f"the lane of session {session.id} is not free any more")
    recorded, _, _, *queued = ran
    return _Stored(
        turn_id,
        said.position,
        _address(message, recorded.rows[0]["id"]),
        said,
        window.read(place),
        queued[0].rows[0]["id"] if queued else None,
    )


def replace_text(tx: Transaction, message: Incoming, now: int) -> Literal["replaced", "answered", "unknown"]:
    """Apply an edit to a message whose turn has not begun; a message already taken up keeps its words."""
    row = tx.row(
        "SELECT m.id, m.metadata, t.status FROM inbox i JOIN turns t ON t.id = i.turn_id"
        " JOIN messages m ON m.session_id = t.session_id AND m.position = t.position AND m.part = 0"
        " WHERE i.account = :account AND i.channel = :channel AND i.message_id = :message"
        + row_lock(tx, "t"),
        {"account": message.account, "channel": message.channel, "message": message.message_id},
    )
    if row is None:
        return "unknown"
    if row["status"] != "queued":
        return "answered"
    tx.execute(
        "UPDATE messages SET content = :text, is_sealed = :sealed, metadata = :metadata WHERE id = :id",
        {
            "text": tx.seal.seal(message.text),
            "sealed": int(tx.seal.is_on),
            "metadata": as_json({**orjson.loads(row["metadata"]), "edited_at": now}),
            "id": row["id"],
        },
    )
    return "replaced"


def was_for_others(tx: Transaction, message: Incoming) -> bool:
    """Whether a message was heard before, and neither it nor an earlier edit of it was addressed to the bot."""
    place = {"account": message.account, "channel": message.channel}
    first = tx.row(
        "SELECT id, reason FROM inbox WHERE account = :account AND channel = :channel AND message_id = :message",
        {**place, "message": message.message_id},
    )
    if first is None or first["reason"] != "not_addressed":
        return False
    edits = tx.rows(
        "SELECT reason FROM inbox WHERE account = :account AND channel = :channel AND id > :first"
        " AND message_id LIKE :edits ESCAPE '!'",
        {**place, "first": first["id"], "edits": f"{escape_like(message.message_id)}:%"},
    )
    return all(edit["reason"] == "not_addressed" for edit in edits)


def advance_ids(tx: Transaction, now: int) -> None:
    """Let the ids of the inbox begin at the present time, in milliseconds, if they are not beyond it already.

    Replies' idempotency keys are made of them, and a platform knows a key for some minutes longer than we know a database: one that
    was made anew, or put back from a backup, must not use the keys of messages that are not its own.
    """
    if tx.dialect == "sqlite":
        if not tx.execute(
            "UPDATE sqlite_sequence SET seq = MAX(seq, :now) WHERE name = 'inbox'", {"now": now}
        ):
            tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('inbox', :now)", {"now": now})
    else:
        tx.row(
            "SELECT setval(pg_get_serial_sequence('inbox', 'id'), GREATEST(:now,"
            " (SELECT COALESCE(MAX(id), 0) FROM inbox))) AS id",
            {"now": now},
        )


def quarantine(tx: Transaction, account: AccountId, raw: bytes, reason: str, now: int) -> int:
    """Keep an update nobody could parse. Gives its number."""
    row = tx.row(
        "INSERT INTO quarantine (account, received_at, raw, reason) VALUES (:account, :now, :raw, :reason) RETURNING id",
        {"account": account, "now": now, "raw": tx.seal.seal_bytes(raw[:1_000_000]), "reason": reason[:1000]},
    )
    assert row is not None
    return int(row["id"])


def cursor(tx: Transaction, account: AccountId, name: str) -> str | None:
    """A small fact that an adapter keeps across restarts."""
    row = tx.row(
        "SELECT value FROM cursors WHERE account = :account AND name = :name",
        {"account": account, "name": name},
    )
    return row["value"] if row else None


def set_cursor(tx: Transaction, account: AccountId, name: str, value: str, now: int) -> None:
    tx.execute(
        "INSERT INTO cursors (account, name, value, updated_at) VALUES (:account, :name, :value, :now)"
        " ON CONFLICT (account, name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        {"account": account, "name": name, "value": value, "now": now},
    )


def known_channels(
    tx: Transaction, account: AccountId
) -> list[tuple[ChannelId, Literal["direct", "group"], str | None]]:
    """Channels the account has met: id, kind, watermark."""
    return [
        (row["channel"], row["kind"], row["watermark"])
        for row in tx.rows(
            "SELECT channel, kind, watermark FROM channels WHERE account = :account ORDER BY last_heard_at DESC",
            {"account": account},
        )
    ]


def forget_declined(tx: Transaction, before: int, batch: int = 200) -> int:
    """Remove old rows of messages that were never for the bot. Gives how many."""
    return tx.execute(
        "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE outcome = 'declined' AND received_at < :before LIMIT :batch)",
        {"before": before, "batch": batch},
    )
