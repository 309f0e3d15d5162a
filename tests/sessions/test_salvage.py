"""Saving what is readable of a damaged file, whatever the damage, and saying what was lost."""

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import invariants
from sessions.database import migrate, salvage
from sessions.database.pages import Pages
from sessions.database.sqlite import SqliteDatabase, SqliteTransaction
from sessions.database.sqlite_file import as_mapping
from sessions.errors import StoreCorrupt, StoreUnavailable
from tests.sessions.conversations import exported, imported
from tests.sessions.records import NOW
from tests.sessions.test_backup import content, filled, verdicts

PAGE = 4096


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "palaver.db"


def hurt(path: Path, target: Path, pages: list[int]) -> int:
    """Overwrite pages (0 is the first after the header) by noise; gives how many pages there are."""
    raw = bytearray(path.read_bytes())
    count = len(raw) // 4096
    noise = random.Random(7)
    for page in pages:
        at = (page % count) * 4096
        raw[at : at + 4096] = noise.randbytes(4096)
    target.write_bytes(raw)
    return count


async def test_a_sound_file_is_salvaged_whole(path, tmp_path):
    """Where nothing is damaged nothing is lost, and the report says so."""
    raw = await filled(path, turns=60)
    report = await salvage.salvage(path, tmp_path / "new.db", NOW)
    assert report.is_complete
    assert await content(tmp_path / "new.db") == raw


@settings(max_examples=15)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8))
async def test_what_is_readable_comes_out_and_the_rest_is_told(pages):
    """Whichever pages are destroyed, the new store is sound, holds nothing that was not there, and most of what was."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = await filled(folder / "a.db", turns=120)
        count = hurt(folder / "a.db", folder / "damaged.db", pages)
        report = await salvage.salvage(folder / "damaged.db", folder / "new.db", NOW)
        database = await SqliteDatabase.open(folder / "new.db")
        assert await verdicts(database) == set()
        assert await database.read(invariants.damage) == []
        words = {
            row["content"] for row in await database.read(lambda tx: tx.rows("SELECT content FROM messages"))
        }
        await database.close()
        known = [line for line in raw.splitlines() if b'"type":"message"' in line]
        assert (
            len(words)
            >= 0.5 * len({line.split(b'"content":')[1].split(b',"person_id"')[0] for line in known})
            or len(pages) > 3
        )
        assert report.is_complete is False or {page % count for page in pages}


async def test_a_file_without_its_list_of_tables_is_salvaged_page_by_page(path, tmp_path):
    """With the first page gone no table can be opened; rows are found in their pages, with their ids and times."""
    await filled(path, turns=100)
    hurt(path, tmp_path / "damaged.db", [0])
    before = Pages(path)
    leaves = sum(len(leaf.rows) for leaf in before.leaves())
    before.close()
    assert leaves > 300
    report = await salvage.salvage(tmp_path / "damaged.db", tmp_path / "new.db", NOW)
    found = {table.table: table for table in report.tables}
    assert not report.is_complete
    assert found["messages"].carved == found["messages"].rows > 100
    database = await SqliteDatabase.open(tmp_path / "new.db")
    assert await verdicts(database) == set()
    assert await database.read(invariants.damage) == []
    await database.close()


async def test_what_was_in_the_log_is_salvaged_too(path, tmp_path):
    """Rows that were committed and not yet folded into the file are among what is saved."""
    await filled(path, turns=20)
    left = sqlite3.connect(path, isolation_level=None)
    left.execute("UPDATE messages SET content = 'only in the log'")
    for ending in ("", "-wal"):
        (tmp_path / f"damaged.db{ending}").write_bytes(path.with_name(path.name + ending).read_bytes())
    left.close()
    raw = bytearray((tmp_path / "damaged.db").read_bytes())
    raw[:4096] = bytes(4096)
    (tmp_path / "damaged.db").write_bytes(raw)
    await salvage.salvage(tmp_path / "damaged.db", tmp_path / "new.db", NOW)
    database = await SqliteDatabase.open(tmp_path / "new.db")
    rows = await database.read(lambda tx: tx.rows("SELECT DISTINCT content FROM messages"))
    await database.close()
    assert {"content": "only in the log"} in rows


@pytest.mark.parametrize(
    "raw", [b"", b"no database at all", bytes(100_000), random.Random(1).randbytes(50_000)]
)
async def test_what_holds_nothing_of_ours_is_refused(tmp_path, raw):
    """A file without a row of Palaver's gives a clear error and no new database."""
    (tmp_path / "damaged.db").write_bytes(raw)
    with pytest.raises(StoreCorrupt) as refusal:
        await salvage.salvage(tmp_path / "damaged.db", tmp_path / "new.db", NOW)
    assert refusal.value.hint
    assert {file.name for file in tmp_path.iterdir()} == {"damaged.db"}


