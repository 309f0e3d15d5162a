"""Parsing raw updates: what becomes of each thing a person can do on Telegram, table by table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import MalformedUpdate
from adapters.messages import Attachment, InboundMessage
from adapters.telegram.entities import clean_text, index_at, utf16_length, utf16_offsets
from adapters.telegram.inbound import BotIdentity, ButtonPress, ChannelMove, parse
from config.names import AccountId

ACCOUNT = AccountId("telegram.main")
BOT = BotIdentity(42, "Our_Bot")
ADA = {
    "id": 7,
    "is_bot": False,
    "first_name": "Ada",
    "last_name": "Lovelace",
    "username": "ada",
    "language_code": "de",
}
BOB = {"id": 8, "is_bot": False, "first_name": "Bob"}
OURS = {"id": 42, "is_bot": True, "first_name": "Bot", "username": "our_bot"}
PRIVATE = {"id": 7, "type": "private", "first_name": "Ada"}
GROUP = {"id": -1001, "type": "supergroup", "title": "Friends"}
FILE = {"file_id": "F", "file_unique_id": "U", "file_size": 100}


def read(update, *, max_bytes=1000):
    return parse(update, ACCOUNT, BOT, max_bytes=max_bytes, now_ms=99_000)


def message(*, kind="message", chat=PRIVATE, **fields):
    body = {"message_id": 5, "date": 1000, "chat": chat, "from": ADA} | fields
    return {"update_id": 1, kind: {key: value for key, value in body.items() if value is not ...}}


def parsed(**fields) -> InboundMessage:
    found = read(message(**fields))
    assert isinstance(found, InboundMessage)
    return found


def entity(text, part, kind, **further):
    return {
        "type": kind,
        "offset": utf16_length(text[: text.index(part)]),
        "length": utf16_length(part),
    } | further


def in_group(text, *marks, **fields):
    entities = [entity(text, part, kind, **further) for part, kind, further in marks]
    return parsed(chat=GROUP, text=text, entities=entities, **fields)


def test_a_direct_message_in_full():
    """Every field of a plain direct message finds its place."""
    assert parsed(text="hi") == InboundMessage(
        account=ACCOUNT,
        channel="7",
        message_id="5",
        sender=parsed(text="hi").sender,
        text="hi",
        sent_at_ms=1_000_000,
        origin={"update_id": 1},
    )
    sender = parsed(text="hi").sender
    assert (sender.user_id, sender.display_name, sender.username) == ("7", "Ada Lovelace", "ada")
    assert (sender.language, sender.is_bot) == ("de", False)


def test_a_group_message_in_full():
    """A group's message names the group, its kind and that nobody addressed the bot."""
    found = in_group("hello all")
    assert (found.channel, found.channel_kind, found.channel_title) == ("-1001", "group", "Friends")
    assert not found.is_addressed


