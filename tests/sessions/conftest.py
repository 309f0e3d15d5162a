"""One open transaction on an empty schema, for the many functions that need nothing more, and whole stores."""

import os
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest

from sessions.database.base import Database, Transaction
from sessions.database.sqlite import SqliteDatabase
from tests.sessions.stores import DATABASES, OLDEST, TRANSACTIONS, lay_sqlite

hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "long", parent=hypothesis.settings.get_profile("default"), max_examples=5_000
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=list(TRANSACTIONS))
def tx(request: pytest.FixtureRequest) -> Iterator[Transaction]:
    with TRANSACTIONS[request.param]() as transaction:
        yield transaction


@pytest.fixture(params=list(DATABASES))
async def store(request, tmp_path) -> AsyncIterator[Database]:
    async with DATABASES[request.param](tmp_path) as opener:
        yield await opener()


@pytest.fixture
async def database(tmp_path) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(lay_sqlite(tmp_path / "palaver.db"))
    yield database
    await database.close()


@pytest.fixture(params=list(OLDEST))
def oldest(request: pytest.FixtureRequest) -> Iterator[Transaction]:
    """A transaction on a database that only the first migration has made."""
    with OLDEST[request.param]() as transaction:
        yield transaction
