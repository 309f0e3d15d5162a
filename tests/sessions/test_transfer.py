"""Export and import: complete, byte for byte the same after a round trip, whole sessions or nothing, once."""

import csv
import io
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import forking, lane, lifecycle, people, sealing
from sessions.database.base import Database
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import TransferError
from sessions.models import Session
from sessions.scope import OperatorScope, PersonScope
from sessions.transfer import exporting, importing, intake, readable, records
from tests.sessions import records as made
from tests.sessions.conversations import exported, imported, talk
from tests.sessions.stores import broken, lay_sqlite

EVERYTHING = OperatorScope()


@pytest.fixture
async def other(tmp_path) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(lay_sqlite(tmp_path / "other.db"))
    yield database
    await database.close()


async def sessions_of(database: Database) -> list[Session]:
    return await database.read(lambda tx: lifecycle.list_sessions(tx, EVERYTHING, limit=1000))


def lines(raw: bytes) -> list[dict]:
    return [orjson.loads(line) for line in raw.splitlines()]


async def test_a_round_trip_gives_the_same_bytes(store, other):
    """What comes out of the database that was imported into is what went in, from either kind of database."""
    await store.write(lambda tx: talk(tx, seed=1, turns=60))
    raw = await exported(store)
    done = await imported(other, raw)
    assert await exported(other) == raw
    assert done.skipped == 0 and done.sessions == len(await sessions_of(store))
    assert {line["type"] for line in lines(raw)} == {
        "header", "person", "session", "variable", "turn", "message", "step", "tool_call", "error", "event", "end"
    }  # fmt: skip
    assert await broken(other) == set()


async def test_a_round_trip_into_the_other_kind_of_database(store, other):
    """A SQLite store can be moved into whatever the port offers, and nothing changes on the way."""
    await other.write(lambda tx: talk(tx, seed=2, turns=40))
    raw = await exported(other)
    await imported(store, raw)
    assert await exported(store) == raw
    assert await broken(store) == set()


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(1, 8), st.text(min_size=1, max_size=20)), max_size=3),
    st.integers(1, 40),
    st.integers(1, 30),
)
async def test_any_talk_survives_batches_of_any_size(talks, batch, largest):
    """Whatever is said, and wherever the batches are cut, a round trip gives the same bytes and sound books."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "BATCH", batch)
        patch.setattr(intake, "LARGEST", largest)
        one = await SqliteDatabase.open(lay_sqlite(Path(folder, "one.db")))
        two = await SqliteDatabase.open(lay_sqlite(Path(folder, "two.db")))
        try:
            for number, (seed, turns, words) in enumerate(talks):
                await one.write(
                    lambda tx, s=seed + 1000 * number, t=turns, w=words: talk(tx, seed=s, turns=t, words=w)
                )
            raw = await exported(one)
            await imported(two, raw)
            assert await exported(two) == raw
            assert await broken(two) == set()
        finally:
            await one.close()
            await two.close()


async def test_a_second_import_changes_nothing(store, other):
    """Importing the same file again adds no row and touches none."""
    await store.write(lambda tx: talk(tx, seed=3, turns=30))
    raw = await exported(store)
    await imported(other, raw)
    again = await imported(other, raw)
    assert (again.sessions, again.messages, again.persons) == (0, 0, 0)
    assert again.skipped == len(await sessions_of(other))
    assert await exported(other) == raw


async def test_ids_and_times_are_kept(store, other):
    """Sessions come with the ids and times they had, as records of the store read them."""
    await store.write(lambda tx: talk(tx, seed=4, turns=20))
    await imported(other, await exported(store))
    assert await sessions_of(other) == await sessions_of(store)


async def test_waiting_turns_come_along_and_can_be_run(store, other):
    """A queued turn is moved with the message that queued it: the new database's daemon answers it where it was asked."""
    await store.write(lambda tx: made.arrive(tx, made.incoming("still waiting", message_id="m-77")))
    await imported(other, await exported(store))
    session = (await sessions_of(other))[0]
    claim = await other.write(lambda tx: made.claimed(tx, session.id))
    assert claim.messages[-1].content == "still waiting"
    assert claim.address.reply_to == "m-77"