@pytest.mark.parametrize(
    ("text", "marks", "said", "is_addressed", "is_for_other"),
    [
        ("hello", [], "hello", False, False),
        ("@our_bot hello", [("@our_bot", "mention", {})], "hello", True, False),
        ("@OUR_BOT hello", [("@OUR_BOT", "mention", {})], "hello", True, False),
        ("@our_bot, hello", [("@our_bot", "mention", {})], "hello", True, False),
        (
            "@our_bot: /help me",
            [("@our_bot", "mention", {}), ("/help", "bot_command", {})],
            "/help me",
            True,
            False,
        ),
        ("hello @our_bot !", [("@our_bot", "mention", {})], "hello @our_bot !", True, False),
        ("hello @other", [("@other", "mention", {})], "hello @other", False, False),
        ("hello @our_bot_2", [("@our_bot_2", "mention", {})], "hello @our_bot_2", False, False),
        ("@our_bot", [], "@our_bot", False, False),
        ("Bot hello", [("Bot", "text_mention", {"user": OURS})], "hello", True, False),
        ("Ada hello", [("Ada", "text_mention", {"user": ADA})], "Ada hello", False, False),
        ("😀👩‍👩‍👧 @our_bot", [("@our_bot", "mention", {})], "😀👩‍👩‍👧 @our_bot", True, False),
        ("/help", [("/help", "bot_command", {})], "/help", True, False),
        ("/help@our_bot", [("/help@our_bot", "bot_command", {})], "/help", True, False),
        ("/help@OUR_bot a  b", [("/help@OUR_bot", "bot_command", {})], "/help a  b", True, False),
        ("/ask@our_bot\ntwo lines", [("/ask@our_bot", "bot_command", {})], "/ask\ntwo lines", True, False),
        ("/help@other_bot x", [("/help@other_bot", "bot_command", {})], "/help@other_bot x", False, True),
        ("see /help", [("/help", "bot_command", {})], "see /help", False, False),
        (
            "a @our_bot /x",
            [("@our_bot", "mention", {}), ("/x", "bot_command", {})],
            "a @our_bot /x",
            True,
            False,
        ),
    ],
)
def test_whom_a_group_message_addresses(text, marks, said, is_addressed, is_for_other):
    """Mentions and commands address the bot exactly if they name it; a leading mention is taken off the text."""
    found = in_group(text, *marks)
    assert (found.text, found.is_addressed, found.is_command_for_other) == (said, is_addressed, is_for_other)
    assert found.is_bare_command == (text == "/help")


def test_start_keeps_its_payload():
    """A deep link's payload is the argument of /start."""
    text = "/start ref-77"
    assert parsed(text=text, entities=[entity(text, "/start", "bot_command")]).text == "/start ref-77"


def test_direct_messages_are_always_addressed():
    """In a direct chat no mention is needed."""
    assert parsed(text="hello").is_addressed


@pytest.mark.parametrize(
    ("replied", "further", "text"),
    [
        ({"from": BOB, "text": "at 8\nfrom 3"}, {}, "well\n\n> Bob: at 8\n> from 3"),
        ({"from": BOB, "caption": "the map"}, {}, "well\n\n> Bob: the map"),
        (
            {"from": BOB, "text": "at 8, from 3"},
            {"quote": {"text": "at 8", "position": 0}},
            "well\n\n> Bob: at 8",
        ),
        ({"from": BOB, "text": "x" * 1001}, {}, "well\n\n> Bob: " + "x" * 1000 + "…"),
        ({"from": BOB, "photo": []}, {}, "well"),
        ({"from": BOB, "text": 7}, {}, "well"),
        ({"text": "whose?"}, {}, "well"),
        ({"from": OURS, "text": "my answer"}, {}, "well"),
        (
            {"from": BOB, "text": "at 8"},
            {"text": "/help", "entities": [entity("/help", "/help", "bot_command")]},
            "/help",
        ),
    ],
)
def test_a_reply_brings_the_words_it_is_about(replied, further, text):
    """What somebody else said stands below the question; the bot's own words are in the conversation already."""
    fields = {"text": "well", "reply_to_message": {"message_id": 3} | replied} | further
    assert parsed(chat=GROUP, **fields).text == text


@pytest.mark.parametrize(
    ("replied", "further", "reply_to", "is_addressed"),
    [
        ({"message_id": 3, "from": OURS}, {}, "3", True),
        ({"message_id": 3, "from": ADA}, {}, "3", False),
        ({"message_id": 3}, {}, "3", False),
        (
            {"message_id": 3, "from": OURS, "forum_topic_created": {"name": "x"}},
            {"message_thread_id": 3, "is_topic_message": True},
            None,
            False,
        ),
        ({"message_id": 3, "from": OURS}, {"message_thread_id": 3, "is_topic_message": True}, None, False),
        ({"message_id": 4, "from": OURS}, {"message_thread_id": 3, "is_topic_message": True}, "4", True),
        ({"message_id": 3, "from": OURS}, {"message_thread_id": 3}, "3", True),
    ],
)
def test_replies(replied, further, reply_to, is_addressed):
    """A reply to the bot addresses it; what every message of a topic carries is no reply."""
    found = in_group("well", reply_to_message=replied, **further)
    assert (found.reply_to, found.is_addressed) == (reply_to, is_addressed)


