"""Encryption at rest: nothing that was said is readable in the file, the keys must fit, and rotation may be cut off anywhere."""

import stat
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import stores
from config.settings import Settings
from sessions import contents, inbox, lane, lifecycle, outbox, sealing, search
from sessions.database import migrate
from sessions.database.base import Database
from sessions.database.postgres import PostgresDatabase
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import StoreCorrupt, StoreError, StoreUnavailable
from sessions.scope import OperatorScope
from sessions.sealing import KeySeal, key_id, new_key
from tests import postgres
from tests.sessions import records as made
from tests.sessions.conversations import exported, talk
from tests.sessions.records import NOW
from tests.sessions.stores import PLACES

EVERYTHING = OperatorScope()
KEYS = [new_key(), new_key(), new_key()]
Open = Callable[..., Awaitable[Database]]


@pytest.fixture(params=["sqlite", "postgresql"])
async def opened(request, tmp_path) -> AsyncIterator[Open]:
    """Opens the same store with the keys given."""
    made_so_far: list[Database] = []

    async def sqlite(*keys: str) -> Database:
        for one in made_so_far:
            await one.close()
        made_so_far.append(await SqliteDatabase.open(tmp_path / "palaver.db", keys=keys))
        return made_so_far[-1]

    if request.param == "sqlite":
        yield sqlite
        for one in made_so_far:
            await one.close()
        return
    with postgres.fresh_database() as url:

        async def server(*keys: str) -> Database:
            for one in made_so_far:
                await one.close()
            made_so_far.append(await PostgresDatabase.open(url, keys=keys))
            return made_so_far[-1]

        yield server
        for one in made_so_far:
            await one.close()


async def stored_values(database: Database) -> str:
    """Every sealed column as it is stored, however it is read: the head of each value tells."""

    def look(tx):
        return "".join(
            str(row["head"])
            for table, columns in sealing.SEALED.items()
            for column in columns
            if column != "raw"
            for row in tx.rows(
                f"SELECT '.' || substr({column}, 1, 40) AS head FROM {table}"
                f" WHERE {column} IS NOT NULL AND {column} NOT IN ('[]', '{{}}')"
            )
        )

    return await database.read(look)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_every_text_comes_back(text):
    """What is sealed opens to the same text, by any of the keys, and is not the text."""
    old, new = KeySeal("\x01mark", KEYS[:1]), KeySeal("\x01mark", KEYS)
    assert new.open(old.seal(text)) == text
    assert KeySeal("\x01mark", KEYS[::-1]).open(new.seal(text)) == text
    assert text not in new.seal(text) or len(text) < 8
    assert new.open_bytes(new.seal_bytes(text.encode("utf-8", "surrogatepass"))) == text.encode(
        "utf-8", "surrogatepass"
    )


def test_a_text_that_was_never_sealed_is_left_alone():
    """Rows from before the key was set, and words that look like sealed ones of another database, are read as they are."""
    seal = KeySeal("\x01mark", KEYS)
    for text in ("", "hello", "\x01", "\x01other" + KEYS[0], KeySeal("\x01mine", KEYS).seal("x")):
        assert seal.open(text) == text


def test_a_damaged_value_is_said_to_be_damaged():
    """A changed byte is noticed; nothing half right is given out."""
    seal = KeySeal("\x01mark", KEYS)
    token = seal.seal("hello")
    with pytest.raises(StoreCorrupt):
        seal.open(token[:-3] + "AAA")
    with pytest.raises(StoreCorrupt, match=key_id(KEYS[1])):
        KeySeal("\x01mark", KEYS[:1]).open(KeySeal("\x01mark", KEYS[1:2]).seal("hello"))


async def test_nothing_that_was_said_is_readable_in_the_file(tmp_path):
    """Messages, tool calls, steps, replies, variables, titles and tasks: no word of them is in the file or its log."""
    database = await SqliteDatabase.open(tmp_path / "palaver.db", keys=KEYS[:1])
    try:
        await database.write(lambda tx: talk(tx, seed=1, turns=40, words="unspeakable"))
        session = (await database.read(lambda tx: lifecycle.list_sessions(tx, EVERYTHING, limit=1)))[0]

        def more(tx):
            contents.set_title(tx, session.id, "unspeakable title")
            contents.set_current_task(tx, session.id, "unspeakable task", NOW)
            contents.merge_metadata(tx, session.id, {"first": "unspeakable metadata"})
            merged = contents.merge_metadata(tx, session.id, {"second": 2})
            assert merged == {"first": "unspeakable metadata", "second": 2}
            inbox.quarantine(tx, made.ACCOUNT, b"unspeakable update", "no JSON", NOW)

        await database.write(more)
        while await database.write(search.index_pending):
            pass
        raw = b"".join(file.read_bytes() for file in tmp_path.glob("palaver.db*"))
        for words in (
            b"unspeakable of",
            b"unspeakable title",
            b"unspeakable task",
            b"unspeakable meta",
            b"unspeakable update",
        ):
            assert words not in raw
        page = await database.read(lambda tx: contents.titles(tx, [session.id], EVERYTHING))
        assert page[session.id] == "unspeakable title"
    finally:
        await database.close()


