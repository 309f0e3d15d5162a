"""Moving house: everything of one database into another, of the other kind or of the same, counted and compared.

Owns what is moved, in which order, and what must be equal before the new database is used. The copy is read back and compared with
what was read from the old one, row by row, by count and checksum, within the transaction that wrote it: a move that fails or is
interrupted leaves nothing behind. A backup of a server's database is such a move into a file, and restoring it a move back.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import psycopg

from sessions.database import backup, migrate
from sessions.database.postgres import PostgresDatabase
from sessions.database.postgres_connections import Connections, Limits
from sessions.database.postgres_errors import translated
from sessions.database.sqlite import SqliteDatabase, SqliteTransaction
from sessions.database.sqlite_errors import translating
from sessions.database.sqlite_file import own, settle
from sessions.database.stores import BATCH, End, FileEnd, Into, ServerEnd, Values, server
from sessions.errors import StoreCorrupt, StoreUnavailable

Progress = Callable[[float, float], None]
"""Called with how many rows were dealt with, and of how many."""

FIRST: Final = (
    "persons identities channels sessions turns messages message_vectors steps tool_calls summaries"
).split()
"""What others refer to comes before them."""

OWN: Final[Mapping[str, frozenset[str]]] = {
    "sqlite": frozenset(
        f"message_words{part}" for part in ("", "_config", "_content", "_data", "_docsize", "_idx")
    ),
    "postgresql": frozenset(),
}
"""Tables that only one kind has, and makes by itself from the others."""

_BUSY_S: Final = 10.0
_LEAVING_TRIES: Final = 50

DIFFERENT: Final = {"statistics_changes": {"id"}}
"""Columns that only one kind has."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One table, as it is on both sides."""

    table: str
    rows: int
    checksum: str
    """The same for the same rows in whatever order."""


@dataclass(frozen=True, slots=True)
class Move:
    source: str
    target: str
    tables: Sequence[Moved]
    unfinished_turns: int
    """Turns that wait or ran, and go on at the new place."""
    waiting_replies: int
    replaced_rows: int = 0
    """What was in the target before, and was to be replaced."""

    def rows(self, table: str) -> int:
        return next((one.rows for one in self.tables if one.table == table), 0)


@dataclass
class _Sum:
    """Count and checksum of the rows that pass."""

    rows: int = 0
    total: int = 0

    def add(self, row: Values) -> None:
        self.rows += 1
        # Python writes down every value a column can have in a way of its own, and each only in one.
        digest = blake2b(repr(row).encode("utf-8", "backslashreplace"), digest_size=16).digest()
        self.total = (self.total + int.from_bytes(digest, "big")) % 2**128

    def moved(self, table: str) -> Moved:
        return Moved(table, self.rows, f"{self.total:032x}")


def to_server(
    source: Path,
    url: str,
    *,
    replaces: bool = False,
    is_backup: bool = False,
    reader_role: str | None = None,
    progress: Progress = lambda *_: None,
) -> Move:
    """Move a file's content to a server. The file is not changed, and nobody may own it meanwhile, unless it is a backup.

    Raises: StoreUnavailable (owned by a daemon; the target holds something, or somebody works there), StoreCorrupt.
    """
    if not source.exists():
        raise StoreUnavailable(f"there is no database at {source}", "Check the name.")
    lock = None if is_backup else own(source)
    try:
        backup.inspect(source)
        with (
            _current(source) as current,
            _read_file(current, source) as old,
            _translated_server(url),
        ):
            asyncio.run(PostgresDatabase.bring_up_to_date(url, reader_role=reader_role))
            return _fill_server(old, url, replaces=replaces, is_backup=is_backup, progress=progress)
    finally:
        if lock is not None:
            os.close(lock)


