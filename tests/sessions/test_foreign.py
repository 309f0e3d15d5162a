"""Chat exports of OpenAI, Claude and Telegram Desktop become archived sessions of one person, once."""

import contextlib
import copy
import io
import time
import zipfile
from dataclasses import asdict

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import cleanup, history, invariants, lifecycle, search
from sessions.database.base import Database
from sessions.errors import IllegalTransition, TransferError
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
async def ada(store) -> str:
    return await store.write(lambda tx: made.person_of(tx, made.incoming("x")))


async def bring(store: Database, document, person):
    found, left_out = foreign.records(document, foreign.recognise(document), person)
    return await importing.store(store, found, lambda: made.NOW), left_out


async def said(store, session, scope) -> list[tuple[str, str, str | None, int]]:
    page = await store.read(lambda tx: history.page(tx, session.key, scope, size=100))
    return [(one.role, one.content, one.author, one.created_at) for one in page.messages]


async def archive(store, person):
    return await store.read(
        lambda tx: lifecycle.list_sessions(tx, PersonScope(person), statuses=["archived"])
    )


async def test_an_openai_conversation_is_the_branch_that_was_seen_last(store, ada):
    """The tree's current branch comes in, in order, with its times; what was taken back and the tool's output do not."""
    done, left_out = await bring(store, OPENAI, ada)
    (session,) = await archive(store, ada)
    assert (done.sessions, done.messages, left_out) == (1, 2, 1)
    assert session.title == "Trip to Lisbon"
    assert session.created_at == 1_700_000_000_500
    assert await said(store, session, PersonScope(ada)) == [
        ("user", "Where is this?", None, 1_700_000_001_250),
        ("assistant", "In Lisbon.", None, 1_700_000_004_000),
    ]


async def test_a_claude_conversation_with_what_was_attached(store, ada):
    """Text parts win over the older field, a file's extracted text is kept, and an empty conversation makes no session."""
    done, left_out = await bring(store, CLAUDE, ada)
    (session,) = await archive(store, ada)
    assert (done.sessions, left_out) == (1, 1)
    assert await said(store, session, PersonScope(ada)) == [
        ("user", "How long do lentils cook?\n\nred lentils", None, 1_709_287_200_000),
        ("assistant", "Twenty minutes.", None, 1_709_287_205_000),
    ]


async def test_telegram_chats_with_bots_and_with_people(store, ada):
    """In a bot's chat its words are answers; in others everybody is named, those who left too."""
    await bring(store, GROUP, ada)
    bot_chat, group = sorted(await archive(store, ada), key=lambda one: one.created_at)
    assert await said(store, bot_chat, PersonScope(ada)) == [
        ("user", "see example.org please", None, 1_714_550_405_000),
        ("assistant", "I did.", None, 1_714_550_409_000),
        ("user", "", None, 1_714_550_419_000),
    ]
    assert [(author, text) for _, text, author, _ in await said(store, group, PersonScope(ada))] == [
        ("Deleted Account", "gone"),
        ("Bob", "hi"),
    ]


@pytest.mark.parametrize("document", [OPENAI, CLAUDE, TELEGRAM, GROUP])
async def test_a_second_time_changes_nothing(store, ada, document):
    """The same file again adds nothing, for ids follow from what it holds; the books stay sound."""
    await bring(store, document, ada)
    before = await exported(store)
    done, _ = await bring(store, copy.deepcopy(document), ada)
    assert (done.sessions, done.messages) == (0, 0)
    assert await exported(store) == before
    for one in invariants.of(store.dialect):
        assert (await store.read(lambda tx, one=one: invariants.verify(tx, one))).holds, one.name


