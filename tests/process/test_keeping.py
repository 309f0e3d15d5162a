"""kill -9 of the commands that deal with the data as a whole: nothing half done is visible, a second run finishes it.

Import, clean-up, erasing and rotation of keys are each killed just before and right after every commit of their work, on PostgreSQL
before and after some of them; and these, export and backup at any moment.
"""

import contextlib
import json
from collections.abc import Callable
from typing import Final

import orjson
import pytest

from sessions import cleanup, lane, sealing, search
from sessions.database import backup
from sessions.database.base import Database, Transaction
from sessions.errors import StoreUnavailable
from tests.process.keeping import Operator
from tests.sessions import records as made
from tests.sessions.conversations import exported, talk

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]
KEYS = [sealing.new_key(), sealing.new_key()]
LARGEST: Final = 3000
"""Rows of a session that an import brings in several transactions: fewer than in earnest, to have as many commits sooner."""


@pytest.fixture
def operator(nursery, server, tmp_path) -> Operator:
    return Operator(nursery, tmp_path, server)


# at every commit


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

    kills = operator.kill_at_every_commit(
        *("sessions", "import", "all.jsonl"),
        start=start,
        check=check,
        IMPORT_BATCH=str(LARGEST // 10),
        IMPORT_LARGEST=str(LARGEST),
    )
    assert kills >= 3
    assert operator.look()[0] == whole


def with_a_large_session(raw: bytes) -> bytes:
    """An export whose last session has so many messages that it comes in several transactions."""
    lines = raw.splitlines(keepends=True)
    at = max(number for number, line in enumerate(lines) if line.startswith(b'{"type":"session"'))
    rest = [line for line in lines[at + 1 : -1] if b'"type":"message"' not in line]
    message = next(json.loads(line) for line in lines[at:] if b'"type":"message"' in line)
    count = LARGEST + LARGEST // 10
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
    assert kills >= min(10, sum(operator.most.values()))
    assert_forgotten(operator, "zanzibar", others="ada")


def assert_forgotten(operator: Operator, name: str, *, others: str) -> None:
    """No word of somebody is in the file, or can be seen on the server; all the others' are."""
    if operator.server is not None:
        raw = operator.look()[0]
    else:
        raw = b"".join(file.read_bytes() for file in operator.folder.glob("palaver.db*"))
    assert f"of {name}".encode() not in raw
    assert f"of {others}".encode() in raw


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


def under_the_old_key(operator: Operator, *, turns: int) -> tuple[bytes, Callable[[], None]]:
    """Conversations under one key, and an operator who has two; gives what can be seen, and what puts it back."""
    operator.keys = [KEYS[0]]

    async def fill(database):
        await database.write(lambda tx: talk(tx, seed=4, turns=turns))
        return await exported(database)

    before = operator.store(fill)
    start = operator.keep()
    operator.keys = [KEYS[1], KEYS[0]]
    return before, start


def test_rotation(operator):
    """With both keys everything reads the same after each kill; after the second run the new key is enough, the old one useless."""
    before, start = under_the_old_key(operator, turns=100)

    def check() -> None:
        assert operator.look() == (before, [])
        with contextlib.suppress(StoreUnavailable):  # refused as long as something is under the old key
            assert operator.look([KEYS[1]])[0] == before

    kills = operator.kill_at_every_commit("keys", "rotate", start=start, check=check)
    assert kills >= min(20, sum(operator.most.values()))
    assert operator.look([KEYS[1]]) == (before, [])


# at any moment


def test_an_import_at_any_moment(operator):
    """After each kill every session that is seen is complete, and a last run brings the rest."""

    async def fill(database):
        await database.write(
            lambda tx: talk(tx, seed=1, turns=400, people=[f"p{number}" for number in range(30)])
        )
        return await exported(database)

    operator.store(exported)
    start = operator.keep()
    whole = operator.store(fill)
    complete = set(whole.splitlines())
    (operator.folder / "all.jsonl").write_bytes(whole)

    def check() -> None:
        seen, wrong = operator.look()
        assert wrong == []
        assert set(seen.splitlines()[:-1]) <= complete

    operator.kill_at_any_moment("sessions", "import", "all.jsonl", start=start, check=check)
    assert operator.look() == (whole, [])


def test_an_export_at_any_moment(operator):
    """The file is there whole or not at all."""
    file, half = operator.folder / "out.jsonl", operator.folder / "out.jsonl.part"

    async def fill(database):
        await database.write(lambda tx: talk(tx, seed=5, turns=400))
        return await exported(database)

    whole = operator.store(fill)

    def check() -> None:
        assert not file.exists() or file.read_bytes() == whole

    command = ("sessions", "export", "-o", "out.jsonl")
    operator.kill_at_any_moment(*command, "--force", start=lambda: file.unlink(missing_ok=True), check=check)
    file.unlink()
    killed = [operator.kill_when(half.name, *command) for _ in range(3)]
    assert any(killed) and half.exists() and not file.exists()
    assert operator.run(*command, "--force") == 0
    assert file.read_bytes() == whole
    assert not half.exists()


def test_a_backup_at_any_moment(operator):
    """The copy under the name is always a whole and sound one, and beside it nothing is left over."""
    file, half = operator.folder / "copy.db", operator.folder / "copy.db.part"
    operator.store(lambda database: database.write(lambda tx: talk(tx, seed=8, turns=400)))
    command = ("backup", file.name, "--force")

    def check() -> None:
        assert backup.inspect(file).messages > 100

    operator.kill_at_any_moment(*command, start=lambda: None, check=check)
    killed = [operator.kill_when(half.name, *command) for _ in range(3)]
    assert any(killed) and half.exists()
    check()
    assert operator.run(*command) == 0
    check()
    assert not list(operator.folder.glob("copy.db.part*"))
    assert operator.look()[1] == []


def test_erasing_at_any_moment(operator):
    """Whatever was killed, the books hold, and in the end nothing of the person is in the database."""

    async def fill(database):
        await database.write(lambda tx: talk(tx, seed=6, turns=300, people=["zanzibar", "bob"]))
        sql = "SELECT id FROM persons WHERE display_name = 'Name of zanzibar'"
        return (await database.read(lambda tx: tx.row(sql)))["id"]

    def check() -> None:
        assert operator.look()[1] == []

    person = operator.store(fill)
    command = ("people", "erase", person, "--yes")
    operator.kill_at_any_moment(*command, start=operator.keep(), check=check, when_done=1)
    assert operator.run(*command) == 1, "nobody knows them any more"
    assert_forgotten(operator, "zanzibar", others="bob")


def test_a_clean_up_at_any_moment(operator):
    """After each kill the books hold; a last run leaves nothing due, and what one alone would leave."""

    async def fill(database):
        await database.write(
            lambda tx: talk(tx, seed=10, turns=400, people=[f"p{number}" for number in range(60)])
        )
        await database.write(
            lambda tx: tx.execute(
                "UPDATE sessions SET last_activity_at = last_activity_at - :age, ended_at = ended_at - :age",
                {"age": 200 * 86_400_000},
            )
        )

    def check() -> None:
        assert operator.look()[1] == []

    operator.store(fill)
    start = operator.keep()
    command = ("sessions", "cleanup")
    assert operator.run(*command) == 0
    wanted = operator.store(statuses)
    assert "expired" in {end_reason for _, _, end_reason in wanted}
    operator.kill_at_any_moment(*command, start=start, check=check)
    assert set(json.loads(operator.said(*command, "--dry-run", "--json")).values()) == {0}
    assert operator.store(statuses) == wanted


def test_rotation_at_any_moment(operator):
    """With both keys everything is readable after each kill; after the last run the new one is enough."""
    before, start = under_the_old_key(operator, turns=300)

    def check() -> None:
        assert operator.look() == (before, [])

    operator.kill_at_any_moment("keys", "rotate", start=start, check=check)
    assert operator.look([KEYS[1]]) == (before, [])
