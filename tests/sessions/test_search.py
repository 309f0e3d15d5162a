"""Search over what was said: words, filters, ranking, isolation, and an index that is never out of step."""

import random
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.names import SessionId
from sessions import cleanup, lane, lifecycle, search
from sessions.database import migrate
from sessions.database.sqlite import SqliteTransaction
from sessions.database.sqlite_file import as_mapping
from sessions.scope import ChannelScope, OperatorScope, PersonScope, SessionOnly
from sessions.search import SearchQuery
from tests.sessions.records import ACCOUNT, CHANNEL, DAY, NOW, arrive, claimed, incoming, resolved

EVERYTHING = OperatorScope()


@pytest.fixture(params=["indexed", "fresh"])
def index(request, tx):
    """Bring the index up to date before a search, or leave every message out of it: both must find the same."""
    if request.param == "fresh":
        return lambda: None

    def fill() -> None:
        while search.index_pending(tx, 3):
            pass

    return fill


def say(tx, *texts: str, user: str = "user-1", now: int = NOW, **how) -> SessionId:
    """Messages that are not answered; gives their session."""
    session_id = SessionId("")
    for text in texts:
        scope = {"scope": how["scope"]} if "scope" in how else {}
        changes = {name: value for name, value in how.items() if name != "scope"}
        session_id = arrive(tx, incoming(text, user_id=user, **changes), now=now, **scope).session_id
    return session_id


def found(tx, words: str, scope=EVERYTHING, **filters) -> list[str]:
    return [hit.message.content for hit in search.search(tx, scope, SearchQuery(words, **filters)).hits]


def test_words_phrases_exclusion_and_beginnings(tx, index):
    """All words must be there in any order, phrases as they stand, excluded words not; `word*` finds what begins so."""
    say(tx, "red apples and pears", "green APPLES", "pears, red", "apples; red", "a pineapple")
    index()
    assert sorted(found(tx, "apples")) == ["apples; red", "green APPLES", "red apples and pears"]
    assert sorted(found(tx, "Red aPPles")) == ["apples; red", "red apples and pears"]
    assert found(tx, '"red apples"') == ["red apples and pears"]
    assert found(tx, "apples -red") == ["green APPLES"]
    assert found(tx, 'apples -"red apples" -green') == ["apples; red"]
    assert sorted(found(tx, "appl*")) == sorted(found(tx, "apples"))
    assert found(tx, "-apples") == found(tx, "") == found(tx, "   ") == []


def test_accents_and_punctuation_do_not_matter(tx, index):
    """Latin accents and capitals of any script are equal; punctuation only parts words; й stays another letter than и."""
    texts = ["Über-CAFÉ, naïve!", "ПРИВЕТ мой друг", "don't", "mail ada@example.org", "version 3.14.2"]
    say(tx, *texts)
    index()
    for word, place in (
        ("uber", 0), ("cafe", 0), ("Café", 0), ("NAIVE", 0), ("привет", 1), ("МОЙ", 1), ("don't", 2),
        ("example", 3), ("ada@example.org", 3), ('"3.14"', 4),
    ):  # fmt: skip
        assert found(tx, word) == [texts[place]], word
    assert found(tx, "мои -привет") == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("今日は漢字を学ぶ", "漢字"),
        ("อยากกินข้าวผัด", "ข้าว"),
        ("well done 😀", "😀"),
        ("100 %", "%"),
        ("a _ b", "_"),
        ("wow !", "!"),
        ("it's -> this", "->"),
    ],
)
def test_scripts_without_spaces_and_signs_are_found_by_their_letters(tx, index, text, word):
    """Where there are no words to index, letters in a row are looked for; LIKE's own signs mean themselves."""
    say(tx, text, "nothing of it")
    index()
    assert found(tx, word) == [text]
    assert found(tx, f"nothing {word}") == []
    assert found(tx, f"nothing -{word}") == (
        [] if word.isascii() else ["nothing of it"]
    )  # `->` is a sign itself


