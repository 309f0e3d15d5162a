"""SQLite's errors in our words: which mean that nothing can be stored now, and which that the file is damaged.

Owns the decision, made by SQLite's own names for errors wherever there is one. Second tries are `sqlite.py`'s.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sessions.errors import StoreCorrupt, StoreError, StoreUnavailable

RIGHTS_HINT: Final = "Check the owner and the rights of file and folder."
RESTORE_HINT: Final = (
    "Put back a backup (palaver restore), or save what is readable (palaver salvage). Nothing was changed."
)


class TransactionLost(Exception):
    """SQLite rolled the whole transaction back on its own (disk full, I/O error), and the work hid the reason."""


@contextlib.contextmanager
def translating(path: Path) -> Iterator[None]:
    """Errors of what is done within, as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, path) from error
    except UnicodeDecodeError as error:  # SQLite quotes what it stumbled over, which need not be text
        raise StoreCorrupt(f"{path} is damaged: it names what is no text", RESTORE_HINT) from error
    except (PermissionError, FileNotFoundError) as error:
        raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}", RIGHTS_HINT) from error


def translated(error: BaseException, path: Path | None = None) -> BaseException:
    """SQLite's error as one of ours; anything else stays what it is."""
    if isinstance(error, TransactionLost):
        return StoreUnavailable(
            "the database gave up the transaction", "The log says why; nothing of it was stored."
        )
    if not isinstance(error, sqlite3.Error):
        return error
    name = getattr(error, "sqlite_errorname", "") or ""
    where = str(path) if path else "the database"
    ours: StoreError
    # sqlite3 has no number for a text that is none: only the words tell it.
    if str(error).startswith("Could not decode to UTF-8"):
        ours = StoreCorrupt(f"{where} is damaged: a text in it is none", RESTORE_HINT)
    elif name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        ours = StoreCorrupt(f"{where} is damaged: {error}", RESTORE_HINT)
    elif name.startswith("SQLITE_FULL"):
        ours = StoreUnavailable(
            f"no room left on the disk of {where}", "Free some space; nothing accepted was lost."
        )
    elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        ours = StoreUnavailable(
            f"{where} is locked by another program", "Close what holds it open for writing."
        )
    elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        ours = StoreUnavailable(f"{where} cannot be written: {error}", RIGHTS_HINT)
    elif name.startswith("SQLITE_IOERR"):
        ours = StoreUnavailable(
            f"the disk of {where} reports an error: {error}", "Check the disk and the system's log."
        )
    else:
        return error  # a mistake in our SQL or a broken constraint: not the store's state
    ours.__cause__ = error
    return ours
