"""SQLite behind the `Database` port: one writer with group commit, readers beside it, one process that owns the file.

Owns connections, durability and the translation of SQLite's errors. What is stored is none of its business.

How a write becomes durable: operations that queue up while a commit is under way become the next transaction; if
one of them fails, all run again in savepoints of their own, so that it undoes only itself. WAL with synchronous=FULL:
the commit returns after the fsync, and only then do the callers continue. Measured before the design was chosen: about
ten times the turns per second of one commit per operation where an fsync takes a millisecond.
"""

import asyncio
import contextlib
import errno
import fcntl
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

from sessions.database import migrate
from sessions.database.base import Parameters, Ran, Row, RowSecurity, Seal, Statement, Transaction
from sessions.database.pages import wipe_unused
from sessions.database.parameters import numbered
from sessions.database.values import storable
from sessions.errors import StoreCorrupt, StoreError, StoreUnavailable, in_one_line
from sessions.sealing import PLAIN, opener
from sessions.sealing import begin as begin_seal
from sessions.sealing import find as find_seal

T = TypeVar("T")

APPLICATION_ID: Final = 0x50414C56  # "PALV" in the file's header: refuses other programs' databases
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
        lock = _own(path)
        connections: list[_Connection] = []
        try:
            with _translated(path):
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
        _refuse_folder(path)
        is_alone = not _log_of(path).exists()
        with _translated(path):
            await asyncio.to_thread(_settle, path, busy_timeout_s)
            reader = await _connect(path, busy_timeout_s, is_reader=True)
            try:
                await reader.run(lambda connection: _check_foreign(connection, path))
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

    async def write(self, work: Callable[[Transaction], T], *, key: str = "") -> T:
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
            with _translated(self.path):
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
            with _translated(self.path):
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
        return await asyncio.to_thread(_quick_check, self.path)

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
                await asyncio.to_thread(_take_away_log, self.path)
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
                operation.error = _translate(error, self.path)
            return
        try:
            tx = SqliteTransaction(connection, self.seal)
            for operation in batch:
                operation.result = operation.work(tx)
                if not connection.in_transaction:  # else those after it would each commit by themselves
                    raise _TransactionLost
            connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - handed to the callers, whatever it is
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if len(batch) > 1:
                self._commit_apart(connection, batch)
            else:
                batch[0].error = _translate(error, self.path)
            return
        self._note_commit()

    def _commit_apart(self, connection: sqlite3.Connection, batch: list[_Operation]) -> None:
        """Run a batch again, each operation in a savepoint, so that a failing one undoes only itself."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            for operation in batch:
                _run_in_savepoint(connection, operation, self.path, self.seal)
                if not connection.in_transaction:  # SQLite gave up the whole of it (disk full, I/O error)
                    raise _TransactionLost
            connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - handed to the callers, whatever it is
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for operation in batch:
                if isinstance(error, _TransactionLost):
                    operation.error = None
                    self._commit(connection, [operation])
                else:
                    operation.error = operation.error or _translate(error, self.path)
            return
        self._note_commit()

    def _note_commit(self) -> None:
        self.commits += 1
        if self.after_commit is not None:
            self.after_commit(self.commits)


class _TransactionLost(Exception):
    """SQLite rolled the whole transaction back on its own (disk full, I/O error), and the work hid the reason."""


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
        operation.error = _translate(error, path)
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


def _own(path: Path) -> int:
    """Take the lock file beside the database; held until closed, and given up by the kernel when we die."""
    _refuse_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = path.with_name(path.name + ".lock")
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_to_owner(path.parent, name)
    except OSError as error:
        raise StoreUnavailable(
            f"cannot write in {path.parent}: "
            + ("a part of this path is a file" if isinstance(error, _FILES_IN_PATH) else str(error.strerror)),
            f"A file in the working directory is sqlite:{path.name}, without slashes."
            if path.parent == Path("/")
            else "Make the folder writable for the user that runs Palaver, or set database_url to another place.",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StoreUnavailable(
            f"{path} belongs to another running Palaver" + (f" (process {owner})" if owner else ""),
            "Stop that one first; several nodes need database_url = postgresql://…",
        ) from error
    except OSError as error:
        os.close(lock)
        raise StoreUnavailable(
            f"cannot lock {path}: {error.strerror}", "Network file systems often cannot; use a local disk."
        ) from error
    with contextlib.suppress(
        OSError
    ):  # on a full disk the pid is missed, which only a second owner's message needs
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise StoreUnavailable(
            f"{path} is a folder, not a file",
            f'Name a file in it: database_url = "sqlite://{path}/palaver.db".',
        )


def give_to_owner(model: Path, path: Path) -> None:
    """What root makes belongs to whom the model (the folder, or the file it replaces) belongs to.

    An operator's `sudo palaver …` must not leave files that the daemon, under a user of its own, cannot open. SQLite does the
    same for its log.
    """
    if os.geteuid() == 0:
        owner = model.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


async def _connect(path: Path, busy_timeout_s: float, *, is_reader: bool = False) -> _Connection:
    def connect() -> sqlite3.Connection:
        if not is_reader:
            if not path.exists():
                # conversations are nobody else's to read
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                give_to_owner(path.parent, path)
            # SQLite would open it all the same, and say so only when the first message is to be stored.
            if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        uri = f"{path.absolute().as_uri()}?mode={'ro' if is_reader else 'rw'}"
        connection = sqlite3.connect(
            uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = _as_mapping
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA cache_size = -16000")
            if is_reader:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    connection = _Connection(connect, iter_chunk_size=64)
    connection._thread.daemon = True  # noqa: SLF001 - aiosqlite offers no other way; a stuck disk must not keep the process from ending
    connection._thread.name = f"sqlite-{'reader' if is_reader else 'writer'}"  # noqa: SLF001 - as above
    try:
        await connection
    except BaseException:
        await asyncio.to_thread(connection._thread.join)  # noqa: SLF001 - aiosqlite only asked it to end
        raise
    return connection


def _as_mapping(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _prepare(connection: sqlite3.Connection, path: Path, now: int, keys: Sequence[str]) -> Seal:
    """Check that the file is sound and ours and the keys fit, set it up, migrate. Runs in the writer's thread."""
    _check_foreign(connection, path)
    if path.stat().st_size <= CHECKED_AT_OPEN_BYTES:
        result = connection.execute("PRAGMA quick_check(1)").fetchone()["quick_check"]
        if result != "ok":
            raise StoreCorrupt(f"{path} is damaged: {in_one_line(result)}", _RESTORE_HINT)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 2000")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten, not only forgotten
    tx = SqliteTransaction(connection)
    waiting = migrate.pending(tx)
    if waiting and migrate.current_version(tx):
        _snapshot(connection, path, migrate.current_version(tx))
    for migration in waiting:
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrate.apply(tx, migration, now)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        log.info("store.schema_migrated", version=migration.version, name=migration.name)
    return _find_or_begin_seal(connection, keys, now)


