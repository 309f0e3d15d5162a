"""What only SQLite has: the file and its owner, damage, full disks, locks, and the settings that make a commit durable."""

import asyncio
import contextlib
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from config.names import AccountId
from sessions import inbox, lane, outbox
from sessions.database import migrate, sqlite, sqlite_file
from sessions.database.base import Transaction
from sessions.database.migrate import Migration
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import SchemaTooNew, StoreCorrupt, StoreError, StoreUnavailable, in_one_line

ROOT = Path(__file__).parents[2]
ACCOUNT = AccountId("telegram.main")


def put(tx: Transaction, name: str, value: str = "x") -> None:
    inbox.set_cursor(tx, ACCOUNT, name, value, 0)


def names(tx: Transaction) -> set[str]:
    return {row["name"] for row in tx.rows("SELECT name FROM cursors")}


@contextlib.asynccontextmanager
async def opened(path: Path, **how) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(path, **how)
    try:
        yield database
    finally:
        await database.close()


@contextlib.contextmanager
def child(code: str, *arguments: object, **how) -> Iterator[subprocess.Popen[str]]:
    """A Python process beside this one; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **how,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stored(process: subprocess.Popen[str]) -> int:
    """Wait until the child says how much it has stored; log lines are passed over."""
    for line in process.stdout:
        if line.startswith("stored "):
            return int(line.split()[1])
    pytest.fail("the child ended")


HOLD = """
    import asyncio, sys
    from pathlib import Path
    from sessions import inbox
    from sessions.database.sqlite import SqliteDatabase

    async def main():
        database = await SqliteDatabase.open(Path(sys.argv[1]))
        number = 0
        while True:
            await asyncio.gather(*(
                database.write(lambda tx, n=number + k: inbox.set_cursor(tx, "a", str(n), "x", 0)) for k in range(5)
            ))
            number += 5
            print("stored", number, flush=True)
            sys.stdin.readline()

    asyncio.run(main())
"""


# one owner


async def test_a_second_owner_is_refused_with_the_pid_of_the_first(tmp_path):
    """Another process that owns the file is named by its pid, and is not disturbed."""
    path = tmp_path / "palaver.db"
    with child(HOLD, path) as owner:
        assert stored(owner) == 5
        with pytest.raises(StoreUnavailable, match=rf"process {owner.pid}\b") as refusal:
            await SqliteDatabase.open(path)
        assert refusal.value.hint
        owner.stdin.write("\n")
        owner.stdin.flush()
        assert stored(owner) == 10


async def test_a_second_owner_in_the_same_process_is_refused(tmp_path):
    """The same path opened twice by one process is refused too, and free again after close."""
    path = tmp_path / "palaver.db"
    async with opened(path):
        with pytest.raises(StoreUnavailable, match=str(os.getpid())):
            await SqliteDatabase.open(path)
    async with opened(path):
        pass


async def test_kill_9_frees_the_file_and_keeps_what_was_acknowledged(tmp_path):
    """An owner killed with SIGKILL leaves a file that opens at once and holds all it had acknowledged."""
    path = tmp_path / "palaver.db"
    for round_number in range(1, 6):
        with child(HOLD, path) as owner:
            for number in range(1, round_number + 1):
                assert stored(owner) == 5 * number
                owner.stdin.write("\n")
                owner.stdin.flush()
        async with opened(path) as database:
            assert {str(n) for n in range(5 * round_number)} <= await database.read(names)
            verdict = await database.read(lambda tx: tx.row("PRAGMA integrity_check"))
            assert verdict == {"integrity_check": "ok"}


async def test_a_lock_that_cannot_be_written_on_a_full_disk_does_not_hide_the_reason(tmp_path, monkeypatch):
    """The pid in the lock file is a courtesy: failing to write it neither fails the start nor leaks the lock."""

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file.os, "pwrite", full)
        async with opened(tmp_path / "palaver.db") as database:
            await database.write(lambda tx: put(tx, "stored"))
    async with opened(tmp_path / "palaver.db") as database:
        assert await database.read(names) == {"stored"}


def test_what_a_check_finds_is_said_in_one_line():
    """An operator's error has one line for what is wrong, whatever SQLite makes of it."""
    found = "*** in database main ***\nPage 41: btreeInitPage() returns error code 11"
    assert in_one_line(found) == "Page 41: btreeInitPage() returns error code 11"


