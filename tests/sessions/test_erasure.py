"""Forgetting people: nothing of them is left in the file, of their turns in shared sessions the numbers, of others everything."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import retention as daemon_side
from bot.upkeep import Upkeep
from sessions import erasure, inbox, lane, lifecycle, outbox, people, search, statistics, summaries
from sessions.database import traces
from sessions.database.base import Database
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import StaleClaim
from sessions.scope import OperatorScope
from tests.sessions import records as made
from tests.sessions.conversations import exported, imported, talk
from tests.sessions.records import NOW
from tests.sessions.stores import PLACES, broken, lay_sqlite, open_place


async def settled(database: Database) -> None:
    """All the background work is done."""
    while await database.write(search.index_pending):
        pass
    while await database.write(statistics.fold):
        pass


async def person_named(database: Database, words: str) -> str:
    (person,) = await database.read(lambda tx: people.list_people(tx, words=words))
    return person.id


async def erase(database: Database, person_id: str, *, now: int = NOW) -> int:
    await database.write(lambda tx: erasure.request(tx, person_id, now))
    return await daemon_side.erase_people(database, lambda: now, pause_s=0)


def holds(folder: Path, *words: str) -> dict[str, int]:
    """How often each word stands anywhere in the database's files, the log included; upper and lower case are the same."""
    raw = b"".join(file.read_bytes().lower() for file in folder.glob("palaver.db*"))
    found = {word: raw.count(word.lower().encode()) for word in words}
    return {word: times for word, times in found.items() if times}