def _quick_check(path: Path) -> str | None:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            result = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return str(error)
    return None if result == "ok" else in_one_line(result)


def _find_or_begin_seal(connection: sqlite3.Connection, keys: Sequence[str], now: int) -> Seal:
    connection.execute("BEGIN IMMEDIATE")
    try:
        seal = begin_seal(SqliteTransaction(connection), keys, now)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return seal


def _settle(path: Path, busy_timeout_s: float) -> None:
    """Let SQLite undo what a killed process left half written, which a connection for reading may not; if there is such a thing."""
    uri = path.absolute().as_uri()
    try:
        with contextlib.closing(
            sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=busy_timeout_s)
        ) as looking:
            looking.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname not in ("SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY"):
            raise
        with contextlib.closing(
            sqlite3.connect(f"{uri}?mode=rw", uri=True, timeout=busy_timeout_s)
        ) as mending:
            mending.execute("SELECT 1 FROM sqlite_master").fetchone()


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _take_away_log(path: Path) -> None:
    """Leave the folder as it was before somebody looked: SQLite removes the log with the last connection that may write.

    If a daemon has taken up the file since, it is not the last; whoever may not write here leaves the (empty) log.
    """
    if not _log_of(path).exists():
        return
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0)
        ) as last,
    ):
        last.execute("SELECT 1 FROM sqlite_master").fetchone()


def _check_foreign(connection: sqlite3.Connection, path: Path) -> None:
    owner = connection.execute("PRAGMA application_id").fetchone()["application_id"]
    tables = connection.execute("SELECT COUNT(*) AS n FROM sqlite_master").fetchone()["n"]
    if owner != APPLICATION_ID and tables:
        raise StoreCorrupt(
            f"{path} is a database of another program", "Set database_url to a file of its own."
        )


def _snapshot(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Keep a whole copy beside the file before a migration changes it."""
    copy = path.with_name(f"{path.name}.schema-{version}")
    half = path.with_name(f"{copy.name}.part")
    half.unlink(missing_ok=True)
    file = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        connection.execute("VACUUM INTO :copy", {"copy": str(half)})
        os.fsync(file)
    finally:
        os.close(file)
    half.replace(copy)
    log.info("store.snapshot_taken", file=str(copy))


_FILES_IN_PATH = (FileExistsError, NotADirectoryError)
_RIGHTS_HINT = "Check the owner and the rights of file and folder."
_RESTORE_HINT = (
    "Put back a backup (palaver restore), or save what is readable (palaver salvage). Nothing was changed."
)


@contextlib.contextmanager
def _translated(path: Path) -> Any:
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, path) from error
    except UnicodeDecodeError as error:  # SQLite quotes what it stumbled over, which need not be text
        raise StoreCorrupt(f"{path} is damaged: it names what is no text", _RESTORE_HINT) from error
    except (PermissionError, FileNotFoundError) as error:
        raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}", _RIGHTS_HINT) from error


def _translate(error: BaseException, path: Path | None = None) -> BaseException:
    """SQLite's error as one of ours; anything else stays what it is."""
    if isinstance(error, _TransactionLost):
        return StoreUnavailable(
            "the database gave up the transaction", "The log says why; nothing of it was stored."
        )
    if not isinstance(error, sqlite3.Error):
        return error
    name = getattr(error, "sqlite_errorname", "") or ""
    where = str(path) if path else "the database"
    translated: StoreError
    # sqlite3 has no number for a text that is none: only the words tell it.
    if str(error).startswith("Could not decode to UTF-8"):
        translated = StoreCorrupt(f"{where} is damaged: a text in it is none", _RESTORE_HINT)
    elif name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        translated = StoreCorrupt(f"{where} is damaged: {error}", _RESTORE_HINT)
    elif name.startswith("SQLITE_FULL"):
        translated = StoreUnavailable(
            f"no room left on the disk of {where}", "Free some space; nothing accepted was lost."
        )
    elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        translated = StoreUnavailable(
            f"{where} is locked by another program", "Close what holds it open for writing."
        )
    elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        translated = StoreUnavailable(f"{where} cannot be written: {error}", _RIGHTS_HINT)
    elif name.startswith("SQLITE_IOERR"):
        translated = StoreUnavailable(
            f"the disk of {where} reports an error: {error}", "Check the disk and the system's log."
        )
    else:
        return error  # a mistake in our SQL or a broken constraint: not the store's state
    translated.__cause__ = error
    return translated