async def test_a_reader_beside_a_living_owner(tmp_path):
    """`open_beside` reads what the owner has committed, refuses writes, and closes without disturbing the owner."""
    path = tmp_path / "palaver.db"
    async with opened(path) as owner:
        await owner.write(lambda tx: put(tx, "first"))
        beside = await SqliteDatabase.open_beside(path)
        assert await beside.read(names) == {"first"}
        await owner.write(lambda tx: put(tx, "second"))
        assert await beside.read(names) == {"first", "second"}
        with pytest.raises(StoreUnavailable, match="opened for reading"):
            await beside.write(lambda tx: put(tx, "third"))
        with pytest.raises(StoreError):
            await beside.read(lambda tx: put(tx, "third"))
        await beside.close()
        await owner.write(lambda tx: put(tx, "fourth"))
    beside = await SqliteDatabase.open_beside(path)  # and with no owner there
    assert await beside.read(names) == {"first", "second", "fourth"}
    await beside.close()


async def test_a_reader_mends_what_a_killed_process_left_half_written(tmp_path):
    """A journal that must be rolled back first, as a kill while a restored file was set up leaves it, does not stop a reader."""
    path, copy = tmp_path / "palaver.db", tmp_path / "copy.db"
    async with opened(path) as database:
        await database.write(lambda tx: put(tx, "kept"))
    half = sqlite3.connect(path, isolation_level=None)
    half.execute("PRAGMA journal_mode = DELETE")
    half.execute(
        "PRAGMA cache_size = 5"
    )  # so that changed pages and the journal reach the disk before any commit
    half.execute("BEGIN IMMEDIATE")
    half.execute("UPDATE cursors SET name = 'half'")
    half.executemany(
        "INSERT INTO cursors (account, name, value, updated_at) VALUES ('a', ?, ?, 0)",
        ((f"half-{number}", "x" * 500) for number in range(500)),
    )
    shutil.copy(path, copy)
    shutil.copy(f"{path}-journal", f"{copy}-journal")
    half.close()
    with (
        contextlib.closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader.execute("SELECT 1 FROM cursors")
    beside = await SqliteDatabase.open_beside(copy)
    try:
        assert await beside.read(names) == {"kept"}
    finally:
        await beside.close()


async def test_a_reader_beside_needs_a_database_of_the_right_age(tmp_path, monkeypatch):
    """`open_beside` makes no file, and neither reads an older schema nor a newer one."""
    path = tmp_path / "palaver.db"
    with pytest.raises(StoreUnavailable, match="no database"):
        await SqliteDatabase.open_beside(path)
    assert not path.exists()
    async with opened(path):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "migrations", lambda: (*REAL, Migration(len(REAL) + 1, "more", "")))
        with pytest.raises(StoreUnavailable, match="older schema"):
            await SqliteDatabase.open_beside(path)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "migrations", lambda: REAL[:-1])
        with pytest.raises(SchemaTooNew):
            await SqliteDatabase.open_beside(path)


# what the file is


async def test_settings_that_make_a_commit_durable_are_really_set(tmp_path):
    """The writer runs WAL with synchronous=FULL and enforces foreign keys; the file says that it is ours."""
    async with opened(tmp_path / "palaver.db") as database:

        def pragma(tx: Transaction, name: str) -> object:
            (value,) = tx.row(f"PRAGMA {name}").values()
            return value

        seen = await database.write(
            lambda tx: [
                pragma(tx, name) for name in ("journal_mode", "synchronous", "foreign_keys", "application_id")
            ]
        )
        assert seen == ["wal", 2, 1, sqlite_file.APPLICATION_ID]
        assert await database.read(lambda tx: pragma(tx, "query_only")) == 1


