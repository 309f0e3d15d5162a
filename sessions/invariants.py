"""What must hold in every database of ours, beyond what its schema enforces: the questions of `palaver verify`.

Owns the list; each is one statement that gives the rows which break it. Whether the file is sound, the database itself knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sessions.database.base import Dialect, Transaction

_KEPT: Final = "(s.end_reason IS NULL OR s.end_reason <> 'deleted')"


@dataclass(frozen=True, slots=True)
class Invariant:
    name: str
    claim: str
    sql: str
    """Gives the rows that break the claim, with a column `broken`."""


INVARIANTS: Final[Sequence[Invariant]] = (
    Invariant(
        "one_live_session",
        "a key has at most one live session",
        "SELECT MIN(id) AS broken FROM sessions WHERE status IN ('active', 'paused') GROUP BY key HAVING COUNT(*) > 1",
    ),
    Invariant(
        "message_count",
        "a session's count of messages is the number of its messages, those that a fork took along counted apart",
        "SELECT s.id AS broken FROM sessions s LEFT JOIN (SELECT session_id, COUNT(*) AS n,"
        " SUM(CASE WHEN turn_id IS NULL THEN 1 ELSE 0 END) AS c FROM messages GROUP BY session_id) m"
        f" ON m.session_id = s.id WHERE {_KEPT} AND (s.message_count + s.copied_count <> COALESCE(m.n, 0)"
        " OR s.copied_count <> CASE WHEN s.forked_from IS NULL THEN 0 ELSE COALESCE(m.c, 0) END)",
    ),
    Invariant(
        "tool_call_count",
        "a session's count of tool calls is the number of its tool calls",
        "SELECT s.id AS broken FROM sessions s LEFT JOIN (SELECT session_id, COUNT(*) AS n FROM tool_calls GROUP BY session_id) c"
        f" ON c.session_id = s.id WHERE {_KEPT} AND s.tool_call_count <> COALESCE(c.n, 0)",
    ),
    Invariant(
        "one_running_turn",
        "a session has at most one running turn",
        "SELECT MIN(id) AS broken FROM turns WHERE status = 'running' AND status IN ('queued', 'running')"
        " GROUP BY session_id HAVING COUNT(*) > 1",
    ),
    Invariant(
        "running_first",
        "what runs is the first of its session's turns that have not ended",
        "SELECT r.id AS broken FROM turns r WHERE r.status = 'running' AND r.status IN ('queued', 'running') AND EXISTS"
        " (SELECT 1 FROM turns t WHERE t.session_id = r.session_id AND t.position < r.position"
        " AND t.status IN ('queued', 'running'))",
    ),
    Invariant(
        "turn_times",
        "a turn has an end exactly if it has ended",
        "SELECT id AS broken FROM turns WHERE (status IN ('queued', 'running')) = (finished_at IS NOT NULL)",
    ),
    Invariant(
        "turn_origin",
        "a turn that waits or runs has the message that queued it",
        "SELECT t.id AS broken FROM turns t WHERE t.status IN ('queued', 'running') AND NOT EXISTS"
        " (SELECT 1 FROM inbox i WHERE i.id = t.inbox_id)",
    ),
    Invariant(
        "positions",
        "the next position of a session is beyond all that are taken",
        "SELECT s.id AS broken FROM sessions s WHERE EXISTS"
        " (SELECT 1 FROM messages m WHERE m.session_id = s.id AND m.position >= s.next_position)"
        " OR EXISTS (SELECT 1 FROM turns t WHERE t.session_id = s.id AND t.position >= s.next_position)",
    ),
    Invariant(
        "accepted_message",
        "an accepted message points to a turn that is there",
        "SELECT i.id AS broken FROM inbox i WHERE i.outcome = 'accepted' AND i.turn_id IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM turns t WHERE t.id = i.turn_id)",
    ),
    Invariant(
        "outbox_key",
        "a reply's key names the message it answers and its part",
        "SELECT id AS broken FROM outbox WHERE key NOT LIKE CAST(inbox_id AS TEXT) || '-_-' || CAST(part AS TEXT)",
    ),
    Invariant(
        "outbox_state",
        "a reply that was sent has the time of it",
        "SELECT id AS broken FROM outbox WHERE state = 'sent' AND sent_at IS NULL",
    ),
    Invariant(
        "session_person",
        "the person of a session is known",
        f"SELECT s.id AS broken FROM sessions s WHERE {_KEPT} AND s.person_id IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM persons p WHERE p.id = s.person_id)",
    ),
    Invariant(
        "sealed",
        "nothing is marked as encrypted in a database without keys",
        "SELECT MIN(id) AS broken FROM messages WHERE is_sealed = 1 AND NOT EXISTS (SELECT 1 FROM seals)"
        " HAVING COUNT(*) > 0",
    ),
)


_OF_THE_QUEUE: Final[Sequence[Invariant]] = (
    Invariant(
        "turn_queued",
        "a turn that waits or runs is in the queue",
        "SELECT t.id AS broken FROM turns t WHERE t.status IN ('queued', 'running') AND NOT EXISTS"
        " (SELECT 1 FROM turn_queue q WHERE q.headers->>'x-pgmq-group' = t.session_id AND q.message->>'turn' = t.id)",
    ),
    Invariant(
        "queued_turn",
        "what is in the queue is a turn that waits or runs",
        "SELECT q.message->>'turn' AS broken FROM turn_queue q WHERE NOT EXISTS"
        " (SELECT 1 FROM turns t WHERE t.id = q.message->>'turn' AND t.status IN ('queued', 'running'))",
    ),
)


def of(dialect: Dialect) -> Sequence[Invariant]:
    """What must hold in a database of that kind."""
    return INVARIANTS if dialect == "sqlite" else (*INVARIANTS, *_OF_THE_QUEUE)


@dataclass(frozen=True, slots=True)
class Verdict:
    name: str
    claim: str
    broken: int
    examples: Sequence[str]

    @property
    def holds(self) -> bool:
        return self.broken == 0


def verify(tx: Transaction, invariant: Invariant) -> Verdict:
    """How many rows break an invariant, and the first five."""
    counted = tx.row(f"SELECT COUNT(*) AS n FROM ({invariant.sql}) AS found")
    broken = int(counted["n"]) if counted else 0
    examples = tx.rows(f"SELECT broken FROM ({invariant.sql}) AS found ORDER BY 1 LIMIT 5") if broken else []
    return Verdict(invariant.name, invariant.claim, broken, [str(row["broken"]) for row in examples])


def damage(tx: Transaction) -> list[str]:
    """What the database itself finds wrong with its file, at most 50 lines. Looks at every page."""
    if tx.dialect != "sqlite":
        return []  # the server checks its own pages
    found = [str(next(iter(row.values()))) for row in tx.rows("PRAGMA integrity_check(50)")]
    lines = [line for line in found if line != "ok"]
    for row in tx.rows("PRAGMA foreign_key_check"):
        if len(lines) >= 50:
            break
        lines.append(f"row {row['rowid']} of {row['table']} refers to a row of {row['parent']} that is gone")
    return lines