def test_without_an_exact_hit_words_are_taken_as_beginnings(tx, index):
    """`meeting` finds `meetings` if nothing says `meeting`, and the page tells so."""
    say(tx, "two meetings today")
    index()
    page = search.search(tx, EVERYTHING, SearchQuery("meeting"))
    assert [hit.message.content for hit in page.hits] == ["two meetings today"]
    assert page.is_widened
    assert page.hits[0].excerpt.marked("[", "]") == "two [meetings] today"
    say(tx, "one meeting")
    page = search.search(tx, EVERYTHING, SearchQuery("meeting"))
    assert ([hit.message.content for hit in page.hits], page.is_widened) == (["one meeting"], False)


def test_the_best_come_first_and_the_newer_of_equals(tx):
    """A short message full of the word beats a long one that has it once; equal ones are told by their time."""
    say(tx, "cats " + "and many other things besides " * 10, now=NOW + 9)
    say(tx, "cats cats cats", now=NOW)
    say(tx, "dogs", now=NOW)
    say(tx, "dogs", now=NOW + 5)
    say(tx, *("filler" for _ in range(20)))
    while search.index_pending(tx):
        pass
    assert found(tx, "cats")[0] == "cats cats cats"
    page = search.search(tx, EVERYTHING, SearchQuery("dogs"))
    assert [hit.message.created_at for hit in page.hits] == [NOW + 5, NOW]


def test_filters(tx, index):
    """Time, platform, account, session, person and role each leave out what is not meant."""
    mine = say(tx, "word one", now=NOW)
    lane.finish(tx, claimed(tx, mine), "completed", NOW + 1, answer="word two")
    other = say(tx, "word three", user="user-2", now=NOW + 2)
    say(tx, "word four", platform="discord", account="discord.main", user="user-3", now=NOW + 3)
    index()
    owner = tx.row("SELECT person_id FROM sessions WHERE id = :id", {"id": other})["person_id"]

    def last_words(**filters):
        return sorted(text.removeprefix("word ") for text in found(tx, "word", **filters))

    assert last_words() == ["four", "one", "three", "two"]
    assert last_words(since=NOW + 1, until=NOW + 3) == ["three", "two"]
    assert last_words(platform="discord") == last_words(account="discord.main") == ["four"]
    assert last_words(session_id=mine) == ["one", "two"]
    assert last_words(person_id=owner) == ["three"]
    assert last_words(role="assistant") == ["two"]
    assert last_words(platform="discord", role="assistant") == []


def test_pages_neither_overlap_nor_skip(tx, index):
    """Pages put together are all hits in their order; past the end there is nothing."""
    for number in range(7):
        say(tx, f"apple {number}", now=NOW + number)
    index()
    pages = [
        search.search(tx, EVERYTHING, SearchQuery("apple", number=number, size=3)) for number in (1, 2, 3, 4)
    ]
    assert [len(page.hits) for page in pages] == [3, 3, 1, 0]
    assert [page.total for page in pages] == [7] * 4
    ids = [hit.id for page in pages for hit in page.hits]
    assert len(set(ids)) == 7
    assert ids == sorted(ids, reverse=True)


def test_nobody_finds_what_is_not_theirs(tx, index):
    """Each scope finds its own sessions only, whatever filters ask for; deleted sessions are found by the operator alone."""
    mine = say(tx, "secret mine")
    theirs = say(tx, "secret theirs", user="user-2")
    shared = say(tx, "secret shared", user="user-2", scope="channel", channel_kind="group", channel="room")
    index()
    person = PersonScope(tx.row("SELECT person_id FROM sessions WHERE id = :id", {"id": mine})["person_id"])
    assert found(tx, "secret", person) == ["secret mine"]
    assert found(tx, "secret", person, session_id=theirs) == []
    assert found(tx, "secret", person, session_id=shared) == []
    assert found(tx, "secret", ChannelScope(ACCOUNT, "room")) == ["secret shared"]
    assert found(tx, "secret", ChannelScope(ACCOUNT, CHANNEL)) == []
    assert found(tx, "secret", SessionOnly(theirs)) == ["secret theirs"]
    assert found(tx, "secret", SessionOnly(SessionId('x" OR "y'))) == []
    assert found(tx, "secret", PersonScope("nobody")) == []
    lifecycle.delete(tx, lifecycle.find(tx, mine, EVERYTHING), NOW)
    assert found(tx, "secret", person) == []
    assert "secret mine" in found(tx, "secret")