async def test_only_the_owner_may_read_the_files(tmp_path):
    """Database, log, index and lock have mode 0600, whatever the umask; so has a folder made for them 0700."""
    before = os.umask(0)
    try:
        path = tmp_path / "made" / "palaver.db"
        async with opened(path) as database:
            await database.write(lambda tx: put(tx, "x"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(
        ["palaver.db", "palaver.db-wal", "palaver.db-shm", "palaver.db.lock"], 0o600
    )
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_close_folds_the_log_into_the_file(tmp_path):
    """After close the one file holds everything; a backup of it alone is whole."""
    path = tmp_path / "palaver.db"
    async with opened(path) as database:
        await database.write(lambda tx: put(tx, "kept"))
    assert not path.with_name("palaver.db-wal").exists()
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    async with opened(copy) as database:
        assert await database.read(names) == {"kept"}


@pytest.mark.parametrize("as_folder", [False, True])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, as_folder):
    """Text in the place of a database (or a folder) is refused with a hint; not a byte of it changes."""
    path = tmp_path / "palaver.db"
    if as_folder:
        path.mkdir()
    else:
        path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(StoreUnavailable if as_folder else StoreCorrupt) as refusal:
        await SqliteDatabase.open(path)
    assert refusal.value.hint
    assert str(path) in refusal.value.reason
    assert as_folder or path.read_bytes() == b"Dear diary, " * 1000


async def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    """A sound SQLite file with tables that are not ours is refused, by owner and reader, and stays as it is."""
    path = tmp_path / "palaver.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    for open_it in (SqliteDatabase.open, SqliteDatabase.open_beside):
        with pytest.raises(StoreCorrupt, match="another program"):
            await open_it(path)
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_database(tmp_path):
    """A file of 0 bytes, as a mount or `touch` leaves it, is taken as new."""
    path = tmp_path / "palaver.db"
    path.touch()
    async with opened(path) as database:
        await database.write(lambda tx: put(tx, "x"))


# damage


async def fill(path: Path) -> None:
    async with opened(path) as database:
        for part in range(20):
            await database.write(
                lambda tx, p=part: [put(tx, f"name-{p}-{n}", "words " * 40) for n in range(100)]
            )


@pytest.mark.parametrize("page", [2, 5, 20, 60])
async def test_a_damaged_page_refuses_the_start(tmp_path, page):
    """Bytes overwritten in a page of the file are found at the start; what is on disk stays for a rescue."""
    path = tmp_path / "palaver.db"
    await fill(path)
    damaged = bytearray(path.read_bytes())
    assert len(damaged) > 61 * 4096
    damaged[page * 4096 : page * 4096 + 2000] = b"\xa5" * 2000
    path.write_bytes(damaged)
    with pytest.raises(StoreCorrupt, match="damaged") as refusal:
        await SqliteDatabase.open(path)
    assert "backup" in refusal.value.hint
    assert path.read_bytes() == damaged


async def test_a_truncated_file_refuses_the_start(tmp_path):
    """A file cut in half, as a broken copy leaves it, is refused."""
    path = tmp_path / "palaver.db"
    await fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    with pytest.raises(StoreCorrupt):
        await SqliteDatabase.open(path)


async def test_damage_met_at_work_is_reported_as_such(tmp_path, monkeypatch):
    """Files too large to be checked at each start: damage that a read or a write meets raises StoreCorrupt."""
    path = tmp_path / "palaver.db"
    await fill(path)
    damaged = bytearray(path.read_bytes())
    pages = len(damaged) // 4096  # the schema stands at the front, the rows behind it
    for page in range(pages - 40, pages - 20):
        damaged[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
    path.write_bytes(damaged)
    monkeypatch.setattr(sqlite, "CHECKED_AT_OPEN_BYTES", 0)
    async with opened(path) as database:
        with pytest.raises(StoreCorrupt, match=re.escape(str(path))):
            await database.read(lambda tx: tx.rows("SELECT name, value FROM cursors"))
        with pytest.raises(StoreCorrupt, match=re.escape(str(path))):
            await database.write(lambda tx: tx.execute("UPDATE cursors SET value = value || '!'"))


async def test_a_torn_end_of_the_log_loses_only_what_was_not_acknowledged(tmp_path):
    """Garbage after the last commit of the write-ahead log, as a power cut leaves it, is ignored."""
    path, copy = tmp_path / "palaver.db", tmp_path / "copy.db"
    async with opened(path) as database:
        await database.write(lambda tx: put(tx, "acknowledged"))
        shutil.copy(path, copy)
        log = path.with_name("palaver.db-wal").read_bytes()
    copy.with_name("copy.db-wal").write_bytes(log + b"\x17" * 3000)
    async with opened(copy) as database:
        assert await database.read(names) == {"acknowledged"}


# places that cannot be written

AS_NOBODY = """
    import asyncio, os, sys
    from pathlib import Path
    from sessions.database.sqlite import SqliteDatabase
    from sessions.errors import StoreError

    async def main():
        try:
            database = await SqliteDatabase.open(Path(sys.argv[1]))
        except StoreError as error:
            print(type(error).__name__, "|", error.reason, "|", error.hint)
        else:
            await database.close()
            print("opened")

    async def warm_up():  # whoever we become may not read Python's own modules
        await (await SqliteDatabase.open(Path(sys.argv[2]) / "warm.db")).close()
        await asyncio.to_thread(int)

    asyncio.run(warm_up())
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    asyncio.run(main())
"""


def open_as_nobody(path: Path) -> str:
    with tempfile.TemporaryDirectory() as warm, child(AS_NOBODY, path, warm) as process:
        output, _ = process.communicate(timeout=30)
    return output.splitlines()[-1]


@pytest.fixture
def public(tmp_path_factory) -> Iterator[Path]:
    """A folder that any user may enter (those of pytest are for its own user only)."""
    folder = Path(tempfile.mkdtemp(prefix="palaver-test-"))
    folder.chmod(0o777)
    yield folder
    for place, _, _ in os.walk(folder):
        Path(place).chmod(0o777)
    shutil.rmtree(folder)


async def made(path: Path) -> Path:
    """A database that belongs to anybody."""
    async with opened(path):
        pass
    for file in path.parent.iterdir():
        file.chmod(0o666)
    return path


async def test_an_unwritable_folder_is_named(public):
    """Neither a new nor an existing database opens in a folder that cannot be written; the reason names it."""
    folder = public / "data"
    folder.mkdir()
    folder.chmod(0o555)
    for path in (folder / "palaver.db", folder / "deeper" / "palaver.db"):
        said = open_as_nobody(path)
        assert said.startswith("StoreUnavailable | cannot write in") and str(folder) in said


async def test_an_unwritable_folder_with_a_lock_in_it_is_named(public):
    """The same where a lock file is there but the database is not."""
    folder = public / "data"
    folder.mkdir()
    (folder / "palaver.db.lock").touch()
    (folder / "palaver.db.lock").chmod(0o666)
    folder.chmod(0o555)
    said = open_as_nobody(folder / "palaver.db")
    assert said.startswith("StoreUnavailable |") and str(folder / "palaver.db") in said


@pytest.mark.parametrize("mode", [0o444, 0o000])
async def test_a_file_that_cannot_be_written_is_refused_at_the_start(public, mode):
    """A read-only or unreadable file is refused when it is opened, not when the first message arrives."""
    path = await made(public / "palaver.db")
    path.chmod(mode)
    said = open_as_nobody(path)
    assert said.startswith("StoreUnavailable |") and str(path) in said and "rights" in said
    path.chmod(0o666)
    assert open_as_nobody(path) == "opened"


# locked by another writer


@contextlib.contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield other
        finally:
            if other.in_transaction:
                other.execute("ROLLBACK")


async def test_a_lock_longer_than_the_timeout_is_reported_and_heals(tmp_path):
    """While another program holds the write lock, writes raise StoreUnavailable and reads go on; then all is well."""
    path = tmp_path / "palaver.db"
    async with opened(path, busy_timeout_s=0.1) as database:
        await database.write(lambda tx: put(tx, "before"))
        with locked(path):
            results = await asyncio.gather(
                *(database.write(lambda tx, n=n: put(tx, f"during-{n}")) for n in range(5)),
                return_exceptions=True,
            )
            assert all(isinstance(result, StoreUnavailable) for result in results), results
            assert "locked" in results[0].reason and results[0].hint
            assert await database.read(names) == {"before"}
        await database.write(lambda tx: put(tx, "after"))
        assert await database.read(names) == {"before", "after"}


async def test_a_lock_shorter_than_the_timeout_is_waited_for(tmp_path):
    """A short foreign transaction costs nothing but time."""
    path = tmp_path / "palaver.db"
    async with opened(path, busy_timeout_s=20) as database:
        with locked(path) as other:
            write = asyncio.create_task(database.write(lambda tx: put(tx, "patient")))
            await asyncio.sleep(0.2)
            other.execute("COMMIT")
        await write
        assert await database.read(names) == {"patient"}


async def test_a_file_locked_at_the_start_is_reported(tmp_path):
    """Another program in the middle of a transaction refuses the start in words, and only for as long as it lasts."""
    path = tmp_path / "palaver.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await SqliteDatabase.open(path, busy_timeout_s=0.1)
        other.execute("ROLLBACK")
    async with opened(path):
        pass


# disks that are full or broken


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB in memory."""
    place = tmp_path / "small"
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "palaver-test", str(place)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system cannot be mounted here; the test with max_page_count shows the same")
    try:
        yield place
    finally:
        left_open = subprocess.run(["umount", str(place)], check=False).returncode
        if left_open:  # a test that left a file open fails, but the mount goes all the same
            subprocess.run(["umount", "--lazy", str(place)], check=True)
            pytest.fail("a file of the database was left open")


async def writes(database: SqliteDatabase, prefix: str, count: int) -> tuple[set[str], list[StoreError]]:
    """Write one after the other and some at once; gives what was acknowledged and what was refused."""
    kept: set[str] = set()
    refused: list[StoreError] = []
    for number in range(0, count, 4):
        group = [f"{prefix}-{number + k}" for k in range(4)]
        results = await asyncio.gather(
            *(database.write(lambda tx, n=n: put(tx, n, "w" * 9000)) for n in group), return_exceptions=True
        )
        for name, result in zip(group, results, strict=True):
            if result is None:
                kept.add(name)
            else:
                assert isinstance(result, StoreError), repr(result)
                refused.append(result)
    return kept, refused


async def is_sound(database: SqliteDatabase) -> bool:
    verdict = await database.read(lambda tx: tx.row("PRAGMA integrity_check"))
    return verdict == {"integrity_check": "ok"}


async def test_a_full_disk_refuses_keeps_and_recovers(small_disk):
    """On a full disk every write is refused in words, what was acknowledged stays, and freed space is enough to go on."""
    path = small_disk / "palaver.db"
    ballast = small_disk / "ballast"
    async with opened(path) as database:
        ballast.write_bytes(b"b" * 700_000)
        kept, refused = await writes(database, "full", 200)
        assert kept and refused
        assert {type(error) for error in refused} == {StoreUnavailable}
        assert "no room left" in refused[0].reason and refused[0].hint
        assert await database.read(names) == kept
        free = database.free_bytes()
        assert free is not None and free < 100_000
        ballast.unlink()
        more, still_refused = await writes(database, "after", 20)
        assert len(more) == 20 and not still_refused
        assert await database.read(names) == kept | more
        assert await is_sound(database)
    async with opened(path) as database:
        assert await database.read(names) == kept | more


async def test_a_start_on_a_full_disk_is_refused_in_words(small_disk):
    """No room at the start: StoreUnavailable, for a new database and for one that is there; both open later."""
    existing, new = small_disk / "existing.db", small_disk / "new.db"
    async with opened(existing) as database:
        await database.write(lambda tx: put(tx, "kept"))
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(b"b" * 4096)
            file.flush()
    for path in (existing, new):
        with pytest.raises(StoreUnavailable):
            await SqliteDatabase.open(path)
    ballast.unlink()
    async with opened(existing) as database:
        assert await database.read(names) == {"kept"}
    async with opened(new) as database:
        await database.write(lambda tx: put(tx, "works"))


async def test_a_database_that_may_not_grow_refuses_keeps_and_recovers(tmp_path):
    """The same by SQLite's own limit: a statement that finds no room takes its neighbours' effects with it, not their success."""
    async with opened(tmp_path / "palaver.db") as database:

        def limit(connection: sqlite3.Connection, *, spare: int) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()["page_count"]
            connection.execute(f"PRAGMA max_page_count = {pages + spare}")

        await database._writer.run(lambda connection: limit(connection, spare=8))
        # the large one in the middle does not fit; its small neighbours do
        results = await asyncio.gather(
            database.write(lambda tx: put(tx, "small-1")),
            database.write(lambda tx: put(tx, "large", "w" * 100_000)),
            database.write(lambda tx: put(tx, "small-2")),
            return_exceptions=True,
        )
        assert isinstance(results[1], StoreUnavailable) and "no room left" in results[1].reason
        assert results[0] is None and results[2] is None
        kept, refused = await writes(database, "full", 80)
        assert refused and {type(error) for error in refused} == {StoreUnavailable}
        await database._writer.run(lambda connection: limit(connection, spare=100_000))
        await database.write(lambda tx: put(tx, "after"))
        assert await database.read(names) == {"small-1", "small-2", "after"} | kept
        assert await is_sound(database)


async def test_work_that_hides_a_full_disk_is_refused_all_the_same(tmp_path):
    """Work that swallows the error which cost it its transaction is not acknowledged."""
    async with opened(tmp_path / "palaver.db") as database:

        def work(tx: Transaction) -> str:
            put(tx, "first")
            with contextlib.suppress(sqlite3.Error):
                put(tx, "large", "w" * 100_000)
            return "done"

        await database._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 1"))
        with pytest.raises(StoreUnavailable):
            await database.write(work)
        assert await database.read(names) == set()


LIMITED = """
    import asyncio, resource, signal, sys
    from pathlib import Path
    from sessions import inbox
    from sessions.database.sqlite import SqliteDatabase
    from sessions.errors import StoreError

    async def main():
        database = await SqliteDatabase.open(Path(sys.argv[1]))
        put = lambda name: database.write(lambda tx: inbox.set_cursor(tx, "a", name, "w" * 9000, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        largest = max(file.stat().st_size for file in Path(sys.argv[1]).parent.glob("palaver.db*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 300_000, hard))
        for number in range(100):
            try:
                await put(str(number))
                print("kept", number)
            except StoreError as error:
                print("refused", type(error).__name__, error.reason)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await put("after")
        print("kept", "after")
        await database.close()

    asyncio.run(main())
"""


async def test_a_disk_that_fails_writes_refuses_keeps_and_recovers(tmp_path):
    """Writes that the system refuses (here: a limit on the size of files) are reported as the disk's error."""
    path = tmp_path / "palaver.db"
    with child(LIMITED, path) as process:
        output, _ = await asyncio.to_thread(process.communicate, None, 50)
    said = [line.split(maxsplit=2) for line in output.splitlines() if line.startswith(("kept", "refused"))]
    kept = {words[1] for words in said if words[0] == "kept"}
    refused = [words for words in said if words[0] == "refused"]
    assert "after" in kept and len(kept) > 5, output
    assert refused and {words[1] for words in refused} == {"StoreUnavailable"}, output
    async with opened(path) as database:
        assert await database.read(names) == kept
        assert await is_sound(database)


FAILING_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int broken(void) { return access(getenv("BREAK_SYNC"), F_OK) == 0; }
int fsync(int file) {
    if (broken()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}
int fdatasync(int file) {
    if (broken()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
"""

SYNCING = """
    import asyncio, os, sys
    from pathlib import Path
    from sessions import inbox
    from sessions.database.sqlite import SqliteDatabase
    from sessions.errors import StoreError

    async def main():
        database = await SqliteDatabase.open(Path(sys.argv[1]))
        broken = Path(os.environ["BREAK_SYNC"])
        for number in range(30):
            if number % 10 == 5:
                broken.touch()
            if number % 10 == 8:
                broken.unlink()
            try:
                await database.write(lambda tx: inbox.set_cursor(tx, "a", str(number), "w" * 9000, 0))
                print("kept", number)
            except StoreError as error:
                print("refused", number, type(error).__name__)
        os._exit(0)

    asyncio.run(main())
"""


async def test_an_acknowledgement_waits_for_fsync(tmp_path):
    """Each write is refused while fsync fails, though its bytes reached the file: nothing is acknowledged without it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the failing fsync with")
    source, library = tmp_path / "sync.c", tmp_path / "sync.so"
    source.write_text(FAILING_SYNC)
    build = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    await asyncio.to_thread(subprocess.run, build, check=True)
    path = tmp_path / "palaver.db"
    environ = os.environ | {"LD_PRELOAD": str(library), "BREAK_SYNC": str(tmp_path / "broken")}
    with child(SYNCING, path, env=environ) as process:
        output, _ = await asyncio.to_thread(process.communicate, None, 50)
    said = [line.split() for line in output.splitlines() if line.startswith(("kept", "refused"))]
    refused = {int(words[1]) for words in said if words[0] == "refused"}
    kept = {int(words[1]) for words in said if words[0] == "kept"}
    assert refused == {n for n in range(30) if n % 10 in (5, 6, 7)}, output
    assert {words[2] for words in said if words[0] == "refused"} == {"StoreUnavailable"}
    async with opened(path) as database:
        assert {str(n) for n in kept} <= await database.read(names)
        assert await is_sound(database)


async def test_nobody_is_told_before_the_commit(tmp_path, monkeypatch):
    """At the moment of each COMMIT all callers whose writes it holds still wait."""
    told_early: list[bool] = []
    async with opened(tmp_path / "palaver.db") as database:
        loop = asyncio.get_running_loop()
        calls: list[asyncio.Task[None]] = []

        class Watching:
            """The writer's connection, looking at the callers before each COMMIT."""

            def __init__(self, connection: sqlite3.Connection) -> None:
                self._connection = connection

            def execute(self, sql: str, *arguments: object) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result(10)
                    told_early.append(any(call.done() for call in calls))
                return self._connection.execute(sql, *arguments)

            def __getattr__(self, name: str) -> object:
                return getattr(self._connection, name)

        commit = database._commit
        monkeypatch.setattr(
            database, "_commit", lambda connection, batch: commit(Watching(connection), batch)
        )
        calls += [asyncio.create_task(database.write(lambda tx, n=n: put(tx, str(n)))) for n in range(10)]
        await asyncio.gather(*calls)
    assert told_early == [False]


async def test_a_fault_of_the_writer_itself_hangs_nobody(tmp_path):
    """Should the writer fail in a way nobody thought of, its callers get an error and the next ones are served."""
    async with opened(tmp_path / "palaver.db") as database:

        def explode(number: int) -> None:
            database.after_commit = None
            raise ZeroDivisionError(number)

        database.after_commit = explode
        with pytest.raises((StoreError, ZeroDivisionError)):
            await asyncio.wait_for(database.write(lambda tx: put(tx, "first")), 10)
        await asyncio.wait_for(database.write(lambda tx: put(tx, "second")), 10)


# migrations

REAL = migrate.migrations()


async def test_a_migration_keeps_a_snapshot_of_what_was_before(tmp_path, monkeypatch):
    """Before a schema changes, a whole copy (mode 0600) is put beside the file, and opens with the older program."""
    path = tmp_path / "palaver.db"
    async with opened(path) as database:
        await database.write(lambda tx: put(tx, "old"))
    assert not list(tmp_path.glob("*.schema-*")), "a new database needs no snapshot"
    more = Migration(
        len(REAL) + 1,
        "more",
        "CREATE TABLE more (id $SERIAL, raw $BYTES); -- a comment; with one\nDELETE FROM cursors;",
    )
    before = os.umask(0)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(migrate, "migrations", lambda: (*REAL, more))
            async with opened(path) as database:
                assert await database.read(names) == set()
                await database.write(
                    lambda tx: tx.execute("INSERT INTO more (raw) VALUES (:raw)", {"raw": b"1"})
                )
    finally:
        os.umask(before)
    (snapshot,) = tmp_path.glob("*.schema-*")
    assert snapshot.name == f"palaver.db.schema-{len(REAL)}"
    assert stat.S_IMODE(snapshot.stat().st_mode) == 0o600
    with pytest.raises(SchemaTooNew):
        await SqliteDatabase.open(path)
    async with opened(snapshot) as database:
        assert await database.read(names) == {"old"}


async def test_a_failing_migration_changes_nothing(tmp_path, monkeypatch):
    """A migration that fails in its second statement leaves the database as the older program knows it."""
    path = tmp_path / "palaver.db"
    async with opened(path) as database:
        await database.write(lambda tx: put(tx, "old"))
    broken = Migration(len(REAL) + 1, "broken", "DELETE FROM cursors; CREATE TABLE sessions (id TEXT);")
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "migrations", lambda: (*REAL, broken))
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError):
                await SqliteDatabase.open(path)
    async with opened(path) as database:
        assert await database.read(names) == {"old"}


async def test_a_half_written_snapshot_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    """A start that dies while it takes the snapshot leaves nothing under the snapshot's name."""
    path = tmp_path / "palaver.db"
    async with opened(path):
        pass

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(migrate, "migrations", lambda: (*REAL, Migration(len(REAL) + 1, "more", "")))
    monkeypatch.setattr(sqlite_file.os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        sqlite_file.snapshot(*_connection_to(path), len(REAL))
    assert not path.with_name(f"palaver.db.schema-{len(REAL)}").exists()


def _connection_to(path: Path) -> tuple[sqlite3.Connection, Path]:
    return sqlite3.connect(path, isolation_level=None), path


# the statements of every turn


async def test_a_turn_costs_the_same_in_a_long_session(tmp_path):
    """Neither claiming nor counting walks over turns that have ended, a start walks over nothing that is done, and the end of a
    reply over nothing that waits.
    """
    seen: list[str] = []

    class Recording:
        dialect = "sqlite"

        def __init__(self, tx: Transaction) -> None:
            self._tx = tx

        def _note(self, sql: str, parameters: object) -> None:
            seen.extend(str(row["detail"]) for row in self._tx.rows(f"EXPLAIN QUERY PLAN {sql}", parameters))

        def execute(self, sql: str, parameters: object = {}) -> int:
            self._note(sql, parameters)
            return self._tx.execute(sql, parameters)

        def row(self, sql: str, parameters: object = {}) -> object:
            self._note(sql, parameters)
            return self._tx.row(sql, parameters)

        def rows(self, sql: str, parameters: object = {}) -> object:
            self._note(sql, parameters)
            return self._tx.rows(sql, parameters)

    def work(tx: Transaction) -> None:
        watched = Recording(tx)
        outbox.is_settled(watched, 1)
        assert not [
            step for step in seen if step.startswith("SCAN") and "CONSTANT" not in step
        ]  # of what waits
        lane.claim(watched, "s", 0, context_messages=20)
        lane.waiting(watched, "s")
        lane.recover(watched)
        lane.sessions_with_work(watched)
        lane.request_cancel(watched, ["s"], 0, with_queued=False)
        outbox.recover(watched, "a")
        outbox.waiting(watched, "a", "c")
        outbox.channels_waiting(watched, "a")
        outbox.sent_since(watched, "a", 0)

    async with opened(tmp_path / "palaver.db") as database:
        await database.write(work)
    on_tables = [step for step in seen if re.search(r"\b(turns|outbox|t|r)\b", step)]
    assert on_tables
    slow = [
        step
        for step in on_tables
        if not re.search(
            r"INDEX (turns_unfinished|turns_running|outbox_\w+)|PRIMARY KEY|autoindex_turns_1", step
        )
    ]
    assert not slow


async def test_a_large_file_is_looked_through_beside_the_start(tmp_path, monkeypatch):
    """What `open` leaves out for its size is found by `check`, while others work; a small file is not looked at twice."""
    path = tmp_path / "palaver.db"
    database = await SqliteDatabase.open(path)
    await database.write(lambda tx: tx.execute("CREATE TABLE filler (x)"))
    await database.write(lambda tx: tx.execute("INSERT INTO filler VALUES (zeroblob(200000))"))
    assert await database.check() is None
    await database.close()
    raw = bytearray(path.read_bytes())
    with sqlite3.connect(path) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'filler'").fetchone()[0]
    raw[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(raw)
    monkeypatch.setattr(sqlite, "CHECKED_AT_OPEN_BYTES", 1000)
    database = await SqliteDatabase.open(path)
    try:
        found, _ = await asyncio.gather(database.check(), database.read(lambda tx: tx.rows("SELECT 1 AS x")))
    finally:
        await database.close()
    assert found is not None
    assert str(page) in found
