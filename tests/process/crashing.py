"""An entry point that dies at a chosen commit, and the nursery that starts many such daemons quickly.

`python -m tests.process.crashing` imports the program once and then forks a daemon for each line of JSON on its input:
{"arguments": [...], "log": FILE, "environment": {...}} -> {"pid": N}; {"poll": N} -> {"code": null | N}.
Every child is a process of its own that runs `bot.cli.main` from the beginning. In its environment CRASH_AT=n kills it
(SIGKILL) right after the n-th commit of its database, or with CRASH_SIDE=before just before that commit, when everything of the
transaction was done except COMMIT. COMMITS_FILE gets the number of each commit. A file and a server are trapped alike.
With CRASH_ONCE=FILE commits count only once that file is there.
IMPORT_BATCH and IMPORT_LARGEST make an import commit more often than it would.
"""

import importlib
import itertools
import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sessions.database.postgres_statements import Statements
from sessions.database.sqlite import SqliteDatabase
from sessions.transfer import intake

_LATE = ("httpcore", "uvicorn.lifespan.off", "uvicorn.protocols.http.h11_impl", "anyio._backends._asyncio")
"""What a daemon imports only once it runs."""


def arm() -> None:
    """Set the trap that the environment asks for."""
    at = int(os.environ.get("CRASH_AT", "0"))
    is_before = os.environ.get("CRASH_SIDE", "after") == "before"
    counted = os.environ.get("COMMITS_FILE")
    begin = os.environ.get("CRASH_ONCE")
    begun, ended = itertools.count(1), itertools.count(1)
    one_at_a_time = threading.Lock()
    for name in ("BATCH", "LARGEST"):
        if (rows := os.environ.get(f"IMPORT_{name}")) is not None:
            setattr(intake, name, int(rows))

    def counts() -> bool:
        return begin is None or Path(begin).exists()

    def before() -> None:
        if counts() and next(begun) == at and is_before:
            os.kill(os.getpid(), signal.SIGKILL)

    def after() -> None:
        with one_at_a_time:
            if not counts():
                return
            number = next(ended)
            if counted:
                Path(counted).write_text(str(number))
            if number == at and not is_before:
                os.kill(os.getpid(), signal.SIGKILL)

    _arm_file(before, after)
    _arm_server(before, after)


def _arm_file(before: Callable[[], None], after: Callable[[], None]) -> None:
    make, commit = SqliteDatabase.__init__, SqliteDatabase._commit

    def make_trapped(self: SqliteDatabase, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        self.after_commit = lambda _: after()

    def commit_trapped(self: SqliteDatabase, connection: sqlite3.Connection, batch: list[Any]) -> None:
        commit(self, _Trapped(connection, before), batch)  # type: ignore[arg-type]  # acts alike

    SqliteDatabase.__init__ = make_trapped  # type: ignore[method-assign]  # the trap
    SqliteDatabase._commit = commit_trapped  # type: ignore[method-assign]  # the trap


def _arm_server(before: Callable[[], None], after: Callable[[], None]) -> None:
    """The same for a database on a server, where several threads commit, and more than one pool of connections."""
    command = Statements.command

    def command_trapped(self: Statements, sql: str) -> str:
        if sql != "COMMIT":
            return command(self, sql)
        before()
        done = command(self, sql)
        after()
        return done

    Statements.command = command_trapped  # type: ignore[method-assign]  # the trap


class _Trapped:
    """A connection whose COMMIT is looked at first."""

    def __init__(self, connection: sqlite3.Connection, spring: Callable[[], None]) -> None:
        self._connection = connection
        self._spring = spring

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self._spring()
        return self._connection.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _nurse() -> None:
    """Fork daemons until the input ends; those that still run then are killed."""
    import bot.agents.scripted
    import bot.cli  # noqa: F401 - what a child would import, imported once
    from sessions import tokens

    for name in ("adapters.discord.adapter", "adapters.memory.adapter", "adapters.telegram.adapter", *_LATE):
        importlib.import_module(name)
    tokens.is_exact()  # loads the vocabulary, which is most of what a start costs

    codes: dict[int, int | None] = {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if (pid := request.get("poll")) is not None:
            if codes[pid] is None:
                done, status = os.waitpid(pid, os.WNOHANG)
                codes[pid] = os.waitstatus_to_exitcode(status) if done else None
            print(json.dumps({"code": codes[pid]}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _be_a_daemon(request)
        codes[pid] = None
        print(json.dumps({"pid": pid}), flush=True)
    for pid, code in codes.items():
        if code is None and os.waitpid(pid, os.WNOHANG)[0] == 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _be_a_daemon(request: dict[str, Any]) -> None:
    import bot.cli

    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["palaver", *request["arguments"]]
    code = 70
    try:
        arm()
        bot.cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _nurse()
