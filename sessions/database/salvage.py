"""Saving what is readable of a damaged SQLite store into a new one, and saying what was lost.

Owns reading around damage. Each table is read by ranges of its row numbers; a range that cannot be read is halved until the
pages at fault stand alone. Behind them, and when the list of tables itself is damaged, rows are found page by page (`pages.py`).
Derived tables (search index, statistics) are not read but made anew by the new database. What hangs on a lost row is kept: a
session of which only messages are left becomes an archived one that the operator can read and export.
"""

import asyncio
import contextlib
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sessions.database import migrate
from sessions.database.pages import Pages
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import StoreCorrupt, StoreUnavailable
from sessions.transfer.records import END_REASONS, PERSON_ROLES, ROLES, SCOPES, STATUSES, TURN_STATUSES

Values = tuple[object, ...]

TABLES: Final = (
    "seals persons identities channels cursors sessions session_variables inbox turns messages steps tool_calls errors"
    " summaries session_links session_tasks session_events outbox holds quarantine audit erasures questions"
).split()
"""What is saved, in the order in which rows refer to each other."""

_MOST_PROBES: Final = 20_000
"""Failing reads of one table after which the rest of its unreadable ranges is given up unhalved."""
_PAGE: Final = 500
_LAST_ROW: Final = 2**40

_UNREADABLE: Final = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file ends in; SQLite quotes what it stumbled over, which need not be text."""

Progress = Callable[[str, int], None]
"""Called with the table and how many of its rows were read."""


@dataclass
class Salvaged:
    """What became of one table."""

    table: str
    rows: int = 0
    """Saved."""
    refused: int = 0
    """Read, but contradicting what was saved before them (twice the same key) or the schema (bytes where a text belongs)."""
    unreadable: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of row numbers, first and last, that could not be read by the table; not each need have held a row."""
    carved: int = 0
    """Rows among those saved that were found page by page, past the damage."""
    is_unknown: bool = False
    """The file no longer says where the table is: all that was saved of it was found page by page."""


@dataclass(frozen=True, slots=True)
class Report:
    tables: Sequence[Salvaged]
    placeholders: int
    """Sessions and persons that are lost themselves, while something of theirs was saved."""
    orphans: int
    """Rows left out in the end because what they belong to is lost."""
    is_sound: bool = True
    """SQLite finds nothing wrong with the file, so nothing can be missing that no range tells of."""

    @property
    def is_complete(self) -> bool:
        return (
            self.is_sound
            and not self.orphans
            and not self.placeholders
            and not any(table.unreadable or table.refused or table.is_unknown for table in self.tables)
        )


async def salvage(damaged: Path, target: Path, now: int, *, progress: Progress = lambda *_: None) -> Report:
    """Read `damaged` as far as it goes into a new database at `target`. Sealed values are taken over as they are.

    Raises: StoreUnavailable (no such file, `target` is there), StoreCorrupt when there is nothing to be saved.
    """
    _check_names(damaged, target)
    half = target.with_name(f"{target.name}.part")
    _remove(half)
    try:
        database = await SqliteDatabase.open(half)
        await database.close()
        report = await asyncio.to_thread(_salvage, damaged, half, now, progress)
        half.replace(target)
        return report
    finally:
        _remove(half)


def _check_names(damaged: Path, target: Path) -> None:
    if not damaged.exists():
        raise StoreUnavailable(f"there is no file {damaged}", "Check the name.")
    if target.exists():
        raise StoreUnavailable(f"{target} exists already", "Name a new file; it is made.")


