"""Whole copies of a SQLite store: taken beside a running daemon, checked, and put back.

Owns the files. A copy is only named as asked for once it is complete, on disk and found sound; what a restore replaces is kept
beside. A backup of a server's database is such a file, too: `moving.py` makes it.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessions.database import migrate
from sessions.database.sqlite_errors import translating
from sessions.database.sqlite_file import APPLICATION_ID, give_to_owner, own, settle
from sessions.errors import SchemaTooNew, StoreCorrupt, StoreUnavailable

Progress = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""

_BUSY_S: Final = 10.0
_STEPS: Final = 200_000
"""Instructions of SQLite's between two looks at how far it came: some milliseconds."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What a backup holds."""

    path: Path
    size_bytes: int
    schema_version: int
    sessions: int
    messages: int


def backup(
    source: Path, target: Path, *, replaces: bool = False, progress: Progress = lambda _: None
) -> Copy:
    """Write what is committed in `source` to `target`, whoever owns it and writes to it meanwhile.

    Raises: StoreUnavailable (no such database, `target` is there already, no room), StoreCorrupt.
    """
    if not source.exists():
        raise StoreUnavailable(f"there is no database at {source}", "Check database_url.")
    if target.exists() and (not replaces or target.resolve() == source.resolve()):
        raise StoreUnavailable(f"{target} exists already", "Choose another name, or add --force.")
    with _half(target) as half:
        with translating(source):
            settle(source, _BUSY_S)
        with translating(source), _opened(source) as connection:
            _check_owner(connection, source)
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            size = max(1, pages * connection.execute("PRAGMA page_size").fetchone()[0])

            def look() -> None:
                with contextlib.suppress(OSError):
                    progress(min(0.99, half.stat().st_size / size))

            connection.set_progress_handler(look, _STEPS)
            # One view of the database, compact: neither chat nor what was removed from it leaves a trace in the copy.
            with _room(target):
                connection.execute("VACUUM INTO ?", (str(half),))
        with open(half, "rb") as file:  # noqa: PTH123 - only its descriptor is wanted
            os.fsync(file.fileno())
        copy = inspect(half)
        half.replace(target)
        _sync_folder(target.parent)
    progress(1.0)
    return Copy(target, copy.size_bytes, copy.schema_version, copy.sessions, copy.messages)


def restore(source: Path, target: Path, *, progress: Progress = lambda _: None) -> tuple[Copy, Path | None]:
    """Put a backup in the place of the database; gives what it holds and where the old one is now.

    Raises: StoreUnavailable (a daemon owns the database, no such backup), StoreCorrupt (the backup), SchemaTooNew.
    """
    if not source.exists():
        raise StoreUnavailable(f"there is no backup at {source}", "Check the name.")
    if target.exists() and source.samefile(target):
        raise StoreUnavailable(f"{source} is the database itself", "Name a backup.")
    lock = own(target)
    try:
        copy = inspect(source)
        if copy.schema_version > len(migrate.migrations()):
            raise SchemaTooNew(
                f"{source} was written by a newer Palaver (schema {copy.schema_version})",
                "Restore it with that version.",
            )
        progress(0.3)
        with _half(target) as half:
            with translating(source), _opened(source) as connection, _opened(half, mode="rwc") as into:

                def look(_status: int, remaining: int, total: int) -> None:
                    progress(0.3 + 0.4 * (1 - remaining / max(1, total)))

                with _room(target):
                    connection.backup(into, pages=2000, progress=look)
            with open(half, "rb") as file:  # noqa: PTH123 - only its descriptor is wanted
                os.fsync(file.fileno())
            inspect(half)
            give_to_owner(target if target.exists() else target.parent, half)
            kept = _set_aside(target) if target.exists() else None
            half.replace(target)
            _sync_folder(target.parent)
        progress(1.0)
        return Copy(target, copy.size_bytes, copy.schema_version, copy.sessions, copy.messages), kept
    finally:
        os.close(lock)


def inspect(path: Path) -> Copy:
    """Open a copy and look through all of it. Raises: StoreUnavailable, StoreCorrupt."""
    with translating(path), _opened(path) as connection:
        _check_owner(connection, path)
        damage = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
        if damage != ["ok"]:
            raise StoreCorrupt(
                f"{path} is damaged: {'; '.join(damage)}",
                "`palaver salvage` saves what is readable.",
            )
        version = connection.execute("SELECT MAX(version) FROM schema_version").fetchone()[0]
        sessions = connection.execute("SELECT COUNT(*) FROM sessions").fetchone()[0]
        messages = connection.execute("SELECT COUNT(*) FROM messages").fetchone()[0]
    return Copy(path, path.stat().st_size, version, sessions, messages)


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    if owner != APPLICATION_ID:
        raise StoreCorrupt(f"{path} is no database of Palaver's", "Name another file.")


def _set_aside(path: Path) -> Path:
    """Keep the old database under a name of its own; until the new one takes its place it stays where it is, too."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    kept = path.with_name(f"{path.name}.before-restore-{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.before-restore-{stamp}-{number}")
    log = path.with_name(path.name + "-wal")
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:  # damaged, which may be why it is replaced: its log goes with it as it is
        pass
    os.link(path, kept)
    # A log that stayed would be taken for the new file's and ruin it.
    if log.exists():
        log.replace(kept.with_name(kept.name + "-wal"))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return kept


@contextlib.contextmanager
def _half(target: Path) -> Iterator[Path]:
    """A file for the copy while it is made: ours alone, gone if anything goes wrong, with nobody else allowed to read it."""
    if target.exists() and not target.is_file():
        raise StoreUnavailable(f"{target} is no file", "Choose another name.")
    half = target.with_name(f"{target.name}.part")
    try:
        half.unlink(missing_ok=True)
        os.close(os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreUnavailable(
            f"cannot write {target}: {error.strerror}", "Choose a folder that is there and may be written."
        ) from error
    try:
        yield half
    finally:
        for name in (half.name, f"{half.name}-journal", f"{half.name}-wal", f"{half.name}-shm"):
            half.with_name(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _room(target: Path) -> Iterator[None]:
    """SQLite does not say which of two files has no room."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_FULL":
            raise
        raise StoreUnavailable(
            f"no room left on the disk of {target}",
            "Choose another disk, or free some space; nothing was changed.",
        ) from error


@contextlib.contextmanager
def _opened(path: Path, *, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S, isolation_level=None
    )
    try:
        yield connection
    finally:
        connection.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
