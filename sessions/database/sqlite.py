"""SQLite behind the `Database` port: one writer with group commit, readers beside it, one process that owns the file.

Owns transactions and their durability. The file is `sqlite_file.py`, what an error means is `sqlite_errors.py`, and what is stored
is none of its business.

How a write becomes durable: operations that queue up while a commit is under way become the next transaction; if
one of them fails, all run again in savepoints of their own, so that it undoes only itself. WAL with synchronous=FULL:
the commit returns after the fsync, and only then do the callers continue. Measured before the design was chosen: about
ten times the turns per second of one commit per operation where an fsync takes a millisecond.
"""

import asyncio
import contextlib
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import aiosqlite
import structlog

from sessions.database import migrate, sqlite_file
from sessions.database.base import Parameters, Ran, Row, RowSecurity, Seal, Statement, Transaction
from sessions.database.pages import wipe_unused
from sessions.database.parameters import numbered
from sessions.database.sqlite_errors import RESTORE_HINT, TransactionLost, translated, translating
from sessions.database.values import storable
from sessions.errors import StoreCorrupt, StoreUnavailable, in_one_line
from sessions.sealing import PLAIN, opener
from sessions.sealing import begin as begin_seal
from sessions.sealing import find as find_seal

T = TypeVar("T")

LARGEST_BATCH: Final = 500
CHECKED_AT_OPEN_BYTES: Final = (
    64 * 1024 * 1024
)  # larger ones would hold up every start; `palaver verify` and the daemon's upkeep look at them

_ROWS_AT_ONCE: Final = 64
"""Rows of one INSERT. More are hardly faster, and the widest table's would be past what SQLite numbers."""
_NUMBER: Final = re.compile(r"\$(\d+)")

_WIPED_PAGES: Final = 4000
"""Pages that are looked through at a time, which takes some ten milliseconds."""
_WIPE_PAUSE_S: Final = 0.02

log = structlog.get_logger()


class _Connection(aiosqlite.Connection):
    """aiosqlite has no public way to run a function in its thread; this is the one place that uses the protected one."""

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        result: T = await self._execute(lambda: function(self._conn))  # type: ignore[no-untyped-call]  # aiosqlite leaves it untyped
        return result


