"""Connections to PostgreSQL: psycopg's pool makes them when they are needed, and each is lent to one thread at a time.

Owns what every connection is set to, which of them go back, and why there is none: the pool would let whoever asks wait and then
say that it took too long. Here the reason is told as soon as one try to connect has failed, and trying again is the caller's.
"""

import contextlib
import functools
import logging
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from sessions.database import postgres_values
from sessions.database.postgres_errors import (
    POOLER_HINT,
    is_connection_useless,
    translated,
    unreachable,
)
from sessions.database.postgres_statements import Statements
from sessions.errors import StoreUnavailable

# What it says of connections that failed, whoever asked for one says as well, with the reason.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

T = TypeVar("T")

OLDEST_SERVER: Final = 140_000
OURS: Final = "datname = current_database() AND usename = session_user AND application_name LIKE 'palaver%'"
"""The condition on `pg_stat_activity` for connections of Palaver's to this database."""
_IDLE_KEPT_S: Final = 300.0
_LOOK_S: Final = 0.02
"""How often who waits for a connection looks whether there will be none."""
_ROOTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where systems keep the certificates that they trust, if Python does not know it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long what may take. The first three ends are the server's to make, the others are ours, should it not answer."""

    statement_s: float = 20.0
    lock_s: float = 10.0
    idle_transaction_s: float = 15.0
    """After that a frozen node's locks end."""
    connect_s: float = 5.0
    cut_network_s: float = 15.0
    answer_s: float = 30.0
    """More than `statement_s`: only a server or a network that has stopped altogether takes that long."""


class Connection(psycopg.Connection[Any]):
    """A connection that does not wait for ever: a server that is frozen, or a network that swallows everything, says nothing."""

    answer_s: float | None = None
    """None waits as long as it takes."""
    process: int = 0
    """The server's process at the other end. What a pooler in between calls it at the beginning is an invention of its own."""

    @classmethod
    def connect(  # type: ignore[override]  # the pool hands on what it was given for this
        cls, conninfo: str = "", *, one_of: "Connections", **arguments: Any
    ) -> Self:
        """A new connection, set up; if it cannot be had, `one_of` is told why, for the pool tells nobody."""
        try:
            connection = super().connect(conninfo, **arguments)
            try:
                one_of.set_up(connection)
            except BaseException:
                connection.close()
                raise
        except Exception as error:
            one_of.note_failure(error)
            raise
        return connection

    @functools.cached_property
    def statements(self) -> Statements:
        return Statements(self)

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        limit = self.answer_s if timeout is None else timeout
        started = time.monotonic()
        try:
            return super().wait(gen, interval, limit)
        except psycopg.Error:
            if timeout is None and limit is not None and time.monotonic() - started >= limit:
                self.pgconn.finish()  # what it was doing can only be abandoned
                raise psycopg.OperationalError(f"the server has not answered for {limit:g} s") from None
            raise