def _remove(half: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal", ".lock"):
        half.with_name(half.name + ending).unlink(missing_ok=True)


def _salvage(damaged: Path, half: Path, now: int, progress: Progress) -> Report:
    reports = {table: Salvaged(table) for table in TABLES}
    with contextlib.closing(sqlite3.connect(half, isolation_level=None)) as into:
        into.execute(
            "PRAGMA foreign_keys = OFF"
        )  # what a row refers to may be lost; that is looked after at the end
        shapes = {shape.table: shape for shape in _shapes(into)}
        with _reading(damaged) as source:
            is_sound = source is not None and _is_sound(source)
            for table, report in reports.items():
                if source is None:
                    report.is_unknown = True
                    report.unreadable.append((-_LAST_ROW, _LAST_ROW))
                    continue
                for columns, rows in _batches(source, table, report):
                    saved = _keep(into, shapes[table], columns, rows)
                    report.rows += saved
                    report.refused += len(rows) - saved
                    progress(table, report.rows)
        if not is_sound:
            _carve(damaged, into, shapes, reports, progress)
        into.execute("BEGIN")
        placeholders = _stand_in(into)
        orphans = _drop_orphans(into)
        _settle(into, now)
        into.execute("COMMIT")
        into.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(half, "rb") as file:  # noqa: PTH123 - only its descriptor is wanted
        os.fsync(file.fileno())
    if not any(report.rows for report in reports.values()):
        raise StoreCorrupt(f"nothing of Palaver's can be found in {damaged}", "Put back a backup.")
    return Report(list(reports.values()), placeholders, orphans, is_sound)


def _is_sound(source: sqlite3.Connection) -> bool:
    """Whether SQLite finds every page where it belongs: one in another's place can be read, and hides what was there."""
    try:
        return bool(source.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
    except _UNREADABLE:
        return False


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """The damaged file, with whatever its log still holds; None when not even its list of tables can be read."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        try:
            connection.execute(
                "PRAGMA cell_size_check = ON"
            )  # a page whose cells overlap is not taken for sound
            names = {
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
        except _UNREADABLE:
            yield None
            return
        if not names & {"sessions", "messages"}:
            raise StoreCorrupt(f"{path} has no table of Palaver's", "Name another file.")
        yield connection


def _batches(
    source: sqlite3.Connection, table: str, report: Salvaged
) -> Iterator[tuple[list[str], list[Values]]]:
    """The rows of a table that can be read, in batches, with the names of their columns."""
    columns = [row[1] for row in source.execute(f"PRAGMA table_info({table})")]
    if not columns:  # an older schema did not have it
        return
    listed = ", ".join(columns)
    ranges = [_rows_of(source, table)]
    probes = 0
    while ranges:
        first, last = ranges.pop()
        after = first - 1
        while True:
            try:
                rows = source.execute(
                    f"SELECT rowid, {listed} FROM {table} WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?",
                    (after, last, _PAGE if probes == 0 else 20),
                ).fetchall()
            except _UNREADABLE:
                probes += 1
                first = after + 1
                if first >= last or probes > _MOST_PROBES:
                    _note(report, first, last)
                else:
                    middle = (first + last) // 2
                    ranges += [(middle + 1, last), (first, middle)]
                break
            if not rows:
                break
            yield columns, [row[1:] for row in rows]
            after = rows[-1][0]


def _rows_of(source: sqlite3.Connection, table: str) -> tuple[int, int]:
    """The first and the last row number of a table, or what surely encloses them."""
    found = []
    for which, otherwise in (("MIN", 1), ("MAX", 0)):
        try:
            row = source.execute(f"SELECT {which}(rowid) FROM {table}").fetchone()
            found.append(int(row[0]) if row[0] is not None else otherwise)
        except _UNREADABLE:
            found.append(1 if which == "MIN" else _highest(source, table))
    return found[0], found[1]


def _highest(source: sqlite3.Connection, table: str) -> int:
    with contextlib.suppress(*_UNREADABLE):
        row = source.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        if row is not None:
            return int(row[0])
    return _LAST_ROW


def _note(report: Salvaged, first: int, last: int) -> None:
    if report.unreadable and report.unreadable[-1][1] == first - 1:
        report.unreadable[-1] = (report.unreadable[-1][0], last)
    else:
        report.unreadable.append((first, last))


_WORDS: Final[Mapping[str, Mapping[str, AbstractSet[object]]]] = {
    "persons": {"role": PERSON_ROLES},
    "channels": {"kind": frozenset({"direct", "group"})},
    "sessions": {"status": STATUSES, "scope": SCOPES, "end_reason": END_REASONS},
    "inbox": {"outcome": frozenset({"accepted", "command", "declined"})},
    "turns": {"status": TURN_STATUSES},
    "messages": {"role": ROLES},
    "steps": {"kind": frozenset({"answer", "tool_result"})},
    "tool_calls": {"outcome": frozenset({"ok", "error"})},
    "session_links": {"kind": frozenset({"notebook", "integration"})},
    "session_events": {"from_status": STATUSES, "to_status": STATUSES},
    "outbox": {"kind": frozenset({"answer", "command", "notice", "error"})},
    "questions": {"subject": frozenset({"session", "me"})},
}
"""Columns that hold one of a few words: they tell damage, and tables of the same shape apart."""

_ID_COLUMNS: Final = frozenset({"session_id", "person_id", "turn_id"})
_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


@dataclass(frozen=True, slots=True)
class _Shape:
    """How the rows of a table look."""

    table: str
    names: Sequence[str]
    kinds: Sequence[type]
    may_be_null: Sequence[bool]
    fewest: int
    """Columns that the first version of the table had."""
    row_id: int | None
    """The column that is the row number, and empty in the record."""

    def takes(self, names: Sequence[str], values: Sequence[object]) -> bool:
        """Whether a row that a table gave can be one of this: SQLite would store anything in any column."""
        words = _WORDS.get(self.table, {})
        for name, value in zip(names, values, strict=True):
            number = self.names.index(name)
            if value is None:
                if not self.may_be_null[number]:
                    return False
            elif type(value) is not self.kinds[number] or (name in words and value not in words[name]):
                return False
        return True

    def fits(self, values: Sequence[object]) -> bool:
        """Whether a row that was found on a page, with nothing said of its table, looks like one of this."""
        if not self.fewest <= len(values) <= len(self.names):
            return False
        words = _WORDS.get(self.table, {})
        for number, value in enumerate(values):
            name, kind = self.names[number], self.kinds[number]
            if number == self.row_id:
                fits = value is None
            elif value is None:
                fits = self.may_be_null[number]
            elif type(value) is not kind:
                fits = False
            elif name in words:
                fits = value in words[name]
            elif name in _ID_COLUMNS or (name == "id" and kind is str):
                fits = _ID.fullmatch(str(value)) is not None
            else:
                fits = name != "account" or "." in str(value)
            if not fits:
                return False
        return True


_ADD: Final = re.compile(r"^ALTER TABLE (\w+) ADD COLUMN", re.MULTILINE)


def _shapes(into: sqlite3.Connection) -> list[_Shape]:
    # Rows from before a migration that added a column are shorter.
    added = Counter(
        table
        for migration in migrate.migrations()
        for sql in (migration.sql, migration.dialect_sql.get("sqlite", ""))
        for table in _ADD.findall(sql)
    )
    found = []
    for table in TABLES:
        columns = into.execute(f"PRAGMA table_info({table})").fetchall()
        sql = into.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        has_row_id = "id INTEGER PRIMARY KEY" in " ".join(sql.split())
        found.append(
            _Shape(
                table,
                [column[1] for column in columns],
                [{"TEXT": str, "BLOB": bytes}.get(column[2], int) for column in columns],
                [not column[3] and not column[5] for column in columns],
                len(columns) - added[table],
                0 if has_row_id else None,
            )
        )
    return found


def _carve(
    damaged: Path,
    into: sqlite3.Connection,
    shapes: Mapping[str, _Shape],
    reports: Mapping[str, Salvaged],
    progress: Progress,
) -> None:
    """Look through all pages for rows that the tables could not give."""
    with contextlib.closing(Pages(damaged)) as pages:
        for leaf in pages.leaves():
            candidates = [
                shape
                for shape in shapes.values()
                if leaf.rows and all(shape.fits(values) for _, values in leaf.rows)
            ]
            if len(candidates) != 1:  # not ours, or rows that could be of two tables
                continue
            shape = candidates[0]
            report = reports[shape.table]
            for row, values in leaf.rows:
                full = [row if number == shape.row_id else value for number, value in enumerate(values)]
                saved = _keep(into, shape, shape.names[: len(values)], [tuple(full)])
                report.carved += saved
                report.rows += saved
            progress(shape.table, report.rows)


def _keep(into: sqlite3.Connection, shape: _Shape, columns: Sequence[str], rows: Sequence[Values]) -> int:
    """Put rows in their place. Gives how many went in."""
    names = [name for name in columns if name in shape.names]
    chosen = [number for number, name in enumerate(columns) if name in shape.names]
    sql = f"INSERT OR IGNORE INTO {shape.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    into.execute("BEGIN")
    saved = 0
    for row in rows:
        values = [row[number] for number in chosen]
        if not shape.takes(names, values):
            continue
        with contextlib.suppress(sqlite3.IntegrityError, OverflowError):
            saved += into.execute(sql, values).rowcount
    into.execute("COMMIT")
    return saved


def _stand_in(into: sqlite3.Connection) -> int:
    """Make what is missing and can be made: the session of messages that were saved, the person of a session or identity."""
    made = into.execute(
        "INSERT INTO sessions (id, key, scope, platform, account, channel, person_id, status, end_reason, title, next_position,"
        " message_count, created_at, last_activity_at, ended_at, archived_at)"
        " SELECT session_id, '[\"salvaged\",\"' || session_id || '\"]', 'member', 'salvaged', 'salvaged', '', MAX(person_id),"
        " 'archived', 'completed', 'Salvaged conversation', MAX(position) + 1, COUNT(*), MIN(created_at), MAX(created_at),"
        " MAX(created_at), MAX(created_at) FROM messages"
        " WHERE session_id NOT IN (SELECT id FROM sessions) GROUP BY session_id"
    ).rowcount
    made += into.execute(
        "INSERT INTO persons (id, display_name, created_at, last_seen_at)"
        " SELECT person_id, MIN(display_name), MIN(first_seen_at), MAX(first_seen_at) FROM identities"
        " WHERE person_id NOT IN (SELECT id FROM persons) GROUP BY person_id"
    ).rowcount
    made += into.execute(
        "INSERT INTO persons (id, display_name, created_at, last_seen_at)"
        " SELECT person_id, 'somebody', MIN(created_at), MAX(last_activity_at) FROM sessions"
        " WHERE person_id IS NOT NULL AND person_id NOT IN (SELECT id FROM persons) GROUP BY person_id"
    ).rowcount
    return made


def _drop_orphans(into: sqlite3.Connection) -> int:
    """Leave out what belongs to a row that is lost and cannot be made, and replies whose key is not what it must be."""
    dropped = into.execute(
        "DELETE FROM outbox WHERE key NOT LIKE CAST(inbox_id AS TEXT) || '-_-' || CAST(part AS TEXT)"
    ).rowcount
    while found := into.execute("PRAGMA foreign_key_check").fetchall():
        for table, row, _parent, _number in found:
            dropped += into.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,)).rowcount
    return dropped


def _settle(into: sqlite3.Connection, now: int) -> None:
    """Make the counts agree with what was saved, and end turns whose message is lost: nothing could be answered."""
    into.execute(
        "UPDATE turns SET status = 'cancelled', finished_at = ? WHERE status IN ('queued', 'running')"
        " AND inbox_id NOT IN (SELECT id FROM inbox)",
        (now,),
    )
    into.execute(
        "UPDATE inbox SET turn_id = NULL WHERE turn_id IS NOT NULL AND turn_id NOT IN (SELECT id FROM turns)"
    )
    is_copied = "x.turn_id IS NULL AND sessions.forked_from IS NOT NULL"
    for column, table, which in (
        ("message_count", "messages", f" AND NOT ({is_copied})"),
        ("copied_count", "messages", f" AND {is_copied}"),
        ("tool_call_count", "tool_calls", ""),
    ):
        count = f"(SELECT COUNT(*) FROM {table} x WHERE x.session_id = sessions.id{which})"
        into.execute(f"UPDATE sessions SET {column} = {count} WHERE {column} <> {count}")
    for table in ("messages", "turns"):
        last = f"(SELECT COALESCE(MAX(position), 0) FROM {table} x WHERE x.session_id = sessions.id)"
        into.execute(f"UPDATE sessions SET next_position = {last} + 1 WHERE next_position <= {last}")