async def test_what_was_sealed_is_exported_open_and_imported_sealed(tmp_path, store):
    """An export is readable; the database that takes it in encrypts it with its own key."""
    await store.write(lambda tx: talk(tx, seed=5, turns=20, words="unsealed"))
    raw = await exported(store)
    sealed = await SqliteDatabase.open(lay_sqlite(tmp_path / "sealed.db"), keys=[sealing.new_key()])
    try:
        await imported(sealed, raw)
        assert await exported(sealed) == raw
        await sealed.wipe()
    finally:
        await sealed.close()
    assert b"unsealed of" in raw
    assert b"unsealed of" not in (tmp_path / "sealed.db").read_bytes()


async def test_only_what_was_asked_for(store):
    """One session, or one person's: nothing of anybody else is in it."""
    await store.write(lambda tx: talk(tx, seed=6, turns=40))
    everything = await sessions_of(store)
    one = everything[0]
    found = lines(await exported(store, ids=[one.id]))
    assert [line["id"] for line in found if line["type"] == "session"] == [one.id]
    ada = (await store.read(lambda tx: people.list_people(tx, words="ada")))[0]
    raw = await exported(store, scope=PersonScope(ada.id))
    assert {line["person_id"] for line in lines(raw) if line["type"] == "session"} == {ada.id}
    assert [line["id"] for line in lines(raw) if line["type"] == "person"] == [ada.id]
    assert b"id-of-bob" not in raw and b"of cleo" not in raw


async def test_a_deleted_session_is_not_exported(store):
    """What somebody had removed does not come back through a file."""
    await store.write(lambda tx: talk(tx, seed=7, turns=10))
    gone = next(one for one in await sessions_of(store) if one.status == "active")
    await store.write(lambda tx: lifecycle.delete(tx, gone, made.NOW))
    assert gone.id.encode() not in await exported(store)


async def test_a_live_session_takes_no_place_that_is_taken(store, other):
    """Where somebody is talking already, a live session of the file comes in as ended, and both are kept."""
    message = made.incoming("here", message_id="1")
    await store.write(lambda tx: made.arrive(tx, message))
    await other.write(lambda tx: made.arrive(tx, made.incoming("there", message_id="2")))
    done = await imported(other, await exported(store))
    assert done.ended == 1
    assert sorted(one.status for one in await sessions_of(other)) == ["active", "ended"]
    assert await broken(other) == set()


async def test_somebody_known_here_stays_one_person(store, other):
    """A person of the file with an identity that is known here is that person; their sessions follow them."""
    await store.write(lambda tx: made.arrive(tx, made.incoming("before", channel="old", message_id="1")))
    known = await other.write(lambda tx: made.person_of(tx, made.incoming("x")))
    await imported(other, await exported(store))
    assert [one.person_id for one in await sessions_of(other)] == [known]
    _, person, is_new = await other.write(
        lambda tx: made.resolved(tx, made.incoming("after", message_id="2"))
    )
    assert (person.id, is_new) == (known, False)


async def test_a_large_session_is_not_seen_before_it_is_whole(store, other, monkeypatch):
    """When an import is cut off in a large session nobody sees half of it, and the next import completes it."""
    monkeypatch.setattr(intake, "LARGEST", 20)

    def long(tx):
        for number in range(30):
            queued = made.arrive(tx, made.incoming(f"message {number}"))
            if number < 28:
                claim = made.claimed(tx, queued.session_id)
                made.lane.record_step(tx, claim, made.answer_step(), made.NOW, tool_call=made.tool_call())
                made.lane.finish(tx, claim, "completed", made.NOW, answer="yes")

    await store.write(long)
    raw = await exported(store)
    stopped = 0
    for cut in range(10, len(raw.splitlines()), 12):
        with pytest.raises(TransferError, match="cut off"):
            await imported(other, b"".join(raw.splitlines(keepends=True)[:cut]))
        stopped += 1
        assert [one for one in await sessions_of(other) if one.end_reason != "deleted"] == []
        assert await other.read(made.lane.sessions_with_work) == []
    assert stopped > 5
    await imported(other, raw)
    assert await exported(other) == raw
    assert len(await other.read(made.lane.sessions_with_work)) == 1