async def test_everything_works_as_without_it(opened):
    """Claims, edits, replies and exports see what was written, as if it were not sealed."""
    database = await opened(KEYS[0])
    message = made.incoming("first words", message_id="7")
    queued = await database.write(lambda tx: made.arrive(tx, message))
    await database.write(lambda tx: inbox.replace_text(tx, made.incoming("other words", message_id="7"), NOW))
    claim = await database.write(lambda tx: made.claimed(tx, queued.session_id))
    assert [one.content for one in claim.messages] == ["other words"]

    def answer(tx):
        lane.record_step(tx, claim, made.answer_step(), NOW, tool_call=made.tool_call())
        lane.finish(tx, claim, "completed", NOW, answer="yes")
        outbox.add(tx, claim.address, "answer", [{"text": "yes"}], NOW)

    await database.write(answer)
    (chunk,) = await database.read(lambda tx: outbox.waiting(tx, made.ACCOUNT, made.CHANNEL))
    assert chunk.body == {"text": "yes"}
    await database.write(lambda tx: outbox.begin(tx, chunk.id))
    assert (
        await database.write(lambda tx: outbox.mark_sent(tx, chunk.id, "m", NOW, body={"text": "no"}))
        is False
    )
    assert (
        await database.write(lambda tx: outbox.mark_sent(tx, chunk.id, "m", NOW, body={"text": "yes"}))
        is True
    )
    assert "other words" not in await stored_values(database)
    assert b"other words" in await exported(database)


async def test_sealed_messages_are_not_searched(opened):
    """The index of words has nothing of a sealed message, so a search does not find it, and says how many it cannot see."""
    database = await opened(KEYS[0])
    await database.write(lambda tx: made.arrive(tx, made.incoming("zanzibar")))
    while await database.write(search.index_pending):
        pass
    found = await database.read(lambda tx: search.search(tx, EVERYTHING, search.SearchQuery("zanzibar")))
    assert list(found.hits) == []


@pytest.mark.parametrize("keys", [(), (KEYS[1],), (KEYS[1], KEYS[2])])
async def test_keys_that_do_not_fit_are_refused_at_the_start(opened, keys):
    """Without the key, or with another one, nothing starts, and the sentence says what is missing."""
    database = await opened(KEYS[0])
    await database.write(lambda tx: made.arrive(tx, made.incoming("x")))
    with pytest.raises(StoreUnavailable, match=key_id(KEYS[0])) as refusal:
        await opened(*keys)
    assert "key" in refusal.value.hint.lower()
    assert await (await opened(KEYS[0])).read(lambda tx: made.count(tx, "messages")) == 1


@pytest.mark.parametrize("kind", list(PLACES))
async def test_reading_beside_needs_the_key_as_well(tmp_path, kind):
    """A command beside the daemon is refused in the same way."""
    with PLACES[kind](tmp_path / "palaver.db") as url:
        settings = [
            Settings.model_validate({"database_url": url, "store": {"encryption_keys": keys}})
            for keys in (KEYS[:1], None)
        ]
        database = await stores.open_database(settings[0])
        await database.write(lambda tx: made.arrive(tx, made.incoming("x")))
        with pytest.raises(StoreUnavailable):
            await stores.open_beside(settings[1])
        beside = await stores.open_beside(settings[0])
        assert (await beside.read(lambda tx: tx.row("SELECT content FROM messages")))["content"] == "x"
        await beside.close()
        await database.close()


async def test_a_store_that_was_plain_stays_readable_and_is_sealed_from_now_on(opened):
    """Setting a key touches no old row; new ones are sealed, and a rotation seals the rest."""
    database = await opened()
    await database.write(lambda tx: talk(tx, seed=2, turns=15, words="plain"))
    before = await exported(database)
    database = await opened(KEYS[0])
    assert await exported(database) == before
    assert "plain of" in await stored_values(database)
    assert await sealing.rotate(database, [KEYS[0]], NOW) > 0
    assert "plain of" not in await stored_values(database)
    assert await exported(database) == before


async def test_rotation_brings_everything_under_the_new_key(opened):
    """Afterwards the old key is not needed, nor would it open anything."""
    database = await opened(KEYS[0])
    await database.write(lambda tx: talk(tx, seed=3, turns=25))
    before = await exported(database)
    database = await opened(KEYS[1], KEYS[0])
    await database.write(lambda tx: made.arrive(tx, made.incoming("between")))
    with pytest.raises(StoreError):
        await opened(KEYS[1])
    database = await opened(KEYS[1], KEYS[0])
    await sealing.rotate(database, [KEYS[1], KEYS[0]], NOW)
    database = await opened(KEYS[1])
    after = (await exported(database)).splitlines()
    kept = [line for line in before.splitlines() if b'"type":"message"' in line]
    assert set(kept) < set(after)
    with pytest.raises(StoreError):
        await opened(KEYS[0])