def _fill_server(old: FileEnd, url: str, *, replaces: bool, is_backup: bool, progress: Progress) -> Move:
    with server(url, is_read_only=False) as new:
        tables = _tables(old, new)
        _refuse_others(new, "Stop every node and command that works there, then try again.")
        new.begin(list(tables))
        # Keys that somebody set leave a row of their own, before anything was said.
        before = sum(new.count(table) for table in tables if table != "seals")
        if before and not replaces:
            raise StoreUnavailable(
                f"{new.where} is not empty: it has {_counted(new.count('sessions'), 'session')}"
                f" with {_counted(new.count('messages'), 'message')}",
                "Name an empty database"
                + (", or add --force to replace what is there." if is_backup else "; nothing was changed."),
            )
        new.empty(list(tables))
        moved = _copy(old, new, tables, progress)
        new.queue_turns()
        move = _move(new, old.where, moved, before)
        new.end(list(tables))
        return move


def _refuse_others(end: ServerEnd, hint: str) -> None:
    """Raises: StoreUnavailable while anybody else of ours is connected; one who has just left may take a moment."""
    for _ in range(_LEAVING_TRIES):
        others = end.others()
        if not others:
            return
        time.sleep(0.1)
    raise StoreUnavailable(f"{end.where} is in use ({others} connections of Palaver's)", hint)


def to_file(
    url: str,
    target: Path,
    *,
    replaces: bool = False,
    is_backup: bool = False,
    progress: Progress = lambda *_: None,
) -> Move:
    """Move a server's content to a new file, as it is at one moment. A backup is taken while others work; a move is not.

    Raises: StoreUnavailable (the file is there already, no room, somebody works on the server), StoreCorrupt.
    """
    if target.exists() and not replaces:
        hint = "Choose another name, or add --force." if is_backup else "Name a new file; it is made."
        raise StoreUnavailable(f"{target} exists already", hint)
    with (
        _translated_server(url),
        backup._half(target) as half,  # noqa: SLF001 - the same kind of file, made in the same way
    ):
        return _fill_file(url, half, target, is_backup=is_backup, progress=progress)


def _fill_file(url: str, half: Path, target: Path, *, is_backup: bool, progress: Progress) -> Move:
    with server(url, is_read_only=True) as old:
        if old.schema_version() != len(migrate.migrations()):
            raise StoreUnavailable(
                f"{old.where} has the schema of another version",
                "Run `palaver migrate`, or use the version it is of.",
            )
        if not is_backup:
            _refuse_others(old, "Stop every node first: what they take in meanwhile would be left behind.")
        with translating(target), _written_file(half, target) as new, backup._room(target):  # noqa: SLF001 - as above
            tables = _tables(old, new)
            new.begin()
            moved = _copy(old, new, tables, progress)
            move = _move(new, old.where, moved, 0)
            if missing := new.end():
                raise StoreCorrupt(
                    f"rows refer to what is not there: {', '.join(missing[:3])}", "Run `palaver verify`."
                )
        backup.inspect(half)
        with open(half, "rb") as file:  # noqa: PTH123 - only its descriptor is wanted
            os.fsync(file.fileno())
        half.replace(target)
        backup._sync_folder(target.parent)  # noqa: SLF001 - as above
        return move


