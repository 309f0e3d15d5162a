"""The databases that the tests run on: opened whole (`DATABASES`), as one open transaction (`TRANSACTIONS`), or by address (`PLACES`).

Another implementation of the port joins the tables, and every test of `sessions/`, and of the daemon on top of it, runs on it too.
"""

import asyncio
import contextlib
import functools
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path

from sessions import invariants
from sessions.database import migrate
from sessions.database.base import Database, Transaction
from sessions.database.postgres import PostgresDatabase
from sessions.database.postgres_connections import Connections, Limits
from sessions.database.postgres_transaction import PostgresTransaction
from sessions.database.sqlite import SqliteDatabase, SqliteTransaction
from sessions.database.sqlite_file import APPLICATION_ID, as_mapping
from tests import postgres

Opener = Callable[[], Awaitable[Database]]
"""Opens the same store each time it is called, so that a test can close it and come back."""


@functools.cache
def _migrated(_names: tuple[str, ...]) -> bytes:
    """An empty SQLite database of that schema. To make it anew takes longer than most of the tests that need one."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = as_mapping
        for migration in migrate.migrations():
            migrate.apply(SqliteTransaction(connection), migration, 0)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        return connection.serialize()


def _empty_sqlite() -> bytes:
    return _migrated(tuple(step.name for step in migrate.migrations()))


def lay_sqlite(path: Path) -> Path:
    """Lay an empty database of today's schema at `path`, unless one is there already."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(_empty_sqlite())
    return path


@contextmanager
def _sqlite_place(path: Path) -> Iterator[str]:
    lay_sqlite(path)
    yield f"sqlite://{path}"


@contextmanager
def _postgres_place(_path: Path) -> Iterator[str]:
    with postgres.fresh_database() as url:
        yield url


PLACES: Mapping[str, Callable[[Path], AbstractContextManager[str]]] = {
    "sqlite": _sqlite_place,
    "postgresql": _postgres_place,
}
"""The address of an empty database with today's schema: for whole programs, and for whoever opens it more than once."""


async def open_place(url: str) -> Database:
    """The database at one of those addresses."""
    if url.startswith("sqlite:"):
        return await SqliteDatabase.open(Path(url.removeprefix("sqlite://")))
    return await PostgresDatabase.open(url)


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[Opener]:
    opened: list[SqliteDatabase] = []

    async def open_file() -> SqliteDatabase:
        database = await SqliteDatabase.open(lay_sqlite(folder / "palaver.db"))
        opened.append(database)
        return database

    try:
        yield open_file
    finally:
        for database in opened:
            await database.close()


@contextmanager
def _sqlite_transaction() -> Iterator[Transaction]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = as_mapping
        connection.deserialize(_empty_sqlite())
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN")
        yield SqliteTransaction(connection)


@asynccontextmanager
async def _postgres(folder: Path) -> AsyncIterator[Opener]:
    opened: list[PostgresDatabase] = []
    with postgres.fresh_database() as url:

        async def open_url() -> PostgresDatabase:
            database = await PostgresDatabase.open(url)
            opened.append(database)
            return database

        try:
            yield open_url
        finally:
            for database in opened:
                await database.close()


DATABASES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Opener]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
}
TRANSACTIONS: Mapping[str, Callable[[], AbstractContextManager[Transaction]]] = {
    "sqlite": _sqlite_transaction,
    "postgresql": postgres.open_transaction,
}


async def broken(database: Database) -> set[str]:
    """The names of the invariants that do not hold."""
    verdicts = [
        await database.read(lambda tx, one=one: invariants.verify(tx, one))
        for one in invariants.of(database.dialect)
    ]
    return {verdict.name for verdict in verdicts if not verdict.holds}


@contextmanager
def _oldest_sqlite() -> Iterator[Transaction]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = as_mapping
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN")
        transaction = SqliteTransaction(connection)
        migrate.apply(transaction, migrate.migrations()[0], 0)
        yield transaction


@contextmanager
def _oldest_postgres() -> Iterator[Transaction]:
    with postgres.bare_database() as url:
        connections = Connections(url, Limits())
        try:
            with connections.lent() as connection:
                connection.execute("BEGIN")
                transaction = PostgresTransaction(connection.statements)
                migrate.apply(transaction, migrate.migrations()[0], 0)
                yield transaction
                connection.execute("ROLLBACK")
        finally:
            connections.close()


OLDEST: Mapping[str, Callable[[], AbstractContextManager[Transaction]]] = {
    "sqlite": _oldest_sqlite,
    "postgresql": _oldest_postgres,
}
"""A transaction on a database that the first migration alone has made, for tests of those after it."""


@asynccontextmanager
async def held_up(
    database: Database, work: Callable[[Transaction], None] = lambda _tx: None
) -> AsyncIterator[None]:
    """While a write that did this work does not end: what is called meanwhile waits for it and shares the next commit."""
    entered, may_go = threading.Event(), threading.Event()

    def wait(tx: Transaction) -> None:
        work(tx)
        entered.set()
        assert may_go.wait(20)

    writing = asyncio.create_task(database.write(wait))
    assert await asyncio.to_thread(entered.wait, 20)
    try:
        yield
    finally:
        may_go.set()
        await writing
