"""Moving house: everything of a database in another of the other kind, counted and compared, or nothing at all."""

import asyncio
import contextlib
import gc
import sqlite3

import psycopg
import pytest
from structlog.testing import capture_logs

from sessions import lane, outbox, sealing, search
from sessions.database import moving, stores
from sessions.database.postgres import PostgresDatabase
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import StaleClaim, StoreCorrupt, StoreUnavailable
from sessions.scope import OperatorScope
from sessions.search import SearchQuery
from tests import postgres
from tests.sessions import records as made
from tests.sessions.conversations import exported, talk
from tests.sessions.stores import broken


@pytest.fixture
def path(tmp_path):
    return tmp_path / "palaver.db"


@pytest.fixture
def url():
    """An empty database on a server."""
    with postgres.fresh_database() as url:
        yield url


@contextlib.asynccontextmanager
async def opened(where, **options):
    kind = PostgresDatabase if isinstance(where, str) else SqliteDatabase
    with capture_logs():
        database = await kind.open(where, **options)
    try:
        yield database
    finally:
        await database.close()


class CutOff(BaseException):
    """Like Ctrl-C: nobody catches it."""


async def fill(where, *, turns=40, **options) -> bytes:
    """Put something of everything into a store; gives its export."""
    async with opened(where, **options) as database:
        await database.write(lambda tx: talk(tx, seed=3, turns=turns))
        # a text as only SQLite holds it, and one that is none of its words
        await database.write(
            lambda tx: made.arrive(tx, made.incoming("Ünï\U0001f600 \\ \t\n\\N cødé", user_id="odd"))
        )
        return await exported(database)


async def move_to_server(path, url, **options):
    with capture_logs():
        return await asyncio.to_thread(lambda: moving.to_server(path, url, **options))


async def move_to_file(url, path, **options):
    with capture_logs():
        return await asyncio.to_thread(lambda: moving.to_file(url, path, **options))


async def test_everything_is_there_after_the_move_and_after_the_way_back(path, url, tmp_path):
    """Export, invariants, statistics, ids and search are the same on the server, and again in a file made from it."""
    before = await fill(path)
    move = await move_to_server(path, url)
    assert move.rows("sessions") > 1 and move.rows("messages") > 20 and move.rows("statistics_changes") > 0
    back = tmp_path / "back.db"
    again = await move_to_file(url, back)
    assert [(one.table, one.rows, one.checksum) for one in again.tables] == [
        (one.table, one.rows, one.checksum) for one in move.tables
    ]
    for where in (url, back):
        async with opened(where) as database:
            assert await exported(database) == before
            assert await broken(database) == set()
            found = await database.read(
                lambda tx: search.search(tx, OperatorScope(), SearchQuery("cødé", size=5))
            )
            assert len(found.hits) == 1
            # new rows get ids after all that ever were
            queued = await database.write(lambda tx: made.arrive(tx, made.incoming("new", user_id="new")))
            newest = await database.read(lambda tx: tx.row("SELECT MAX(id) AS id FROM inbox"))
            assert newest["id"] > move.rows("inbox")
            assert queued.session_id


async def test_work_under_way_goes_on_at_the_new_place(path, url):
    """Turns that waited or ran, and replies that waited, are there, in order, and are finished on the server."""
    async with opened(path) as database:
        first = await database.write(lambda tx: made.arrive(tx, made.incoming("one", user_id="ada")))
        await database.write(lambda tx: made.arrive(tx, made.incoming("two", user_id="ada")))
        claim = await database.write(lambda tx: made.claimed(tx, first.session_id))
        await database.write(lambda tx: outbox.add(tx, claim.address, "notice", [{"text": "wait"}], made.NOW))
    move = await move_to_server(path, url)
    assert (move.unfinished_turns, move.waiting_replies) == (2, 1)
    async with opened(url) as database:
        place = (claim.address.account, claim.address.channel)
        [reply] = await database.read(lambda tx: outbox.waiting(tx, *place))
        assert reply.body == {"text": "wait"}
        assert await database.write(lane.recover) == 1
        for expected in ("one", "two"):
            taken = await database.write(lambda tx: made.claimed(tx, first.session_id))
            assert taken.messages[-1].content == expected
            await database.write(
                lambda tx, taken=taken: lane.finish(tx, taken, "completed", made.NOW, answer="ok")
            )
        with pytest.raises(StaleClaim):  # the one who ran it before the move comes late
            await database.write(lambda tx: lane.finish(tx, claim, "completed", made.NOW, answer="late"))
        assert await broken(database) == set()


