"""Which database the settings mean, and how it is opened: by the daemon, by a command beside it, and for a node's leases.

The only module that names concrete stores. What a store does is `sessions/database/`; its sizes and times are settings.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bot.nodes import Hints
from config.settings import Settings
from sessions.database.base import Database
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import StoreUnavailable
from sessions.sealing import read_keys

if TYPE_CHECKING:
    from sessions.database.postgres_connections import Limits


def is_sqlite(database_url: str) -> bool:
    """Whether the database is a file, which one process owns, or a server's, which many may share."""
    return database_url.startswith("sqlite:")


def sqlite_path(database_url: str) -> Path:
    """The file that a sqlite URL names: `sqlite:///absolute/path`, `sqlite:relative/path`. Raises: StoreUnavailable."""
    if not is_sqlite(database_url):
        raise StoreUnavailable(
            "the database is on a server, not in a file",
            'This is for files only: database_url = "sqlite:///var/lib/palaver/palaver.db".',
        )
    rest = database_url.removeprefix("sqlite:")
    if rest.startswith("//"):
        parts = urlsplit(database_url)
        rest = f"{parts.netloc}{parts.path}"
    # Others write an absolute path with four slashes; two at its beginning would be kept by the operating system's rules.
    return Path(re.sub("^/+", "/", unquote(rest))).expanduser().absolute()


async def open_database(settings: Settings, *, may_be_new: bool = True) -> Database:
    """The database that the URL's scheme names, with today's schema; made if it may be new. Raises: StoreError."""
    if not is_sqlite(settings.database_url):
        from sessions.database.postgres import PostgresDatabase

        return await PostgresDatabase.open(
            settings.database_url,
            writers=settings.store.writers,
            readers=settings.store.readers,
            limits=_limits(settings),
            keys=encryption_keys(settings),
            reader_role=settings.store.reader_role,
            may_be_new=may_be_new,
        )
    path = sqlite_path(settings.database_url)
    if not may_be_new and not path.exists():
        raise StoreUnavailable(
            f"there is no database at {path} yet", "Start the daemon once, or check database_url."
        )
    return await SqliteDatabase.open(
        path,
        readers=settings.store.readers,
        busy_timeout_s=settings.store.busy_timeout_s,
        keys=encryption_keys(settings),
    )


async def open_beside(settings: Settings) -> Database:
    """The database for reading, whether or not a daemon owns it. Raises: StoreError."""
    if not is_sqlite(settings.database_url):
        from sessions.database.postgres import PostgresDatabase

        return await PostgresDatabase.open_beside(
            settings.database_url,
            limits=_limits(settings),
            keys=encryption_keys(settings),
            reader_role=settings.store.reader_role,
        )
    return await SqliteDatabase.open_beside(
        sqlite_path(settings.database_url), keys=encryption_keys(settings)
    )


async def open_leases(settings: Settings) -> Database | None:
    """A connection for the node's leases alone, which no other work may keep waiting; None on SQLite. Raises: StoreError."""
    if is_sqlite(settings.database_url):
        return None
    from sessions.database.postgres import PostgresDatabase
    from sessions.database.postgres_connections import Limits

    patience_s = max(1.0, settings.node.lease_s / 3)
    limits = Limits(
        statement_s=patience_s,
        lock_s=patience_s,
        idle_transaction_s=patience_s,
        connect_s=min(settings.store.connect_timeout_s, max(2.0, patience_s)),
        cut_network_s=max(3.0, settings.node.lease_s),
        answer_s=patience_s + 1,
    )
    return await PostgresDatabase.open_beside(
        settings.database_url, limits=limits, keys=encryption_keys(settings)
    )


def open_hints(settings: Settings) -> Hints | None:
    """The way nodes tell one another to look; None on SQLite."""
    if is_sqlite(settings.database_url):
        return None
    from sessions.database.postgres_hints import PostgresHints

    return PostgresHints(settings.database_url)


def _limits(settings: Settings) -> "Limits":
    from sessions.database.postgres_connections import Limits

    store = settings.store
    return Limits(
        statement_s=store.statement_timeout_s,
        lock_s=store.lock_timeout_s,
        # A node that freezes in the middle of a transaction keeps its rows locked: others must get them when they take over.
        idle_transaction_s=min(Limits().idle_transaction_s, max(3.0, settings.node.lease_s / 2)),
        connect_s=store.connect_timeout_s,
        answer_s=store.statement_timeout_s + 10,  # the server's own end comes first
    )


def encryption_keys(settings: Settings) -> list[str]:
    """What the database is encrypted with, the key for new values first. Raises: StoreUnavailable for what is no key."""
    return read_keys([key.get_secret_value() for key in settings.store.encryption_keys or ()])


async def damage_of(database: Database) -> str | None:
    """What is wrong in a file that was too large to be looked through when it was opened. A server looks after its pages itself."""
    if not isinstance(database, SqliteDatabase):
        return None
    try:
        return await database.check()
    except OSError as error:
        return str(error)