async def rows_with(database: Database, word: str) -> dict[str, int]:
    """The tables in which any column of any row holds a word."""

    def look(tx):
        if tx.dialect == "sqlite":
            names = tx.rows(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'message_words%'"
            )
        else:
            names = tx.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()")
        found = {}
        for table in (row["name"] for row in names):
            hits = sum(word.lower() in str(row).lower() for row in tx.rows(f"SELECT * FROM {table}"))
            if hits:
                found[table] = hits
        return found

    return await database.read(look)


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 60))
async def test_nothing_of_a_person_is_left_in_the_file(seed, turns):
    """After an erasure no word, name or id of the person is anywhere in the database's files; others lose nothing of theirs."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = await SqliteDatabase.open(lay_sqlite(folder / "palaver.db"))
        try:
            await database.write(
                lambda tx: talk(tx, seed=seed, turns=turns, people=["ada", "bob"], words="harmless")
            )
            await settled(database)
            await database.write(
                lambda tx: talk(tx, seed=seed + 1, turns=turns, people=["zanzibar"], words="unspeakable")
            )
            await settled(database)
            assert holds(folder, "zanzibar", "unspeakable")
            person_id = await person_named(database, "zanzibar")
            await erase(database, person_id)
            await settled(database)
            assert await database.wipe()
            # The bare fact that a message came stays for some days, so that none is taken twice: it names the channel.
            left = holds(folder, "unspeakable", "name of zanzibar", "user-zanzibar", "id-of-zanzibar")
            assert left == {}
            assert await broken(database) == set()
            for row in await database.read(lambda tx: tx.rows("SELECT * FROM audit")):
                assert row["subject"] == person_id
                assert "zanzibar" not in str(row)
        finally:
            await database.close()


async def test_nothing_is_left_in_any_table(store):
    """No row of any table holds a word of the person afterwards, whichever database it is."""
    await store.write(lambda tx: talk(tx, seed=1, turns=40, people=["ada", "zanzibar"], words="spoken"))
    await settled(store)
    await erase(store, await person_named(store, "zanzibar"))
    await settled(store)
    assert set(await rows_with(store, "zanzibar")) <= {"inbox"}  # the channel of a direct chat, for a week
    forgotten = await store.write(lambda tx: inbox.forget_declined(tx, 2**60))
    assert forgotten
    assert await rows_with(store, "zanzibar") == {}
    assert await rows_with(store, "of ada")
    assert await broken(store) == set()


async def test_others_keep_what_they_said(store):
    """What other people said and were answered is the same before and after, in the shared session too."""
    await store.write(lambda tx: talk(tx, seed=2, turns=40, people=["ada", "zanzibar"]))

    def theirs(tx):
        return tx.rows(
            "SELECT session_id, position, part, content FROM messages WHERE content NOT LIKE '%zanzibar%'"
            " ORDER BY session_id, position, part"
        )

    before = await store.read(theirs)
    await erase(store, await person_named(store, "zanzibar"))
    assert await store.read(theirs) == before
    assert len(await store.read(people.list_people)) == 1


async def test_turns_in_shared_sessions_keep_their_numbers(store):
    """A turn of the person in a group keeps its times and tokens, and nothing else."""
    message = made.incoming("zanzibar", channel="group", channel_kind="group")
    queued = await store.write(lambda tx: made.arrive(tx, message, scope="channel"))

    def answer(tx):
        claim = made.claimed(tx, queued.session_id)
        lane.finish(tx, claim, "completed", NOW + 9, answer="zanzibar", input_tokens=7, output_tokens=8)

    await store.write(answer)
    await erase(store, await person_named(store, "ada"))
    turn = await store.read(lambda tx: made.turn_row(tx, queued.turn_id))
    assert (turn["status"], turn["input_tokens"], turn["finished_at"]) == ("completed", 7, NOW + 9)
    assert await store.read(lambda tx: made.count(tx, "messages")) == 0


async def test_a_running_turn_can_store_nothing_any_more(store):
    """Whoever runs a turn of the person when they are forgotten is refused, and no reply of it stays to be sent."""
    group = made.incoming("zanzibar", channel="group", channel_kind="group")
    queued = await store.write(lambda tx: made.arrive(tx, group, scope="channel"))
    claim = await store.write(lambda tx: made.claimed(tx, queued.session_id))
    await erase(store, await person_named(store, "ada"))
    with pytest.raises(StaleClaim):
        await store.write(lambda tx: lane.finish(tx, claim, "completed", NOW, answer="zanzibar"))
    with pytest.raises(StaleClaim):
        await store.write(lambda tx: lane.record_step(tx, claim, made.answer_step(), NOW))
    assert await rows_with(store, "zanzibar") == {}
    assert await broken(store) == set()


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_who_writes_again_is_a_stranger(store, steps):
    """A message after the wish, before anything else is done about it or in the middle, makes a new person without a past."""
    await store.write(lambda tx: made.arrive(tx, made.incoming("before")))
    old = await person_named(store, "ada")
    await store.write(lambda tx: erasure.request(tx, old, NOW))
    for _ in range(steps):
        await store.write(lambda tx: erasure.step(tx, NOW))
    await store.write(lambda tx: made.arrive(tx, made.incoming("in the middle")))
    await daemon_side.erase_people(store, lambda: NOW, pause_s=0)
    new = await person_named(store, "ada")
    assert new != old
    assert await daemon_side.overwrite_removed(store)
    assert set(await rows_with(store, old)) == {"audit"}
    assert set(await rows_with(store, "in the middle")) == {"messages"}


@pytest.mark.parametrize("kind", list(PLACES))
async def test_an_erasure_goes_on_after_any_step(tmp_path, kind):
    """Stopped after any number of steps, the next process finishes it, and nothing is ever half of a turn."""
    steps = 0
    while True:
        folder = tmp_path / str(steps)
        folder.mkdir()
        with PLACES[kind](folder / "palaver.db") as url:
            rest = await erase_in_two_goes(folder, url, steps)
        if rest == 0:
            break
        steps += 1
    assert steps >= 5


async def erase_in_two_goes(folder: Path, url: str, steps: int) -> int:
    """So many steps by one process and the rest by the next; gives how many those were."""
    database = await open_place(url)
    try:
        await database.write(lambda tx: talk(tx, seed=3, turns=25, people=["ada", "zanzibar"]))
        person_id = await person_named(database, "zanzibar")
        await database.write(lambda tx, one=person_id: erasure.request(tx, one, NOW))
        done = 0
        while done < steps and await database.write(lambda tx: erasure.step(tx, NOW)):
            done += 1
        assert await broken(database) == set()
        await database.close()
        database = await open_place(url)
        rest = await daemon_side.erase_people(database, lambda: NOW, pause_s=0)
        await settled(database)
        await database.wipe()
        await nothing_left(database, folder, "name of zanzibar", "word of zanzibar")
        assert await broken(database) == set()
    finally:
        await database.close()
    return rest


async def nothing_left(database: Database, folder: Path, *words: str) -> None:
    """On SQLite in no byte of the files; how a server keeps its files is its own affair, there in no row."""
    if database.dialect == "sqlite":
        assert holds(folder, *words) == {}
    else:
        for word in words:
            assert await rows_with(database, word) == {}


async def test_what_waits_to_be_sent_to_them_is_removed_but_for_the_answer_to_the_wish(store):
    """An answer still on its way is not sent; the word that they are forgotten is."""
    queued = await store.write(lambda tx: made.arrive(tx, made.incoming("zanzibar")))
    claim = await store.write(lambda tx: made.claimed(tx, queued.session_id))

    def answer(tx):
        lane.finish(tx, claim, "completed", NOW, answer="zanzibar")
        outbox.add(tx, claim.address, "answer", [{"text": "zanzibar"}], NOW, turn_id=claim.turn_id)
        wish = made.incoming("/forget yes")
        address = inbox.record(tx, wish, "command", "", NOW, person_id=claim.person_id)
        outbox.add(tx, address, "command", [{"text": "You are forgotten."}], NOW)

    await store.write(answer)
    await erase(store, await person_named(store, "ada"))
    waiting = await store.read(lambda tx: outbox.waiting(tx, made.ACCOUNT, made.CHANNEL))
    assert [chunk.body for chunk in waiting] == [{"text": "You are forgotten."}]


async def test_summaries_of_a_shared_session_are_made_anew(store):
    """A summary that may hold words of the person goes, and the session says that nothing is summarised."""
    group = made.incoming("zanzibar", channel="group", channel_kind="group")
    queued = await store.write(lambda tx: made.arrive(tx, group, scope="channel"))

    def summarise(tx):
        tx.execute(
            "INSERT INTO summaries (session_id, version, from_position, to_position, content, tokens, made_by, created_at)"
            " VALUES (:id, 1, 1, 1, 'about zanzibar', 3, 'digest', 0)",
            {"id": queued.session_id},
        )
        tx.execute("UPDATE sessions SET summarised_to = 1")

    await store.write(summarise)
    await erase(store, await person_named(store, "ada"))
    assert await rows_with(store, "zanzibar") == {}
    assert (await store.read(lambda tx: made.session_row(tx, queued.session_id)))["summarised_to"] == 0
    assert summaries


async def test_statistics_forget_the_person_and_keep_the_sums(store):
    """The person's own figures are gone; what all turns cost in shared sessions stays counted."""
    await store.write(lambda tx: talk(tx, seed=5, turns=30, people=["ada", "zanzibar"]))
    person_id = await person_named(store, "zanzibar")
    await erase(store, person_id)
    await settled(store)
    assert await daemon_side.overwrite_removed(store)
    assert set(await rows_with(store, person_id)) == {"audit"}