def _tables(old: End, new: End) -> dict[str, list[str]]:
    """What is moved, in order, with its columns. Raises: StoreCorrupt when the two do not have the same."""
    ours, theirs = old.columns(), new.columns()
    known = OWN["sqlite"] | OWN["postgresql"]
    wanted = (set(ours) | set(theirs)) - known
    found: dict[str, list[str]] = {}
    for table in sorted(wanted, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        left, right = (
            set(columns.get(table, ())) - DIFFERENT.get(table, set()) for columns in (ours, theirs)
        )
        if left != right or not left:
            raise StoreCorrupt(
                f"the table {table} is not the same in {old.where} and {new.where}",
                "Is one of another version?",
            )
        found[table] = sorted(left)
    return found


def _copy(old: End, new: Into, tables: Mapping[str, Sequence[str]], progress: Progress) -> list[Moved]:
    """Load every table, read it back and compare. Raises: StoreCorrupt if anything differs."""
    total = max(1, 2 * sum(old.count(table) for table in tables))
    done = 0

    def counted(rows: Iterator[Values], into: _Sum) -> Iterator[Values]:
        nonlocal done
        for row in rows:
            row = tuple(_storable(value) for value in row)
            into.add(row)
            done += 1
            if done % BATCH == 0:
                progress(done, total)
            yield row

    moved = []
    for table, columns in tables.items():
        read, written = _Sum(), _Sum()
        with contextlib.closing(old.rows(table, columns)) as rows:
            new.load(table, columns, counted(rows, read))
        new.begin_after(table, old.highest_id(table))
        with contextlib.closing(new.rows(table, columns)) as rows:
            for _ in counted(rows, written):
                pass
        if read != written:
            raise StoreCorrupt(
                f"the table {table} is not the same after the move: {read.rows} rows were read, {written.rows} are there",
                "Nothing was stored. Is the disk of either database sound?",
            )
        moved.append(written.moved(table))
    progress(total, total)
    return moved


def _move(new: End, source: str, moved: Sequence[Moved], replaced: int) -> Move:
    turns = sum(1 for row in new.rows("turns", ["status"]) if row[0] in ("queued", "running"))
    replies = sum(1 for row in new.rows("outbox", ["state"]) if row[0] in ("ready", "sending", "uncertain"))
    return Move(source, new.where, moved, turns, replies, replaced)


def _storable(value: object) -> object:
    """PostgreSQL's text holds no NUL; SQLite's does."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value


@contextlib.contextmanager
def _current(path: Path) -> Iterator[Path]:
    """The file with today's schema: itself, or a copy that was brought up to date."""
    with translating(path), backup._opened(path) as connection:  # noqa: SLF001 - the same kind of file
        [version] = connection.execute("SELECT MAX(version) FROM schema_version").fetchone()
    if version == len(migrate.migrations()):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="palaver-") as folder:
        copy = Path(folder) / path.name
        backup.backup(path, copy)
        with backup._opened(copy, mode="rw") as connection:  # noqa: SLF001 - the same kind of file
            tx = SqliteTransaction(connection)
            for migration in migrate.pending(tx):
                connection.execute("BEGIN")
                migrate.apply(tx, migration, int(time.time() * 1000))
                connection.execute("COMMIT")
        yield copy


async def _make_file(path: Path) -> None:
    database = await SqliteDatabase.open(path)
    await database.close()


@contextlib.contextmanager
def _read_file(path: Path, shown_as: Path) -> Iterator[FileEnd]:
    with translating(shown_as):
        settle(path, _BUSY_S)
        with backup._opened(path) as connection:  # noqa: SLF001 - the same kind of file
            connection.execute("BEGIN")
            yield FileEnd(connection, shown_as)


@contextlib.contextmanager
def _written_file(half: Path, shown_as: Path) -> Iterator[FileEnd]:
    """An empty file with today's schema."""
    asyncio.run(_make_file(half))
    half.with_name(f"{half.name}.lock").unlink(missing_ok=True)
    with backup._opened(half, mode="rw") as connection:  # noqa: SLF001 - the same kind of file
        connection.execute("PRAGMA journal_mode = DELETE")
        yield FileEnd(connection, shown_as)


@contextlib.contextmanager
def _translated_server(url: str) -> Iterator[None]:
    """Raises: StoreUnavailable also for an address that is none."""
    where = Connections(url, Limits()).where
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise StoreUnavailable(f"somebody works on {where}", "Stop every node first.") from error
    except psycopg.IntegrityError as error:
        raise StoreCorrupt(
            f"{where} does not take a row: {error.diag.message_primary}",
            "Nothing was stored. `palaver verify` looks at the old database.",
        ) from error
    except psycopg.Error as error:
        raise translated(error, where) from error


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
