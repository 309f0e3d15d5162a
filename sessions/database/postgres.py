"""PostgreSQL behind the `Database` port: the same plain functions in worker threads, for several nodes on one database.

Owns transactions' ends and second tries. Whose turn it is is `postgres_line.py`, what runs in a transaction
`postgres_transaction.py`, connections are `postgres_connections.py`, what an error means is `postgres_errors.py`.

Batches. What queued up while the last commit ran shares the next one, where operations that mix are done side by side: their
statements travel together, because a way to the server and back costs more than what is done there. An operation that would have to
wait for rows of another node's is stuck: it alone is undone, and leaves the line, so that nobody waits with it.

Races. Other nodes write at the same time, under READ COMMITTED, with row locks where a decision hangs on a row
(`base.row_lock`). A transaction that lost a race (a unique key, a deadlock, a serialization failure, `LostRace`) is run again
whole, which is why work must have no effect but on its transaction: first all of a batch together, then each operation in a
savepoint, then each alone.

Outcome. A connection lost before COMMIT was sent: nothing is stored, and it is run once more on a new one. Lost while the COMMIT
was under way: nobody can know, and `StoreUnavailable` says that it may have been stored. So every caller's operation must be
safe to repeat:
- taking in a message: the inbox's unique key answers "duplicate" the second time. If the first was stored, nobody was told of
  its turn, which may even have been claimed with it: like the turns of a process that died, it is found by whoever looks at
  the rows. A command shares the transaction of its inbox row, so it is done once, too; its reply waits in the outbox.
- claiming a turn: the claim may stand without a holder, as after a crash; the next claim's epoch fences whoever comes late.
- a step: its number is the key. A repeated tool call must not count twice: see `lane.record_step`.
- finishing a turn: the second try finds the turn ended and gets `StaleClaim`. Nothing is lost by dropping it: the answer and
  its chunks are stored, though nobody here was told that they wait; whoever looks at the rows finds them.
- queueing chunks, what became of a send, begin, holds, cursors, watermarks, roles, variables: they set, so twice is once.
- an edit: its own dedupe id. Quarantine: may be kept twice, which an operator sees.
- pause, resume, end, archive: the second try is an illegal transition, and says what the session is now.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, Literal, Self, TypeVar

import psycopg
import structlog

from sessions.database import migrate, postgres_scopes
from sessions.database.base import RowSecurity, Seal, Transaction
from sessions.database.postgres_connections import OURS, Connection, Connections, Limits
from sessions.database.postgres_errors import (
    NO_SCHEMA,
    NO_SCHEMA_HINT,
    is_connection_lost,
    is_connection_useless,
    is_impatient,
    is_race,
    presentable,
    translated,
)
from sessions.database.postgres_line import Line, Operation
from sessions.database.postgres_transaction import PostgresTransaction
from sessions.errors import NothingStored, StoreCorrupt, StoreUnavailable
from sessions.sealing import PLAIN
from sessions.sealing import begin as begin_seal
from sessions.sealing import find as find_seal

T = TypeVar("T")

MOST_TRIES: Final = 6
_FIRST_PAUSE_S: Final = 0.01
_IMPATIENT_MS: Final = 30
"""Longest wait for a row in a batch: everybody waits with it. And another node's may wait for what it holds while it waits for what
that one holds; the server would notice such a circle after a second."""
_ALONE_MS: Final = 10
"""For each operation, once it is known that one of them waits: longer, and it is stuck. Aside it waits for one lock, in no circle."""
_MIGRATION_LOCK: Final = 0x50414C56  # "PALV": one node at a time brings the schema up to date

log = structlog.get_logger()


class _OutcomeUnknown(Exception):
    """The connection was lost while a COMMIT was under way."""


class PostgresDatabase:
    """The store of several nodes. Make it with `await PostgresDatabase.open(url)`."""

    dialect: Literal["postgresql"] = "postgresql"

    def __init__(self, url: str, limits: Limits, *, writers: int, readers: int) -> None:
        # Two pools: each lends its connections in turn, and a process of the server is quicker at what it did last.
        self._writing = Connections(url, limits, most=writers + 2)
        self._reading = Connections(url, limits, most=readers)
        self.where = self._writing.where
        self.seal: Seal = PLAIN
        self.row_security = RowSecurity()
        self._line = Line(self._store, self._store_alone, waiters=writers)
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="postgres-keeper")
        """For what is no write of anybody and may take long."""
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="postgres-reader")
        self._closing: asyncio.Task[None] | None = None
        self._counter = Lock()
        self.commits = 0
        self.after_commit: Callable[[int], None] | None = None
        """Called in the thread that wrote with the number of each commit, right after it; fault tests die there."""

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        writers: int = 4,
        readers: int = 4,
        limits: Limits | None = None,
        keys: Sequence[str] = (),
        reader_role: str | None = None,
        may_be_new: bool = True,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> Self:
        """Connect and bring the schema up to date, while other nodes may be doing the same; with keys, encrypt what is written.

        `reader_role` is a role prepared for reading on somebody's behalf; without it one is made, if the server lets us. Unless it
        `may_be_new`, a database that holds nothing of ours is left as it is.

        Raises: StoreUnavailable (also for keys that do not fit), NothingStored, StoreCorrupt (another program's tables), SchemaTooNew.
        """
        database = cls(url, limits or Limits(), writers=writers, readers=readers)
        await database._start(lambda: database._prepare(now(), keys, reader_role, may_be_new=may_be_new))
        return database

    @classmethod
    async def open_beside(
        cls,
        url: str,
        *,
        limits: Limits | None = None,
        keys: Sequence[str] = (),
        reader_role: str | None = None,
    ) -> Self:
        """Open for a command beside the daemons: the schema stays as it is.

        Raises: StoreUnavailable (also for an older schema, and keys that do not fit), SchemaTooNew.
        """
        database = cls(url, limits or Limits(), writers=1, readers=1)
        await database._start(lambda: database._look(keys, reader_role))
        return database

    @classmethod
    async def bring_up_to_date(cls, url: str, *, reader_role: str | None = None) -> None:
        """Migrate the schema and set up row security, without a look at what is in it. Raises: as `open`, but for keys."""
        database = cls(url, Limits(), writers=1, readers=1)
        await database._start(lambda: database._prepare(int(time.time() * 1000), None, reader_role))
        await database.close()

    async def _start(self, check: Callable[[], None]) -> None:
        try:
            await self._in_thread(self._keeper, self._writing.check_kept)
            await self._in_thread(self._keeper, check)
        except BaseException:
            await self.close()
            raise

    async def write(self, work: Callable[[Transaction], T], *, key: str = "", may_mix: bool = False) -> T:
        """Run `work` and return its result once it is durable. Writes with one key take effect in the order of the calls."""
        self._check_open()
        result: T = await self._line.put(work, key=key, may_mix=may_mix)
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        self._check_open()
        return await self._in_thread(self._readers, lambda: self._read(work))

    async def wipe(self, *, whole: bool = False) -> bool:
        """Give removed rows' space back for reuse; the server overwrites it in its own time.

        `whole` writes the tables anew, if nobody else is there: each is locked meanwhile, which other nodes would not wait for.
        """
        self._check_open()
        whole = whole and not await self.others()

        def run() -> bool:
            with self._writing.lent(is_patient=True) as connection:
                connection.execute("SET statement_timeout = 0")
                try:
                    connection.execute("VACUUM (FULL)" if whole else "VACUUM")
                finally:
                    connection.execute("RESET statement_timeout")
            return True

        return await self._in_thread(self._keeper, run)

    async def others(self) -> int:
        """How many more connections of Palaver's the database has: nodes, and commands beside them."""
        self._check_open()

        def run() -> int:
            with self._reading.lent() as connection:
                row = connection.execute(
                    f"SELECT COUNT(*) AS n FROM pg_stat_activity WHERE {OURS} AND pid <> ALL (CAST($1 AS int[]))",
                    [self._writing.processes() + self._reading.processes()],
                ).fetchone()
            return int(row["n"]) if row is not None else 0

        try:
            return await self._in_thread(self._readers, run)
        except psycopg.Error as error:
            raise translated(error, self.where) from error

    def free_bytes(self) -> int | None:
        """None: the disk is the server's, and it says so itself when it is full."""
        return None

    async def close(self) -> None:
        """Finish what is queued, then let go of the server. Safe to call twice."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._line.close()
        await asyncio.to_thread(self._keeper.shutdown)
        await asyncio.to_thread(self._readers.shutdown)
        await asyncio.to_thread(self._writing.close)
        await asyncio.to_thread(self._reading.close)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreUnavailable("the database is closed")

    async def _in_thread(self, executor: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        """Run a function in a thread of the executor; its caller may go away meanwhile."""
        outcome = await asyncio.get_running_loop().run_in_executor(executor, _caught, function)
        if outcome.error is not None:
            raise outcome.error
        result: T = outcome.result
        return result

    def _read(self, work: Callable[[Transaction], T]) -> T:
        for attempt in range(1, MOST_TRIES + 1):
            try:
                with self._reading.lent() as connection:
                    result = work(
                        self._transaction(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    )
                    connection.statements.command("ROLLBACK")
                    return result
            except BaseException as error:
                if not self._may_try_again(error, attempt):
                    final = translated(error, self.where)
                    if final is error:
                        raise
                    raise final from error
        raise AssertionError("unreachable")

    def _store(self, batch: list[Operation]) -> None:
        """Make a batch durable, or say of each operation what came of it; never raises. Runs in the writer's thread."""
        if len(batch) == 1:
            self._store_alone(batch[0], lock_ms=_ALONE_MS)
            return
        for lock_ms, in_savepoints in ((_IMPATIENT_MS, False), (_ALONE_MS, True)):
            try:
                self._transact(batch, lock_ms=lock_ms, in_savepoints=in_savepoints)
            except (StoreUnavailable, _OutcomeUnknown) as error:
                for operation in batch:
                    operation.error = self._final(error)
                return
            except BaseException as error:  # noqa: BLE001 - it belongs to one of them; the next step finds out to which
                self._renew_after(error)
            else:
                return
        stuck: set[object] = set()
        for number, operation in enumerate(batch):
            operation.is_stuck = operation.place in stuck
            if not operation.is_stuck:
                self._store_alone(operation, lock_ms=_ALONE_MS)
            if operation.is_stuck:
                stuck.add(operation.place)
            elif isinstance(operation.error, StoreUnavailable):  # the others would wait for the same
                for rest in batch[number + 1 :]:
                    rest.error = operation.error
                return

    def _store_alone(self, operation: Operation, *, lock_ms: int | None = None) -> None:
        """Make an operation durable, give it its error, or say that it is stuck after so long a wait for others' rows."""
        for attempt in range(1, MOST_TRIES + 1):
            try:
                self._transact([operation], lock_ms=lock_ms)
            except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                operation.is_stuck = lock_ms is not None and is_impatient(error)
                operation.error = None if operation.is_stuck else self._final(error)
                if operation.is_stuck or not self._may_try_again(error, attempt):
                    return
            else:
                operation.error = None
                return

    def _renew_after(self, error: BaseException) -> bool:
        """Replace all connections if one turned out to be of no use: the server was restarted, or its schema has changed."""
        if not is_connection_useless(error):
            return False
        self._writing.renew()
        self._reading.renew()
        return True

    def _may_try_again(self, error: BaseException, attempt: int) -> bool:
        """Decide, and wait a moment where that helps."""
        if self._renew_after(error):
            return attempt <= 2
        if is_race(error) and attempt < MOST_TRIES:
            time.sleep(random.uniform(0, _FIRST_PAUSE_S * 2**attempt))
            return True
        return False

    def _transact(self, batch: list[Operation], *, lock_ms: int | None, in_savepoints: bool = False) -> None:
        """Run operations in one transaction. Whatever it raises, nothing is stored, except with _OutcomeUnknown.

        `lock_ms`: how long it waits for a row that another has locked; None is as the connection is set.
        """
        with self._writing.lent() as connection:
            tx = self._transaction(connection, "BEGIN")
            if lock_ms is not None:
                tx.defer(f"SET LOCAL lock_timeout = {lock_ms}")
            for operation in batch:
                operation.error, operation.is_stuck = None, False
            if in_savepoints:
                _run_in_savepoints(connection, tx, batch)
            else:
                _run_side_by_side(tx, batch)
            tx.settle()
            try:
                done = connection.statements.command("COMMIT")
            except psycopg.Error as error:
                if is_connection_lost(error, connection):
                    raise _OutcomeUnknown from error
                raise
            if done != "COMMIT":  # work hid a statement's error; the server rolled back
                raise RuntimeError(
                    "a failed statement was not reported, nothing of its transaction is stored"
                )
        with self._counter:
            self.commits += 1
            number = self.commits
        if self.after_commit is not None:
            self.after_commit(number)

    def _final(self, error: BaseException) -> BaseException:
        """The error as its caller gets it."""
        if isinstance(error, _OutcomeUnknown):
            unknown = StoreUnavailable(
                f"the connection to {self.where} was lost during a commit: it may or may not be stored",
                "It is repeated safely once the server is back.",
            )
            unknown.__cause__ = error.__cause__
            return unknown
        return translated(error, self.where)

    def _prepare(
        self, now: int, keys: Sequence[str] | None, reader_role: str | None, *, may_be_new: bool = True
    ) -> None:
        """Check that the database is ours and the keys fit, and migrate it. Runs in a thread."""
        try:
            while self._migrate_once(now, may_be_new=may_be_new):
                pass
            with self._writing.lent() as connection:
                connection.execute("BEGIN")
                connection.execute("SELECT pg_advisory_xact_lock($1)", [_MIGRATION_LOCK])
                postgres_scopes.check_whole(connection, self.where)
                if keys is not None:
                    self.seal = begin_seal(PostgresTransaction(connection.statements), keys, now)
                self.row_security = postgres_scopes.set_up(connection, reader_role)
                connection.execute("COMMIT")
                if not self.row_security.is_on:
                    log.warning(
                        "store.row_security_missing", database=self.where, reason=self.row_security.reason
                    )
                fsync = connection.execute("SELECT current_setting('fsync') AS fsync").fetchone()
                if fsync is not None and fsync["fsync"] != "on":
                    log.warning(
                        "store.durability_weakened", database=self.where, setting="fsync", value="off"
                    )
        except psycopg.Error as error:
            raise translated(error, self.where) from error

    def _look(self, keys: Sequence[str], reader_role: str | None) -> None:
        """Check that schema and keys are today's. Runs in a thread."""

        def look(tx: Transaction) -> Seal | None:
            if migrate.pending(tx):
                if migrate.current_version(tx) == 0:
                    self._check_rights(tx)
                    raise self._nothing_stored()
                raise StoreUnavailable(
                    f"{self.where} has an older schema", "Run `palaver migrate` or start the daemon."
                )
            return find_seal(tx, keys)

        self.seal = self._read(look) or PLAIN
        try:
            with self._writing.lent() as connection:
                postgres_scopes.check_whole(connection, self.where)
                self.row_security = postgres_scopes.look(connection, reader_role)
        except psycopg.Error as error:
            raise translated(error, self.where) from error

    def _transaction(self, connection: Connection, begin: str) -> PostgresTransaction:
        return PostgresTransaction(connection.statements, self.seal, self.row_security.role, begin=begin)

    def _nothing_stored(self) -> NothingStored:
        return NothingStored(
            f"{self.where} holds nothing of Palaver yet",
            "The first start of the daemon makes its tables, or `palaver migrate` does.",
        )

    def _migrate_once(self, now: int, *, may_be_new: bool) -> bool:
        """Run the next migration, if there is one, in a transaction of its own."""
        with self._writing.lent(is_patient=True) as connection:
            connection.execute("BEGIN")
            connection.execute("SET LOCAL lock_timeout = 0")
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute("SELECT pg_advisory_xact_lock($1)", [_MIGRATION_LOCK])
            tx = PostgresTransaction(connection.statements)
            waiting = migrate.pending(tx)
            if not waiting:
                connection.execute("ROLLBACK")
                return False
            if migrate.current_version(tx) == 0:
                self._check_foreign(tx)
                if not may_be_new:
                    raise self._nothing_stored()
            migrate.apply(tx, waiting[0], now)
            connection.execute("COMMIT")
        log.info("store.schema_migrated", version=waiting[0].version, name=waiting[0].name)
        return True

    def _check_rights(self, tx: Transaction) -> None:
        """Whether the first start will get through: it makes tables, and a schema for the queue."""
        may = tx.row(
            "SELECT has_schema_privilege(current_schema(), 'CREATE') AS tables, to_regnamespace('pgmq') IS NOT NULL"
            " OR has_database_privilege(current_database(), 'CREATE') AS schemas, current_user AS name"
        )
        assert may is not None
        if may["tables"] is None:
            raise StoreUnavailable(f"{self.where} {NO_SCHEMA}", NO_SCHEMA_HINT)
        for what in ("tables", "schemas"):
            if not may[what]:
                raise StoreUnavailable(
                    f"{self.where} lets {may['name']} make no {what}",
                    f"Let it own the database: ALTER DATABASE … OWNER TO {may['name']}.",
                )

    def _check_foreign(self, tx: Transaction) -> None:
        tables = tx.row(
            "SELECT COUNT(*) AS n FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace ="
            " (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND NOT EXISTS"
            " (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
        )
        if tables and tables["n"]:
            raise StoreCorrupt(
                f"{self.where} has the tables of another program",
                "Make a database of its own, or a schema: add ?options=-csearch_path%3Dpalaver to database_url.",
            )


class _Outcome:
    """What a function gave or raised, carried over from a thread."""

    __slots__ = ("error", "result")

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None


def _caught(function: Callable[[], Any]) -> _Outcome:
    """Run it; StopIteration and CancelledError would confuse a future, so errors travel as values."""
    outcome = _Outcome()
    try:
        outcome.result = function()
    except BaseException as error:  # noqa: BLE001 - raised again in the caller's own task
        outcome.error = presentable(error)
    return outcome


def _run_side_by_side(tx: PostgresTransaction, batch: Sequence[Operation]) -> None:
    """Run operations that mix together, those of a key in a chain, and after them the others."""
    chains: dict[str, list[Operation]] = {}
    for operation in batch:
        if operation.may_mix:
            chains.setdefault(operation.key, []).append(operation)
    are_several = len(chains) > 1
    if are_several:
        tx.side_by_side([[operation.run for operation in chain] for chain in chains.values()])
    for operation in batch:
        if not (are_several and operation.may_mix):
            operation.run(tx)


def _run_in_savepoints(connection: Connection, tx: PostgresTransaction, batch: Sequence[Operation]) -> None:
    """Run operations so that the failure of one undoes only itself. Raises what concerns the whole transaction."""
    stuck: set[object] = set()
    for operation in batch:
        operation.is_stuck = operation.place in stuck
        if operation.is_stuck:
            continue
        tx.execute("SAVEPOINT operation")
        try:
            operation.run(tx)
            tx.settle()
            if connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                raise RuntimeError(
                    "a failed statement was not reported, nothing of its transaction is stored"
                )
        except BaseException as error:
            if is_race(error) or is_connection_useless(error, connection):
                raise
            operation.is_stuck = is_impatient(error)
            if operation.is_stuck:
                stuck.add(operation.place)
            else:
                operation.error = error
            tx.forget_deferred()
            tx.execute("ROLLBACK TO operation")
        tx.execute("RELEASE operation")