class Connections:
    """Connections of one kind; none is made before one is needed."""

    def __init__(self, url: str, limits: Limits, *, most: int = 4) -> None:
        """`most`: at least as many as threads may ask at the same time.

        Raises: StoreUnavailable for an address that is none; it is not repeated, for it holds a password.
        """
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise StoreUnavailable(
                "database_url is not an address of PostgreSQL",
                "Write postgresql://user:password@host:5432/database; special characters in the password as %XX.",
            ) from None
        self.where = _place(given)
        cut_s = max(3, round(limits.cut_network_s))
        self._limits = limits
        self._lock = threading.Lock()
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._failure: tuple[float, Exception] | None = None
        """When connecting failed last, and why."""
        self._pool = ConnectionPool(
            connection_class=Connection,
            kwargs={
                "connect_timeout": max(2, round(limits.connect_s)),
                "keepalives_idle": max(1, cut_s // 3),
                "keepalives_interval": max(1, cut_s // 3),
                "keepalives_count": 2,
                "tcp_user_timeout": cut_s * 1000,
                **_with_system_roots(given),
                # The rest is the operator's, or a pooler adds it: who counts us goes by the beginning.
                "application_name": f"palaver {given.get('application_name', '')}".rstrip(),
                "client_encoding": "UTF8",
                "autocommit": True,
                "row_factory": dict_row,
                "cursor_factory": psycopg.RawCursor,
                "one_of": self,
            },
            min_size=0,
            max_size=most,
            max_idle=_IDLE_KEPT_S,
            reconnect_timeout=0,
            open=False,
        )

    @contextlib.contextmanager
    def lent(self, *, is_patient: bool = False) -> Iterator[Connection]:
        """A connection outside of any transaction; it goes back as such or is closed. Raises: StoreUnavailable.

        `is_patient` is for a migration, which may take hours.
        """
        connection = self._take()
        connection.answer_s = None if is_patient else self._limits.answer_s
        try:
            yield connection
        except BaseException as error:
            if is_connection_useless(error, connection) or not _rolled_back(connection):
                connection.close()
            raise
        finally:
            self._pool.putconn(connection)

    def processes(self) -> list[int]:
        """The server's processes that serve us."""
        with self._lock:
            return [one.process for one in self._made if not one.closed]

    def check_kept(self) -> None:
        """Make sure that a connection stays with one process of the server: prepared statements, time-outs and LISTEN need it.

        Raises: StoreUnavailable, if a pooler in between hands its own connections round.
        """
        try:
            with self.lent() as one:
                if one.info.backend_pid == one.process:
                    return  # nobody is in between
                with self.lent() as other:
                    other.execute(
                        "BEGIN", prepare=False
                    )  # has one for itself meanwhile: which is left for us?
                    seen = (_process(other), _process(one))
                    other.execute("ROLLBACK", prepare=False)
                    is_kept = seen == (other.process, one.process) and one.process != other.process
        except psycopg.Error as error:
            raise translated(error, self.where) from error
        if not is_kept:
            raise StoreUnavailable(
                f"{self.where} is reached over a pooler that hands its connections round", POOLER_HINT
            )

    def renew(self) -> None:
        """Replace all of them: after one was found dead, the others probably are, too."""
        self._pool.drain()

    def close(self) -> None:
        self._pool.close(timeout=0)  # whoever is connecting in the background finds it closed

    def note_failure(self, error: Exception) -> None:
        """A connection could not be made just now."""
        self._failure = time.monotonic(), error

    def _take(self) -> Connection:
        began = time.monotonic()
        while True:
            try:
                self._pool.open()
                return self._pool.getconn(timeout=_LOOK_S)
            except PoolClosed as error:
                raise StoreUnavailable(f"{self.where} is not used any more", "Open it again.") from error
            except PoolTimeout:
                self._check_hope(began)

    def _check_hope(self, began: float) -> None:
        """Raises: StoreUnavailable, if who waits for a connection since `began` has waited for nothing."""
        failure = self._failure
        if failure is not None and failure[0] >= began:
            if isinstance(failure[1], psycopg.Error):
                raise unreachable(failure[1], self.where) from failure[1]
            raise failure[1]
        if time.monotonic() > began + self._limits.answer_s:
            raise StoreUnavailable(
                f"{self.where} gave no connection for {self._limits.answer_s:g} s", "See the server's log."
            )

    def set_up(self, connection: Connection) -> None:
        """What every connection is set to. Raises: psycopg.Error, StoreUnavailable for a server that will not do."""
        if connection.info.server_version < OLDEST_SERVER:
            raise StoreUnavailable(
                f"{self.where} runs PostgreSQL {connection.info.server_version // 10_000}",
                "Palaver needs PostgreSQL 14 or newer.",
            )
        if connection.info.parameter_status("server_encoding") != "UTF8":
            raise StoreUnavailable(
                f"{self.where} cannot hold every character",
                "Make a database of its own: CREATE DATABASE palaver ENCODING 'UTF8' TEMPLATE template0.",
            )
        connection.answer_s = self._limits.answer_s
        postgres_values.register(connection)
        connection.prepare_threshold = None  # `statements` sees to that
        limits = self._limits
        row = connection.execute(
            "SELECT pg_backend_pid() AS process,"
            " set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false),"
            " set_config('idle_in_transaction_session_timeout', $3, false),"
            # What `write` returned for must survive a crash of the server, whatever is the role's default.
            " CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END",
            [
                f"{milliseconds:.0f}"
                for milliseconds in (
                    limits.statement_s * 1000,
                    limits.lock_s * 1000,
                    limits.idle_transaction_s * 1000,
                )
            ],
        ).fetchone()
        assert row is not None
        connection.process = row["process"]
        with self._lock:
            self._made.add(connection)


def _process(connection: psycopg.Connection[Any]) -> int:
    """Which of the server's processes answers now."""
    row = connection.execute("SELECT pg_backend_pid() AS process", prepare=False).fetchone()
    assert row is not None
    return int(row["process"])


def _rolled_back(connection: psycopg.Connection[Any]) -> bool:
    """Leave whatever transaction there is. False if the connection does not even take that."""
    try:
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.execute("ROLLBACK", prepare=False)
    except psycopg.Error:
        return False
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def _with_system_roots(given: dict[str, Any]) -> dict[str, Any]:
    """`sslrootcert=system` as the file of this machine: the OpenSSL that comes with psycopg looks where it was built.

    A weaker `sslmode` beside it stays as it is, for libpq refuses that.
    """
    if given.get("sslrootcert") != "system" or given.get("sslmode", "verify-full") != "verify-full":
        return given
    known = (ssl.get_default_verify_paths().cafile, *_ROOTS)
    file = next((each for each in known if each and Path(each).is_file()), "system")
    return {**given, "sslmode": "verify-full", "sslrootcert": file}


def _place(given: dict[str, Any]) -> str:
    """The database in words, without user and password."""
    hosts = str(given.get("host") or given.get("hostaddr") or "the local socket").split(",")
    ports = str(given.get("port") or "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False)]
    return f"PostgreSQL database {given.get('dbname') or given.get('user') or '(default)'!r} on {', '.join(places)}"
