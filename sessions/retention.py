"""Messages that are older than the operator keeps them.

Owns the rules and the small batches that follow them. What stays of a turn is `emptying.py`'s affair; whole sessions that have had
their day are `cleanup.py`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from config.names import AccountId, ChannelId, SessionId
from sessions import emptying
from sessions.database.base import Transaction


@dataclass(frozen=True, slots=True)
class Rules:
    """How long messages are kept, in milliseconds; None is for as long as their session."""

    general: int | None = None
    accounts: Mapping[AccountId, int | None] = field(default_factory=dict)
    channels: Mapping[tuple[AccountId, ChannelId], int | None] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Nothing is ever too old."""
        return self.general is None and not any(
            value is not None for value in (*self.accounts.values(), *self.channels.values())
        )

    def kept_ms(self, account: AccountId, channel: ChannelId) -> int | None:
        """By the channel's own rule, else the account's, else the general one."""
        if (account, channel) in self.channels:
            return self.channels[account, channel]
        return self.accounts.get(account, self.general)


def outdated(
    tx: Transaction, rules: Rules, now: int, after: str, batch: int = 500
) -> tuple[list[tuple[SessionId, int]], str | None]:
    """Among the next sessions after an id: those that begin with a message too old, and the time before which it is.

    Gives with them the id to go on after, None at the end. It is a read: the writer is only needed where something is found.
    """
    rows = tx.rows(
        "SELECT s.id, s.account, s.channel, (SELECT m.created_at FROM messages m WHERE m.session_id = s.id"
        " ORDER BY m.position, m.part LIMIT 1) AS oldest FROM sessions s WHERE s.id > :after ORDER BY s.id LIMIT :batch",
        {"after": after, "batch": batch},
    )
    found = []
    for row in rows:
        kept = rules.kept_ms(row["account"], row["channel"])
        if kept is not None and row["oldest"] is not None and row["oldest"] < now - kept:
            found.append((SessionId(row["id"]), now - kept))
    return found, rows[-1]["id"] if len(rows) == batch else None


def count_before(tx: Transaction, session_id: SessionId, before: int) -> int:
    """How many messages of a session are from before a time."""
    row = tx.row(
        "SELECT COUNT(*) AS n FROM messages WHERE session_id = :id AND created_at < :before",
        {"id": session_id, "before": before},
    )
    return int(row["n"]) if row else 0


def forget_before(tx: Transaction, session_id: SessionId, before: int, now: int) -> int:
    """Remove a session's oldest messages, as far as they are from before a time; gives how many, 0 when none is left.

    A small batch. Turns that wait or run are left until they have ended.
    """
    rows = tx.rows(
        "SELECT m.position, MIN(m.created_at) AS at, MAX(CASE WHEN t.status IN ('queued', 'running') THEN 1 ELSE 0 END) AS waits"
        " FROM messages m LEFT JOIN turns t ON t.session_id = m.session_id AND t.position = m.position"
        " WHERE m.session_id = :id AND m.position <= COALESCE((SELECT x.position FROM messages x WHERE x.session_id = :id"
        " ORDER BY x.position, x.part LIMIT 1 OFFSET :slice), (SELECT MAX(y.position) FROM messages y WHERE y.session_id = :id))"
        " GROUP BY m.position ORDER BY m.position",
        {"id": session_id, "slice": 2 * emptying.SLICE},
    )
    positions: list[int] = []
    for row in rows:
        if row["at"] >= before or row["waits"] or len(positions) == emptying.SLICE:
            break
        positions.append(row["position"])
    return emptying.empty_turns(tx, session_id, positions, now)["messages"] if positions else 0