async def test_an_export_after_an_erasure_has_nothing_of_them(store):
    """What is exported afterwards is as if the person had never been."""
    await store.write(lambda tx: talk(tx, seed=6, turns=30, people=["ada", "zanzibar"]))
    person_id = await person_named(store, "zanzibar")
    await erase(store, person_id)
    assert b"zanzibar" not in await exported(store)
    live = await store.read(lambda tx: lifecycle.list_sessions(tx, OperatorScope()))
    assert live and person_id not in {one.person_id for one in live}


async def test_the_daemons_background_work_forgets_at_once(store, tmp_path):
    """A round of upkeep after `/forget me` removes the person, and the round that can empties file and log of their words."""
    await store.write(lambda tx: talk(tx, seed=7, turns=30, people=["ada", "zanzibar"]))
    upkeep = Upkeep(store, now=lambda: NOW)
    await upkeep.work()
    person_id = await person_named(store, "zanzibar")
    await store.write(lambda tx: erasure.request(tx, person_id, NOW))
    await upkeep.work()
    await nothing_left(store, tmp_path, "name of zanzibar", "word of zanzibar")
    assert await store.read(lambda tx: erasure.due(tx, NOW)) == 0


@pytest.mark.parametrize("kind", list(PLACES))
async def test_killed_before_the_bytes_are_overwritten_the_next_start_does_it(tmp_path, kind):
    """That a person's bytes may still lie in the file is written down until they do not, whoever was killed meanwhile."""
    with PLACES[kind](tmp_path / "palaver.db") as url:
        database = await open_place(url)
        await database.write(lambda tx: talk(tx, seed=7, turns=30, people=["ada", "zanzibar"]))
        person_id = await person_named(database, "zanzibar")
        await erase(database, person_id)
        assert await database.read(erasure.removed) == [person_id]
        assert await database.read(lambda tx: erasure.due(tx, NOW)) == 0
        await database.close()
        database = await open_place(url)
        try:
            await Upkeep(database, now=lambda: NOW).work()
            await nothing_left(database, tmp_path, "name of zanzibar", "word of zanzibar")
            assert await database.read(erasure.removed) == []
        finally:
            await database.close()


