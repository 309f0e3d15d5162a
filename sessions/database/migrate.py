"""Runs the numbered SQL files of `migrations/` and refuses a schema newer than the code.

Owns the table `schema_version`. Taking a snapshot before is the database's affair (`sqlite.py`), since how differs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from sessions.database.base import COLUMN_TYPES, Transaction
from sessions.errors import SchemaTooNew

_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations in order. Raises: ValueError if the numbers have a gap."""
    found = []
    for entry in resources.files("sessions.database").joinpath("migrations").iterdir():
        if match := _NAME.match(entry.name):
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        msg = "migration numbers have a gap"
        raise ValueError(msg)
    return tuple(found)


def current_version(tx: Transaction) -> int:
    """The version the database has; 0 for an empty one."""
    if tx.dialect == "sqlite":
        exists = tx.row("SELECT 1 AS x FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'")
    else:
        exists = tx.row("SELECT 1 AS x WHERE to_regclass('schema_version') IS NOT NULL")
    if exists is None:
        return 0
    row = tx.row("SELECT MAX(version) AS version FROM schema_version")
    return int(row["version"] or 0) if row else 0


def pending(tx: Transaction) -> Sequence[Migration]:
    """What is to be run. Raises: SchemaTooNew."""
    version = current_version(tx)
    known = migrations()
    if version > len(known):
        raise SchemaTooNew(
            f"the database has schema version {version}, this Palaver knows up to {len(known)}",
            "Start the newer Palaver again, or restore the snapshot taken before its migration.",
        )
    return known[version:]


def apply(tx: Transaction, migration: Migration, now: int) -> None:
    """Run one migration inside the given transaction."""
    sql = migration.sql
    for placeholder, text in COLUMN_TYPES[tx.dialect].items():
        sql = sql.replace(placeholder, text)
    for statement in statements(sql):
        tx.execute(statement)
    tx.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)"
    )
    tx.execute(
        "INSERT INTO schema_version (version, name, applied_at) VALUES (:version, :name, :now)",
        {"version": migration.version, "name": migration.name, "now": now},
    )


def statements(sql: str) -> list[str]:
    """The single statements of a script. Our scripts hold no semicolon inside strings or triggers."""
    bare = re.sub(r"--[^\n]*", "", sql)
    return [statement.strip() for statement in bare.split(";") if statement.strip()]
