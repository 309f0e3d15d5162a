"""The queue of turns on PostgreSQL: what waits, who holds it, and until when. It is pgmq's, in the database itself.

Owns every statement about `turn_queue`, the view of pgmq's table (migration 12). A message of the queue stands for one unfinished
turn and goes with it; its group is the session. Times are the database's. A turn is held while its message is invisible (`vt`);
holding it for longer means renewing. The number of reads is the claim's epoch: with the message's number it is the fence, for
both never come again together. On SQLite, where one process owns the file, there is no queue: `sessions/lane.py` has the turns.

pgmq sends, reads the heads of groups, archives and purges. What it does not do is said here in SQL on its table: to read the head
of one group that is known (its functions look through all of them), and to renew or remove only what is still held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from config.names import SessionId, TurnId
from sessions.database.base import Row, Statement, Transaction

_GROUP: Final = "headers->>'x-pgmq-group'"
"""As in the index over it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A turn that somebody runs: its place in the queue, and how many times it had been read then."""

    msg_id: int
    read_ct: int


def adding(turn_id: TurnId, session_id: SessionId) -> Statement:
    """Queues a turn behind those of its session. The session's row must be locked: numbers are given in the order of commits then."""
    return (
        (
            "SELECT pgmq.send(turn_queue_name(), jsonb_build_object('turn', CAST(:turn AS text)),"
            " jsonb_build_object('x-pgmq-group', CAST(:session AS text))) AS id"
        ),
        {"turn": turn_id, "session": session_id},
    )


def adding_held(turn_id: TurnId, session_id: SessionId, lease_ms: int) -> Statement:
    """As `adding`, for a lane where nothing else waits: the turn is in hand from the first."""
    return (
        (
            "INSERT INTO turn_queue (vt, read_ct, last_read_at, message, headers) VALUES"
            " (clock_timestamp() + :lease * interval '1 millisecond', 1, clock_timestamp(),"
            " jsonb_build_object('turn', CAST(:turn AS text)), jsonb_build_object('x-pgmq-group', CAST(:session AS text)))"
            " RETURNING msg_id AS id"
        ),
        {"turn": turn_id, "session": session_id, "lease": lease_ms},
    )


def take(
    tx: Transaction, session_id: SessionId, now: int, node: str | None, lease_ms: int, about: str
) -> Row | None:
    """Take the head of a session, if nobody holds it: the turn's row, now running, and those columns of its message."""
    return tx.row(
        "WITH taken AS (UPDATE turn_queue SET vt = clock_timestamp() + :lease * interval '1 millisecond', read_ct = read_ct + 1,"
        " last_read_at = clock_timestamp() WHERE msg_id = (SELECT msg_id FROM turn_queue WHERE msg_id ="
        f" (SELECT msg_id FROM turn_queue WHERE {_GROUP} = :session ORDER BY {_GROUP}, msg_id LIMIT 1)"
        # Nobody waits for a head that another node is about to take: two that take several would wait for each other.
        " AND vt <= clock_timestamp() FOR UPDATE SKIP LOCKED)"
        " RETURNING msg_id, read_ct, message->>'turn' AS turn_id), running AS ("
        " UPDATE turns SET status = 'running', epoch = taken.read_ct, attempts = attempts + 1, started_at = :now, node = :node"
        " FROM taken WHERE turns.id = taken.turn_id AND turns.status IN ('queued', 'running')"
        " RETURNING turns.id, position, epoch, attempts, queued_at, cancel_requested_at, noticed_at, inbox_id, taken.msg_id)"
        f" SELECT r.*, {about} FROM running r JOIN inbox i ON i.id = r.inbox_id JOIN sessions s ON s.id = :session"
        " LEFT JOIN persons p ON p.id = i.person_id",
        {"session": session_id, "now": now, "node": node, "lease": lease_ms},
    )