async def test_sealed_values_stay_sealed(path, url):
    """What was encrypted is moved as it is, opens with the same key, and not without."""
    key = sealing.new_key()
    before = await fill(path, turns=10, keys=[key])
    async with opened(url, keys=[sealing.new_key()]):
        pass  # somebody started on the empty target with other keys
    await move_to_server(path, url)
    with psycopg.connect(url) as connection:
        [(plain,)] = connection.execute(
            "SELECT COUNT(*) FROM messages WHERE content LIKE '%word%'"
        ).fetchall()
        assert plain == 0
    async with opened(url, keys=[key]) as database:
        assert await exported(database) == before
    with pytest.raises(StoreUnavailable):
        async with opened(url):
            pass


async def test_a_target_with_something_in_it_is_refused(path, url, tmp_path):
    """Neither a server nor a file that holds anything is written to."""
    await fill(path, turns=3)
    async with opened(url) as database:
        await database.write(made.arrive)
        before = await exported(database)
    with pytest.raises(StoreUnavailable, match="is not empty: it has 1 session with 1 message"):
        await move_to_server(path, url)
    async with opened(url) as database:
        assert await exported(database) == before
    there = tmp_path / "there.db"
    there.write_text("precious")
    with pytest.raises(StoreUnavailable, match="exists already") as refusal:
        await move_to_file(url, there)
    assert "--force" not in refusal.value.hint, "a move has no such option"
    assert there.read_text() == "precious"


async def test_a_backup_replaces_what_is_there_only_when_told_to(path, url):
    """Restoring over a full database needs to be wanted, says what it removed, and leaves nothing of it."""
    before = await fill(path, turns=3)
    async with opened(url) as database:
        await database.write(lambda tx: talk(tx, seed=9, turns=5, words="gone"))
    with pytest.raises(StoreUnavailable, match="is not empty") as refused:
        await move_to_server(path, url, is_backup=True)
    assert "--force" in refused.value.hint
    move = await move_to_server(path, url, is_backup=True, replaces=True)
    assert move.replaced_rows > 20
    async with opened(url) as database:
        assert await exported(database) == before
        assert await broken(database) == set()


async def test_nobody_may_work_at_either_end_of_a_move(path, url, tmp_path):
    """A file that a daemon owns and a server with a node on it are refused; a backup of that server is not."""
    async with opened(path):
        with pytest.raises(StoreUnavailable, match="process"):
            await move_to_server(path, url)
    async with opened(url) as database:
        await database.write(made.arrive)
        with pytest.raises(StoreUnavailable, match="in use"):
            await move_to_server(path, url)
        with pytest.raises(StoreUnavailable, match="in use"):
            await move_to_file(url, tmp_path / "moved.db")
        copy = await move_to_file(url, tmp_path / "copy.db", is_backup=True)
        assert copy.rows("messages") == 1
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.endswith(".db")) == [
        "copy.db",
        "palaver.db",
    ]
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("table", ["persons", "messages", "outbox"])
async def test_an_interrupted_move_leaves_nothing(path, url, tmp_path, monkeypatch, table):
    """Whatever ends a move in the middle, the target is as empty as before, and the next try succeeds."""
    before = await fill(path, turns=5)
    load = stores.ServerEnd.load

    def dying(self, name, columns, rows):
        load(self, name, columns, rows)
        if name == table:
            raise CutOff

    monkeypatch.setattr(stores.ServerEnd, "load", dying)
    with pytest.raises(CutOff):
        await move_to_server(path, url)
    monkeypatch.undo()
    await move_to_server(path, url)
    async with opened(url) as database:
        assert await exported(database) == before

    load_file = stores.FileEnd.load

    def dying_file(self, name, columns, rows):
        load_file(self, name, columns, rows)
        if name == table:
            raise CutOff

    monkeypatch.setattr(stores.FileEnd, "load", dying_file)
    with pytest.raises(CutOff):
        await move_to_file(url, tmp_path / "back.db")
    assert [file for file in tmp_path.iterdir() if file.name.startswith("back")] == []


