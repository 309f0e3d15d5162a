"""Reading on somebody's behalf on PostgreSQL: as a role that owns nothing, so that the server itself filters the rows.

Owns that role and how a transaction reads as it. What the role then sees is said by the policies of `migrations/`; which reads are
on somebody's behalf is said in `sessions/scope.py`. Without the role (a server that lets nobody make one) reads go on with the
filter of their SQL alone, and the reason is told.
"""

from collections.abc import Mapping
from typing import Any, Final

import psycopg

from sessions.database.base import RowSecurity
from sessions.errors import StoreUnavailable

SETTINGS: Final = ("scope_person", "scope_session", "scope_account", "scope_channel", "scope_thread")
"""What tells the policies who reads, as `palaver.…`; all are set each time, so that nothing stays of the one before."""

TABLES: Final = (
    "sessions messages summaries turns steps tool_calls errors session_variables session_links session_tasks session_events"
    " message_vectors statistics_totals statistics_counts statistics_hours statistics_changes"
).split()
"""What is read on somebody's behalf. Each has a policy; the role may read nothing else."""

NARROW: Final = (
    "SELECT "
    + ", ".join(f"set_config('palaver.{name}', ${number}, true)" for number, name in enumerate(SETTINGS, 1))
    + f", set_config('role', ${len(SETTINGS) + 1}, true)"
)
WIDEN: Final = "RESET ROLE"

_MISSING: Final = "SELECT t.name FROM unnest(CAST($1 AS text[])) AS t (name) WHERE NOT has_table_privilege($2, t.name, 'SELECT')"


def narrowing(role: str, to: Mapping[str, object]) -> list[object]:
    """The parameters of `NARROW`."""
    return [*(to.get(name, "") for name in SETTINGS), role]


def set_up(connection: psycopg.Connection[Any], wanted: str | None) -> RowSecurity:
    """Make the role if it is not there and let it read what has policies. In a transaction of its own, one node at a time.

    `wanted` is a role that somebody prepared; else it is named after the user we are.
    """
    role = wanted or _own_name(connection)
    found = look(connection, role)
    if found.is_on:
        return found
    try:
        with connection.transaction():
            if not _exists(connection, role):
                if wanted is not None:
                    return RowSecurity(None, f"there is no role {role}")
                _make(connection, role)
            if not _is_member(connection, role):
                connection.execute(f"GRANT {_quoted(role)} TO CURRENT_USER")
            schema = connection.execute("SELECT current_schema() AS name").fetchone()
            assert schema is not None
            connection.execute(f"GRANT USAGE ON SCHEMA {_quoted(schema['name'])} TO {_quoted(role)}")
            connection.execute(f"GRANT SELECT ON {', '.join(TABLES)} TO {_quoted(role)}")
    except psycopg.errors.InsufficientPrivilege as error:
        return RowSecurity(None, (error.diag.message_primary or str(error)).strip())
    return look(connection, role)


def look(connection: psycopg.Connection[Any], role: str | None = None) -> RowSecurity:
    """Whether we can read as the role, and whether that really hides rows. Changes nothing."""
    role = role or _own_name(connection)
    try:
        with connection.transaction():
            if not _exists(connection, role):
                return RowSecurity(None, f"there is no role {role}")
            missing = connection.execute(_MISSING, [TABLES, role]).fetchall()
            if missing:
                return RowSecurity(None, f"the role {role} may not read {missing[0]['name']}")
            connection.execute("SELECT set_config('role', $1, true)", [role])
            held = connection.execute("SELECT row_security_active('sessions') AS is_held").fetchone()
            connection.execute(WIDEN)
    except psycopg.errors.InsufficientPrivilege as error:
        return RowSecurity(None, (error.diag.message_primary or str(error)).strip())
    if held is None or not held["is_held"]:
        return RowSecurity(None, f"the role {role} is a superuser, owns the tables or bypasses row security")
    return RowSecurity(role)


def check_whole(connection: psycopg.Connection[Any], where: str) -> None:
    """Make sure that what we read ourselves is all there is: row security says nothing of what it hides.

    Raises: StoreUnavailable.
    """
    hidden = connection.execute(
        "SELECT pg_get_userbyid(relowner) AS owner, current_user AS us FROM pg_class"
        " WHERE relnamespace = to_regnamespace(current_schema()) AND relrowsecurity AND row_security_active(oid) LIMIT 1"
    ).fetchone()
    if hidden is not None:
        owner, us = hidden["owner"], hidden["us"]
        raise StoreUnavailable(
            f"row security of {where} hides the rows of {owner} from {us}",
            f"Connect as {owner}, or make {us} the owner of all tables.",
        )


def _own_name(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT left(current_user, 56) || '_reader' AS name").fetchone()
    assert row is not None
    return str(row["name"])


def _exists(connection: psycopg.Connection[Any], role: str) -> bool:
    return connection.execute("SELECT 1 AS x FROM pg_roles WHERE rolname = $1", [role]).fetchone() is not None


def _is_member(connection: psycopg.Connection[Any], role: str) -> bool:
    row = connection.execute(
        "SELECT pg_has_role($1, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET'"
        " ELSE 'MEMBER' END) AS is_member",
        [role],
    ).fetchone()
    return row is not None and bool(row["is_member"])


def _make(connection: psycopg.Connection[Any], role: str) -> None:
    try:
        with connection.transaction():
            connection.execute(f"CREATE ROLE {_quoted(role)} NOLOGIN")
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        pass  # a node of another database on this server was quicker


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