async def test_salvage_never_writes_over_a_file(path, tmp_path):
    """The new database must not be there yet, and the damaged one must."""
    await filled(path)
    with pytest.raises(StoreUnavailable, match="exists already"):
        await salvage.salvage(path, path, NOW)
    with pytest.raises(StoreUnavailable, match="no file"):
        await salvage.salvage(tmp_path / "none", tmp_path / "new.db", NOW)


# any damage


def _flip(raw: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 20, 200])):
        raw[chance.randrange(len(raw))] = chance.randrange(256)


def _blank(raw: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 10)):
        at = chance.randrange(len(raw) // PAGE) * PAGE
        raw[at : at + PAGE] = bytes(PAGE)


def _misplace(raw: bytearray, chance: random.Random) -> None:
    pages = len(raw) // PAGE
    for _ in range(chance.randrange(1, 4)):
        to, come = chance.randrange(pages) * PAGE, chance.randrange(pages) * PAGE
        raw[to : to + PAGE] = raw[come : come + PAGE]


def _cut(raw: bytearray, chance: random.Random) -> None:
    del raw[chance.randrange(len(raw) // 4, len(raw)) :]


def _shift(raw: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(raw))
    del raw[at : at + chance.randrange(1, 5000)]


def count(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM messages").fetchone()[0])


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A store of 150 turns, made once."""
    path = tmp_path_factory.mktemp("sound") / "palaver.db"
    asyncio.run(filled(path, turns=150))
    return path


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("damage", [_flip, _blank, _misplace, _cut, _shift])
async def test_whatever_the_damage_what_comes_out_is_sound(
    sound, tmp_path, damage: Callable[[bytearray, random.Random], None], seed
):
    """The new store opens, its books hold, it can be moved on by export and import; what is missing is admitted."""
    raw = bytearray(sound.read_bytes())
    damage(raw, random.Random(seed))
    (tmp_path / "damaged.db").write_bytes(raw)
    try:
        report = await salvage.salvage(tmp_path / "damaged.db", tmp_path / "new.db", NOW)
    except StoreCorrupt:
        assert damage is _cut
        return
    database = await SqliteDatabase.open(tmp_path / "new.db")
    assert await verdicts(database) == set()
    assert await database.read(invariants.damage) == []
    moved = await exported(database)
    await database.close()
    other = await SqliteDatabase.open(tmp_path / "other.db")
    await imported(other, moved)
    assert await exported(other) == moved
    await other.close()
    assert count(tmp_path / "new.db") == count(sound) or not report.is_complete


async def test_a_page_in_anothers_place_is_no_reason_to_call_a_file_whole(sound, tmp_path):
    """A table whose first page is an empty table's reads as empty without any error: rows are searched for all the same."""
    with sqlite3.connect(sound) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"))
    raw = bytearray(sound.read_bytes())
    to, come = (roots["messages"] - 1) * PAGE, (roots["questions"] - 1) * PAGE
    raw[to : to + PAGE] = raw[come : come + PAGE]
    (tmp_path / "damaged.db").write_bytes(raw)
    with sqlite3.connect(tmp_path / "damaged.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM messages NOT INDEXED").fetchone()[0] == 0
    report = await salvage.salvage(tmp_path / "damaged.db", tmp_path / "new.db", NOW)
    assert not report.is_complete
    assert count(tmp_path / "new.db") == count(sound)


async def test_bytes_where_a_text_belongs_are_left_out(sound, tmp_path):
    """SQLite stores anything in any column; what no reader of ours can take is refused and counted."""
    shutil.copy(sound, tmp_path / "damaged.db")
    with sqlite3.connect(tmp_path / "damaged.db") as connection:
        connection.execute("DROP TRIGGER message_words_updated")
        connection.execute("UPDATE messages SET content = x'ff00' WHERE id = 1")
        connection.execute("UPDATE turns SET status = 'comp\"eted' WHERE position = 1")
    report = await salvage.salvage(tmp_path / "damaged.db", tmp_path / "new.db", NOW)
    refused = {table.table: table.refused for table in report.tables if table.refused}
    assert refused["messages"] == 1
    assert refused["turns"] >= 1
    database = await SqliteDatabase.open(tmp_path / "new.db")
    assert b'"type":"end"' in await exported(database)
    await database.close()


async def test_a_schema_that_is_no_text_is_damage_and_no_fault(sound, tmp_path):
    """SQLite quotes the bytes it stumbled over: whoever opens the file is told that it is damaged, and salvage goes on."""
    raw = bytearray(sound.read_bytes())
    at = raw.index(b"CREATE TABLE persons")
    raw[at : at + 20] = b"\x9bREATE TABLE persons"
    (tmp_path / "damaged.db").write_bytes(raw)
    for opened in (SqliteDatabase.open, SqliteDatabase.open_beside):
        with pytest.raises(StoreCorrupt) as refusal:
            await opened(tmp_path / "damaged.db")
        assert "salvage" in refusal.value.hint
    await salvage.salvage(tmp_path / "damaged.db", tmp_path / "new.db", NOW)
    assert count(tmp_path / "new.db") > 200


async def test_a_message_that_is_no_text_is_damage_and_no_fault(sound, tmp_path):
    """A text that cannot be decoded is told as damage to the file, with what to do."""
    shutil.copy(sound, tmp_path / "damaged.db")
    with sqlite3.connect(tmp_path / "damaged.db") as connection:
        connection.execute("DROP TRIGGER message_words_updated")
        connection.execute("UPDATE messages SET content = CAST(x'ff41' AS TEXT) WHERE id = 1")
    database = await SqliteDatabase.open(tmp_path / "damaged.db")
    with pytest.raises(StoreCorrupt, match="damaged"):
        await exported(database)
    await database.close()


DERIVED = frozenset({"schema_version", "search_progress", "statistics_buckets", "cache_counts", "leases"})
"""Made anew, or of a running daemon only."""


def test_rows_of_every_schema_that_there_was_are_known():
    """Every table is saved or can be made anew, and a row is as short as its table's first columns: it may be that old."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = as_mapping
        first: dict[str, int] = {}
        for migration in migrate.migrations():
            migrate.apply(SqliteTransaction(connection), migration, 0)
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                columns = connection.execute(
                    f"SELECT COUNT(*) AS n FROM pragma_table_info('{row['name']}')"
                ).fetchone()
                first.setdefault(row["name"], columns["n"])
        connection.row_factory = None
        shapes = {shape.table: shape.fewest for shape in salvage._shapes(connection)}
    assert shapes == {table: first[table] for table in salvage.TABLES}
    derived = {
        name
        for name in set(first) - set(shapes)
        if not name.startswith(("message_words", "message_vectors", "statistics", "sqlite_"))
    }
    assert derived <= DERIVED
