"""The two ends of a move as one sees them: whole tables, read in one view and written in one transaction.

Owns how a file and a server are asked for their tables, and how rows get in with ids, counts and sealed values as they were. What
is moved, and what is checked, is `moving.py`.
"""

import contextlib
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
from psycopg.rows import tuple_row

from sessions import queue
from sessions.database import migrate, postgres_scopes
from sessions.database.postgres_connections import OURS, Connection, Connections, Limits
from sessions.database.postgres_transaction import PostgresTransaction

Values = tuple[Any, ...]
Rows = Generator[Values, None, None]
BATCH: Final = 2000

_OWN: Final = frozenset({"statistics_buckets", "search_progress", "schema_version", "leases"})
"""What each database has of its own, or what ends with the nodes that worked there."""


class End(Protocol):
    """One of the two ends, within its one transaction."""

    where: str

    def columns(self) -> dict[str, list[str]]:
        """Every table that holds something, with the columns that can be written, in order of their names."""

    def count(self, table: str) -> int: ...

    def rows(self, table: str, columns: Sequence[str]) -> Rows:
        """To be closed by whoever does not read to the end, in the same thread."""

    def highest_id(self, table: str) -> int:
        """The highest id that was ever given out, though its row may be gone; 0 where there was none."""


class Into(End, Protocol):
    """The end that is written."""

    def load(self, table: str, columns: Sequence[str], rows: Iterator[Values]) -> None: ...

    def begin_after(self, table: str, highest: int) -> None:
        """New ids are greater than this."""


