"""The nodes of a database as one sees them from beside: who is there, who has which account, and what waits.

Owns that one look. Who may do what is `leases.py`, what waits in a lane is `lane.py`, which replies wait is `outbox.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sessions import leases
from sessions.database.base import Transaction
from sessions.leases import LeaseName


@dataclass(frozen=True, slots=True)
class Fleet:
    nodes: Sequence[str]
    """Those that are there, by name. One that died is among them until its lease ends."""
    holders: Mapping[LeaseName, str]
    turns_waiting: int
    turns_running: int
    waiting_since: int | None
    """When the first of the turns that wait was queued; None if none waits."""
    replies_waiting: int

    def names_held_by(self, node: str) -> list[LeaseName]:
        return sorted((name for name, holder in self.holders.items() if holder == node), key=str)


def look(tx: Transaction) -> Fleet:
    """All of it as it is at this moment."""
    turns = tx.row(
        "SELECT COUNT(*) AS n, COUNT(CASE WHEN status = 'running' THEN 1 END) AS running,"
        " MIN(CASE WHEN status = 'queued' THEN queued_at END) AS since FROM turns WHERE status IN ('queued', 'running')"
    )
    replies = tx.row(
        "SELECT COUNT(*) AS n FROM outbox WHERE state IN ('ready', 'sending', 'uncertain') AND is_final = 1"
    )
    assert turns is not None
    assert replies is not None
    return Fleet(
        nodes=leases.nodes(tx),
        holders=leases.holders(tx),
        turns_waiting=turns["n"] - turns["running"],
        turns_running=turns["running"],
        waiting_since=turns["since"],
        replies_waiting=replies["n"],
    )