async def test_a_server_that_dies_in_the_middle_is_all_that_is_told(path, url, monkeypatch):
    """The rows that were being read are let go of in the thread that read them; SQLite would complain of any other."""
    await fill(path, turns=5)

    def dying(self, name, columns, rows):
        if next(rows, None) is not None:
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(stores.ServerEnd, "load", dying)
    with pytest.raises(StoreUnavailable, match="was lost: server closed"):
        await move_to_server(path, url)
    gc.collect()


async def test_one_who_leaves_in_time_does_not_stop_a_move(path, url, tmp_path):
    """A connection that ends while it is waited for is seen to have gone."""
    await fill(path, turns=2)
    await move_to_server(path, url)
    database = await PostgresDatabase.open(url)
    move = asyncio.create_task(move_to_file(url, tmp_path / "back.db"))
    try:
        await asyncio.sleep(0.7)
        assert not move.done()
    finally:
        await database.close()
    await move
    assert (tmp_path / "back.db").exists()


@pytest.mark.parametrize("fault", ["lost", "changed", "added"])
async def test_a_difference_is_found_and_nothing_is_stored(path, url, monkeypatch, fault):
    """A row that is lost, changed or added on the way fails the move: counts and checksums are compared."""
    await fill(path, turns=5)
    load = stores.ServerEnd.load

    def faulty(self, name, columns, rows):
        kept = list(rows)
        if name == "messages":
            at = columns.index("content")
            match fault:
                case "lost":
                    kept = kept[1:]
                case "changed":
                    kept[0] = (*kept[0][:at], kept[0][at] + ".", *kept[0][at + 1 :])
                case "added":
                    position = columns.index("position")
                    extra = list(kept[0])
                    extra[columns.index("id")] = 10**15
                    extra[position] = 10**9
                    kept.append(tuple(extra))
        load(self, name, columns, iter(kept))

    monkeypatch.setattr(stores.ServerEnd, "load", faulty)
    with pytest.raises(StoreCorrupt, match="the table messages is not the same"):
        await move_to_server(path, url)
    monkeypatch.undo()
    async with opened(url) as database:
        assert await database.read(lambda tx: tx.rows("SELECT id FROM sessions")) == []


async def test_a_row_that_refers_to_nothing_is_told(path, url):
    """A file with such a row (a salvaged one, say) is refused by the server, and the message says why."""
    await fill(path, turns=2)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO identities VALUES ('x', 'y', 'nobody', NULL, 'Z', 1, NULL)")
        connection.commit()
    with pytest.raises(StoreCorrupt, match="does not take a row"):
        await move_to_server(path, url)


async def test_a_text_with_nul_is_moved(path, url):
    """PostgreSQL has no place for NUL; it becomes the sign for what cannot be shown, as if it had been written there."""
    async with opened(path) as database:
        await database.write(lambda tx: made.arrive(tx, made.incoming("a\0b")))
    await move_to_server(path, url)
    async with opened(url) as database:
        row = await database.read(lambda tx: tx.row("SELECT content FROM messages"))
        assert row["content"] == "a\ufffdb"


async def test_every_table_is_moved_or_made_anew(path, url):
    """A new table of one kind alone, or different in the two, fails here until somebody decides what a move does with it."""
    await fill(path, turns=1)
    with (
        contextlib.closing(sqlite3.connect(path)) as connection,
        stores.server(url, is_read_only=True) as end,
    ):
        tables = moving._tables(stores.FileEnd(connection, path), end)
    assert {"sessions", "messages", "outbox", "seals", "statistics_totals", "message_vectors"} <= set(tables)
    order = list(tables)
    assert order.index("persons") < order.index("identities") and order.index("sessions") < order.index(
        "turns"
    )


async def test_a_backup_of_an_older_version_is_brought_up_to_date(path, url, monkeypatch):
    """The file itself stays as it is; a copy of it is migrated and restored."""
    from sessions.database import migrate

    known = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: known[:-2])
    async with opened(path, keys=[sealing.new_key()]):  # and nobody needs its keys for that
        pass
    monkeypatch.undo()
    raw = path.read_bytes()
    move = await move_to_server(path, url, is_backup=True)
    assert move.rows("sessions") == 0 and move.rows("seals") == 1
    assert path.read_bytes() == raw