def test_a_person_with_very_many_sessions_finds_in_all_of_them(tx):
    """More sessions than a query names one by one: the condition on each row does it."""
    for number in range(30):
        session, _, _ = resolved(tx, incoming(), now=NOW + number)
        say(tx, f"diary {number}", now=NOW + number)
        lifecycle.end(tx, session, "reset", NOW + number)
    say(tx, "diary of another", user="user-2")
    while search.index_pending(tx):
        pass
    owner = PersonScope(tx.row("SELECT person_id FROM sessions ORDER BY created_at LIMIT 1")["person_id"])
    whole = found(tx, "diary", owner, size=50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_SESSIONS_IN_QUERY", 5)
        assert found(tx, "diary", owner, size=50) == whole
    assert len(whole) == 30


def test_the_index_follows_every_change(tx):
    """Edited, removed, sealed, unsealed, moved with their session or late with an old id: a search sees what is there now."""
    session_id = say(tx, "first words", "second words")
    while search.index_pending(tx):
        pass
    ids = [row["id"] for row in tx.rows("SELECT id FROM messages ORDER BY id")]
    tx.execute("UPDATE messages SET content = 'third things' WHERE id = :id", {"id": ids[0]})
    assert (found(tx, "first"), found(tx, "things")) == ([], ["third things"])
    tx.execute("UPDATE messages SET is_sealed = 1, content = 'gAAAAAB' WHERE id = :id", {"id": ids[0]})
    assert found(tx, "things") == found(tx, "gAAAAAB") == []
    tx.execute("UPDATE messages SET is_sealed = 0, content = 'open again' WHERE id = :id", {"id": ids[0]})
    assert found(tx, "open") == ["open again"]
    tx.execute("DELETE FROM messages WHERE id = :id", {"id": ids[1]})
    assert found(tx, "second") == []
    tx.execute(
        "INSERT INTO messages (id, session_id, position, part, role, content, created_at)"
        " VALUES (:id, :session, 90, 0, 'user', 'late arrival', 0)",
        {"id": ids[1], "session": session_id},
    )
    assert found(tx, "late") == ["late arrival"]
    cleanup.purge(tx, session_id)
    assert found(tx, "open") == found(tx, "late") == []
    if tx.dialect == "sqlite":
        assert index_words(tx) == []
    search.check_index(tx)


def index_words(tx) -> list[tuple[str, int]]:
    """Everything that SQLite's index holds: words and in how many messages."""
    tx.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, message_words, 'col')")
    rows = tx.rows("SELECT term, col, doc FROM temp.vocabulary ORDER BY term, col")
    tx.execute("DROP TABLE temp.vocabulary")
    return [(row["term"], row["doc"]) for row in rows]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("isdueupm"), st.integers(0, 5)), max_size=25))
def test_the_index_is_always_what_a_new_one_would_be(steps):
    """After any mixture of inserts, edits, sealing, removals, purges and indexing in pieces, the words are the messages'."""
    with sqlite_transaction() as tx:
        words = ["apple", "pear", "plum", "fig", "kiwi", "lime"]
        for step, number in steps:
            ids = [row["id"] for row in tx.rows("SELECT id FROM messages ORDER BY id")]
            chosen = {"id": ids[number % len(ids)]} if ids else {"id": 0}
            match step:
                case "i" | "m":
                    say(tx, f"{words[number]} juice", user=f"user-{number % 2}")
                case "s":
                    tx.execute("UPDATE messages SET is_sealed = 1 - is_sealed WHERE id = :id", chosen)
                case "d":
                    tx.execute("DELETE FROM messages WHERE id = :id", chosen)
                case "e":
                    tx.execute(
                        f"UPDATE messages SET content = content || ' {words[number]}' WHERE id = :id", chosen
                    )
                case "u":
                    search.index_pending(tx, number)
                case "p":
                    row = tx.row("SELECT session_id FROM messages WHERE id = :id", chosen)
                    if row is not None and number == 5:
                        cleanup.purge(tx, row["session_id"])
        while search.index_pending(tx):
            pass
        search.check_index(tx)
        kept = index_words(tx)
        search.rebuild_index(tx)
        while search.index_pending(tx):
            pass
        assert kept == index_words(tx)
        open_messages = tx.rows("SELECT content FROM messages WHERE is_sealed = 0")
        assert dict(kept).get("juice", 0) == len(open_messages)