class SqliteTransaction:
    """`Transaction` over an open sqlite3 connection."""

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, connection: sqlite3.Connection, seal: Seal = PLAIN) -> None:
        self._connection = connection
        self.seal = seal
        self._open: Callable[[Row], Row] | None = None if seal is PLAIN else opener(seal)

    def execute(self, sql: str, parameters: Parameters = {}) -> int:
        return self._run(sql, parameters).rowcount

    def row(self, sql: str, parameters: Parameters = {}) -> Row | None:
        cursor = self._run(sql, parameters)
        values = cursor.fetchone()
        if values is None:
            return None
        row: Row = dict(zip([column[0] for column in cursor.description], values, strict=True))
        return row if self._open is None else self._open(row)

    def rows(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        return self._all(self._run(sql, parameters))

    def together(self, statements: Sequence[Statement]) -> list[Ran]:
        ran = []
        for sql, parameters in statements:
            cursor = self._run(sql, parameters)
            rows = self._all(cursor)  # what RETURNING gives is counted when it has been read
            ran.append(Ran(cursor.rowcount, rows))
        return ran

    def defer(self, sql: str, parameters: Parameters = {}) -> None:
        self._run(sql, parameters)

    def _all(self, cursor: sqlite3.Cursor) -> list[Row]:
        found = cursor.fetchall()
        if not found:
            return []
        names = [column[0] for column in cursor.description]
        rows: list[Row] = [dict(zip(names, values, strict=True)) for values in found]
        return rows if self._open is None else [self._open(row) for row in rows]

    def insert_many(self, into: str, row: str, values: Sequence[object], tail: str = "") -> None:
        # Many rows a statement: each statement gives the interpreter's lock away and waits to have it back, which beside a
        # thread that reads what is to be stored next took longer than storing.
        width = len(numbered(row)[1])
        try:
            for at in range(0, len(values), width * _ROWS_AT_ONCE):
                some = values[at : at + width * _ROWS_AT_ONCE]
                rows = _repeated(row, len(some) // width)
                self._connection.execute(f"INSERT INTO {into} VALUES {rows} {tail}", some)
        except UnicodeEncodeError:  # those before it stand, so this cannot be mended and tried again
            raise ValueError("a text holds half a character") from None

    def _run(self, sql: str, parameters: Parameters) -> sqlite3.Cursor:
        cursor = self._connection.cursor()
        cursor.row_factory = None  # names are put to the values once for all rows, not by a call for each
        statement, pick = _by_place(sql)
        values = pick(parameters)
        try:
            return cursor.execute(statement, values)
        except UnicodeEncodeError:  # half a character; nothing ran yet
            mended = [storable(value) if isinstance(value, str) else value for value in values]
            return cursor.execute(statement, mended)

    def narrowed(self, to: Parameters) -> Transaction:
        return self


@lru_cache(maxsize=1024)
def _by_place(sql: str) -> tuple[str, Callable[[Parameters], Sequence[object]]]:
    """The statement with `?1`, `?2`, … and what puts the values in that order: by name, SQLite takes half a microsecond for each."""
    statement, names = numbered(sql, "?")
    if len(names) > 1:
        return statement, itemgetter(*names)
    return statement, lambda parameters: [parameters[name] for name in names]


@lru_cache(maxsize=256)
def _repeated(row: str, times: int) -> str:
    """The row of a VALUES clause that many times, its parameters numbered through."""
    statement, names = numbered(row)
    parts = _NUMBER.split(statement)  # text and number in turn
    return ", ".join(
        "".join(
            f"?{int(part) + at * len(names)}" if number % 2 else part for number, part in enumerate(parts)
        )
        for at in range(times)
    )


class _Operation:
    """A queued write and the future of its caller."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[Transaction], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class SqliteDatabase:
    """The default store. Make it with `await SqliteDatabase.open(path)`."""

    dialect: Literal["sqlite"] = "sqlite"
    row_security: Final = RowSecurity(None, "a file has none: whoever may read it reads all")

    def __init__(
        self,
        path: Path,
        writer: _Connection | None,
        readers: list[_Connection],
        lock: int | None,
        seal: Seal = PLAIN,
    ) -> None:
        self.path = path
        self.seal = seal
        self._writer = writer
        self._readers = readers
        self._idle_readers: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
        for reader in readers:
            self._idle_readers.put_nowait(reader)
        self._lock = lock
        self._queue: list[_Operation] = []
        self._wake = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._flusher: asyncio.Task[None] | None = None
        self.after_commit: Callable[[int], None] | None = None
        """Called in the writer's thread with the number of each commit, right after it; fault tests die there."""
        self.commits = 0
        self._leaves_a_log = False
        """Whether the file had no log before it was opened for reading, which makes one and may not remove it."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        readers: int = 2,
        busy_timeout_s: float = 5,
        keys: Sequence[str] = (),
        now: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> Self:
        """Open or create the file, become its only owner and bring its schema up to date; with keys, encrypt what is written.

        Raises: StoreUnavailable (owned by another process, unwritable, locked, keys that do not fit), StoreCorrupt, SchemaTooNew.
        """
        lock = sqlite_file.own(path)
        connections: list[_Connection] = []
        try:
            with translating(path):
                writer = await _connect(path, busy_timeout_s)
                connections.append(writer)
                seal = await writer.run(lambda connection: _prepare(connection, path, now(), keys))
                for _ in range(readers):
                    connections.append(await _connect(path, busy_timeout_s, is_reader=True))
        except BaseException:
            for connection in reversed(connections):
                with contextlib.suppress(sqlite3.Error):
                    await connection.close()
            os.close(lock)
            raise
        database = cls(path, writer, connections[1:], lock, seal)
        database._flusher = asyncio.create_task(database._flush_forever(), name="sqlite-writer")
        return database

    @classmethod
    async def open_beside(cls, path: Path, *, busy_timeout_s: float = 5, keys: Sequence[str] = ()) -> Self:
        """Open for reading only, beside a daemon that may own the file. Writes are refused.

        Raises: StoreUnavailable if there is no such file or the keys do not fit, StoreCorrupt, SchemaTooNew.
        """
        if not path.exists():  # noqa: ASYNC240 - one look at a local folder
            raise StoreUnavailable(
                f"there is no database at {path} yet", "Start the daemon once, or check database_url."
            )
        sqlite_file.refuse_folder(path)
        is_alone = not sqlite_file.log_of(path).exists()
        with translating(path):
            await asyncio.to_thread(sqlite_file.settle, path, busy_timeout_s)
            reader = await _connect(path, busy_timeout_s, is_reader=True)
            try:
                await reader.run(lambda connection: sqlite_file.check_foreign(connection, path))
                if await reader.run(lambda connection: migrate.pending(SqliteTransaction(connection))):
                    raise StoreUnavailable(
                        "the database has an older schema", "Run `palaver migrate` or start the daemon."
                    )
                seal = await reader.run(lambda connection: find_seal(SqliteTransaction(connection), keys))
            except BaseException:
                await reader.close()
                raise
        database = cls(path, None, [reader], None, seal or PLAIN)
        database._leaves_a_log = is_alone
        return database

    async def write(self, work: Callable[[Transaction], T], *, key: str = "", may_mix: bool = False) -> T:
        if self._writer is None:
            raise StoreUnavailable(
                "this database was opened for reading", "Stop the daemon that owns it and try again."
            )
        if self._closing is not None:
            raise StoreUnavailable("the database is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(_Operation(work, future))
        self._wake.set()
        return await future

    async def read(self, work: Callable[[Transaction], T]) -> T:
        reader = await self._idle_readers.get()
        try:
            if self._closing is not None:
                raise StoreUnavailable("the database is closed")
            with translating(self.path):
                return await reader.run(lambda connection: _in_one_view(connection, work, self.seal))
        finally:
            self._idle_readers.put_nowait(reader)

    async def wipe(self, *, whole: bool = False) -> bool:
        """Overwrite what nothing refers to any more: the log, and the unused parts of pages. `whole` writes the file anew.

        In short stretches, between which others write; then what was written since is none of what was removed before.
        """
        if self._writer is None:
            raise StoreUnavailable("this database was opened for reading")
        first: int | None = 1
        while first is not None:
            if self._closing is not None:
                raise StoreUnavailable("the database is closed")
            with translating(self.path):
                is_empty, first = await self._writer.run(
                    lambda connection, first=first, whole=whole: _wipe(
                        connection, self.path, first, whole=whole
                    )  # type: ignore[misc]  # bound early
                )
            if not is_empty:
                return False
            whole = False
            await asyncio.sleep(_WIPE_PAUSE_S)
        return True

    async def check(self) -> str | None:
        """What SQLite finds wrong with a file that was too large to be looked through at the start; None if nothing.

        In a connection of its own, beside everybody else's work: some seconds for each gigabyte.
        """
        if self.path.stat().st_size <= CHECKED_AT_OPEN_BYTES:
            return None
        return await asyncio.to_thread(sqlite_file.quick_check, self.path)

    async def others(self) -> int:
        return 0

    def free_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(self.path.parent).free
        except OSError:
            return None

    async def close(self) -> None:
        """Finish what is queued, fold the log into the file and let go of it. May be called twice, also at the same time."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="sqlite-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._wake.set()
        try:
            if self._flusher is not None:
                await self._flusher
            for connection in [*self._readers, *([self._writer] if self._writer is not None else [])]:
                try:
                    await connection.close()
                except sqlite3.Error as error:  # what is committed is in the log, and the next start reads it
                    log.error("store.close_failed", file=str(self.path), reason=str(error))
            if self._leaves_a_log:
                await asyncio.to_thread(sqlite_file.take_away_log, self.path)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    async def _flush_forever(self) -> None:
        assert self._writer is not None
        while True:
            if not self._queue:
                if self._closing is not None:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._queue = self._queue[:LARGEST_BATCH], self._queue[LARGEST_BATCH:]
            fault: Exception | None = None
            try:
                await self._writer.run(lambda connection, batch=batch: self._commit(connection, batch))  # type: ignore[misc]  # batch is bound early
            except Exception as error:
                log.exception("store.writer_failed", file=str(self.path))
                fault = error
            for operation in batch:
                if operation.future.done():  # its caller was cancelled; the effect stands all the same
                    continue
                failure = operation.error or fault
                if failure is None:
                    operation.future.set_result(operation.result)
                elif isinstance(failure, StopIteration):
                    operation.future.set_exception(_as_runtime_error(failure))
                else:
                    operation.future.set_exception(failure)

    def _commit(self, connection: sqlite3.Connection, batch: list[_Operation]) -> None:
        """Run a batch in one transaction; never raises. Runs in the writer's thread.

        Nearly always everything succeeds, so the first try does without savepoints, which cost a third of the statements.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
        except (
            sqlite3.Error
        ) as error:  # locked by another program, say: nothing that one of them could have caused
            for operation in batch:
                operation.error = translated(error, self.path)
            return
        try:
            tx = SqliteTransaction(connection, self.seal)
            for operation in batch:
                operation.result = operation.work(tx)
                if not connection.in_transaction:  # else those after it would each commit by themselves
                    raise TransactionLost
            connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - handed to the callers, whatever it is
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if len(batch) > 1:
                self._commit_apart(connection, batch)
            else:
                batch[0].error = translated(error, self.path)
            return
        self._note_commit()

    def _commit_apart(self, connection: sqlite3.Connection, batch: list[_Operation]) -> None:
        """Run a batch again, each operation in a savepoint, so that a failing one undoes only itself."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            for operation in batch:
                _run_in_savepoint(connection, operation, self.path, self.seal)
                if not connection.in_transaction:  # SQLite gave up the whole of it (disk full, I/O error)
                    raise TransactionLost
            connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - handed to the callers, whatever it is
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for operation in batch:
                if isinstance(error, TransactionLost):
                    operation.error = None
                    self._commit(connection, [operation])
                else:
                    operation.error = operation.error or translated(error, self.path)
            return
        self._note_commit()

    def _note_commit(self) -> None:
        self.commits += 1
        if self.after_commit is not None:
            self.after_commit(self.commits)


def _as_runtime_error(error: StopIteration) -> RuntimeError:
    """As in a generator: StopIteration cannot pass through a future, and whoever waited would wait for ever."""
    runtime_error = RuntimeError("work raised StopIteration")
    runtime_error.__cause__ = error
    return runtime_error


def _run_in_savepoint(connection: sqlite3.Connection, operation: _Operation, path: Path, seal: Seal) -> None:
    connection.execute("SAVEPOINT operation")
    try:
        operation.result = operation.work(SqliteTransaction(connection, seal))
    except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
        operation.error = translated(error, path)
        if connection.in_transaction:
            connection.execute("ROLLBACK TO operation")
    if connection.in_transaction:
        connection.execute("RELEASE operation")


def _wipe(connection: sqlite3.Connection, path: Path, first: int, *, whole: bool) -> tuple[bool, int | None]:
    """Whether it could be done, and the page to go on with. Runs in the writer's thread, so nobody writes meanwhile."""
    if whole:
        connection.execute("VACUUM")
    if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()["busy"]:
        return False, None  # a reader that began before still needs the log
    connection.execute(
        "PRAGMA shrink_memory"
    )  # or a page in memory would bring back what is overwritten in the file
    size = connection.execute("PRAGMA page_size").fetchone()["page_size"]
    rest = wipe_unused(path, size, first, _WIPED_PAGES)
    return True, first + _WIPED_PAGES if rest else None


def _in_one_view(connection: sqlite3.Connection, work: Callable[[Transaction], T], seal: Seal) -> T:
    connection.execute("BEGIN")
    try:
        return work(SqliteTransaction(connection, seal))
    except StopIteration as error:
        raise _as_runtime_error(error) from error
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


async def _connect(path: Path, busy_timeout_s: float, *, is_reader: bool = False) -> _Connection:
    connection = _Connection(
        lambda: sqlite_file.connect(path, busy_timeout_s, is_reader=is_reader), iter_chunk_size=64
    )
    connection._thread.daemon = True  # noqa: SLF001 - aiosqlite offers no other way; a stuck disk must not keep the process from ending
    connection._thread.name = f"sqlite-{'reader' if is_reader else 'writer'}"  # noqa: SLF001 - as above
    try:
        await connection
    except BaseException:
        await asyncio.to_thread(connection._thread.join)  # noqa: SLF001 - aiosqlite only asked it to end
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, now: int, keys: Sequence[str]) -> Seal:
    """Check that the file is sound and ours and the keys fit, set it up, migrate. Runs in the writer's thread."""
    sqlite_file.check_foreign(connection, path)
    if path.stat().st_size <= CHECKED_AT_OPEN_BYTES:
        result = connection.execute("PRAGMA quick_check(1)").fetchone()["quick_check"]
        if result != "ok":
            raise StoreCorrupt(f"{path} is damaged: {in_one_line(result)}", RESTORE_HINT)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 2000")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten, not only forgotten
    tx = SqliteTransaction(connection)
    waiting = migrate.pending(tx)
    if waiting and migrate.current_version(tx):
        sqlite_file.snapshot(connection, path, migrate.current_version(tx))
    for migration in waiting:
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrate.apply(tx, migration, now)
            connection.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        log.info("store.schema_migrated", version=migration.version, name=migration.name)
    return _find_or_begin_seal(connection, keys, now)


def _find_or_begin_seal(connection: sqlite3.Connection, keys: Sequence[str], now: int) -> Seal:
    connection.execute("BEGIN IMMEDIATE")
    try:
        seal = begin_seal(SqliteTransaction(connection), keys, now)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return seal
