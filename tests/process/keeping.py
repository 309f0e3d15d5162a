"""`Operator`: runs commands that change the data as a whole, kills them, and looks at what they left.

Owns the killing. The commands are born in a nursery, as there are hundreds; what one of them must leave is its test's.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sessions import invariants
from sessions.database.base import Database
from sessions.database.postgres import PostgresDatabase
from sessions.database.sqlite import SqliteDatabase
from tests import postgres
from tests.process.daemon import clean_environment
from tests.process.nursery import Nursery
from tests.sessions.conversations import exported
from tests.sessions.stores import broken, lay_sqlite

MOST_KILLS: Final = {"before": 12, "after": 12}
"""Of each command and side; where there are more commits they are spread over all of them."""
MOST_KILLS_ON_A_SERVER: Final = {"before": 2, "after": 3}
MOMENTS: Final = 3
"""At how many moments of its work a command is killed, where any will do."""
_TIMEOUT_S: Final = 60


class Operator:
    """Runs commands on a database in a folder, or on a server, and looks at the database between them."""

    def __init__(self, nursery: Nursery, folder: Path, server: str | None) -> None:
        self._nursery = nursery
        self.folder = folder
        self.path = folder / "palaver.db"
        self.server = server
        """The URL of a database on a server; None for a file in the folder."""
        self.keys: list[str] = []
        self._log = folder / "log"

    @property
    def most(self) -> dict[str, int]:
        return MOST_KILLS if self.server is None else MOST_KILLS_ON_A_SERVER

    # commands

    def start(self, *arguments: str, **environment: str) -> int:
        """Its process id."""
        keys = {"PALAVER_STORE__ENCRYPTION_KEYS": json.dumps(self.keys)} if self.keys else {}
        born = self._nursery.ask(
            arguments=arguments,
            log=str(self._log),
            folder=str(self.folder),
            environment=clean_environment(self.folder)
            | {"PALAVER_DATABASE_URL": self.server or f"sqlite:{self.path}"}
            | keys
            | environment,
        )
        return int(born["pid"])

    def code(self, process: int) -> int | None:
        """Its exit code, if it has ended."""
        code = self._nursery.ask(poll=process)["code"]
        return None if code is None else int(code)

    def ended(self, process: int, *, within_s: float = _TIMEOUT_S) -> int | None:
        """Its exit code; None if it has not ended in that time."""
        deadline = time.monotonic() + within_s
        while (code := self.code(process)) is None and time.monotonic() < deadline:
            time.sleep(min(0.005, max(0, deadline - time.monotonic())))
        return code

    def run(self, *arguments: str, **environment: str) -> int:
        code = self.ended(self.start(*arguments, **environment))
        assert code is not None, arguments
        return code

    def said(self, *arguments: str) -> str:
        """What a command that succeeds prints."""
        begin = self._log.stat().st_size if self._log.exists() else 0
        assert self.run(*arguments) == 0, self.tail()
        return self._log.read_bytes()[begin:].decode()

    def tail(self) -> str:
        return self._log.read_text()[-2000:]

    # the database

    def store(self, work: Callable[[Database], Any], keys: list[str] | None = None) -> Any:
        """Do something with the database while no program has it."""
        keys = self.keys if keys is None else keys

        async def run() -> Any:
            database: Database
            if self.server is None:
                database = await SqliteDatabase.open(lay_sqlite(self.path), keys=keys)
            else:
                database = await PostgresDatabase.open(self.server, keys=keys)
            try:
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(run())

    def look(self, keys: list[str] | None = None) -> tuple[bytes, list[str]]:
        """Everything that can be seen, and what is wrong with it."""

        async def work(database: Database) -> tuple[bytes, list[str]]:
            wrong = [*await database.read(invariants.damage), *await broken(database)]
            return await exported(database), wrong

        return self.store(work, keys)  # type: ignore[no-any-return]  # of `work`

    def keep(self) -> Callable[[], None]:
        """What puts the closed database back as it is now."""
        if self.server is not None:
            return postgres.keep(self.server)
        saved = self.folder / "saved"
        shutil.copy(self.path, saved)

        def start() -> None:
            for file in self.folder.glob("palaver.db*"):
                file.unlink()
            shutil.copy(saved, self.path)

        return start

    # killing

    def kill_at_every_commit(
        self,
        *arguments: str,
        start: Callable[[], None],
        check: Callable[[], None],
        when_done: int = 0,
        **environment: str,
    ) -> int:
        """Kill the command before and after each of its commits, anew from the start; after each `check`, then finish and `check`.

        Gives how many kills there were; afterwards stands what the last second run left. `when_done` is what it returns where the
        one before had done all.
        """
        start()
        counter = self.folder / "commits"
        assert self.run(*arguments, COMMITS_FILE=str(counter), **environment) == 0, self.tail()
        commits = int(counter.read_text())
        kills = 0
        for side, most in self.most.items():
            for at in range(1, commits + 1, -(-commits // most)):
                start()
                code = self.run(*arguments, CRASH_AT=str(at), CRASH_SIDE=side, **environment)
                assert code in (0, -signal.SIGKILL), self.tail()
                kills += code == -signal.SIGKILL
                check()
                if code == -signal.SIGKILL:
                    assert self.run(*arguments, **environment) in (0, when_done), self.tail()
                    check()
        return kills

    def kill_at_any_moment(
        self,
        *arguments: str,
        start: Callable[[], None],
        check: Callable[[], None],
        when_done: int = 0,
    ) -> None:
        """Kill the command at some moments of its work, other ones in each run; the next goes on from there. Then finish it.

        After each `check`. `when_done` is what it returns where the one before had done all.
        """
        start()
        began = time.monotonic()
        assert self.run(*arguments) == 0, self.tail()
        took_s = time.monotonic() - began
        codes: list[int] = []
        for _ in range(5):
            start()
            for number in range(1, MOMENTS + 1):
                process = self.start(*arguments)
                if self.ended(process, within_s=took_s * (number - random.random()) / MOMENTS) is None:
                    os.kill(process, signal.SIGKILL)
                code = self.ended(process)
                assert code in (0, when_done, -signal.SIGKILL), self.tail()
                codes.append(code)
                check()
            if -signal.SIGKILL in codes:
                break
            took_s /= 2  # the machine was busier when the run was timed
        assert -signal.SIGKILL in codes
        assert self.run(*arguments) in (0, when_done), self.tail()
        check()

    def kill_when(self, file: str, *arguments: str) -> bool:
        """Start it and kill it as soon as a file is there, in the midst of its work; whether it came to that."""
        process = self.start(*arguments)
        while not (self.folder / file).exists() and self.code(process) is None:
            time.sleep(0.0005)
        if self.code(process) is None:
            os.kill(process, signal.SIGKILL)
        return self.ended(process) == -signal.SIGKILL
