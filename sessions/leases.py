"""Leases: what only one node may do at a time, for how long, and the number that fences whoever comes late.

Owns the table `leases`. Times are the database's, so that the clocks of the nodes do not matter. An epoch belongs to one holder for
one uninterrupted time: whoever takes a lease over gets the next. Who wants which lease and what follows from it is `bot/nodes.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from config.names import AccountId
from sessions.database.base import Transaction
from sessions.errors import StaleLease

LeaseKind = Literal["hear", "send", "upkeep", "run", "live"]
"""The first three are for one node at a time. The others each node has for itself, with its name as the account: as long as `run`
lasts, the node takes turns (how long it holds each is `sessions/queue.py`), and as long as `live` lasts, it counts as there."""
_NODES_KEPT_MS: Final = 3_600_000
NO_ACCOUNT: Final = AccountId("")
"""The account of a lease for work that belongs to none."""


@dataclass(frozen=True, slots=True)
class LeaseName:
    kind: LeaseKind
    account: AccountId = NO_ACCOUNT

    def __str__(self) -> str:
        return f"{self.kind} {self.account}".rstrip()


@dataclass(frozen=True, slots=True)
class Lease:
    name: LeaseName
    node: str
    epoch: int


def claim(tx: Transaction, name: LeaseName, node: str, lease_ms: int) -> Lease | None:
    """Take a lease that nobody holds (any more); None while somebody does, this node included."""
    now = database_now(tx)
    values = {"account": name.account, "kind": name.kind, "node": node, "length": lease_ms}
    # Looked at first: an upsert would lock a row that is somebody's, and hold up its renewal.
    held = tx.row(
        f"SELECT 1 AS x FROM leases WHERE account = :account AND kind = :kind AND ends_at > {now}",
        {"account": name.account, "kind": name.kind},
    )
    if held is not None:
        return None
    row = tx.row(
        "INSERT INTO leases (account, kind, node, epoch, ends_at)"
        f" VALUES (:account, :kind, :node, 1, {now} + :length) ON CONFLICT (account, kind) DO UPDATE SET"
        " node = excluded.node, epoch = leases.epoch + 1, ends_at = excluded.ends_at"
        f" WHERE leases.ends_at <= {now} RETURNING epoch",
        values,
    )
    return None if row is None else Lease(name, node, row["epoch"])


def renew(tx: Transaction, held: Sequence[Lease], lease_ms: int) -> list[Lease]:
    """Make leases last for their full length again. Gives those that are still this node's; the others are lost."""
    now = database_now(tx)
    return [
        lease
        for lease in held
        if tx.execute(
            f"UPDATE leases SET ends_at = {now} + :length WHERE account = :account AND kind = :kind"
            f" AND node = :node AND epoch = :epoch AND ends_at > {now}",
            {**_values(lease), "length": lease_ms},
        )
    ]


def release(tx: Transaction, lease: Lease) -> None:
    """Give a lease back: the next node need not wait for its end."""
    tx.execute(
        "UPDATE leases SET ends_at = 0 WHERE account = :account AND kind = :kind AND node = :node AND epoch = :epoch",
        _values(lease),
    )


def forget_nodes(tx: Transaction) -> int:
    """Remove the leases that processes which are gone had for themselves: their names do not come again. Gives how many."""
    return tx.execute(
        f"DELETE FROM leases WHERE kind IN ('run', 'live') AND ends_at < {database_now(tx)} - {_NODES_KEPT_MS}"
    )


def check(tx: Transaction, lease: Lease) -> None:
    """Refuse what a former holder still does; nobody takes the lease over before this transaction ends.

    A lease that is over but was not taken over is still good: nobody else has begun anything.

    Raises: StaleLease.
    """
    row = tx.row(
        "SELECT 1 AS x FROM leases WHERE account = :account AND kind = :kind AND node = :node AND epoch = :epoch"
        + _shared_lock(tx),
        _values(lease),
    )
    if row is None:
        raise StaleLease(f"{lease.name} is another node's by now")


def holders(tx: Transaction) -> dict[LeaseName, str]:
    """Who holds what just now."""
    return {
        LeaseName(row["kind"], row["account"]): row["node"]
        for row in tx.rows(f"SELECT account, kind, node FROM leases WHERE ends_at > {database_now(tx)}")
    }


def nodes(tx: Transaction) -> list[str]:
    """Who is there, by name."""
    return sorted(node for name, node in holders(tx).items() if name.kind == "live")


def _values(lease: Lease) -> dict[str, object]:
    return {
        "account": lease.name.account,
        "kind": lease.name.kind,
        "node": lease.node,
        "epoch": lease.epoch,
    }


def database_now(tx: Transaction) -> str:
    """The database's own time in milliseconds, as an expression. It moves on while a transaction waits for a row."""
    if tx.dialect == "sqlite":
        return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


def _shared_lock(tx: Transaction) -> str:
    """Many senders of one holder check at the same time; only a change of the row has to wait for them."""
    return "" if tx.dialect == "sqlite" else " FOR SHARE"
