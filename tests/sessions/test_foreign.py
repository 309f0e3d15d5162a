"""Chat exports of OpenAI, Claude and Telegram Desktop become archived sessions of one person, once."""

import contextlib
import copy

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import history, invariants, lifecycle, search
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import TransferError
from sessions.scope import OperatorScope, PersonScope
from sessions.transfer import foreign, importing
from tests.sessions import records as made
from tests.sessions.conversations import exported

OPENAI = [
    {
        "title": "Trip to  Lisbon",
        "create_time": 1_700_000_000.5,
        "update_time": 1_700_000_100.0,
        "conversation_id": "conv-1",
        "current_node": "n5",
        "mapping": {
            "n0": {"id": "n0", "message": None, "parent": None, "children": ["n1"]},
            "n1": {
                "id": "n1", "parent": "n0", "children": ["n2"],
                "message": {"id": "m1", "author": {"role": "system"}, "content": {"content_type": "text", "parts": [""]}},
            },
            "n2": {
                "id": "n2", "parent": "n1", "children": ["n3", "n4"],
                "message": {
                    "id": "m2", "author": {"role": "user"}, "create_time": 1_700_000_001.25,
                    "content": {"content_type": "multimodal_text", "parts": [
                        {"content_type": "image_asset_pointer", "asset_pointer": "file-service://a"}, "Where is this?"]},
                },
            },
            "n3": {
                "id": "n3", "parent": "n2", "children": [],
                "message": {"id": "m3", "author": {"role": "assistant"}, "create_time": 1_700_000_002.0,
                            "content": {"content_type": "text", "parts": ["A first try, taken back."]}},
            },
            "n4": {
                "id": "n4", "parent": "n2", "children": ["n5"],
                "message": {"id": "m4", "author": {"role": "tool"}, "create_time": 1_700_000_003.0,
                            "content": {"content_type": "execution_output", "text": "42"}},
            },
            "n5": {
                "id": "n5", "parent": "n4", "children": [],
                "message": {"id": "m5", "author": {"role": "assistant"}, "create_time": 1_700_000_004.0,
                            "content": {"content_type": "text", "parts": ["In Lisbon."]}},
            },
        },
    }
]  # fmt: skip

CLAUDE = [
    {
        "uuid": "c-1",
        "name": "Recipes",
        "created_at": "2024-03-01T10:00:00.000000Z",
        "chat_messages": [
            {"uuid": "u1", "sender": "human", "text": "old form", "created_at": "2024-03-01T10:00:00Z",
             "content": [{"type": "text", "text": "How long do lentils cook?"}],
             "attachments": [{"file_name": "notes.txt", "extracted_content": "red lentils"}], "files": []},
            {"uuid": "u2", "sender": "assistant", "text": "Twenty minutes.", "created_at": "2024-03-01T10:00:05Z"},
            {"uuid": "u3", "sender": "human", "text": "", "created_at": "2024-03-01T10:01:00Z", "content": []},
        ],
    },
    {"uuid": "c-2", "name": "", "created_at": "2024-03-02T10:00:00Z", "chat_messages": []},
]  # fmt: skip

TELEGRAM = {
    "name": "Helper bot",
    "type": "bot_chat",
    "id": 4242,
    "messages": [
        {"id": 1, "type": "service", "date": "2024-05-01T08:00:00", "date_unixtime": "1714550400", "action": "x"},
        {"id": 2, "type": "message", "date": "2024-05-01T08:00:05", "date_unixtime": "1714550405", "from": "Ada",
         "from_id": "user1", "text": ["see ", {"type": "link", "text": "example.org"}, " please"]},
        {"id": 3, "type": "message", "date": "2024-05-01T08:00:09", "date_unixtime": "1714550409", "from": "Helper bot",
         "from_id": "user4242", "text": "I did."},
        {"id": 4, "type": "message", "date": "2024-05-01T08:00:19", "date_unixtime": "1714550419", "from": "Ada",
         "from_id": "user1", "text": "", "photo": "photos/1.jpg"},
    ],
}  # fmt: skip
GROUP = {
    "chats": {
        "list": [
            TELEGRAM,
            {"name": "Friends", "type": "private_group", "id": 7, "messages": [
                {"id": 9, "type": "message", "date": "2024-05-02T08:00:00", "date_unixtime": "1714636800",
                 "from": None, "from_id": "user5", "text": "gone"},
                {"id": 10, "type": "message", "date": "2024-05-02T08:00:00", "date_unixtime": "1714636800",
                 "from": "Bob", "from_id": "user6", "text": "hi"}]},
        ]
    }
}  # fmt: skip


@pytest.fixture
async def ada(database) -> str:
    return await database.write(lambda tx: made.person_of(tx, made.incoming("x")))


async def bring(database: SqliteDatabase, document, person):
    found, left_out = foreign.records(document, foreign.recognise(document), person)
    return await importing.store(database, found, lambda: made.NOW), left_out


async def said(database, session, scope) -> list[tuple[str, str, str | None, int]]:
    page = await database.read(lambda tx: history.page(tx, session.key, scope, size=100))
    return [(one.role, one.content, one.author, one.created_at) for one in page.messages]


