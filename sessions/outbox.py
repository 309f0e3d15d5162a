"""Replies waiting to be sent, chunk by chunk, and the holds a platform put on us.

Owns the outbox and holds tables and the states of a chunk:

    ready ──begin──> sending ──────────────> sent
      ^                 │ (we died, or the answer was lost)
      │                 └──> uncertain ──> sent | skipped
      └── put off (wait told by the platform) ; given up ──> failed

A chunk that is uncertain stays so until it is sent or given up, whatever later tries come to: the first may have arrived.
One that is sent or given up does not come back, whatever is heard of it late; only a preview does, as the answer.

When to send, how fast and what an error means belong to `bot/delivery.py` and `bot/governor.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import orjson

from config.names import AccountId, ChannelId, Json, PlatformMessageId, SessionId, TurnId
from sessions import leases
from sessions.database.base import Row, Transaction, row_lock
from sessions.database.values import as_json
from sessions.lane import check_claim
from sessions.leases import Lease
from sessions.models import Address, Claim, Incoming, OutgoingChunk, ReplyKind

_WAITING = "('ready', 'sending', 'uncertain')"
LARGEST_BATCH = 20
_COLUMNS = (
    "id, key, account, channel, channel_kind, thread, reply_to, reply_handle, inbox_id, turn_id, session_id, kind, part, body,"
    " is_final, state, attempts, not_before, platform_message_id, repeats, created_at"
)


def add(
    tx: Transaction,
    address: Address,
    kind: ReplyKind,
    chunks: Sequence[Mapping[str, Json]],
    now: int,
    *,
    turn_id: TurnId | None = None,
    session_id: SessionId | None = None,
    first_part: int = 0,
    is_final: bool = True,
) -> None:
    """Queue a reply's chunks (JSON of `adapters.messages.Chunk`).

    A chunk whose part exists already, because its preview is on the person's screen, is filled with the final text and will be
    sent as an edit of it.
    """
    for part, body in enumerate(chunks, start=first_part):
        tx.defer(
            "INSERT INTO outbox (key, account, channel, channel_kind, thread, reply_to, reply_handle, inbox_id, turn_id,"
            " session_id, kind, part, body, is_final, state, created_at) VALUES (:key, :account, :channel, :channel_kind,"
            " :thread, :reply_to, :handle, :inbox, :turn, :session, :kind, :part, :body, :final, 'ready', :now)"
            " ON CONFLICT (key) DO UPDATE SET body = excluded.body, is_final = excluded.is_final, kind = excluded.kind,"
            " state = CASE WHEN outbox.state IN ('sending', 'uncertain') THEN 'uncertain' ELSE 'ready' END,"
            " may_be_out = CASE WHEN outbox.state = 'sending' THEN 1 ELSE outbox.may_be_out END,"
            " attempts = 0, created_at = excluded.created_at",
            {
                "key": chunk_key(address.inbox_id, kind, part),
                "account": address.account,
                "channel": address.channel,
                "channel_kind": address.channel_kind,
                "thread": address.thread,
                "reply_to": address.reply_to,
                "handle": as_json(address.reply_handle) if address.reply_handle is not None else None,
                "inbox": address.inbox_id,
                "turn": turn_id,
                "session": session_id,
                "kind": kind,
                "part": part,
                "body": tx.seal.seal(as_json(body)),
                "final": int(is_final),
                "now": now,
            },
        )


def open_preview(
    tx: Transaction,
    address: Address,
    body: Mapping[str, Json],
    now: int,
    *,
    turn: Claim,
    lease: Lease | None = None,
) -> tuple[int, PlatformMessageId | None] | None:
    """Prepare the first chunk of an answer to be shown while it grows: its row's id, and its message if it has one already.

    None when an earlier run of the turn left a send of unknown outcome. Raises: StaleClaim, StaleLease.
    """
    check_claim(tx, turn)
    key = chunk_key(address.inbox_id, "answer", 0)
    row = tx.row("SELECT id, state, platform_message_id FROM outbox WHERE key = :key", {"key": key})
    if row is None:
        add(
            tx,
            address,
            "answer",
            [body],
            now,
            turn_id=turn.turn_id,
            session_id=turn.session_id,
            is_final=False,
        )
        row = tx.row("SELECT id, state, platform_message_id FROM outbox WHERE key = :key", {"key": key})
        assert row is not None
    if row["platform_message_id"] is None and row["state"] in ("sending", "uncertain"):
        return None
    if row["platform_message_id"] is None:
        begin(tx, row["id"], lease)
    return row["id"], row["platform_message_id"]


def sent_since(
    tx: Transaction, account: AccountId, since: int
) -> list[tuple[ChannelId, Literal["direct", "group"], int]]:
    """What was sent since then: channel, kind, time; oldest first."""
    return [
        (row["channel"], row["channel_kind"], row["sent_at"])
        for row in tx.rows(
            "SELECT channel, channel_kind, sent_at FROM outbox WHERE account = :account AND state = 'sent'"
            " AND sent_at > :since ORDER BY sent_at",
            {"account": account, "since": since},
        )
    ]


def chunk_key(inbox_id: int, kind: ReplyKind, part: int) -> str:
    """The idempotency key of a chunk: the same for every try, at most 25 characters.

    An answer and the error that takes its place share their keys, so that the error replaces a preview.
    """
    letter = {"answer": "a", "error": "a", "command": "c", "notice": "n"}[kind]
    return f"{inbox_id}-{letter}-{part}"


def waiting(
    tx: Transaction, account: AccountId, channel: ChannelId, limit: int = LARGEST_BATCH
) -> list[OutgoingChunk]:
    """The next chunks of a channel in the order they must go out. Previews of unfinished answers are not among them."""
    return [
        read_chunk(row)
        for row in tx.rows(
            f"SELECT {_COLUMNS} FROM outbox WHERE account = :account AND channel = :channel AND state IN {_WAITING}"
            " AND is_final = 1 ORDER BY id LIMIT :limit",
            {"account": account, "channel": channel, "limit": limit},
        )
    ]


def channels_waiting(tx: Transaction, account: AccountId) -> list[ChannelId]:
    """Channels of an account that have something to be sent, the longest waiting first."""
    return [
        row["channel"]
        for row in tx.rows(
            f"SELECT channel, MIN(id) AS first FROM outbox WHERE account = :account AND state IN {_WAITING} AND is_final = 1"
            " GROUP BY channel ORDER BY first",
            {"account": account},
        )
    ]


def recover(
    tx: Transaction, account: AccountId, lease: Lease | None = None, *, shows_repeats: bool = False
) -> int:
    """An account's sends under way when the last sender died may or may not have gone out. Gives how many.

    `shows_repeats`: the platform shows a message that is sent twice twice, so a repeat among them counts as one.
    Raises: StaleLease.
    """
    if lease is not None:
        leases.check(tx, lease)
    return tx.execute(
        "UPDATE outbox SET state = 'uncertain', repeats = repeats + may_be_out * :shows, may_be_out = 1"
        f" WHERE state = 'sending' AND state IN {_WAITING} AND account = :account",
        {"account": account, "shows": int(shows_repeats)},
    )


def begin(tx: Transaction, chunk_id: int, lease: Lease | None = None) -> bool:
    """Say, before the request goes out, that it may go out. False if another sender has it under way or is done with it.

    With a lease only its holder may: whoever has taken the account over has asked first what was under way.

    Raises: StaleLease.
    """
    if lease is not None:
        leases.check(tx, lease)
    return (
        tx.execute(
            "UPDATE outbox SET state = 'sending' WHERE id = :id AND state IN ('ready', 'uncertain')",
            {"id": chunk_id},
        )
        == 1
    )


def mark_sent(
    tx: Transaction,
    chunk_id: int,
    message_id: PlatformMessageId | None,
    now: int,
    *,
    body: Mapping[str, Json] | None = None,
    waited_ms: int = 0,
    was_repeat: bool = False,
) -> bool:
    """The platform has it. Gives whether the chunk is done: not if it should say something else by now than what was sent,
    which is `body`, or without that a preview.
    """
    is_current = "is_final = 0" if body is None else "body = :body"
    if body is not None and tx.seal.is_on:  # two seals of one text differ
        stored = tx.row("SELECT body FROM outbox WHERE id = :id" + row_lock(tx), {"id": chunk_id})
        is_current = "1 = 1" if stored is not None and stored["body"] == as_json(body) else "1 = 0"
    row = tx.row(
        "UPDATE outbox SET platform_message_id = COALESCE(:message, platform_message_id), sent_at = :now, error = NULL,"
        " waited_ms = waited_ms + :waited, repeats = repeats + :repeat,"
        f" state = CASE WHEN {is_current} THEN 'sent' ELSE 'ready' END WHERE id = :id RETURNING state",
        {
            "message": message_id,
            "now": now,
            "waited": waited_ms,
            "repeat": int(was_repeat),
            "id": chunk_id,
        }
        | ({"body": as_json(body)} if is_current == "body = :body" else {}),
    )
    return row is not None and row["state"] == "sent"


def put_off(
    tx: Transaction, chunk_id: int, until: int, error: str, *, waited_ms: int = 0, counts: bool = True
) -> None:
    """This try was certainly not sent; try again later. `counts`: whether this was a try of its own fault."""
    tx.execute(
        "UPDATE outbox SET state = CASE WHEN may_be_out = 1 AND platform_message_id IS NULL THEN 'uncertain' ELSE 'ready' END,"
        " attempts = attempts + :counts, not_before = :until, error = :error,"
        f" waited_ms = waited_ms + :waited WHERE id = :id AND state IN {_WAITING}",
        {"until": until, "error": error[:500], "waited": waited_ms, "counts": int(counts), "id": chunk_id},
    )


def mark_uncertain(
    tx: Transaction, chunk_id: int, until: int, error: str, *, was_repeat: bool = False
) -> None:
    """The answer to a send was lost. `was_repeat`: people may see the text once more than they should, as with `mark_sent`."""
    tx.execute(
        "UPDATE outbox SET state = 'uncertain', may_be_out = 1, attempts = attempts + 1, not_before = :until, error = :error,"
        f" repeats = repeats + :repeat WHERE id = :id AND state IN {_WAITING}",
        {"until": until, "error": error[:500], "repeat": int(was_repeat), "id": chunk_id},
    )


def give_up(
    tx: Transaction, chunk_id: int, state: Literal["failed", "skipped"], error: str, now: int
) -> None:
    """This chunk will not be sent (any more)."""
    tx.execute(
        f"UPDATE outbox SET state = :state, error = :error, sent_at = :now WHERE id = :id AND state IN {_WAITING}",
        {"state": state, "error": error[:500], "now": now, "id": chunk_id},
    )


def forget_message(tx: Transaction, chunk_id: int) -> None:
    """The message to edit is gone: the chunk will be sent anew."""
    tx.execute(
        "UPDATE outbox SET platform_message_id = NULL, may_be_out = 0, state = 'ready'"
        f" WHERE id = :id AND state IN {_WAITING}",
        {"id": chunk_id},
    )


def readdress(tx: Transaction, account: AccountId, old: ChannelId, new: ChannelId) -> int:
    """Waiting chunks and previews follow a channel that moved, where there is no message they could answer. Gives how many."""
    names = {"new": new, "account": account, "old": old}
    move = "UPDATE outbox SET channel = :new, reply_to = NULL WHERE account = :account AND channel = :old"
    moved = tx.execute(f"{move} AND state IN {_WAITING}", names)
    return moved + tx.execute(
        f"{move} AND is_final = 0 AND turn_id IN (SELECT id FROM turns WHERE status IN ('queued', 'running'))",
        names,
    )


def forget_passing(tx: Transaction, before: int, batch: int) -> int:
    """Remove replies to commands and notices that are done with: they may quote a conversation that is to be removed itself.

    Gives how many.
    """
    return tx.execute(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE kind IN ('command', 'notice') AND created_at < :before"
        " AND state IN ('sent', 'skipped', 'failed') ORDER BY created_at LIMIT :batch)",
        {"before": before, "batch": batch},
    )


def is_settled(tx: Transaction, inbox_id: int) -> bool:
    """True once the message's turn has ended and none of its chunks is waiting any more.

    A preview that no answer took the place of waits for nothing.
    """
    row = tx.row(
        # The turn by its id and not by a join, for which PostgreSQL would look through all that are unfinished.
        "SELECT 1 AS x WHERE EXISTS (SELECT 1 FROM turns WHERE id = (SELECT turn_id FROM inbox WHERE id = :id)"
        " AND status IN ('queued', 'running'))"
        f" OR EXISTS (SELECT 1 FROM outbox WHERE inbox_id = :id AND state IN {_WAITING} AND is_final = 1)",
        {"id": inbox_id},
    )
    return row is None


def is_message_settled(tx: Transaction, message: Incoming) -> bool:
    """The same of a message as its platform calls it; an edit goes by the message that was edited."""
    row = tx.row(
        "SELECT id FROM inbox WHERE account = :account AND channel = :channel AND message_id = :id",
        {"account": message.account, "channel": message.channel, "id": message.message_id},
    )
    return row is None or is_settled(tx, row["id"])


def hold(tx: Transaction, account: AccountId, channel: ChannelId, until: int) -> None:
    """Keep quiet until then; channel '' is the whole account. A longer hold already there stays."""
    tx.execute(
        "INSERT INTO holds (account, channel, until) VALUES (:account, :channel, :until)"
        " ON CONFLICT (account, channel) DO UPDATE SET until = excluded.until WHERE holds.until < excluded.until",
        {"account": account, "channel": channel, "until": until},
    )


def holds(tx: Transaction, account: AccountId, now: int) -> list[tuple[ChannelId, int]]:
    """Holds still in force; those gone by are removed."""
    tx.execute("DELETE FROM holds WHERE until <= :now", {"now": now})
    return [
        (row["channel"], row["until"])
        for row in tx.rows("SELECT channel, until FROM holds WHERE account = :account", {"account": account})
    ]


def read_chunk(row: Row) -> OutgoingChunk:
    """A row of `outbox` as a record."""
    return OutgoingChunk(
        id=row["id"],
        key=row["key"],
        address=Address(
            row["account"],
            row["channel"],
            row["channel_kind"],
            row["thread"],
            row["reply_to"],
            orjson.loads(row["reply_handle"]) if row["reply_handle"] else None,
            row["inbox_id"],
        ),
        kind=row["kind"],
        part=row["part"],
        body=orjson.loads(row["body"]),
        is_final=bool(row["is_final"]),
        state=row["state"],
        attempts=row["attempts"],
        not_before=row["not_before"],
        platform_message_id=row["platform_message_id"],
        repeats=row["repeats"],
        turn_id=row["turn_id"],
        session_id=row["session_id"],
        created_at=row["created_at"],
    )
