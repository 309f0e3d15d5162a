"""Copies, restoring, looking for damage, and saving what is readable of a damaged file."""

import asyncio
import os
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessions import invariants, search
from sessions.database import backup
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import SchemaTooNew, StoreCorrupt, StoreUnavailable
from tests.sessions import records as made
from tests.sessions.conversations import exported, send_all, talk


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "palaver.db"


async def filled(path: Path, turns: int = 30, seed: int = 1) -> bytes:
    """A closed store with something in it; gives its export."""
    database = await SqliteDatabase.open(path)
    await database.write(lambda tx: talk(tx, seed=seed, turns=turns))
    raw = await exported(database)
    await database.close()
    return raw


async def content(path: Path) -> bytes:
    database = await SqliteDatabase.open(path)
    raw = await exported(database)
    await database.close()
    return raw


async def verdicts(database: SqliteDatabase) -> set[str]:
    found = [
        await database.read(lambda tx, one=one: invariants.verify(tx, one)) for one in invariants.INVARIANTS
    ]
    return {verdict.name for verdict in found if not verdict.holds}


# copies


async def test_a_backup_is_taken_while_somebody_writes(path, tmp_path):
    """Beside a busy owner a copy is whole and sound: what was committed before it began is in it."""
    database = await SqliteDatabase.open(path)
    await database.write(lambda tx: talk(tx, seed=1, turns=30))
    is_over = asyncio.Event()

    async def chat() -> int:
        number = 0
        while not is_over.is_set():
            await database.write(
                lambda tx, n=number: made.arrive(tx, made.incoming(f"{n}", user_id=f"u{n % 7}"))
            )
            number += 1
        return number

    chatting = asyncio.create_task(chat())
    copies = [
        await asyncio.to_thread(backup.backup, path, tmp_path / f"copy-{number}.db") for number in range(3)
    ]
    is_over.set()
    assert await chatting > 3
    await database.close()
    for copy in copies:
        assert copy.messages >= 40
        assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600
        copied = await SqliteDatabase.open(copy.path)
        assert await verdicts(copied) == set()
        await copied.close()


async def test_a_backup_is_never_written_over_another(path, tmp_path):
    """An existing file stays as it is unless it may be replaced, and the database itself is never the target."""
    await filled(path)
    other = tmp_path / "copy.db"
    other.write_text("precious")
    with pytest.raises(StoreUnavailable, match="exists already"):
        backup.backup(path, other)
    assert other.read_text() == "precious"
    backup.backup(path, other, replaces=True)
    with pytest.raises(StoreUnavailable, match="exists already"):
        backup.backup(path, path, replaces=True)
    with pytest.raises(StoreUnavailable, match="cannot write"):
        backup.backup(path, tmp_path / "nowhere" / "copy.db")
    assert sorted(file.name for file in tmp_path.iterdir() if ".part" in file.name) == []


async def test_a_restore_puts_everything_back_and_keeps_what_was_there(path, tmp_path):
    """After a restore the store is as it was when the copy was taken; what it replaced is a whole store beside it."""
    raw = await filled(path)
    backup.backup(path, tmp_path / "copy.db")
    database = await SqliteDatabase.open(path)
    await database.write(lambda tx: talk(tx, seed=2, turns=5))
    later = await exported(database)
    await database.close()
    copy, kept = backup.restore(tmp_path / "copy.db", path)
    assert copy.messages == 60 - sum(b'"type":"error"' in line for line in raw.splitlines())
    assert await content(path) == raw
    assert await content(kept) == later


async def test_a_restore_refuses_while_somebody_owns_the_database(path, tmp_path):
    """A running daemon's file is not taken from under it, and nothing was changed."""
    await filled(path)
    backup.backup(path, tmp_path / "copy.db")
    database = await SqliteDatabase.open(path)
    with pytest.raises(StoreUnavailable, match="another running Palaver"):
        backup.restore(tmp_path / "copy.db", path)
    await database.close()


async def test_a_log_that_was_left_behind_does_not_ruin_a_restored_file(path, tmp_path):
    """The old store's log goes with it: after a kill -9 a restore gives the backup and nothing else."""
    raw = await filled(path)
    backup.backup(path, tmp_path / "copy.db")
    left = sqlite3.connect(path, isolation_level=None)
    left.execute("UPDATE messages SET content = 'later'")
    log = path.with_name(path.name + "-wal").read_bytes()
    left.close()
    path.with_name(path.name + "-wal").write_bytes(log)
    backup.restore(tmp_path / "copy.db", path)
    assert await content(path) == raw


@pytest.mark.parametrize("what", ["nothing", "text", "other", "damaged", "newer", "itself"])
async def test_what_is_no_sound_backup_is_refused_before_anything_is_touched(path, tmp_path, what):
    """A missing, foreign, damaged or too new file leaves the database as it is."""
    raw = await filled(path, turns=60)
    copy = tmp_path / "copy.db"
    backup.backup(path, copy)
    match what:
        case "nothing":
            copy.unlink()
        case "text":
            copy.write_text("no database " * 1000)
        case "other":
            copy.unlink()
            with sqlite3.connect(copy) as connection:
                connection.execute("CREATE TABLE x (y)")
        case "damaged":
            damaged = bytearray(copy.read_bytes())
            damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
            copy.write_bytes(damaged)
        case "newer":
            with sqlite3.connect(copy) as connection:
                connection.execute("INSERT INTO schema_version VALUES (999, 'future', 0)")
        case "itself":
            copy = path
    with pytest.raises((StoreUnavailable, StoreCorrupt, SchemaTooNew)) as refusal:
        backup.restore(copy, path)
    assert refusal.value.hint
    assert await content(path) == raw


# looking for damage