async def test_a_file_that_was_cut_off_is_refused_with_the_reason(store, other):
    """An export without its end is recognised wherever it was cut."""
    await store.write(lambda tx: talk(tx, seed=8, turns=5))
    raw = await exported(store)
    for cut in (0, 10, len(raw) // 2, len(raw) - 3):
        with pytest.raises(TransferError, match=r"cut off|no export|no end"):
            await imported(other, raw[:cut])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda line: line | {"status": "happy"}, "line 3: status"),
        (lambda line: line | {"mood": "good"}, "line 3: a session has no 'mood'"),
        (lambda line: line | {"message_count": "many"}, "line 3: message_count"),
        (lambda line: line | {"id": None}, "line 3: id"),
        (lambda line: {"type": "photo"}, "knows no 'photo'"),
        (lambda line: {"type": "message", "session_id": line["id"]}, "before its session"),
        (lambda line: {name: line[name] for name in line if name != "created_at"}, "created_at"),
        (lambda line: [line], "no record"),
    ],
)
async def test_bad_records_are_refused_with_their_line(store, other, change, reason):
    """A record that cannot be right is named by its line, and nothing of its session is stored."""
    await store.write(lambda tx: made.arrive(tx, made.incoming("hello")))
    raw = lines(await exported(store))
    assert raw[2]["type"] == "session"
    raw[2] = change(raw[2])
    with pytest.raises(TransferError, match=reason):
        await imported(other, b"\n".join(map(orjson.dumps, raw)))
    assert await sessions_of(other) == []


async def test_a_row_of_another_session_is_refused(store, other):
    """A file cannot put words into a session that it does not hold."""
    await store.write(lambda tx: talk(tx, seed=9, turns=6))
    raw = lines(await exported(store))
    for number, line in enumerate(raw):
        if line["type"] in ("message", "step"):
            strange = {**line, "session_id": "01AAAAAAAAAAAAAAAAAAAAAAAA"} if line["type"] == "message" else {
                **line, "turn_id": "01AAAAAAAAAAAAAAAAAAAAAAAA"}  # fmt: skip
            with pytest.raises(TransferError, match=f"line {number + 1}"):
                await imported(
                    other, b"\n".join(map(orjson.dumps, [*raw[:number], strange, *raw[number + 1 :]]))
                )


@pytest.mark.parametrize("largest", [36_000, 3])
async def test_a_fork_of_an_older_file_is_counted_as_one(store, other, monkeypatch, largest):
    """A file from before copied messages were counted apart gives the same counts as a new one."""
    monkeypatch.setattr(intake, "LARGEST", largest)

    def forked(tx) -> None:
        for text in ("one", "two"):
            queued = made.arrive(tx, made.incoming(text))
            lane.finish(tx, made.claimed(tx, queued.session_id), "completed", made.NOW, answer="yes")
        fork = forking.fork(tx, made.resolved(tx, made.incoming("one"))[0], made.NOW + 1)
        queued = made.arrive(tx, made.incoming("three"))
        assert queued.session_id == fork.session.id
        lane.finish(tx, made.claimed(tx, queued.session_id), "completed", made.NOW, answer="yes")

    await store.write(forked)
    raw = await exported(store)
    older = lines(raw)
    for line in older:
        if line["type"] == "session":
            line["message_count"] += line.pop("copied_count")
    await imported(other, b"\n".join(map(orjson.dumps, older)))
    assert await exported(other) == raw
    assert await broken(other) == set()


@pytest.mark.parametrize("name", ["account", "channel", "message_id"])
async def test_a_message_that_queued_a_turn_needs_its_place(store, other, name):
    """What a turn is found by cannot be missing; it is said with the line, and nothing of the session comes in."""
    await store.write(lambda tx: talk(tx, seed=9, turns=6))
    raw = lines(await exported(store))
    number = next(at for at, line in enumerate(raw) if line["type"] == "turn" and line["inbox"])
    del raw[number]["inbox"][name]
    with pytest.raises(TransferError, match=f"line {number + 1}: an inbox without {name}"):
        await imported(other, b"\n".join(map(orjson.dumps, raw)))
    assert await other.read(lambda tx: made.count(tx, "turns")) == 0


@settings(max_examples=60)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
async def test_no_bytes_are_more_than_refused(raw):
    """Any bytes at all lead to the one error that the command knows how to say."""
    with pytest.raises(TransferError):
        list(importing.parsed(io.BytesIO(raw)))


async def test_an_unknown_version_is_refused(other):
    """A file of a format that is not known yet is refused before anything is read of it."""
    header = orjson.dumps(records.HEADER | {"version": 2})
    with pytest.raises(TransferError, match="version 2"):
        await imported(other, header + b'\n{"type":"end"}')


async def test_markdown_is_the_conversation_to_read(store):
    """Every message stands in the Markdown, under who said it, with headings of its own moved below ours."""
    await store.write(lambda tx: talk(tx, seed=10, turns=12))
    await store.write(lambda tx: made.arrive(tx, made.incoming("# big\n```\n# code\n```")))
    target = io.BytesIO()
    done = await readable.export_markdown(store, target.write)
    text = target.getvalue().decode()
    assert done.sessions == text.count("\n- Session: `")
    assert text.count("\n## ") == done.messages
    assert "### big\n```\n# code\n```" in text
    assert "*Tools: remember (3 ms" in text