@pytest.mark.parametrize("document", [OPENAI, CLAUDE, GROUP], ids=["openai", "claude", "telegram"])
async def test_the_clean_up_leaves_it_alone(store, ada, document):
    """However long ago it was said: it stays until its person or the operator removes it, and can then be removed."""
    done, _ = await bring(store, document, ada)
    rules = {"expire_after_ms": 1, "archive_after_ms": 1, "delete_after_ms": 1}
    later = made.NOW + 900 * made.DAY
    due = await store.read(lambda tx: cleanup.due(tx, later, **rules))
    assert set(asdict(due).values()) == {0}
    assert await store.write(lambda tx: cleanup.clean_up(tx, later, **rules)) == 0
    brought = await archive(store, ada)
    assert len(brought) == done.sessions
    await store.write(lambda tx: lifecycle.delete(tx, brought[0], later))
    after = later + cleanup.REMOVED_AFTER_MS + 1
    assert await store.write(lambda tx: cleanup.clean_up(tx, after, **rules)) == 1
    assert len(await archive(store, ada)) == done.sessions - 1


async def test_it_is_not_made_the_live_one(store, ada):
    """No message leads to it, so it would only be taken for idle and removed; it goes on in a copy. Once deleted, it can come back."""
    await bring(store, OPENAI, ada)
    (brought,) = await archive(store, ada)
    with pytest.raises(IllegalTransition, match="goes on in a copy"):
        await store.write(lambda tx: lifecycle.resume(tx, brought, made.NOW))
    gone = await store.write(lambda tx: lifecycle.delete(tx, brought, made.NOW))
    assert (await store.write(lambda tx: lifecycle.resume(tx, gone, made.NOW))).status == "active"


async def test_it_is_in_nobody_elses_archive(store, ada):
    """What one person brought along is found by nobody else, and two people may bring the same file."""
    bob = await store.write(lambda tx: made.person_of(tx, made.incoming("x", user_id="bob")))
    await bring(store, CLAUDE, ada)
    assert await archive(store, bob) == []
    done, _ = await bring(store, CLAUDE, bob)
    assert done.sessions == 1
    assert len(await store.read(lambda tx: lifecycle.list_sessions(tx, OperatorScope()))) == 2


async def test_what_was_brought_along_is_found_by_its_words(store, ada):
    """The archive is searched as everything else is."""
    await bring(store, CLAUDE, ada)
    while await store.write(search.index_pending):
        pass
    found = await store.read(lambda tx: search.search(tx, PersonScope(ada), search.SearchQuery("lentils")))
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
    document = copy.deepcopy(data.draw(st.sampled_from([OPENAI, CLAUDE, GROUP, EVERYTHING_TELEGRAM])))
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


# the formats as they are handed out


def node(name: str, parent: str | None, children: list[str], role: str, content: dict, **more) -> dict:
    """A node of OpenAI's tree, with the fields that real ones have."""
    message = {
        "id": name, "author": {"role": role, "name": None, "metadata": {}}, "create_time": 1_700_000_000.0 + int(name[1:]),
        "update_time": None, "content": content, "status": "finished_successfully", "end_turn": None, "weight": 1.0,
        "metadata": {}, "recipient": "all", "channel": None,
    } | more  # fmt: skip
    return {"id": name, "message": message, "parent": parent, "children": children}


def text(*parts) -> dict:
    return {"content_type": "text", "parts": list(parts)}


def tree(*nodes: dict, current: str | None) -> list[dict]:
    return [
        {
            "title": "T", "create_time": 1_700_000_000.0, "update_time": 1_700_000_900.0, "moderation_results": [],
            "current_node": current, "conversation_id": "c", "id": "c", "is_archived": False, "gizmo_id": None,
            "mapping": {one["id"]: one for one in nodes},
        }
    ]  # fmt: skip


async def words(store, person, document) -> list[tuple[str, str]]:
    """What the only conversation of a document says, by whom."""
    await bring(store, document, person)
    (session,) = await archive(store, person)
    return [(role, content) for role, content, _, _ in await said(store, session, PersonScope(person))]