@pytest.mark.parametrize(
    ("fields", "thread"),
    [
        ({"message_thread_id": 9, "is_topic_message": True}, "9"),
        ({"message_thread_id": 9}, None),
        ({}, None),
    ],
)
def test_threads(fields, thread):
    """Only a forum topic is a thread: a chain of replies carries a thread id too, and the General topic none."""
    assert in_group("x", **fields).thread == thread


@pytest.mark.parametrize(
    ("fields", "user_id", "name", "is_bot"),
    [
        (
            {
                "from": {"id": 1087968824, "is_bot": True, "first_name": "Group"},
                "sender_chat": GROUP | {"username": "friends"},
            },
            "-1001",
            "Friends",
            False,
        ),
        (
            {
                "from": {"id": 136817688, "is_bot": True, "first_name": "Channel"},
                "sender_chat": {"id": -1002, "type": "channel", "title": "News"},
            },
            "-1002",
            "News",
            False,
        ),
        (
            {"from": ..., "sender_chat": {"id": -1002, "type": "channel", "title": "News"}},
            "-1002",
            "News",
            False,
        ),
        ({"from": {"id": 8, "is_bot": True, "first_name": "Robo"}}, "8", "Robo", True),
        ({"from": {"id": 8, "is_bot": False, "first_name": "X"}}, "8", "X", False),
    ],
)
def test_senders(fields, user_id, name, is_bot):
    """Anonymous admins and people behind channels are told apart by that chat; bots are said to be bots."""
    sender = parsed(chat=GROUP, text="x", **fields).sender
    assert (sender.user_id, sender.display_name, sender.is_bot) == (user_id, name, is_bot)


SIZES = [
    FILE | {"file_id": "small", "width": 90, "height": 90},
    FILE | {"file_id": "large", "width": 900, "height": 900},
]


@pytest.mark.parametrize(
    ("fields", "attachment"),
    [
        ({"photo": SIZES}, Attachment("photo", "large", None, "image/jpeg", 100)),
        ({"photo": SIZES[::-1]}, Attachment("photo", "large", None, "image/jpeg", 100)),
        (
            {"document": FILE | {"file_name": "a.pdf", "mime_type": "application/pdf"}},
            Attachment("document", "F", "a.pdf", "application/pdf", 100),
        ),
        ({"document": {"file_id": "F", "file_unique_id": "U"}}, Attachment("document", "F")),
        ({"voice": FILE | {"duration": 3}}, Attachment("voice", "F", None, "audio/ogg", 100)),
        ({"audio": FILE | {"mime_type": "audio/mpeg"}}, Attachment("audio", "F", None, "audio/mpeg", 100)),
        ({"video": FILE}, Attachment("video", "F", None, None, 100)),
        ({"video_note": FILE | {"length": 240}}, Attachment("video", "F", None, "video/mp4", 100)),
        ({"animation": FILE, "document": FILE}, Attachment("video", "F", None, "video/mp4", 100)),
    ],
)
def test_attachments(fields, attachment):
    """Each kind of file becomes an attachment by reference, with its unique id kept; the caption is the text."""
    found = parsed(caption="look", **fields)
    assert found.attachments == (attachment,)
    assert found.unsupported is None
    assert found.text == "look"
    assert found.origin["file_unique_id"] == "U"


def test_a_caption_is_read_as_a_text_is():
    """Mentions in a caption address the bot and are taken off."""
    caption = "@our_bot what is this"
    found = parsed(
        chat=GROUP, photo=SIZES, caption=caption, caption_entities=[entity(caption, "@our_bot", "mention")]
    )
    assert (found.text, found.is_addressed) == ("what is this", True)