BREAKS = {
    "one_live_session": "DROP INDEX sessions_live; UPDATE sessions SET key = 'x', status = 'active'",
    "message_count": "UPDATE sessions SET message_count = message_count + 1",
    "tool_call_count": "DELETE FROM tool_calls",
    "one_running_turn": "DROP INDEX turns_running; UPDATE turns SET status = 'running', finished_at = NULL",
    "running_first": "UPDATE turns SET status = CASE position WHEN 1 THEN 'queued' ELSE 'running' END, finished_at = NULL"
    " WHERE position < 3",
    "turn_times": "UPDATE turns SET finished_at = NULL",
    "turn_origin": "UPDATE turns SET status = 'queued', finished_at = NULL; DELETE FROM inbox",
    "positions": "UPDATE sessions SET next_position = 1",
    "accepted_message": "UPDATE inbox SET turn_id = 'gone'",
    "outbox_key": "UPDATE outbox SET key = 'x' || key",
    "outbox_state": "UPDATE outbox SET state = 'sent', sent_at = NULL",
    "session_person": "UPDATE sessions SET person_id = 'nobody'",
    "sealed": "UPDATE messages SET is_sealed = 1",
}


async def test_a_sound_store_breaks_no_invariant(path):
    """After talk, replies and background work every claim holds and the file is sound."""
    database = await SqliteDatabase.open(path)
    await database.write(lambda tx: talk(tx, seed=3, turns=40))
    await database.write(send_all)
    while await database.write(search.index_pending):
        pass
    assert await verdicts(database) == set()
    assert await database.read(invariants.damage) == []
    await database.close()


@pytest.mark.parametrize("name", [one.name for one in invariants.INVARIANTS])
async def test_every_broken_invariant_is_found(path, name):
    """Each claim is one that a store can break, and `verify` names it with examples."""
    await filled(path)
    with sqlite3.connect(path) as connection:
        connection.executescript(BREAKS[name])
    database = await SqliteDatabase.open(path)
    (invariant,) = (one for one in invariants.INVARIANTS if one.name == name)
    verdict = await database.read(lambda tx: invariants.verify(tx, invariant))
    await database.close()
    assert verdict.broken > 0
    assert 0 < len(verdict.examples) <= 5


async def test_damage_to_the_file_and_dangling_references_are_found(path):
    """A row that refers to nothing is told, and so is a page that is not what it should be."""
    await filled(path, turns=80)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM turns WHERE id IN (SELECT turn_id FROM steps LIMIT 1)")
    database = await SqliteDatabase.open_beside(path)
    lines = await database.read(invariants.damage)
    await database.close()
    assert any("turns" in line for line in lines)


# wiping


async def test_wiping_beside_chat_leaves_a_sound_file(path):
    """Overwriting unused parts of pages again and again while others write harms nothing that is used."""
    database = await SqliteDatabase.open(path)
    for number in range(12):
        await database.write(lambda tx, n=number: talk(tx, seed=n, turns=15, people=["ada", "bob"]))
        await asyncio.gather(
            database.wipe(),
            *(
                database.write(lambda tx, n=n: made.arrive(tx, made.incoming(f"{n}", user_id=f"u{n % 5}")))
                for n in range(20)
            ),
        )
        await database.write(lambda tx: tx.execute("DELETE FROM tool_calls WHERE id % 2 = 0"))
        assert await database.read(invariants.damage) == []
    await database.close()


# the surroundings


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_what_root_makes_can_be_opened_by_the_daemons_user(path, tmp_path):
    """A restore, a new database and its lock belong to the owner of the folder, or of the file they replace."""
    await filled(path)
    backup.backup(path, tmp_path / "copy.db")
    os.chown(path, 4321, 4321)
    backup.restore(tmp_path / "copy.db", path)
    assert (path.stat().st_uid, path.stat().st_gid) == (4321, 4321)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 4322, 4322)
    backup.restore(tmp_path / "copy.db", home / "restored.db")
    database = await SqliteDatabase.open(home / "new.db")
    await database.close()
    assert {file.stat().st_uid for file in home.iterdir()} == {4322}


async def test_a_backup_is_taken_of_a_killed_daemons_database(path, tmp_path):
    """What was committed and not yet folded into the file is in the copy."""
    await filled(path)
    left = sqlite3.connect(path, isolation_level=None)
    left.execute("UPDATE messages SET content = 'only in the log'")
    other = tmp_path / "killed"
    other.mkdir()
    for ending in ("", "-wal"):
        (other / f"palaver.db{ending}").write_bytes(path.with_name(path.name + ending).read_bytes())
    left.close()
    backup.backup(other / "palaver.db", tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        rows = connection.execute("SELECT DISTINCT content FROM messages").fetchall()
    assert rows == [("only in the log",)]


async def test_a_folder_is_no_place_for_a_backup(path, tmp_path):
    """Not even with leave to replace what is there."""
    await filled(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailable, match="no file"):
        backup.backup(path, tmp_path / "folder", replaces=True)
    with pytest.raises(StoreUnavailable, match="no file"):
        backup.backup(path, Path("/dev/null"), replaces=True)
    assert not list(tmp_path.glob("*.part"))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 100 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root, outside of a container without rights, can make a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_named_and_nothing_is_left_on_it(path, tmp_path, small_disk):
    """The disk without room is the one that is said to have none."""
    await filled(path, turns=60)
    with pytest.raises(StoreUnavailable, match=r"small/copy\.db"):
        backup.backup(path, small_disk / "copy.db")
    backup.backup(path, tmp_path / "copy.db")
    with pytest.raises(StoreUnavailable, match=r"small/restored\.db"):
        backup.restore(tmp_path / "copy.db", small_disk / "restored.db")
    assert {file.name for file in small_disk.iterdir()} <= {"restored.db.lock"}