async def test_who_comes_back_by_an_import_can_be_forgotten_again(store):
    """Also in the moment between the removal of their rows and of their bytes."""
    await store.write(lambda tx: talk(tx, seed=8, turns=20, people=["zanzibar"]))
    raw = await exported(store)
    person_id = await person_named(store, "zanzibar")
    await erase(store, person_id)
    await imported(store, raw)
    await erase(store, person_id)
    assert b"zanzibar" not in await exported(store)
    assert await daemon_side.overwrite_removed(store, whole=True)
    assert await store.read(erasure.removed) == []


@pytest.mark.parametrize("words", ["Özlem", "özlem", "ÖZLEM", "zle", "АННА", "анна", "50%_!"])
async def test_a_name_is_found_however_it_is_written(store, words):
    """Capitals beyond ASCII too, which SQLite does not know, and what LIKE would take for a pattern."""
    for number, name in enumerate(("Özlem Ünal", "Анна", "Half 50%_!")):
        who = made.incoming(
            "x", user_id=f"u{number}", display_name=name, message_id=str(number), channel=f"c{number}"
        )
        await store.write(lambda tx, who=who: made.arrive(tx, who))
    found = await store.read(lambda tx: people.list_people(tx, words=words))
    assert len(found) == 1


async def test_what_somebody_said_is_searched_for_in_every_file_beside_the_database(tmp_path):
    """The log, snapshots and what a restore replaced are looked at; after an erasure only copies have something left."""
    path = tmp_path / "palaver.db"
    database = await SqliteDatabase.open(path)
    try:
        await database.write(lambda tx: talk(tx, seed=7, turns=30, people=["ada", "zanzibar"]))
        person_id = await person_named(database, "zanzibar")
        pieces = await database.read(lambda tx: erasure.samples(tx, person_id))
        assert 5 < len(pieces) <= 16
        assert set(traces.find(path, pieces)[path.with_name("palaver.db-wal")]) == set(pieces)
        shutil.copy(path.with_name("palaver.db-wal"), tmp_path / "palaver.db.before-restore-1")
        await erase(database, person_id)
        await daemon_side.overwrite_removed(database, whole=True)
        left = {file.name: len(found) for file, found in traces.find(path, pieces).items() if found}
        assert left == {"palaver.db.before-restore-1": len(pieces)}
        assert not await database.read(lambda tx: erasure.is_said(tx, pieces[0]))
        await database.write(
            lambda tx: made.arrive(tx, made.incoming(f"she said: {pieces[0]}", user_id="bob"))
        )
        assert await database.read(lambda tx: erasure.is_said(tx, pieces[0]))
    finally:
        await database.close()
