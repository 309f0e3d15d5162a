"""The databases that the tests run on: opened whole (`DATABASES`), or as one open transaction (`TRANSACTIONS`).

Another implementation of the port joins both tables, and every test of `sessions/` then runs on it too.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path

from sessions.database import migrate
from sessions.database.base import Database, Transaction
from sessions.database.sqlite import SqliteDatabase, SqliteTransaction, _as_mapping

Opener = Callable[[], Awaitable[Database]]
"""Opens the same store each time it is called, so that a test can close it and come back."""


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[Opener]:
    opened: list[SqliteDatabase] = []

    async def open_file() -> SqliteDatabase:
        database = await SqliteDatabase.open(folder / "palaver.db")
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
        connection.row_factory = _as_mapping
        connection.execute("PRAGMA foreign_keys = ON")
        transaction = SqliteTransaction(connection)
        for migration in migrate.migrations():
            migrate.apply(transaction, migration, 0)
        connection.execute("BEGIN")
        yield transaction


DATABASES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Opener]]] = {"sqlite": _sqlite}
TRANSACTIONS: Mapping[str, Callable[[], AbstractContextManager[Transaction]]] = {
    "sqlite": _sqlite_transaction
}
