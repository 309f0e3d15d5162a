"""The audit log: what was done to people's data and to their rights, when and by whom, without any of it.

Owns its lines. Nothing removes one: they outlive the person, and say of them no more than an internal id and how many rows it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import orjson

from sessions.database.base import Transaction

Actor = Literal["operator", "person"]


@dataclass(frozen=True, slots=True)
class Entry:
    id: int
    at: int
    actor: Actor
    action: str
    """`person_erased`, `role_blocked` and the other roles."""
    subject: str
    """A person's internal id."""
    counts: Mapping[str, int]


def record(
    tx: Transaction, actor: Actor, action: str, subject: str, counts: Mapping[str, int], now: int
) -> None:
    """Write down that something was done to somebody's data, without any of it."""
    tx.execute(
        "INSERT INTO audit (at, actor, action, subject, counts) VALUES (:now, :actor, :action, :subject, :counts)",
        {
            "now": now,
            "actor": actor,
            "action": action,
            "subject": subject,
            "counts": orjson.dumps({word: amount for word, amount in counts.items() if amount}).decode(),
        },
    )


def latest(tx: Transaction, *, subject: str | None = None, limit: int = 50) -> list[Entry]:
    """The last lines, the latest first; with a `subject`, those about them. For operators."""
    found = tx.rows(
        "SELECT id, at, actor, action, subject, counts FROM audit"
        f"{' WHERE subject = :subject' if subject else ''} ORDER BY id DESC LIMIT :limit",
        {"limit": limit} | ({"subject": subject} if subject else {}),
    )
    return [Entry(**{**row, "counts": orjson.loads(row["counts"])}) for row in found]