def test_a_file_too_large_is_said_to_be():
    """A file above the limit is no attachment, and its caption still comes through."""
    found = parsed(document=FILE | {"file_size": 1001}, caption="big")
    assert (found.unsupported, found.attachments, found.text) == ("too_large", (), "big")
    assert parsed(document=FILE | {"file_size": 1000}).unsupported is None


@pytest.mark.parametrize(
    ("field", "value", "unsupported"),
    [
        ("sticker", FILE, "sticker"),
        ("location", {"latitude": 1, "longitude": 2}, "location"),
        ("contact", {"phone_number": "1", "first_name": "X"}, "contact"),
        ("poll", {"id": "1"}, "poll"),
        ("game", {"title": "g"}, "game"),
        ("dice", {"value": 3}, "other"),
        ("story", {"id": 3}, "other"),
    ],
)
def test_what_the_bot_cannot_take_is_named(field, value, unsupported):
    """Stickers and their like are delivered as what they are, so that the person can be told."""
    found = parsed(**{field: value})
    assert (found.unsupported, found.text, found.attachments) == (unsupported, "", ())


def test_pictures_of_an_album_are_messages_of_their_own():
    """Each update of an album is a message; the album is named in its origin."""
    found = parsed(photo=SIZES, media_group_id="A1")
    assert found.origin["album"] == "A1"


@pytest.mark.parametrize("event", [{"new_chat_members": [ADA, OURS]}, {"group_chat_created": True}])
def test_being_added_to_a_group_says_start(event):
    """Whoever adds the bot to a group has said /start there, so that the group learns how to address it."""
    found = parsed(chat=GROUP, **event)
    assert (found.text, found.is_addressed, found.channel_kind) == ("/start", True, "group")
    assert found.sender.user_id == str(ADA["id"])


def test_an_edit_says_so_and_when():
    """An edit keeps the message's id, and its time is the edit's."""
    found = parsed(kind="edited_message", text="better", edit_date=2000)
    assert (found.is_edit, found.message_id, found.sent_at_ms) == (True, "5", 2_000_000)


@pytest.mark.parametrize(
    "update",
    [
        message(new_chat_members=[ADA]),
        message(pinned_message={"message_id": 1}),
        message(chat=GROUP, left_chat_member=ADA),
        message(chat=GROUP, forum_topic_created={"name": "x"}, message_thread_id=5, is_topic_message=True),
        message(kind="edited_message", location={"latitude": 1, "longitude": 2}),
        message(kind="channel_post", text="news"),
        message(chat={"id": -5, "type": "channel"}, text="news"),
        message(chat=GROUP, text="@our_bot news", is_automatic_forward=True),
        {"update_id": 1, "my_chat_member": {}},
        {"update_id": 1, "a_kind_of_next_year": {"deep": [1]}},
        {"update_id": 1},
    ],
)
def test_what_concerns_nobody_is_passed_over(update):
    """Service messages, posts in channels and unknown kinds of update are neither delivered nor quarantined."""
    assert read(update) is None


@pytest.mark.parametrize(
    ("chat_id", "field", "value"), [(-5, "migrate_to_chat_id", -1005), (-1005, "migrate_from_chat_id", -5)]
)
def test_a_migration_names_both_ids(chat_id, field, value):
    """Either side's notice of a migration says the same."""
    chat = {"id": chat_id, "type": "group" if chat_id == -5 else "supergroup", "title": "T"}
    assert read(message(chat=chat, **{field: value})) == ChannelMove("-5", "-1005")


def press(data, **further):
    query = (
        {"id": "777", "from": ADA, "chat_instance": "c"}
        | ({"data": data} if data is not None else {})
        | further
    )
    return read({"update_id": 1, "callback_query": query})