async def archive(database, person):
    return await database.read(
        lambda tx: lifecycle.list_sessions(tx, PersonScope(person), statuses=["archived"])
    )


async def test_an_openai_conversation_is_the_branch_that_was_seen_last(database, ada):
    """The tree's current branch comes in, in order, with its times; what was taken back and the tool's output do not."""
    done, left_out = await bring(database, OPENAI, ada)
    (session,) = await archive(database, ada)
    assert (done.sessions, done.messages, left_out) == (1, 2, 1)
    assert session.title == "Trip to Lisbon"
    assert session.created_at == 1_700_000_000_500
    assert await said(database, session, PersonScope(ada)) == [
        ("user", "Where is this?", None, 1_700_000_001_250),
        ("assistant", "In Lisbon.", None, 1_700_000_004_000),
    ]


async def test_a_claude_conversation_with_what_was_attached(database, ada):
    """Text parts win over the older field, a file's extracted text is kept, and an empty conversation makes no session."""
    done, left_out = await bring(database, CLAUDE, ada)
    (session,) = await archive(database, ada)
    assert (done.sessions, left_out) == (1, 1)
    assert await said(database, session, PersonScope(ada)) == [
        ("user", "How long do lentils cook?\n\nred lentils", None, 1_709_287_200_000),
        ("assistant", "Twenty minutes.", None, 1_709_287_205_000),
    ]


async def test_telegram_chats_with_bots_and_with_people(database, ada):
    """In a bot's chat its words are answers; in others everybody is named, those who left too."""
    await bring(database, GROUP, ada)
    bot_chat, group = sorted(await archive(database, ada), key=lambda one: one.created_at)
    assert await said(database, bot_chat, PersonScope(ada)) == [
        ("user", "see example.org please", None, 1_714_550_405_000),
        ("assistant", "I did.", None, 1_714_550_409_000),
        ("user", "", None, 1_714_550_419_000),
    ]
    assert [(author, text) for _, text, author, _ in await said(database, group, PersonScope(ada))] == [
        ("Deleted Account", "gone"),
        ("Bob", "hi"),
    ]


@pytest.mark.parametrize("document", [OPENAI, CLAUDE, TELEGRAM, GROUP])
async def test_a_second_time_changes_nothing(database, ada, document):
    """The same file again adds nothing, for ids follow from what it holds; the books stay sound."""
    await bring(database, document, ada)
    before = await exported(database)
    done, _ = await bring(database, copy.deepcopy(document), ada)
    assert (done.sessions, done.messages) == (0, 0)
    assert await exported(database) == before
    for one in invariants.INVARIANTS:
        assert (await database.read(lambda tx, one=one: invariants.verify(tx, one))).holds, one.name


async def test_it_is_in_nobody_elses_archive(database, ada):
    """What one person brought along is found by nobody else, and two people may bring the same file."""
    bob = await database.write(lambda tx: made.person_of(tx, made.incoming("x", user_id="bob")))
    await bring(database, CLAUDE, ada)
    assert await archive(database, bob) == []
    done, _ = await bring(database, CLAUDE, bob)
    assert done.sessions == 1
    assert len(await database.read(lambda tx: lifecycle.list_sessions(tx, OperatorScope()))) == 2


async def test_what_was_brought_along_is_found_by_its_words(database, ada):
    """The archive is searched as everything else is."""
    await bring(database, CLAUDE, ada)
    while await database.write(search.index_pending):
        pass
    found = await database.read(lambda tx: search.search(tx, PersonScope(ada), search.SearchQuery("lentils")))
    assert len(found.hits) == 1


@pytest.mark.parametrize(
    "document", [[], {}, [1], "x", {"messages": 3}, [{"mapping": 1}], [{"chat_messages": 5}], None]
)
async def test_what_is_no_export_is_refused(document):
    """Any other JSON gets a clear error."""
    with pytest.raises(TransferError):
        foreign.records(document, foreign.recognise(document), "P")


@settings(max_examples=100)
@given(st.data())
async def test_a_mangled_export_is_refused_or_read(data):
    """Whatever a field of an export holds, it is read or refused with a sentence, never with a fault."""
    document = copy.deepcopy(data.draw(st.sampled_from([OPENAI, CLAUDE, GROUP])))
    place = document
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()) or not isinstance(place[key], dict | list):
            place[key] = data.draw(
                st.none()
                | st.integers()
                | st.text(max_size=3)
                | st.lists(st.integers(), max_size=2)
                | st.just({})
            )
            break
        place = place[key]
    with contextlib.suppress(TransferError):
        found, _ = foreign.records(document, foreign.recognise(document), "01AAAAAAAAAAAAAAAAAAAAAAAA")
        list(found)


def test_halves_of_characters_are_mended():
    """An emoji that was cut in two does not make the file unreadable."""
    assert foreign.read(b'["\\ud83d"]') == ["\ufffd"]
    assert foreign.read(orjson.dumps(["\U0001f600"])) == ["\U0001f600"]
    with pytest.raises(TransferError):
        foreign.read(b"[")