async def test_openai_what_was_thought_and_said_to_tools_is_no_answer(store, ada):
    """Thoughts, recaps, calls of tools and hidden context are left out; spoken words are in."""
    document = tree(
        node("n1", None, ["n2"], "user", text("Find it."), metadata={"is_user_system_message": False}),
        node(
            "n2", "n1", ["n3"], "assistant",
            {"content_type": "thoughts", "thoughts": [{"summary": "S", "content": "secret thought"}], "source_analysis_msg_id": "x"},
        ),
        node("n3", "n2", ["n4"], "assistant", {"content_type": "code", "text": "search('it')"}, recipient="browser"),
        node("n4", "n3", ["n5"], "tool", {"content_type": "tether_quote", "url": "u", "text": "page"}),
        node("n5", "n4", ["n6"], "assistant", {"content_type": "reasoning_recap", "content": "Thought for 5s"}),
        node("n6", "n5", ["n7"], "assistant", text("Found it.", None)),
        node(
            "n7", "n6", ["n8"], "user",
            {"content_type": "multimodal_text", "parts": [
                {"content_type": "audio_transcription", "text": "And aloud?", "direction": "in"},
                {"content_type": "real_time_user_audio_video_asset_pointer", "audio_asset_pointer": {"asset_pointer": "sediment://a"}},
            ]},
        ),
        node("n8", "n7", [], "user", text("your profile"), metadata={"is_visually_hidden_from_conversation": True}),
        current="n8",
    )  # fmt: skip
    assert await words(store, ada, document) == [
        ("user", "Find it."),
        ("assistant", "Found it."),
        ("user", "And aloud?"),
    ]


@pytest.mark.parametrize("current", ["n4", "gone", None])
async def test_openai_a_tree_with_holes_is_read_as_far_as_it_goes(store, ada, current):
    """A parent that was deleted ends the branch, and a current node that is not there is found by the times."""
    document = tree(
        node("n2", "deleted", ["n3", "n4"], "user", text("Which?")),
        node("n3", "n2", [], "assistant", text("The first answer.")),
        node("n4", "n2", [], "assistant", text("The second answer.")),
        current=current,
    )
    assert await words(store, ada, document) == [("user", "Which?"), ("assistant", "The second answer.")]


async def test_openai_sources_and_names_stand_as_they_were_shown(store, ada):
    """Marks of the model for sources become what was shown for them, or nothing; an entity keeps its name."""
    cite = "\ue200cite\ue202turn0search1\ue201"
    named = '\ue200entity\ue202["city","Lisbon","Portugal"]\ue201'
    lost = "\ue200cite\ue202turn0search9\ue202turn0search10\ue201"
    metadata = {
        "content_references": [
            {"matched_text": cite, "alt": "([Site](https://example.org))", "type": "grouped_webpages"},
            {"matched_text": " ", "alt": None, "type": "sources_footnote"},
        ]
    }
    document = tree(
        node("n1", None, ["n2"], "user", text("Where?")),
        node("n2", "n1", [], "assistant", text(f"In {named} {cite}, they say{lost}."), metadata=metadata),
        current="n2",
    )
    assert (await words(store, ada, document))[1] == (
        "assistant",
        "In Lisbon ([Site](https://example.org)), they say.",
    )


async def test_openai_a_file_has_the_name_it_was_uploaded_with(store, ada):
    """A picture is told once, by its name and not by the pointer to it."""
    picture = {
        "content_type": "image_asset_pointer",
        "asset_pointer": "file-service://file-abc",
        "size_bytes": 1,
    }
    drawn = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_xyz"}
    document = tree(
        node(
            "n1", None, [], "user", {"content_type": "multimodal_text", "parts": [picture, drawn, "Look."]},
            metadata={"attachments": [{"id": "file-abc", "name": "holiday.png", "mime_type": "image/png"}]},
        ),
        current="n1",
    )  # fmt: skip
    await bring(store, document, ada)
    rows = await store.read(lambda tx: tx.rows("SELECT attachments FROM messages"))
    assert [file["name"] for file in orjson.loads(rows[0]["attachments"])] == [
        "holiday.png",
        "sediment://file_xyz",
    ]


def claude_message(uuid: str, sender: str, *parts: dict, parent: str | None = None, **more) -> dict:
    written = "\n".join(
        part.get("text", "```\nThis block is not supported on your current device yet.\n```")
        for part in parts
    )
    return {
        "uuid": uuid, "text": written, "content": list(parts), "sender": sender, "attachments": [], "files": [],
        "created_at": f"2025-03-01T10:00:0{uuid[1]}.000000Z", "updated_at": "2025-03-01T10:00:00.000000Z",
        **({"parent_message_uuid": parent} if parent else {}), **more,
    }  # fmt: skip