class FileEnd:
    """A SQLite file, read or filled. The triggers stay out of it: what they would count is moved as it is."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.where = str(path)
        self._connection = connection
        self._triggers: list[str] = []

    def columns(self) -> dict[str, list[str]]:
        names = [
            row[0]
            for row in self._connection.execute(
                "SELECT name FROM pragma_table_list WHERE type = 'table' AND schema = 'main' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        return {
            name: sorted(row[1] for row in self._connection.execute(f"PRAGMA table_info({name})"))
            for name in sorted(names)
            if name not in _OWN
        }

    def count(self, table: str) -> int:
        return int(self._connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])

    def rows(self, table: str, columns: Sequence[str]) -> Rows:
        yield from self._connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid")

    def highest_id(self, table: str) -> int:
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return int(row[0]) if row else 0

    def begin(self) -> None:
        """Take the triggers away until `end`."""
        self._connection.execute("PRAGMA foreign_keys = OFF")  # they are looked at in the end
        self._connection.execute("BEGIN IMMEDIATE")
        rows = self._connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        self._triggers = [sql for _, sql in rows]
        for name, _ in rows:
            self._connection.execute(f"DROP TRIGGER {name}")

    def load(self, table: str, columns: Sequence[str], rows: Iterator[Values]) -> None:
        places = ", ".join("?" * len(columns))
        self._connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)

    def begin_after(self, table: str, highest: int) -> None:
        if not self._connection.execute(
            "UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = ?", (highest, table)
        ).rowcount:
            self._connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, highest)
            )

    def end(self) -> list[str]:
        """Bring the triggers back and commit; gives rows whose counterpart is missing, which then are not stored."""
        for sql in self._triggers:
            self._connection.execute(sql)
        # The index of words is made in the background by whoever runs on it.
        self._connection.execute("UPDATE search_progress SET indexed_to = 0")
        missing = [f"{row[0]} → {row[2]}" for row in self._connection.execute("PRAGMA foreign_key_check")]
        if not missing:
            self._connection.execute("COMMIT")
        return missing


class ServerEnd:
    """A PostgreSQL database, read or filled."""

    def __init__(self, connection: Connection, where: str) -> None:
        self.where = where
        self._connection = connection

    def columns(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for table, column in self._all(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relkind = 'r' AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
            " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY 1, 2"
        ):
            if table not in _OWN:
                found.setdefault(table, []).append(column)
        return {table: sorted(columns) for table, columns in found.items()}

    def count(self, table: str) -> int:
        return int(self._all(f"SELECT COUNT(*) FROM {table}")[0][0])

    def rows(self, table: str, columns: Sequence[str]) -> Rows:
        order = " ORDER BY id" if self._sequence(table) else ""
        self._connection.execute(f"DECLARE moving CURSOR FOR SELECT {', '.join(columns)} FROM {table}{order}")
        try:
            while rows := self._all(f"FETCH {BATCH} FROM moving"):
                yield from rows
        finally:
            with contextlib.suppress(psycopg.Error):
                self._connection.execute("CLOSE moving")

    def highest_id(self, table: str) -> int:
        if (sequence := self._sequence(table)) is None:
            return 0
        [(last, is_called)] = self._all(f"SELECT last_value, is_called FROM {sequence}")
        return int(last) if is_called else 0

    def begin(self, tables: Sequence[str]) -> None:
        """Keep everybody else out until the transaction ends, and the triggers away."""
        self._connection.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
        for table in tables:
            self._connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")

    def load(self, table: str, columns: Sequence[str], rows: Iterator[Values]) -> None:
        first = next(rows, None)
        if first is None:
            return
        with self._connection.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in chain([first], rows):
                copy.write_row(row)

    def begin_after(self, table: str, highest: int) -> None:
        if highest and (sequence := self._sequence(table)) is not None:
            self._connection.execute("SELECT setval(CAST($1 AS text)::regclass, $2)", [sequence, highest])

    def empty(self, tables: Sequence[str]) -> None:
        self._connection.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")
        queue.purge(PostgresTransaction(self._connection.statements))

    def queue_turns(self) -> None:
        """Let the turns that are not finished wait for the nodes here."""
        queue.refill(PostgresTransaction(self._connection.statements))

    def end(self, tables: Sequence[str]) -> None:
        for table in tables:
            self._connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        self._connection.execute("COMMIT")
        self._connection.execute("ANALYZE")  # the first turns would be planned for empty tables

    def schema_version(self) -> int:
        return migrate.current_version(PostgresTransaction(self._connection.statements))

    def others(self) -> int:
        """How many more connections of Palaver's there are: daemons, and commands beside them."""
        # Within one transaction the view would show for ever what it showed first.
        self._all("SELECT pg_stat_clear_snapshot()")
        return int(
            self._all(f"SELECT COUNT(*) FROM pg_stat_activity WHERE {OURS} AND pid <> pg_backend_pid()")[0][0]
        )

    def _sequence(self, table: str) -> str | None:
        rows = self._all(
            "SELECT pg_get_serial_sequence($1, 'id') WHERE EXISTS (SELECT 1 FROM pg_attribute"
            " WHERE attrelid = CAST($1 AS text)::regclass AND attname = 'id' AND attidentity <> '')",
            [table],
        )
        return str(rows[0][0]) if rows else None

    def _all(self, sql: str, parameters: Sequence[object] | None = None) -> list[Values]:
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(sql, parameters).fetchall()


@contextlib.contextmanager
def server(url: str, *, is_read_only: bool) -> Iterator[ServerEnd]:
    """A transaction on a server that may take hours; undone unless it was ended. Raises: StoreUnavailable."""
    connections = Connections(url, Limits())
    try:
        with connections.lent(is_patient=True) as connection:
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                if not is_read_only and name == "lock_timeout":
                    continue  # somebody who works there is told of soon
                connection.execute(f"SET {name} = 0")
            level = "REPEATABLE READ READ ONLY" if is_read_only else "READ COMMITTED"
            connection.execute(f"BEGIN ISOLATION LEVEL {level}")
            try:
                postgres_scopes.check_whole(connection, connections.where)
                yield ServerEnd(connection, connections.where)
            finally:
                if not connection.closed:
                    connection.execute("ROLLBACK")
                    connection.close()
    finally:
        connections.close()
