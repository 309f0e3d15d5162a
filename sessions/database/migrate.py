"""Runs the numbered SQL files of `migrations/` and refuses a schema newer than the code.

A migration is `NNNN_name.sql` for every database, `NNNN_name.sqlite.sql` or `NNNN_name.postgresql.sql` for one of them, or the
common file and then the one of the dialect. Owns the table `schema_version`. Taking a snapshot before is the database's affair
(`sqlite.py`), since how differs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import cast

from sessions.database.base import COLUMN_TYPES, Dialect, Transaction
from sessions.errors import SchemaTooNew, StoreUnavailable

_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+?)(?:\.(sqlite|postgresql))?\.sql$")

_TOKEN = re.compile(
    r"""
      '(?:[^']|'')*'                      # a string
    | "(?:[^"]|"")*"                      # a quoted name
    | \$(?P<tag>[a-z_]*)\$.*?\$(?P=tag)\$  # a dollar-quoted function body
    | (?P<comment>--[^\n]*|/\*.*?\*/)
    | (?P<word>[A-Za-z_$][\w$]*)
    | (?P<end>;)
    | .
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str
    """For every database."""
    dialect_sql: Mapping[Dialect, str] = field(default_factory=dict)
    """What one kind of database needs besides; it runs after the common part."""


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations in order. Raises: ValueError if the numbers have a gap, or two names share one."""
    files: dict[int, dict[str, str]] = {}
    names: dict[int, str] = {}
    for entry in resources.files("sessions.database").joinpath("migrations").iterdir():
        if match := _NAME.match(entry.name):
            number = int(match[1])
            if names.setdefault(number, match[2]) != match[2]:
                raise ValueError(f"migration numbers have a gap, or {match[1]} is used twice")
            files.setdefault(number, {})[match[3] or ""] = entry.read_text(encoding="utf-8")
    if sorted(files) != list(range(1, len(files) + 1)):
        raise ValueError("migration numbers have a gap")
    return tuple(
        Migration(
            number,
            names[number],
            files[number].get("", ""),
            {cast(Dialect, dialect): sql for dialect, sql in files[number].items() if dialect},
        )
        for number in sorted(files)
    )


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
        kept = "the snapshot" if tx.dialect == "sqlite" else "the backup"
        raise SchemaTooNew(
            f"the database has schema version {version}, this Palaver knows up to {len(known)}",
            f"Start the newer Palaver again, or restore {kept} taken before its migration.",
        )
    return known[version:]


def apply(tx: Transaction, migration: Migration, now: int) -> None:
    """Run one migration inside the given transaction."""
    for part in (migration.sql, migration.dialect_sql.get(tx.dialect, "")):
        for placeholder, text in COLUMN_TYPES[tx.dialect].items():
            part = part.replace(placeholder, text)
        for statement in statements(part):
            if statement == "$PGMQ":
                _install_pgmq(tx)
            else:
                tx.execute(statement)
    tx.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)"
    )
    tx.execute(
        "INSERT INTO schema_version (version, name, applied_at) VALUES (:version, :name, :now)",
        {"version": migration.version, "name": migration.name, "now": now},
    )


def _install_pgmq(tx: Transaction) -> None:
    """Run pgmq's own script, unless it was run here before, by us in another schema or by whoever made the database.

    Raises: StoreUnavailable for one that is too old.
    """
    found = tx.row(
        "SELECT to_regclass('pgmq.meta') IS NOT NULL AS is_there,"
        " to_regprocedure('pgmq.read_grouped_head(text, integer, integer)') IS NOT NULL AS is_new"
    )
    assert found is not None
    if found["is_there"] and not found["is_new"]:
        raise StoreUnavailable(
            "the database has a pgmq that is older than 1.11.1",
            "Bring it up to date: ALTER EXTENSION pgmq UPDATE.",
        )
    if not found["is_there"]:
        for statement in statements(pgmq_sql()):
            tx.execute(statement)


def pgmq_sql() -> str:
    """The script that makes pgmq's schema. The package is only read: importing it would load its whole client."""
    script = metadata.distribution("pgmq").locate_file("pgmq/sql/pgmq.sql")
    return Path(str(script)).read_text(encoding="utf-8")


def statements(sql: str) -> list[str]:
    """The single statements of a script, without comments.

    A semicolon ends one, but not inside strings, quoted names, `$$ … $$`, or between the BEGIN and END of a trigger.
    """
    found: list[str] = []
    current: list[str] = []
    words: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(sql):
        if token["comment"]:
            current.append(" ")
            continue
        if token["end"] and depth == 0:
            found.append("".join(current).strip())
            current, words = [], []
            continue
        if word := (token["word"] or "").upper():
            words.append(word)
            if "TRIGGER" in words[1:3] and words[0] == "CREATE":
                depth += (word in ("BEGIN", "CASE")) - (word == "END")
        current.append(token[0])
    found.append("".join(current).strip())
    return [statement for statement in found if statement]
