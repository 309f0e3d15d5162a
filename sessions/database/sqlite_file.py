"""The file of a SQLite database: whose it is, that one process owns it, and what is looked at before and after it is opened.

Owns the lock beside the file, rights and owners, connecting, and the copy that is kept before a migration. What is in the file, and
how it is written, is `sqlite.py`.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any, Final

import structlog

from sessions.errors import StoreCorrupt, StoreUnavailable, in_one_line

APPLICATION_ID: Final = 0x50414C56  # "PALV" in the file's header: refuses other programs' databases
_FILES_IN_PATH: Final = (FileExistsError, NotADirectoryError)

log = structlog.get_logger()


def own(path: Path) -> int:
    """Take the lock file beside the database; held until closed, and given up by the kernel when we die.

    Raises: StoreUnavailable.
    """
    refuse_folder(path)
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


def refuse_folder(path: Path) -> None:
    """Raises: StoreUnavailable."""
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


def connect(path: Path, busy_timeout_s: float, *, is_reader: bool = False) -> sqlite3.Connection:
    """A connection of the store's. Raises: sqlite3.Error, OSError."""
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
        connection.row_factory = as_mapping
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -16000")
        if is_reader:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def as_mapping(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    """A row factory: columns by name."""
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def quick_check(path: Path) -> str | None:
    """What is wrong with the file, or None."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            result = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return str(error)
    return None if result == "ok" else in_one_line(result)


def settle(path: Path, busy_timeout_s: float) -> None:
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


def log_of(path: Path) -> Path:
    """SQLite's write-ahead log of this file."""
    return path.with_name(f"{path.name}-wal")


def take_away_log(path: Path) -> None:
    """Leave the folder as it was before somebody looked: SQLite removes the log with the last connection that may write.

    If a daemon has taken up the file since, it is not the last; whoever may not write here leaves the (empty) log.
    """
    if not log_of(path).exists():
        return
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0)
        ) as last,
    ):
        last.execute("SELECT 1 FROM sqlite_master").fetchone()


def check_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Raises: StoreCorrupt for another program's database."""
    owner = connection.execute("PRAGMA application_id").fetchone()["application_id"]
    tables = connection.execute("SELECT COUNT(*) AS n FROM sqlite_master").fetchone()["n"]
    if owner != APPLICATION_ID and tables:
        raise StoreCorrupt(
            f"{path} is a database of another program", "Set database_url to a file of its own."
        )


def snapshot(connection: sqlite3.Connection, path: Path, version: int) -> None:
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