async def test_rotation_may_be_cut_off_anywhere(opened):
    """After any number of steps everything is readable with both keys, and a second run brings the rest."""
    database = await opened(KEYS[0])
    await database.write(lambda tx: talk(tx, seed=4, turns=12))
    before = await exported(database)
    keys = [KEYS[1], KEYS[0]]
    for steps in (1, 3, 6, 9):
        database = await opened(*keys)
        stretch = sealing.Stretch()
        for _ in range(steps):
            seal = await database.read(lambda tx: tx.seal)
            stretch, _changed = await database.write(
                lambda tx, at=stretch, seal=seal: sealing.rotate_step(tx, seal, at, batch=5)
            )
        assert await exported(database) == before
        database = await opened(*keys)
        assert await exported(database) == before
    await sealing.rotate(database, keys, NOW)
    database = await opened(KEYS[1])
    assert await exported(database) == before


async def test_encryption_can_be_ended(opened):
    """`--off` decrypts everything; afterwards no key is asked for and search sees the messages."""
    database = await opened(KEYS[0])
    await database.write(lambda tx: made.arrive(tx, made.incoming("zanzibar")))
    await sealing.rotate(database, [KEYS[0]], NOW, is_off=True)
    database = await opened()
    while await database.write(search.index_pending):
        pass
    found = await database.read(lambda tx: search.search(tx, EVERYTHING, search.SearchQuery("zanzibar")))
    assert len(found.hits) == 1


def test_keys_come_from_the_setting_or_a_file(tmp_path):
    """A key stands in the setting itself or, one in a line, in a file; what is none is named by its place."""
    file = tmp_path / "keys"
    file.write_text("\n".join(KEYS[:2]) + "\n")
    file.chmod(stat.S_IRUSR)
    assert sealing.read_keys([KEYS[2], f"file:{file}"]) == [KEYS[2], *KEYS[:2]]
    for wrong in ("", "short", f"file:{tmp_path / 'none'}", "file:/dev/null"):
        with pytest.raises(StoreUnavailable, match="entry 2") as refusal:
            sealing.read_keys([KEYS[0], wrong])
        assert KEYS[0] not in refusal.value.reason


def test_a_database_from_before_gets_the_tables_and_stays_plain(oldest):
    """The migration applies to a store of the first version with conversations in it, and asks for no key."""
    oldest.execute(
        "INSERT INTO persons (id, display_name, created_at, last_seen_at) VALUES ('P', 'Ada', 1, 1)"
    )
    oldest.execute(
        "INSERT INTO sessions (id, key, scope, platform, account, channel, person_id, status, title, created_at,"
        " last_activity_at) VALUES ('S', 'k', 'person', 'telegram', 'telegram.main', 'c', 'P', 'active', 'T', 1, 1)"
    )
    oldest.execute(
        "INSERT INTO messages (session_id, position, part, role, content, created_at)"
        " VALUES ('S', 1, 0, 'user', 'old words', 1)"
    )
    for migration in migrate.migrations()[1:]:
        migrate.apply(oldest, migration, NOW)
    assert sealing.find(oldest, []) is sealing.PLAIN
    assert sealing.begin(oldest, KEYS[:1], NOW).is_on
    row = oldest.row("SELECT content, is_sealed FROM messages")
    assert dict(row) == {"content": "old words", "is_sealed": 0}
    for table in ("audit", "erasures"):
        assert made.count(oldest, table) == 0


async def test_rotation_takes_the_words_out_of_the_index_as_well(tmp_path):
    """What was said and found before there was a key is in no part of the file afterwards, not even as a word."""
    path = tmp_path / "palaver.db"
    database = await SqliteDatabase.open(path)
    await database.write(lambda tx: talk(tx, seed=1, turns=20, words="quixotism"))
    while await database.write(search.index_pending):
        pass
    await database.close()
    assert b"quixotism" in path.read_bytes()
    database = await SqliteDatabase.open(path, keys=KEYS[:1])
    await sealing.rotate(database, KEYS[:1], NOW)
    words = await database.read(
        lambda tx: tx.rows("SELECT CAST(block AS TEXT) AS block FROM message_words_data")
    )
    await database.close()
    assert not any("quixotism" in row["block"] for row in words)
    raw = b"".join(file.read_bytes() for file in tmp_path.glob("palaver.db*"))
    # An error's line for people and the names of variables are not encrypted; nothing that was said is in them.
    assert b"quixotism of" not in raw