def take_heads(
    tx: Transaction, limit: int, now: int, node: str | None, lease_ms: int, about: str
) -> list[Row]:
    """Take the heads of the sessions that wait longest and that nobody holds: rows as of `take`, with the session.

    pgmq looks through the whole queue for them, whatever the limit: ask for many, and seldom.
    """
    return tx.rows(
        "WITH taken AS MATERIALIZED (SELECT msg_id, read_ct, message->>'turn' AS turn_id"
        " FROM pgmq.read_grouped_head(turn_queue_name(), CAST(:seconds AS integer), CAST(:limit AS integer))), running AS ("
        " UPDATE turns SET status = 'running', epoch = taken.read_ct, attempts = attempts + 1, started_at = :now, node = :node"
        " FROM taken WHERE turns.id = taken.turn_id AND turns.status IN ('queued', 'running')"
        " RETURNING turns.id, position, epoch, attempts, queued_at, cancel_requested_at, noticed_at, inbox_id, taken.msg_id,"
        " turns.session_id)"
        f" SELECT r.*, {about} FROM running r JOIN inbox i ON i.id = r.inbox_id JOIN sessions s ON s.id = r.session_id"
        " LEFT JOIN persons p ON p.id = i.person_id ORDER BY r.msg_id",
        {"seconds": -(-lease_ms // 1000), "limit": limit, "now": now, "node": node},
    )


def is_waiting(tx: Transaction) -> bool:
    """Whether there is a turn that nobody holds; it may have to wait for one before it that somebody does."""
    return tx.row("SELECT 1 AS x FROM turn_queue WHERE vt <= clock_timestamp() LIMIT 1") is not None


def heads(tx: Transaction, limit: int) -> list[SessionId]:
    """Sessions of which a turn could be taken now, the longest waiting first; not all, if others wait in front of them."""
    return [
        row["session_id"]
        for row in tx.rows(
            f"SELECT q.session_id FROM (SELECT msg_id, {_GROUP} AS session_id FROM turn_queue WHERE vt <= clock_timestamp()"
            " ORDER BY msg_id LIMIT :seen) q WHERE NOT EXISTS"
            f" (SELECT 1 FROM turn_queue e WHERE e.{_GROUP} = q.session_id AND e.msg_id < q.msg_id)"
            " ORDER BY q.msg_id LIMIT :limit",
            {"limit": limit, "seen": 10 * limit},
        )
    ]


def next_end_ms(tx: Transaction) -> int | None:
    """Milliseconds until the first turn that is held now could be taken by somebody else; None if none is held."""
    row = tx.row(
        "SELECT CAST(EXTRACT(EPOCH FROM MIN(vt) - clock_timestamp()) * 1000 AS bigint) AS ms"
        " FROM turn_queue WHERE vt > clock_timestamp()"
    )
    return None if row is None or row["ms"] is None else int(row["ms"])


def removing(held: Held) -> Statement:
    """Takes a turn that is over out of the queue, in the transaction that ends it. Changes no row if it is not held any more."""
    return "DELETE FROM turn_queue WHERE msg_id = :id AND read_ct = :count", _values(held)


def bury(tx: Transaction, held: Held) -> bool:
    """Put a turn that nobody can run among the dead letters (pgmq's archive). False if it is not held any more."""
    if (
        tx.row(
            "SELECT 1 AS x FROM turn_queue WHERE msg_id = :id AND read_ct = :count FOR UPDATE", _values(held)
        )
        is None
    ):
        return False
    tx.row("SELECT pgmq.archive(turn_queue_name(), :id) AS done", {"id": held.msg_id})
    return True


def renew(tx: Transaction, held: Sequence[Held], lease_ms: int) -> set[Held]:
    """Hold turns for the full lease again. Gives those that are; the others are over, ending just now, or somebody else's."""
    if not held:
        return set()
    return {
        Held(row["msg_id"], row["read_ct"])
        for row in tx.rows(
            "UPDATE turn_queue q SET vt = clock_timestamp() + :lease * interval '1 millisecond'"
            " FROM (SELECT k.msg_id FROM turn_queue k"
            " JOIN unnest(CAST(:ids AS bigint[]), CAST(:counts AS bigint[])) AS mine (msg_id, read_ct)"
            " ON k.msg_id = mine.msg_id AND k.read_ct = mine.read_ct FOR UPDATE OF k SKIP LOCKED) kept"
            " WHERE q.msg_id = kept.msg_id RETURNING q.msg_id, q.read_ct",
            {
                "lease": lease_ms,
                "ids": [one.msg_id for one in held],
                "counts": [one.read_ct for one in held],
            },
        )
    }


def give_back(tx: Transaction, turn_id: TurnId, held: Held) -> bool:
    """Let others take a turn at once, as if it had not been begun. False if it is not held any more."""
    if not tx.execute(
        "UPDATE turn_queue SET vt = clock_timestamp() WHERE msg_id = :id AND read_ct = :count", _values(held)
    ):
        return False
    tx.execute(
        "UPDATE turns SET status = 'queued', attempts = attempts - 1 WHERE id = :turn AND epoch = :epoch AND status = 'running'",
        {"turn": turn_id, "epoch": held.read_ct},
    )
    return True


def give_all_back(tx: Transaction) -> None:
    """Hold nothing for anybody: for a database on which no node works."""
    tx.execute("UPDATE turn_queue SET vt = clock_timestamp() WHERE vt > clock_timestamp()")


def drop(tx: Transaction, turn_ids: Sequence[TurnId]) -> None:
    """Take turns out that were ended from elsewhere; whoever runs one is refused."""
    if turn_ids:
        tx.execute(
            "DELETE FROM turn_queue q USING turns t WHERE t.id = ANY(CAST(:turns AS text[]))"
            f" AND q.{_GROUP} = t.session_id AND q.message->>'turn' = t.id",
            {"turns": list(turn_ids)},
        )


def refill(tx: Transaction) -> int:
    """Make the queue what the turns say: for a database that was moved here or worked on by an older version. Gives how many came.

    A lane that lacks a turn is queued anew as a whole, because a turn that came later would stand behind those after it. Epochs go on
    from where they were: a turn that was begun elsewhere is known by it, and whoever still runs it is refused.
    """
    tx.execute(
        "DELETE FROM turn_queue q WHERE NOT EXISTS"
        " (SELECT 1 FROM turns t WHERE t.id = q.message->>'turn' AND t.status IN ('queued', 'running'))"
    )
    missing = (
        "SELECT t.session_id FROM turns t WHERE t.status IN ('queued', 'running') AND NOT EXISTS"
        f" (SELECT 1 FROM turn_queue q WHERE q.{_GROUP} = t.session_id AND q.message->>'turn' = t.id)"
    )
    # New turns of these sessions wait until this is over: accepting one locks its session's row first.
    sessions = [
        row["id"]
        for row in tx.rows(f"SELECT id FROM sessions WHERE id IN ({missing}) ORDER BY id FOR UPDATE")
    ]
    if not sessions:
        return 0
    tx.execute(
        f"DELETE FROM turn_queue WHERE {_GROUP} = ANY(CAST(:sessions AS text[]))", {"sessions": sessions}
    )
    return tx.execute(
        "INSERT INTO turn_queue (vt, read_ct, message, headers) SELECT clock_timestamp(), epoch, jsonb_build_object('turn', id),"
        " jsonb_build_object('x-pgmq-group', session_id) FROM (SELECT id, session_id, position, epoch,"
        " MAX(queued_at) OVER (PARTITION BY session_id ORDER BY position) AS since FROM turns"
        " WHERE session_id = ANY(CAST(:sessions AS text[])) AND status IN ('queued', 'running')) lanes"
        " ORDER BY since, session_id, position",
        {"sessions": sessions},
    )


def purge(tx: Transaction) -> None:
    """Forget all that waits, with the dead letters: for a database whose content is being replaced."""
    tx.row("SELECT pgmq.purge_queue(turn_queue_name()) AS n")
    tx.execute("DELETE FROM dead_turns")


def _values(held: Held) -> dict[str, object]:
    return {"id": held.msg_id, "count": held.read_ct}