def test_a_pressed_command_is_delivered():
    """A button whose data is a command says it, in its chat and thread, by the person who pressed it."""
    under = {"message_id": 3, "date": 0, "chat": GROUP, "message_thread_id": 9, "is_topic_message": True}
    found = press("/stop now", message=under)
    assert isinstance(found, ButtonPress)
    assert found.query_id == "777"
    assert found.message is not None
    assert (found.message.text, found.message.channel, found.message.thread) == ("/stop now", "-1001", "9")
    assert (found.message.sender.user_id, found.message.is_addressed) == ("7", True)
    assert (found.message.message_id, found.message.sent_at_ms) == ("press:777", 99_000)


@pytest.mark.parametrize("data", ["vote:3", None])
def test_other_buttons_are_only_answered(data):
    """Data that is no command is nobody's message."""
    under = {"message_id": 3, "date": 1, "chat": PRIVATE}
    assert press(data, message=under) == ButtonPress("777", None)
    assert press("/stop", inline_message_id="x") == ButtonPress("777", None)


@pytest.mark.parametrize(
    "update",
    [
        None,
        [],
        "text",
        7,
        {},
        {"message": {}},
        {"update_id": "1", "message": {}},
        {"update_id": True, "message": {}},
        {"update_id": -1},
        {"update_id": 2**31},
        {"update_id": 1, "message": None},
        {"update_id": 1, "message": []},
        message(chat=None, text="x"),
        message(chat={"id": "7", "type": "private"}, text="x"),
        message(chat={"id": 7, "type": "party"}, text="x"),
        message(text=7),
        message(text=None),
        message(**{"text": "x", "from": None}),
        message(**{"text": "x", "from": {"id": 7}}),
        message(text="x", message_id=2**70),
        message(text="x", message_id=True),
        message(text="x", date=10**30),
        message(text="x", date="now"),
        message(text="x", date=...),
        message(text="x", entities={}),
        message(text="x", entities=[None]),
        message(text="x", entities=[{"type": "bold", "offset": 0, "length": 2}]),
        message(text="x", entities=[{"type": "bold", "offset": -1, "length": 1}]),
        message(text="😀", entities=[{"type": "bold", "offset": 1, "length": 1}]),
        message(text="x", entities=[{"type": "text_mention", "offset": 0, "length": 1}]),
        message(photo=[]),
        message(photo=[None]),
        message(document={"file_id": None}),
        message(document=FILE | {"file_size": -1}),
        message(text="x", reply_to_message={"message_id": "a"}),
        message(text="x", reply_to_message=7),
        message(text="x", message_thread_id="9", is_topic_message=True),
        {"update_id": 1, "callback_query": {"id": 7}},
        {"update_id": 1, "callback_query": {"id": "7", "data": "/x", "message": {"chat": 5}}},
    ],
)
def test_what_does_not_hold_is_malformed(update):
    """Whatever is wrong with an update, it is one kind of error, which names no content."""
    with pytest.raises(MalformedUpdate) as caught:
        read(update)
    assert caught.value.account == ACCOUNT
    assert caught.value.reason


def test_text_that_no_database_takes_is_mended():
    """Lone surrogates and NUL are replaced, wherever they come."""
    found = parsed(text="a\ud800b\0c\udc00", **{"from": ADA | {"first_name": "\udfffX"}})
    assert found.text == "a\ufffdb\ufffdc\ufffd"
    assert found.sender.display_name.startswith("\ufffdX")


@given(st.text(st.characters(exclude_categories=())))
def test_cleaning_keeps_every_offset(text):
    """Cleaned text can be encoded and has the same number of UTF-16 units before every character."""
    cleaned = clean_text(text)
    cleaned.encode()
    assert len(cleaned.encode("utf-16-le")) == len(text.encode("utf-16-le", "surrogatepass"))


@given(st.text())
def test_offsets_and_indices_agree(text):
    """Every character's UTF-16 offset leads back to it, and no offset inside a pair leads anywhere."""
    offsets = utf16_offsets(text)
    assert offsets[-1] == utf16_length(text) == len(text.encode("utf-16-le")) // 2
    found = [index_at(offsets, unit) for unit in range(-1, offsets[-1] + 2)]
    assert [index for index in found if index is not None] == list(range(len(text) + 1))