def written(words: str) -> dict:
    return {
        "start_timestamp": "2025-03-01T10:00:00Z",
        "stop_timestamp": None,
        "flags": None,
        "type": "text",
        "text": words,
        "citations": [],
    }


USE = {"type": "tool_use", "name": "web_search", "input": {"query": "x"}, "message": "Searching"}
RESULT = {"type": "tool_result", "name": "web_search", "content": [{"type": "text", "text": "page"}]}
THOUGHT = {"type": "thinking", "thinking": "hm", "summaries": [], "cut_off": False}
CLAUDE_ROOT = "00000000-0000-4000-8000-000000000000"


def claude(*messages: dict, **more) -> list[dict]:
    return [
        {
            "uuid": "c",
            "name": "N",
            "summary": "",
            "created_at": "2025-03-01T10:00:00Z",
            "account": {"uuid": "a"},
            "chat_messages": list(messages),
            **more,
        }
    ]


async def test_claude_tools_and_thoughts_leave_no_trace_in_the_text(store, ada):
    """Only what was written is kept, also of a message that is nothing but tools; voice notes are words."""
    document = claude(
        claude_message("u1", "human", written("Search.")),
        claude_message("u2", "assistant", THOUGHT, written("I look."), USE, RESULT, written("Here.")),
        claude_message("u3", "assistant", USE, RESULT),
        claude_message("u4", "human", {"type": "voice_note", "title": "V", "text": "Spoken."}),
    )
    assert await words(store, ada, document) == [
        ("user", "Search."),
        ("assistant", "I look.\nHere."),
        ("user", "Spoken."),
    ]


async def test_claude_of_branches_the_one_that_was_seen_last(store, ada):
    """An edited question and the answer to its first form do not stand between the others."""
    document = claude(
        claude_message("u1", "human", written("First form"), parent=CLAUDE_ROOT),
        claude_message("u2", "assistant", written("Answer to that"), parent="u1"),
        claude_message("u3", "human", written("Second form"), parent=CLAUDE_ROOT),
        claude_message("u4", "assistant", written("Better answer"), parent="u3"),
    )
    assert await words(store, ada, document) == [("user", "Second form"), ("assistant", "Better answer")]


def telegram_message(number: int, words, **more) -> dict:
    return {
        "id": number, "type": "message", "date": "2024-05-01T08:00:00", "date_unixtime": str(1_714_550_400 + number),
        "from": "Ada", "from_id": "user1", "text": words, "text_entities": [], **more,
    }  # fmt: skip


EVERYTHING_TELEGRAM = {
    "about": "Here is the data you requested.",
    "personal_information": {"user_id": 1, "first_name": "Ada", "last_name": "L", "phone_number": "+1"},
    "contacts": {"about": "", "list": []},
    "chats": {
        "about": "",
        "list": [
            {"type": "saved_messages", "id": 1, "messages": [telegram_message(1, "Buy milk")]},
            {"name": "Bob", "type": "personal_chat", "id": 2, "messages": [
                telegram_message(2, "Hi Bob"),
                telegram_message(3, "Hi Ada", **{"from": "Bob", "from_id": "user2"}),
                telegram_message(4, "", media_type="sticker", sticker_emoji="😀",
                                 file="(File not included. Change data exporting settings to download.)"),
                telegram_message(5, "", location_information={"latitude": 38.7, "longitude": -9.1}, place_name="Rossio"),
                telegram_message(6, "", poll={"question": "Tea?", "closed": False, "total_voters": 1,
                                              "answers": [{"text": "Yes", "voters": 1, "chosen": True}]}),
                telegram_message(7, ["see ", {"type": "text_link", "text": "this", "href": "https://example.org"},
                                     {"type": "custom_emoji", "text": "🔥", "document_id": "d"}]),
                telegram_message(8, "", file="(File not included. Change data exporting settings to download.)",
                                 file_name="plan.pdf", mime_type="application/pdf"),
                {"id": 9, "type": "unsupported"},
                {"id": 10, "type": "service", "date": "2024-05-01T08:00:00", "date_unixtime": "1714550410",
                 "actor": "Bob", "actor_id": "user2", "action": "phone_call", "duration_seconds": 3, "text": ""},
            ]},
        ],
    },
    "left_chats": {"about": "", "list": [
        {"name": "Old club", "type": "private_supergroup", "id": 3, "messages": [
            telegram_message(11, "bye", **{"from": None, "from_id": "user9"})]},
    ]},
}  # fmt: skip


