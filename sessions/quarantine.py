"""What nobody could parse, after it was set aside: looking at it, and letting go of it.

Owns reading and removing. Setting aside is `inbox.quarantine`, which must not fail whatever came.
"""

from dataclasses import dataclass
from typing import Final

from config.names import AccountId
from sessions.database.base import Row, Transaction

KEPT_MS: Final = 30 * 86_400_000
"""How long an update that nobody could parse is kept; what it says of people must not stay for ever."""


@dataclass(frozen=True, slots=True)
class Update:
    """One update as it came. `raw` is cut at 1 MB."""

    id: int
    account: AccountId
    received_at: int
    reason: str
    raw: bytes


def latest(tx: Transaction, *, limit: int = 50) -> list[Update]:
    """What is set aside, the latest first. For operators."""
    return [
        _read(row)
        for row in tx.rows("SELECT * FROM quarantine ORDER BY id DESC LIMIT :limit", {"limit": limit})
    ]


def find(tx: Transaction, number: int) -> Update | None:
    row = tx.row("SELECT * FROM quarantine WHERE id = :id", {"id": number})
    return None if row is None else _read(row)


def drop(tx: Transaction, number: int) -> bool:
    """Remove one. False if it is not there."""
    return tx.execute("DELETE FROM quarantine WHERE id = :id", {"id": number}) == 1


def forget_old(tx: Transaction, now: int, *, batch: int = 50) -> int:
    """Remove a batch of those older than `KEPT_MS`. Gives how many."""
    return tx.execute(
        "DELETE FROM quarantine WHERE id IN"
        " (SELECT id FROM quarantine WHERE received_at < :before ORDER BY received_at LIMIT :batch)",
        {"before": now - KEPT_MS, "batch": batch},
    )


def _read(row: Row) -> Update:
    return Update(row["id"], row["account"], row["received_at"], row["reason"], bytes(row["raw"]))
