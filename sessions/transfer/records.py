"""What an export holds: a line of JSON for each row, in an order from which it can be read in one pass.

Owns the format: its header, the kinds of records and their columns. A file is

    header · person … · (session · its rows …) … · end

Rows carry the columns of their table as they are in this version's schema; JSON kept in a column stays text, so that it comes
back byte for byte. Numbers that only the database gives meaning (row ids) are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sessions.database.base import Transaction

FORMAT: Final = "palaver.sessions"
VERSION: Final = 1
HEADER: Final = {"type": "header", "format": FORMAT, "version": VERSION}

_INTERNAL: Final = frozenset({"is_sealed", "words", "revision", "node"})
"""Columns that follow from others or from this database's settings."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of record that belongs to a session."""

    type: str
    table: str
    order: str
    """What its rows are ordered by within a session; also what paging goes by, so each value once."""
    unique: Sequence[str]
    """Columns that tell a row from the others of its session."""
    omitted: Sequence[str] = ()
    join: str = ""
    has_session_id: bool = True


KINDS: Final[Sequence[Kind]] = (
    Kind("variable", "session_variables", "x.name", ("session_id", "name")),
    Kind(
        "turn",
        "turns",
        "x.position",
        ("id",),
        ("inbox_id",),
        " LEFT JOIN inbox i ON i.id = x.inbox_id",
    ),
    Kind("message", "messages", "x.position, x.part", ("session_id", "position", "part"), ("id",)),
    Kind(
        "step",
        "steps",
        "t.position, x.number",
        ("turn_id", "number"),
        (),
        " JOIN turns t ON t.id = x.turn_id",
        has_session_id=False,
    ),
    Kind("tool_call", "tool_calls", "x.id", ("turn_id", "step", "call_id", "started_at"), ("id",)),
    Kind("error", "errors", "x.id", ("ref", "session_id", "created_at"), ("id",)),
    Kind("summary", "summaries", "x.version", ("session_id", "version"), ("id",)),
    Kind("link", "session_links", "x.kind, x.name", ("session_id", "kind", "name")),
    Kind("task", "session_tasks", "x.id", ("session_id", "set_at"), ("id",)),
    Kind(
        "event",
        "session_events",
        "x.id",
        ("session_id", "happened_at", "from_status", "to_status"),
        ("id",),
    ),
)

INBOX_OMITTED: Final = ("id", "session_id", "turn_id")
STATUSES: Final = frozenset({"active", "paused", "ended", "archived"})
END_REASONS: Final = frozenset({None, "reset", "completed", "abandoned", "expired", "deleted"})
SCOPES: Final = frozenset({"person", "person_everywhere", "channel", "member"})
TURN_STATUSES: Final = frozenset(
    {"queued", "running", "completed", "failed", "timeout", "cancelled", "declined"}
)
ROLES: Final = frozenset({"user", "assistant", "system"})
PERSON_ROLES: Final = frozenset({"member", "operator", "blocked"})


def columns(tx: Transaction, table: str, omitted: Sequence[str] = ()) -> dict[str, tuple[type, ...]]:
    """The columns of a table that an export holds, in the order of the schema, with the types of their values."""
    if tx.dialect == "sqlite":
        rows = tx.rows(f"SELECT name, type, \"notnull\" AS is_required, pk FROM pragma_table_info('{table}')")
    else:
        rows = tx.rows(
            "SELECT column_name AS name, data_type AS type, is_nullable = 'NO' AS is_required, 0 AS pk"
            " FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = :table"
            " ORDER BY ordinal_position",
            {"table": table},
        )
    found: dict[str, tuple[type, ...]] = {}
    for row in rows:
        if row["name"] in omitted or row["name"] in _INTERNAL:
            continue
        kind: type = (
            str if row["type"].upper() == "TEXT" else float if "DOUBLE" in row["type"].upper() else int
        )
        found[row["name"]] = (kind,) if row["is_required"] or row["pk"] else (kind, type(None))
    return found


def contents(tx: Transaction) -> dict[str, Mapping[str, tuple[type, ...]]]:
    """The columns of every kind of record, by its type; `inbox` is what a turn holds of the message that queued it."""
    found: dict[str, Mapping[str, tuple[type, ...]]] = {
        kind.type: columns(tx, kind.table, kind.omitted) for kind in KINDS
    }
    found["session"] = columns(tx, "sessions")
    found["person"] = columns(tx, "persons")
    found["identity"] = columns(tx, "identities", ("person_id",))
    found["inbox"] = columns(tx, "inbox", INBOX_OMITTED)
    return found