def sqlite_transaction():
    from tests.sessions.stores import TRANSACTIONS

    return TRANSACTIONS["sqlite"]()


def test_sealed_messages_are_counted_not_found(tx, index):
    """A search says how many messages in its reach it could not look into, and counts nobody else's."""
    mine = say(tx, "a secret", "another secret", "open secret")
    say(tx, "their secret", user="user-2")
    index()
    tx.execute("UPDATE messages SET is_sealed = 1 WHERE content <> 'open secret'")
    page = search.search(tx, SessionOnly(mine), SearchQuery("secret"))
    assert ([hit.message.content for hit in page.hits], page.sealed) == (["open secret"], 2)
    assert search.search(tx, EVERYTHING, SearchQuery("secret")).sealed == 3
    assert search.search(tx, EVERYTHING, SearchQuery("secret", since=NOW + DAY)).sealed == 0


anything = st.one_of(
    st.text(),
    st.text(alphabet="\"*-+()^:{}[]\\'!&|<>,. ab漢é😀\0%_$", max_size=40),
    st.lists(
        st.sampled_from(
            ["AND", "OR", "NOT", "NEAR(", "content", ":", '"', "*", "-", "a", "'", "\\", "!", "x:*"]
        )
    ).map(" ".join),
)


def test_nothing_that_can_be_typed_raises(tx):
    """No text is syntax: quotes, operators, control characters, half characters; on every database."""
    mine = say(tx, "a b content near x", "it's \\ here: (x) & 'y' !")
    while search.index_pending(tx):
        pass
    scopes = (EVERYTHING, SessionOnly(mine), PersonScope("nobody"))

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(anything, st.sampled_from(scopes))
    def type_in(text, scope):
        page = search.search(tx, scope, SearchQuery(text, size=3))
        assert len(page.hits) <= 3

    type_in()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(alphabet="ab éÉ.-'ßй漢", min_size=1, max_size=12), min_size=1, max_size=6),
    st.text(alphabet="abéÉй.'", min_size=1, max_size=4),
)
def test_what_is_not_indexed_yet_is_found_alike(texts, word):
    """Read besides or found in the index: the same messages, whatever the letters."""
    with sqlite_transaction() as tx:
        for text in texts:
            say(tx, text)
        fresh = sorted(found(tx, word))
        while search.index_pending(tx):
            pass
        assert sorted(found(tx, word)) == fresh


def test_a_backlog_is_owned_up_to(tx):
    """More unread messages than a search reads besides: the newest are searched, and the page says how many were not."""
    if tx.dialect != "sqlite":
        pytest.skip("PostgreSQL's index is never behind")
    say(tx, *(f"apple {number}" for number in range(12)))
    assert search.has_pending(tx)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_FRESH_READ", 5)
        page = search.search(tx, EVERYTHING, SearchQuery("apple", size=50))
        assert (len(page.hits), page.unread) == (5, 7)
        while search.index_pending(tx):
            pass
        page = search.search(tx, EVERYTHING, SearchQuery("apple", size=50))
        assert (len(page.hits), page.unread) == (12, 0)
    assert not search.has_pending(tx)


def test_a_common_word_is_ranked_among_the_newest(tx):
    """More hits than are ranked: the page says that there are more, and the newest are in it."""
    say(tx, *(f"apple {number}" for number in range(12)))
    while search.index_pending(tx):
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "RANKED", 5)
        page = search.search(tx, EVERYTHING, SearchQuery("apple", size=50))
        assert page.is_cut
        assert {hit.message.content for hit in page.hits} == {f"apple {number}" for number in range(7, 12)}


