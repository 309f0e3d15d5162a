"""PostgreSQL's errors in our words: which mean that nothing can be stored now, and which are worth a second try.

Owns the two decisions, made by SQLSTATE and never by the words of a message. When to try again is `postgres.py`.
"""

from typing import Any, Final

import psycopg
from psycopg import errors

from sessions.errors import LostRace, StoreCorrupt, StoreError, StoreUnavailable

_RACES: Final = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.UniqueViolation,  # another transaction inserted the row that this one had looked for in vain
    errors.ForeignKeyViolation,  # or removed the one it had found
    LostRace,
)
_DEAD_CONNECTION: Final = ("08", "57P")
"""Classes of SQLSTATE that end a connection: connection exceptions, and a server that shuts down or crashed."""

_HINTS: Final = {
    "25006": (
        "is read-only",
        "It may be a standby: point database_url at the primary, or add target_session_attrs=read-write.",
    ),
    "42501": (
        "refuses what Palaver needs to do",
        "Let its role own the database, or grant it what is missing.",
    ),
    "53100": ("has no room left on its disk", "Free some space; nothing accepted was lost."),
    "53300": ("has no connection left", "Raise max_connections, or lower store.writers and store.readers."),
    "55P03": (
        "has rows that another node keeps locked",
        "A node may be frozen; its locks end by themselves soon.",
    ),
    "57014": ("takes too long", "Look for what keeps the server busy, or raise store.statement_timeout_s."),
}
_CONNECT_HINT: Final = (
    "Check that the server runs, that the database is there, and that database_url has the right address, user and"
    " password."
)


def is_race(error: BaseException) -> bool:
    """Doing the whole transaction again has a good chance: what it collided with is committed or gone by then."""
    return isinstance(error, _RACES)


def is_connection_lost(error: BaseException, connection: psycopg.Connection[Any] | None = None) -> bool:
    """The connection is of no use any more; whether the server is up will show with the next one."""
    if not isinstance(error, psycopg.Error):
        return False
    if connection is not None and connection.closed:
        return True
    if isinstance(error, errors.IdleInTransactionSessionTimeout | errors.InterfaceError):
        return True
    state = error.sqlstate
    return isinstance(error, psycopg.OperationalError) and (
        state is None or state.startswith(_DEAD_CONNECTION)
    )


def is_plan_outdated(error: BaseException) -> bool:
    """What was prepared before does not fit any more, and a new connection is needed: another node has migrated the schema, or
    somebody between us and the server has forgotten the statement.
    """
    return isinstance(error, errors.FeatureNotSupported | errors.InvalidSqlStatementName)


def translated(error: BaseException, where: str) -> BaseException:
    """The server's error as one of ours; a mistake in our SQL, a broken constraint and all else stay what they are."""
    if isinstance(error, StoreError) or not isinstance(error, psycopg.Error):
        return error
    state = error.sqlstate or ""
    ours: StoreError
    if state.startswith("XX"):
        ours = StoreCorrupt(
            f"{where} is damaged: {_first_line(error)}", "Restore a backup; see the server's log."
        )
    elif state in _HINTS:
        reason, hint = _HINTS[state]
        ours = StoreUnavailable(f"{where} {reason}: {_first_line(error)}", hint)
    elif is_connection_lost(error):
        ours = StoreUnavailable(f"the connection to {where} was lost: {_first_line(error)}", _CONNECT_HINT)
    elif isinstance(error, psycopg.OperationalError):
        ours = StoreUnavailable(f"{where} reports: {_first_line(error)}", "See the server's log.")
    else:
        return error
    ours.__cause__ = error
    return ours


def unreachable(error: psycopg.Error, where: str) -> StoreUnavailable:
    """No connection could be made."""
    ours = StoreUnavailable(f"cannot connect to {where}: {_first_line(error)}", _CONNECT_HINT)
    ours.__cause__ = error
    return ours


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