async def test_telegram_everything_of_an_account(store, ada):
    """Chats that were left too; the owner's own words are the person's, and what is no text is told by a word of it."""
    done, left_out = await bring(store, EVERYTHING_TELEGRAM, ada)
    assert (done.sessions, left_out) == (3, 2)
    by_title = {session.title: session for session in await archive(store, ada)}
    assert set(by_title) == {"Saved messages", "Bob", "Old club"}
    scope = PersonScope(ada)
    assert [(author, content) for _, content, author, _ in await said(store, by_title["Bob"], scope)] == [
        (None, "Hi Bob"),
        ("Bob", "Hi Ada"),
        (None, "😀"),
        (None, "Rossio (38.7, -9.1)"),
        (None, "Tea?\n- Yes"),
        (None, "see this (https://example.org)🔥"),
        (None, ""),
    ]
    assert [author for _, _, author, _ in await said(store, by_title["Old club"], scope)] == [
        "Deleted Account"
    ]
    rows = await store.read(
        lambda tx: tx.rows("SELECT attachments FROM messages WHERE attachments <> '[]' ORDER BY id")
    )
    assert [orjson.loads(row["attachments"])[0]["name"] for row in rows] == ["sticker", "plan.pdf"]
    assert (await bring(store, copy.deepcopy(EVERYTHING_TELEGRAM), ada))[0].sessions == 0


async def test_telegram_a_time_without_a_zone_is_the_same_everywhere(store, ada, monkeypatch):
    """An old export imported again on a server elsewhere is known: its ids do not hang on the machine's clock."""
    document = {
        "name": "B",
        "type": "personal_chat",
        "id": 2,
        "messages": [
            {"id": 1, "type": "message", "date": "2020-05-01T08:00:00", "from": "Bob", "text": "hi"}
        ],
    }
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        await bring(store, document, ada)
        monkeypatch.setenv("TZ", "America/New_York")
        time.tzset()
        assert (await bring(store, copy.deepcopy(document), ada))[0].sessions == 0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_telegrams_control_characters_are_read():
    r"""Telegram Desktop writes them as \x0B, which is no JSON; a backslash that was typed before an x stays one."""
    raw = rb'{"messages": [], "name": "a\x0Bb \\x41 \\\x07"}'
    assert foreign.read(raw)["name"] == "a\x0bb \\x41 \\\x07"
    assert foreign.read(b"\xef\xbb\xbf[]") == []


def zipped(**files: object) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as packed:
        for name, content in files.items():
            packed.writestr(f"data/{name}.json", orjson.dumps(content))
    return raw.getvalue()


def test_the_archive_itself_can_be_given():
    """As OpenAI and Claude send it: conversations.json is found in it, in several parts too; anything else is refused."""
    assert foreign.read(zipped(user={}, conversations=CLAUDE)) == CLAUDE
    parts = zipped(**{"conversations-000": OPENAI, "conversations-001": OPENAI, "shared_conversations": [1]})
    assert foreign.read(parts) == OPENAI * 2
    for raw in (zipped(user={}), zipped(conversations=[])[:60], zipped(conversations=[], result={})):
        with pytest.raises(TransferError):
            foreign.read(raw)


async def test_one_conversation_alone_is_an_export_too(store, ada):
    """As extensions of a browser save it: the object without a list around it."""
    assert foreign.recognise(OPENAI[0]) == "openai"
    done, _ = await bring(store, copy.deepcopy(OPENAI[0]), ada)
    assert done.sessions == 1
    assert foreign.recognise(CLAUDE[0]) == "claude"