def test_messages_from_before_the_index_are_found(oldest):
    """A database made by the first migration alone, with messages in it: the second one indexes them."""
    tx = oldest
    tx.execute(
        "INSERT INTO sessions (id, key, scope, platform, account, channel, status, created_at, last_activity_at)"
        " VALUES ('s1', 'k', 'person', 'telegram', 'telegram.main', 'c', 'active', 0, 0)"
    )
    for position, text in enumerate(("old äpples", "old pears")):
        tx.execute(
            "INSERT INTO messages (session_id, position, part, role, content, created_at)"
            " VALUES ('s1', :position, 0, 'user', :text, 0)",
            {"position": position, "text": text},
        )
    for migration in migrate.migrations()[1:]:
        migrate.apply(tx, migration, 0)
    assert not search.has_pending(tx)
    assert found(tx, "apples") == ["old äpples"]
    search.check_index(tx)


def _wiped_at_once(tx):
    search.wipe_removed_words(tx)
    return 1


def _wiped_in_steps(tx):
    steps = 1
    more = search.merge_removed_words(tx, is_first=True)
    while more:
        steps += 1
        say(tx, f"somebody writes meanwhile {steps}", "other")
        search.index_pending(tx)
        more = search.merge_removed_words(tx, is_first=False)
    return steps


@pytest.mark.parametrize(("wipe", "least"), [(_wiped_at_once, 1), (_wiped_in_steps, 4)])
def test_removed_words_can_be_wiped_from_the_file(tmp_path, wipe, least):
    """Afterwards and after VACUUM no byte of a removed message's words is in the file; in steps, while others write, just as well."""
    path = tmp_path / "words.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.row_factory = as_mapping
    connection.execute("PRAGMA foreign_keys = ON")
    tx = SqliteTransaction(connection)
    for migration in migrate.migrations():
        migrate.apply(tx, migration, 0)
    connection.execute("BEGIN")
    session_id = say(tx, "xylophonist", "other")
    for number in range(400):
        say(tx, " ".join(f"w{number}x{word}" for word in range(100)), channel="busy", user="user-busy")
        search.index_pending(tx, 10)
    while search.index_pending(tx):
        pass
    connection.execute("COMMIT")
    connection.execute("VACUUM")
    assert b"xylophonist" in path.read_bytes()
    cleanup.purge(tx, session_id)
    assert wipe(tx) >= least
    search.check_index(tx)
    connection.execute("VACUUM")
    connection.close()
    assert b"xylophonist" not in path.read_bytes()


def test_random_searches_by_the_wrong_people_find_nothing(tx):
    """Thousands of searches by persons, channels and sessions: a hit is always the asker's own."""
    chance = random.Random(7)
    words = ["apple", "pear", "plum", "fig"]
    owners: dict[str, str | None] = {}
    for number in range(120):
        user = f"user-{number % 10}"
        is_shared = number % 4 == 0
        session_id = say(
            tx,
            f"{chance.choice(words)} {chance.choice(words)} by {user}",
            user=user,
            channel=f"room-{number % 3}" if is_shared else f"direct-{user}",
            channel_kind="group" if is_shared else "direct",
            scope="channel" if is_shared else "person",
        )
        owners[session_id] = None
    for row in tx.rows("SELECT id, person_id, channel FROM sessions"):
        owners[row["id"]] = row["person_id"] or row["channel"]
    while search.index_pending(tx, 50):
        pass
    persons = sorted({owner for owner in owners.values() if not owner.startswith("room-")})
    sessions = sorted(owners)
    hits = 0
    for _ in range(1500):
        text = " ".join(chance.choices([*words, "by", '"', "-fig", "a*", "OR"], k=chance.randint(1, 3)))
        asker = chance.choice(persons)
        scope, expected = chance.choice(
            [
                (PersonScope(asker), asker),
                (ChannelScope(ACCOUNT, "room-1"), "room-1"),
                (PersonScope("x"), "x"),
            ]
        )
        filters = {"session_id": chance.choice(sessions)} if chance.random() < 0.3 else {}
        if chance.random() < 0.2:
            filters["person_id"] = chance.choice(persons)
        for hit in search.search(tx, scope, SearchQuery(text, **filters)).hits:
            assert owners[hit.message.session_id] == expected
            hits += 1
    assert hits > 500
