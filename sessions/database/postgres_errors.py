"""PostgreSQL's errors in our words: which mean that nothing can be stored now, and which are worth a second try.

Owns the two decisions, made by SQLSTATE and never by the words of a message, and how errors travel between threads. When to try
again is `postgres.py`.
"""

import re
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

_FULL_HINT: Final = "Raise max_connections, or lower store.writers and store.readers."
NO_SCHEMA: Final = "has no schema of the name that search_path says"
NO_SCHEMA_HINT: Final = "Make it (CREATE SCHEMA …), or correct options in database_url."
POOLER_HINT: Final = (
    "Let database_url lead to the server itself, or set pool_mode = session in PgBouncer for this database."
)

_HINTS: Final = {
    "25006": (
        "is read-only",
        "It may be a standby: point database_url at the primary, or add target_session_attrs=read-write.",
    ),
    "3F000": (NO_SCHEMA, NO_SCHEMA_HINT),
    "42501": (
        "refuses what Palaver needs to do",
        "Let its role own the database (ALTER DATABASE … OWNER TO …), or grant it what is missing.",
    ),
    "42P05": ("is reached over a pooler that hands its connections round", POOLER_HINT),
    "53100": ("has no room left on its disk", "Free some space; nothing accepted was lost."),
    "53300": ("has no connection left", _FULL_HINT),
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
_CONNECT_HINTS: Final = tuple(
    (re.compile(words, re.IGNORECASE), hint)
    for words, hint in (
        (r"pg_hba\.conf", "Let this user in from this machine in the server's pg_hba.conf."),
        (
            r"password|authentication|role .* does not exist",
            "Check user and password in database_url; special characters of the password are written as %XX.",
        ),
        (
            r"database .* does not exist",
            "Make it (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0), or correct its name in database_url.",
        ),
        (
            r"root certificate file",
            "Add sslrootcert=system to database_url, for the certificates that this machine trusts, or name a file there.",
        ),
        (
            r"\bSSL|certificate",
            "sslmode in database_url demands TLS: the server must offer it, and its certificate must be for this host and trusted.",
        ),
        (r"too many (clients|connections)|connection slots", _FULL_HINT),
        (r"read-only|hot standby", "Name the primary in database_url, too: none of these takes anything in."),
        (
            r"starting up|shutting down|recovery mode|accepting connections$",
            "It lets nobody in just now. Try again in a while, and see the server's log.",
        ),
        (
            r"refused|timeout|timed out|resolve|translate|no route|unreachable|no such file",
            "Check that the server runs and listens there, and that host and port in database_url are right.",
        ),
    )
)
"""What to do, by what the client library says of a connection that could not be made: it hands on no SQLSTATE then. Only advice
hangs on these words; in another language the general one stands."""
_WRAPPING: Final = re.compile(
    r"^connection (?:failed|is bad): (?:connection to server .*? failed: )?(?:FATAL:\s+)?"
)
_ATTEMPT: Final = re.compile(
    r"^- host: '(?P<host>[^']*)', port: '?(?P<port>[^',]*)'?.*?: (?P<reason>connection .*)"
)


def is_race(error: BaseException) -> bool:
    """Doing the whole transaction again has a good chance: what it collided with is committed or gone by then."""
    return isinstance(error, _RACES)


def is_impatient(error: BaseException) -> bool:
    """Somebody else holds a lock for longer than this transaction wanted to wait."""
    return isinstance(error, errors.LockNotAvailable)


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


def is_connection_useless(error: BaseException, connection: psycopg.Connection[Any] | None = None) -> bool:
    """With a new connection the same may go through: this one is lost, or what it has prepared is out of date."""
    return is_connection_lost(error, connection) or _is_plan_outdated(error)


def _is_plan_outdated(error: BaseException) -> bool:
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
    """No connection could be made, to any of the servers that the address names."""
    reason = _WRAPPING.sub("", _first_line(error))
    attempts = [found for line in str(error).splitlines() if (found := _ATTEMPT.match(line))]
    if len(attempts) > 1:
        each = [f"{one['host']}:{one['port']}: {_WRAPPING.sub('', one['reason'])}" for one in attempts]
        reason = "; ".join(dict.fromkeys(each))
    hint = next((hint for words, hint in _CONNECT_HINTS if words.search(reason)), _CONNECT_HINT)
    ours = StoreUnavailable(f"cannot connect to {where}: {reason}", hint)
    ours.__cause__ = error
    return ours


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def presentable(error: BaseException) -> BaseException:
    """The error as a future takes it."""
    if isinstance(error, StopIteration):  # as in a generator: it must not end somebody else's loop
        raised = RuntimeError("work raised StopIteration")
        raised.__cause__ = error
        return raised
    return error