async def test_the_figures_are_those_of_the_sessions(store):
    """The CSV has a line for each session with the counts that the store keeps, and no cell that a spreadsheet would run."""
    await store.write(lambda tx: talk(tx, seed=11, turns=25))
    await store.write(lambda tx: tx.execute("UPDATE sessions SET title = '=HYPERLINK(1)'"))
    target = io.StringIO()
    await readable.export_csv(store, lambda raw: target.write(raw.decode()))
    found = {row["id"]: row for row in csv.DictReader(io.StringIO(target.getvalue()))}
    for session in await sessions_of(store):
        row = found[session.id]
        assert int(row["message_count"]) == session.message_count
        assert int(row["completed"]) + int(row["failed"]) == int(row["turns"])
        assert row["title"] == "'=HYPERLINK(1)"


async def test_somebody_new_in_the_middle_of_an_export_is_in_it(store, other, monkeypatch):
    """Whoever joins a shared conversation after the people were written comes along with what they said."""
    await store.write(lambda tx: talk(tx, seed=1, turns=20))
    write, joined = io.BytesIO(), []

    def read_then_join(raw: bytes) -> int:
        if not joined and b'"type":"person"' in raw:
            joined.append(True)
        return write.write(raw)

    ask = store.read

    async def read(work):
        if joined == [True]:
            joined.append(False)
            late = made.incoming(
                "I am new", user_id="late", channel="group", channel_kind="group", message_id="late"
            )
            await store.write(lambda tx: made.arrive(tx, late, scope="channel"))
        return await ask(work)

    monkeypatch.setattr(store, "read", read)
    await exporting.export(store, read_then_join)
    monkeypatch.undo()
    assert b"I am new" in write.getvalue()
    await imported(other, write.getvalue())
    unknown = await other.read(
        lambda tx: tx.rows(
            "SELECT id FROM messages WHERE person_id IS NOT NULL AND person_id NOT IN (SELECT id FROM persons)"
        )
    )
    assert unknown == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# Title\n## Sub", "### Title\n#### Sub"),
        ("###### deep", "###### deep"),
        ("#hashtag and #", "#hashtag and #"),
        ("```\n# code\n```\n# text", "```\n# code\n```\n### text"),
        ("````\n```\n# code\n````", "````\n```\n# code\n````"),
        ("~~~ python\n# code", "~~~ python\n# code\n~~~"),
        ("```one line```\n# text", "```one line```\n### text"),
        ("a\u2028b\x0bc", "a\u2028b\x0bc"),
        ("", ""),
    ],
)
def test_what_was_said_keeps_its_form_below_our_headings(text, shown):
    """Headings are moved below ours; code, tags and every other character stay, and an open fence is closed."""
    assert readable._shifted(text) == shown


def test_no_cell_is_a_formula_and_numbers_stay_numbers():
    """What a spreadsheet would run is made a text; a group's negative id is not."""
    line = readable._csv_line(["=1+1", "+x", "-cmd|x", "@a", "\tx", "-1001234", "-1.5", "plain", ""])
    assert line == b"'=1+1,'+x,'-cmd|x,'@a,'\tx,-1001234,-1.5,plain,\n"


async def test_a_long_conversation_is_read_page_by_page(store, monkeypatch):
    """Markdown of a conversation longer than a page has every message once, in order."""
    await store.write(lambda tx: talk(tx, seed=4, turns=30))
    whole, paged = io.BytesIO(), io.BytesIO()
    await readable.export_markdown(store, whole.write)
    monkeypatch.setattr(readable, "PAGE", 3)
    done = await readable.export_markdown(store, paged.write)
    assert paged.getvalue() == whole.getvalue()
    assert whole.getvalue().count(b"\n## ") == done.messages > 30


async def test_what_only_this_installation_means_something_to_stays_here(store):
    """Which node ran a turn, how a text is encrypted and how often a row was changed are no part of an export."""
    await store.write(lambda tx: talk(tx, seed=2, turns=5))
    await store.write(lambda tx: tx.execute("UPDATE turns SET node = 'host-1'"))
    raw = await exported(store)
    assert b"host-1" not in raw
    for name in (b'"node":', b'"is_sealed":', b'"revision":'):
        assert name not in raw
