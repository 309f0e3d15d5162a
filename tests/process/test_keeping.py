"""kill -9 at every commit of the commands that change the data as a whole: nothing half done is visible, a second run finishes it.

Import, clean-up, erasing and rotation of keys, each killed just before and right after every commit of its work; on PostgreSQL right
after some of them. Export and backup commit nothing: `tests/bot/test_cli_data.py` kills those, and these too at any other moment.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sessions import cleanup, invariants, lane, sealing, search
from sessions.database.base import Database, Transaction
from sessions.database.postgres import PostgresDatabase
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import StoreUnavailable
from sessions.transfer import intake
from tests import postgres
from tests.process.daemon import clean_environment
from tests.process.nursery import Nursery
from tests.sessions import records as made
from tests.sessions.conversations import exported, talk
from tests.sessions.stores import broken

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]
KEYS = [sealing.new_key(), sealing.new_key()]
MOST_KILLS = 15
"""Of each command and side, a quarter of it on a server; where there are more commits they are spread over all of them."""


class Operator:
    """Runs commands on a database in a folder, and looks at the database between them."""

    def __init__(self, nursery: Nursery, folder: Path, server: str | None, side: str) -> None:
        self._nursery = nursery
        self.folder = folder
        self.path = folder / "palaver.db"
        self.server = server
        """The URL of a database on a server; None for a file in the folder."""
        self.side = side
        """Of each commit: before it or after it."""
        self.keys: list[str] = []

    @property
    def most(self) -> int:
        return MOST_KILLS if self.server is None else MOST_KILLS // 4

    def run(self, *arguments: str, **environment: str) -> int:
        keys = {"PALAVER_STORE__ENCRYPTION_KEYS": json.dumps(self.keys)} if self.keys else {}
        born = self._nursery.ask(
            arguments=arguments,
            log=str(self.folder / "log"),
            folder=str(self.folder),
            environment=clean_environment(self.folder)
            | {"PALAVER_DATABASE_URL": self.server or f"sqlite:{self.path}"}
            | keys
            | environment,
        )
        deadline = time.monotonic() + 60
        while (code := self._nursery.ask(poll=born["pid"])["code"]) is None:
            assert time.monotonic() < deadline, arguments
            time.sleep(0.005)
        return int(code)

    def store(self, work: Callable[[Database], Any], keys: list[str] | None = None) -> Any:
        keys = self.keys if keys is None else keys

        async def run() -> Any:
            database: Database
            if self.server is None:
                database = await SqliteDatabase.open(self.path, keys=keys)
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

        return self.store(work, keys)

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

    def kill_at_every_commit(
        self,
        *arguments: str,
        start: Callable[[], None],
        check: Callable[[], None],
        when_done: int = 0,
    ) -> int:
        """Kill the command at each of its commits, anew from the start; after each kill `check`, then finish and `check`.

        Gives how many kills there were; afterwards stands what the last second run left. `when_done` is what it returns where the
        one before had done all.
        """
        start()
        counter = self.folder / "commits"
        assert self.run(*arguments, COMMITS_FILE=str(counter)) == 0
        commits = int(counter.read_text())
        kills = 0
        for at in range(1, commits + 1, -(-commits // self.most)):
            start()
            code = self.run(*arguments, CRASH_AT=str(at), CRASH_SIDE=self.side)
            assert code in (0, -signal.SIGKILL), (self.folder / "log").read_text()[-2000:]
            kills += code == -signal.SIGKILL
            check()
            if code == -signal.SIGKILL:
                assert self.run(*arguments) in (0, when_done), (self.folder / "log").read_text()[-2000:]
                check()
        return kills


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture(params=["sqlite-before", "sqlite-after", "postgresql-after"])
def operator(request, nursery, tmp_path) -> Iterator[Operator]:
    kind, side = request.param.split("-")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres.fresh_database()) if kind == "postgresql" else None
        yield Operator(nursery, tmp_path, server, side)


def test_import(operator):
    """A session that is seen is whole, one larger than a transaction too, and in the end all are there."""

    async def nothing(database):
        assert await exported(database)

    async def fill(database):
        await database.write(lambda tx: talk(tx, seed=1, turns=40, people=["ada", "bob", "cleo", "dan"]))
        return await exported(database)

    operator.store(nothing)
    start = operator.keep()
    whole = with_a_large_session(operator.store(fill))
    complete = set(whole.splitlines())
    (operator.folder / "all.jsonl").write_bytes(whole)

    def check() -> None:
        seen, wrong = operator.look()
        assert wrong == []
        lines = seen.splitlines()[:-1]
        assert set(lines) <= complete
        messages = sum(line.startswith(b'{"type":"message"') for line in lines)
        assert messages == sum(
            json.loads(line)["message_count"] for line in lines if line.startswith(b'{"type":"session"')
        )

    kills = operator.kill_at_every_commit("sessions", "import", "all.jsonl", start=start, check=check)
    assert kills >= 3
    assert operator.look()[0] == whole


def with_a_large_session(raw: bytes) -> bytes:
    """An export whose last session has so many messages that it comes in several transactions."""
    lines = raw.splitlines(keepends=True)
    at = max(number for number, line in enumerate(lines) if line.startswith(b'{"type":"session"'))
    rest = [line for line in lines[at + 1 : -1] if b'"type":"message"' not in line]
    message = next(json.loads(line) for line in lines[at:] if b'"type":"message"' in line)
    count = intake.LARGEST + 2000
    session = json.loads(lines[at]) | {"message_count": count, "next_position": count + 1}
    many = [
        orjson.dumps({**message, "position": number, "part": 0, "content": f"n {number}", "turn_id": None})
        + b"\n"
        for number in range(1, count + 1)
    ]
    end = json.loads(lines[-1])
    end["messages"] += count - (json.loads(lines[at])["message_count"])
    kinds = ("variable", "turn")
    before = [line for line in rest if json.loads(line)["type"] in kinds]
    after = [line for line in rest if json.loads(line)["type"] not in kinds]
    return b"".join(
        [*lines[:at], orjson.dumps(session) + b"\n", *before, *many, *after, orjson.dumps(end) + b"\n"]
    )


def test_erasing(operator):
    """The books hold after each kill; after the second run nothing of the person is in the file, and others have all of theirs."""
    words: dict[str, str] = {}

    async def fill(database):
        await database.write(lambda tx: talk(tx, seed=1, turns=60, people=["ada", "zanzibar"]))
        while await database.write(search.index_pending):
            pass
        row = await database.read(
            lambda tx: tx.row("SELECT id FROM persons WHERE display_name = 'Name of zanzibar'")
        )
        words["person"] = row["id"]

    def check() -> None:
        assert operator.look()[1] == []

    operator.store(fill)
    start = operator.keep()
    command = ("people", "erase", words["person"], "--yes")
    kills = operator.kill_at_every_commit(*command, start=start, check=check, when_done=1)
    assert kills >= min(5, operator.most)
    if operator.server is not None:
        assert b"of zanzibar" not in operator.look()[0]
        return
    raw = b"".join(file.read_bytes() for file in operator.folder.glob("palaver.db*"))
    assert b"of zanzibar" not in raw
    assert b"of ada" in raw


def test_clean_up(operator):
    """No session is half removed, and the second run leaves what a single one leaves."""

    async def fill(database):
        await database.write(one_long_session)
        await database.write(
            lambda tx: talk(tx, seed=3, turns=150, people=[f"p{number}" for number in range(60)])
        )
        await database.write(
            lambda tx: tx.execute(
                "UPDATE sessions SET status = 'archived', end_reason = 'deleted', ended_at = 0, archived_at = 0"
                " WHERE scope = 'person' AND id < (SELECT MAX(id) FROM sessions)"
            )
        )

    operator.store(fill)
    start = operator.keep()

    def check() -> None:
        assert operator.look()[1] == []

    start()
    assert operator.run("sessions", "cleanup") == 0
    wanted = operator.store(statuses)
    kills = operator.kill_at_every_commit("sessions", "cleanup", start=start, check=check)
    assert kills >= 3
    assert operator.store(statuses) == wanted


def one_long_session(tx: Transaction) -> None:
    """One that is removed in several slices."""
    for number in range(cleanup.SLICE):
        queued = made.arrive(tx, made.incoming(f"n {number}", user_id="crowd", message_id=f"long {number}"))
        claim = made.claimed(tx, queued.session_id)
        lane.finish(tx, claim, "completed", made.NOW, answer="a")


async def statuses(database: Database) -> list[tuple[str, str, str | None]]:
    rows = await database.read(lambda tx: tx.rows("SELECT id, status, end_reason FROM sessions ORDER BY id"))
    return [(row["id"], row["status"], row["end_reason"]) for row in rows]


def test_rotation(operator):
    """With both keys everything reads the same after each kill; after the second run the new key is enough, the old one useless."""
    operator.keys = [KEYS[0]]

    async def fill(database):
        await database.write(lambda tx: talk(tx, seed=4, turns=100))
        return await exported(database)

    before = operator.store(fill)
    start = operator.keep()
    operator.keys = [KEYS[1], KEYS[0]]

    def check() -> None:
        assert operator.look() == (before, [])
        with contextlib.suppress(StoreUnavailable):  # refused as long as something is under the old key
            assert operator.look([KEYS[1]])[0] == before

    kills = operator.kill_at_every_commit("keys", "rotate", start=start, check=check)
    assert kills >= min(10, operator.most)
    assert operator.look([KEYS[1]]) == (before, [])
