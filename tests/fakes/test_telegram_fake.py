"""The fake Telegram as the real python-telegram-bot meets it: feed, refusals, faults, webhooks, files, control."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from telegram import (
    Bot,
    BotCommand,
    BotCommandScopeAllPrivateChats,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Message,
    MessageEntity,
    ReplyParameters,
)
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TimedOut,
)
from telegram.request import HTTPXRequest

from tests.fakes.telegram import FakeTelegram, spawn
from tests.fakes.telegram.markup import automatic_entities, entity_text, formatted, utf16_length
from tests.fakes.telegram.people import PIXEL
from tests.fakes.telegram.records import Chat, Refusal, User

TOKEN = "123456:TEST-token"
SMILE = "\N{SMILING FACE WITH SUNGLASSES}"  # two UTF-16 units


# PTB reads its own deprecated attribute when it builds a RetryAfter; PTB_TIMEDELTA=1 would silence it as well
pytestmark = pytest.mark.filterwarnings("ignore:.*`retry_after` will be of type:DeprecationWarning")


def ptb(url: str, token: str = TOKEN, *, read_timeout_s: float = 5) -> Bot:
    def requests() -> HTTPXRequest:
        return HTTPXRequest(connection_pool_size=16, read_timeout=read_timeout_s)

    return Bot(
        token,
        base_url=f"{url}/bot",
        base_file_url=f"{url}/file/bot",
        request=requests(),
        get_updates_request=requests(),
    )


@pytest.fixture
async def telegram() -> AsyncIterator[FakeTelegram]:
    async with FakeTelegram(TOKEN) as fake:
        yield fake


@pytest.fixture
async def bot(telegram: FakeTelegram) -> AsyncIterator[Bot]:
    async with ptb(telegram.url) as client:
        yield client


@pytest.fixture
def ada(telegram: FakeTelegram) -> User:
    return telegram.user("Ada", last_name="Lovelace", username="ada", language_code="de")


@pytest.fixture
def chat(telegram: FakeTelegram, ada: User) -> Chat:
    return telegram.private_chat(ada)


async def poll(bot: Bot, **api_kwargs: Any) -> list[Any]:
    """Raw updates, as the adapter fetches them."""
    with pytest.warns(match="getUpdates"):
        updates: list[Any] = await bot.do_api_request("getUpdates", api_kwargs=api_kwargs)
    return updates


# the feed


async def test_get_me_is_the_bot_of_the_token(bot: Bot) -> None:
    """getMe names the bot whose id the token begins with."""
    assert (bot.id, bot.bot.is_bot, bot.username) == (123456, True, "palaver_test_bot")


async def test_offset_confirms_everything_below(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """Unconfirmed updates come again; an offset drops all below it for good."""
    for word in ("one", "two", "three"):
        telegram.say(ada, chat, word)
    first = await bot.get_updates()
    again = await bot.get_updates(limit=2)
    assert [update.message.text for update in first if update.message] == ["one", "two", "three"]
    assert [update.update_id for update in again] == [update.update_id for update in first][:2]
    rest = await bot.get_updates(offset=first[1].update_id + 1)
    assert [update.update_id for update in rest] == [first[2].update_id]
    assert await bot.get_updates(offset=first[2].update_id + 1) == ()
    assert await bot.get_updates(offset=0) == ()
    await telegram.wait_until_confirmed()


async def test_negative_offset_forgets_all_but_the_last(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """offset=-1 gives the newest update and forgets the others."""
    for word in ("one", "two", "three"):
        telegram.say(ada, chat, word)
    last = await bot.get_updates(offset=-1)
    assert [update.message.text for update in last if update.message] == ["three"]
    assert telegram.pending_updates() == [last[0].update_id]


async def test_long_poll_returns_at_once_when_an_update_arrives(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """A waiting getUpdates answers on arrival, not at its timeout."""
    polling = asyncio.create_task(bot.get_updates(timeout=50))
    await asyncio.sleep(0.1)
    assert not polling.done()
    telegram.say(ada, chat, "now")
    updates = await asyncio.wait_for(polling, 5)
    assert updates[0].message is not None
    assert updates[0].message.text == "now"
    assert updates[0].message.from_user is not None
    assert updates[0].message.from_user.language_code == "de"
    assert abs(updates[0].message.date.timestamp() - time.time()) < 60


async def test_long_poll_without_updates_ends_empty(bot: Bot) -> None:
    """getUpdates answers an empty list when its timeout has passed."""
    assert await bot.get_updates(timeout=1) == ()


async def test_second_poll_ends_the_first_with_409(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """Of two concurrent getUpdates the older one gets the conflict and the newer one the update."""
    async with ptb(telegram.url) as rival:
        older = asyncio.create_task(bot.get_updates(timeout=20))
        await asyncio.sleep(0.1)
        newer = asyncio.create_task(rival.get_updates(timeout=20))
        with pytest.raises(Conflict, match="terminated by other getUpdates request"):
            await older
        telegram.say(ada, chat, "for the newer")
        assert len(await newer) == 1


async def test_poll_of_a_client_that_left_does_not_swallow_updates(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """A killed client's long poll takes nothing with it."""
    polling = asyncio.create_task(bot.get_updates(timeout=20))
    await asyncio.sleep(0.1)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    telegram.say(ada, chat, "kept")
    assert len(await bot.get_updates(timeout=5)) == 1


async def test_allowed_updates_select_kinds_from_now_on(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """Kinds not asked for are never queued; reactions come only when named."""
    message = telegram.say(ada, chat, "hello")
    telegram.react(ada, message, "\N{THUMBS UP SIGN}")
    assert len(await bot.get_updates()) == 1
    await bot.get_updates(allowed_updates=["message_reaction"])
    telegram.say(ada, chat, "not wanted")
    telegram.react(ada, message, "\N{FIRE}")
    updates = await bot.get_updates()
    assert [bool(update.message_reaction) for update in updates] == [False, True]


async def test_poison_updates_arrive_verbatim(telegram: FakeTelegram, bot: Bot) -> None:
    """Missing fields, wrong types and unknown kinds reach the bot word for word, ids included or not."""
    poison: list[Any] = [
        {"message": {"message_id": "x"}},
        {"nobody_knows": {}},
        {"update_id": "seven"},
        5,
        None,
    ]
    for body in poison:
        telegram.inject(body)
    telegram.inject({"message": 1}, with_id=False)
    updates = await poll(bot)
    assert [body if not isinstance(body, dict) else {**body, "update_id": 0} for body in updates[:2]] == [
        {"update_id": 0, "message": {"message_id": "x"}},
        {"update_id": 0, "nobody_knows": {}},
    ]
    assert updates[2:] == [{"update_id": "seven"}, 5, None, {"message": 1}]
    assert await poll(bot, offset=updates[1]["update_id"] + 5) == []


# what people do


async def test_texts_carry_the_entities_telegram_finds(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """Commands, @mentions and text mentions come with UTF-16 offsets."""
    bob = telegram.user("Bob")
    telegram.say(
        ada, chat, f"{SMILE} /ask@palaver_test_bot @ada and Bob see https://x.org/a.", mentions={"Bob": bob}
    )
    (update,) = await bot.get_updates()
    assert update.message is not None
    found = {entity.type: update.message.parse_entity(entity) for entity in update.message.entities}
    assert found == {
        "bot_command": "/ask@palaver_test_bot",
        "mention": "@ada",
        "url": "https://x.org/a",
        "text_mention": "Bob",
    }
    assert [entity.user.id for entity in update.message.entities if entity.user] == [bob.id]


async def test_topics_replies_and_edits_look_as_on_telegram(
    telegram: FakeTelegram, bot: Bot, ada: User
) -> None:
    """Topic messages carry the thread and reply to the topic's first message; edits come as edited_message."""
    forum = telegram.supergroup("Support", [ada], forum=True)
    thread = telegram.topic(forum, "Billing")
    question = telegram.say(ada, forum, "how much?", thread=thread)
    telegram.edit(question, "how much is it?")
    telegram.say(ada, forum, "anybody?", reply_to=question)
    created, said, edited, replied = (update.effective_message for update in await bot.get_updates())
    assert isinstance(created, Message)
    assert isinstance(said, Message)
    assert isinstance(edited, Message)
    assert isinstance(replied, Message)
    assert created.forum_topic_created is not None
    assert (said.message_thread_id, said.is_topic_message) == (thread, True)
    assert said.reply_to_message is not None
    assert said.reply_to_message.message_id == thread
    assert (edited.text, edited.edit_date is not None) == ("how much is it?", True)
    assert replied.reply_to_message is not None
    assert (replied.reply_to_message.text, replied.message_thread_id) == ("how much is it?", thread)


async def test_media_can_be_fetched(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """Photo, document, voice, sticker and location parse, and a file downloads byte for byte."""
    telegram.photo(ada, chat, caption="see @ada")
    telegram.document(ada, chat, b"\x00\xffbytes", name="a b.bin", mime_type="application/octet-stream")
    telegram.voice(ada, chat)
    telegram.sticker(ada, chat)
    telegram.location(ada, chat)
    messages = [update.message for update in await bot.get_updates() if update.message]
    assert messages[0].photo[-1].width == 1280
    assert messages[0].caption_entities[0].type == "mention"
    assert (messages[2].voice is None, messages[3].sticker is None, messages[4].location is None) == (
        False,
    ) * 3
    document = messages[1].document
    assert document is not None
    file = await document.get_file()
    sink = io.BytesIO()
    await file.download_to_memory(sink)
    assert sink.getvalue() == b"\x00\xffbytes"
    assert len(telegram.calls("download")) == 1


async def test_files_above_20_mb_are_refused(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """getFile refuses what is too big and what nobody knows."""
    message = telegram.document(ada, chat, size=21 * 1024 * 1024)
    with pytest.raises(BadRequest, match=r"(?i)file is too big"):
        await bot.get_file(message.content["document"]["file_id"])
    with pytest.raises(BadRequest, match=r"(?i)wrong file_id"):
        await bot.get_file("nonsense")


async def test_buttons_are_pressed_and_answered(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """A pressed inline button arrives as callback_query; its answer is recorded; a second one is refused."""
    keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("Yes", callback_data="yes")]])
    sent = await bot.send_message(chat.id, "Sure?", reply_markup=keyboard)
    offer = telegram.message(chat, sent.message_id)
    with pytest.raises(ValueError, match="no button 'no'"):
        telegram.press(ada, offer, "no")
    query_id = telegram.press(ada, offer, "yes")
    (update,) = await bot.get_updates()
    assert update.callback_query is not None
    assert (update.callback_query.id, update.callback_query.data) == (query_id, "yes")
    await update.callback_query.answer("thanks")
    assert telegram.callback_answers()[query_id]["text"] == "thanks"
    with pytest.raises(BadRequest, match=r"(?i)query ID is invalid"):
        await bot.answer_callback_query("12345")


async def test_privacy_mode_and_other_bots(ada: User) -> None:
    """In privacy mode groups show only what is meant for the bot; other bots are never heard by default."""
    async with FakeTelegram(TOKEN, privacy_mode=True) as telegram, ptb(telegram.url) as bot:
        bob, robot = telegram.user("Bob"), telegram.user("Robot", is_bot=True)
        group = telegram.group("Friends", [bob, robot])
        sent = await bot.send_message(group.id, "hello all")
        telegram.say(bob, group, "between us")
        telegram.say(bob, group, "hey @palaver_test_bot")
        telegram.say(bob, group, "/help@some_other_bot")
        telegram.say(bob, group, "/help")
        telegram.say(bob, group, "yes", reply_to=telegram.message(group, sent.message_id))
        telegram.say(robot, group, "@palaver_test_bot beep")
        texts = [update.message.text for update in await bot.get_updates() if update.message]
        assert texts == ["hey @palaver_test_bot", "/help", "yes"]


# refusals


async def test_wrong_tokens_and_unknown_methods(telegram: FakeTelegram, bot: Bot) -> None:
    """A well-formed wrong token is 401, a malformed one 404, an unknown method 404."""
    for token, status in (("123456:other", 401), ("nonsense", 404)):
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{telegram.url}/bot{token}/getMe")
        assert (answer.status_code, answer.json()["ok"]) == (status, False)
    stranger = ptb(telegram.url, "123456:other")
    with pytest.raises(InvalidToken):
        await stranger.initialize()
    await stranger.shutdown()
    with pytest.raises(EndPointNotFound):
        await bot.do_api_request("launchRocket")
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{telegram.url}/bot{TOKEN}/launchRocket")
    assert answer.json() == {"ok": False, "error_code": 404, "description": "Not Found"}


async def test_lengths_count_utf16_units(bot: Bot, chat: Chat) -> None:
    """4096 units go through, one more is refused, and an emoji counts twice."""
    await bot.send_message(chat.id, SMILE * 2048)
    sent = await bot.send_message(chat.id, "x" * 4096)
    for text in (SMILE * 2048 + "x", "x" * 4097):
        with pytest.raises(BadRequest, match=r"(?i)message is too long"):
            await bot.send_message(chat.id, text)
        with pytest.raises(BadRequest, match=r"(?i)message is too long"):
            await bot.edit_message_text(text, chat.id, sent.message_id)
    with pytest.raises(BadRequest, match="caption is too long"):
        await bot.send_document(chat.id, b"x", caption="x" * 1025)


@pytest.mark.parametrize("text", ["", "  \n "])
async def test_empty_text_is_refused(bot: Bot, chat: Chat, text: str) -> None:
    """Nothing but white space is nothing."""
    with pytest.raises(BadRequest, match=r"(?i)message text is empty"):
        await bot.send_message(chat.id, text)


@pytest.mark.parametrize(
    ("mode", "text", "reason"),
    [
        ("MarkdownV2", "Done.", "Character '.' is reserved and must be escaped"),
        ("MarkdownV2", "a-b", "Character '-' is reserved"),
        ("MarkdownV2", "1 > 0", "Character '>' is reserved"),
        ("MarkdownV2", "a | b", r"Character '\|' is reserved"),
        ("MarkdownV2", "ä *bold", "Can't find end of Bold entity at byte offset 3"),
        ("MarkdownV2", "_a *b_ c*", "Can't find end of Bold entity at byte offset 8"),
        ("MarkdownV2", "```py\nx", "Can't find end of Pre entity at byte offset 0"),
        ("MarkdownV2", "[a](http://x", "Can't find end of a URL"),
        ("HTML", "a <foo>b</foo>", 'Unsupported start tag "foo" at byte offset 2'),
        ("HTML", "1 < 2", "Unsupported start tag"),
        ("HTML", "<b>a", 'Can\'t find end tag corresponding to start tag "b"'),
        ("HTML", "<b><i>a</b></i>", 'Unmatched end tag at byte offset 7, expected "</i>", found "</b>"'),
        ("HTML", "a</b>", "Unexpected end tag at byte offset 1"),
        ("Markdown", "snake_case", "Can't find end of the entity starting at byte offset 5"),
    ],
)
async def test_bad_markup_is_refused(bot: Bot, chat: Chat, mode: str, text: str, reason: str) -> None:
    """Wrong markup is refused in Telegram's words, naming the place."""
    with pytest.raises(BadRequest, match=f"(?i)can't parse entities: {reason}"):
        await bot.send_message(chat.id, text, parse_mode=mode)


@pytest.mark.parametrize(
    ("mode", "text", "plain", "found"),
    [
        ("MarkdownV2", r"*b _i_* \.", "b i .", {"bold": "b i", "italic": "i"}),
        ("MarkdownV2", f"{SMILE} ||s|| __u__ ~x~", f"{SMILE} s u x", {"spoiler": "s", "underline": "u"}),
        ("MarkdownV2", "```py\na.b\n``` `c-d`", "a.b\n c-d", {"pre": "a.b\n", "code": "c-d"}),
        ("MarkdownV2", "[x](https://a.b/c_d)", "x", {"text_link": "x"}),
        ("MarkdownV2", ">one\n>two\nafter", "one\ntwo\nafter", {"blockquote": "one\ntwo"}),
        ("MarkdownV2", "**>long\n>more||", "long\nmore", {"expandable_blockquote": "long\nmore"}),
        ("HTML", "<b>a &lt; <i>b</i></b> &amp;", "a < b &", {"bold": "a < b", "italic": "b"}),
        ("HTML", '<pre><code class="language-py">x</code></pre>', "x", {"pre": "x"}),
        ("HTML", '<a href="https://x.org">here</a>', "here", {"text_link": "here"}),
        ("Markdown", "*b* `c_d` [x](https://a.b)", "b c_d x", {"bold": "b", "code": "c_d", "text_link": "x"}),
    ],
)
def test_good_markup_becomes_entities(mode: str, text: str, plain: str, found: dict[str, str]) -> None:
    """Right markup leaves the plain text and entities over the right UTF-16 ranges."""
    result, entities = formatted(text, mode, None)
    by_type = {entity["type"]: entity_text(result, entity) for entity in entities}
    assert result == plain
    assert found.items() <= by_type.items()


@pytest.mark.parametrize(("offset", "length"), [(0, 9), (-1, 2), (3, 0), (9, 1), (0, 1), (1, 2), (2, 7)])
async def test_bad_entities_are_refused(bot: Bot, chat: Chat, offset: int, length: int) -> None:
    """Entities outside the text, empty, or cutting a surrogate pair are refused."""
    text = f"{SMILE} hello"
    assert utf16_length(text) == 8
    with pytest.raises(BadRequest, match=r"(?i)can't parse entities"):
        await bot.send_message(chat.id, text, entities=[MessageEntity("bold", offset, length)])


async def test_edits_without_change_and_of_nothing_are_refused(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """The same content, trailing white space included, is no modification; missing or foreign messages refuse."""
    question = telegram.say(ada, chat, "hi")
    sent = await bot.send_message(chat.id, "Hello", reply_parameters=ReplyParameters(question.message_id))
    reply = telegram.message(chat, sent.message_id)
    assert reply.reply_to == question.message_id
    for same in ("Hello", "Hello \n"):
        with pytest.raises(BadRequest, match=r"(?i)message is not modified"):
            await bot.edit_message_text(same, chat.id, sent.message_id)
    await bot.edit_message_text("*Hello*", chat.id, sent.message_id, parse_mode="MarkdownV2")
    assert (reply.text, reply.entities) == ("Hello", [{"type": "bold", "offset": 0, "length": 5}])
    assert [(revision.text, revision.entities) for revision in reply.revisions] == [("Hello", [])]
    with pytest.raises(BadRequest, match=r"(?i)message to edit not found"):
        await bot.edit_message_text("x", chat.id, 999)
    with pytest.raises(BadRequest, match=r"(?i)message can't be edited"):
        await bot.edit_message_text("x", chat.id, question.message_id)
    await bot.delete_message(chat.id, sent.message_id)
    with pytest.raises(BadRequest, match=r"(?i)message to edit not found"):
        await bot.edit_message_text("x", chat.id, sent.message_id)
    with pytest.raises(BadRequest, match=r"(?i)message to delete not found"):
        await bot.delete_message(chat.id, sent.message_id)
    assert telegram.replies(chat) == []
    assert telegram.messages(chat, by_bot=True, deleted=True) == [reply]


async def test_unreachable_chats_refuse(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """Unknown chats, blocking people, people never met, groups that kicked the bot: each in its own words."""
    with pytest.raises(BadRequest, match=r"(?i)chat not found"):
        await bot.send_message(42, "x")
    telegram.blocked_by(ada)
    with pytest.raises(Forbidden, match="bot was blocked by the user"):
        await bot.send_message(chat.id, "x")
    telegram.blocked_by(ada, blocked=False)
    await bot.send_message(chat.id, "x")
    shy = telegram.user("Shy")
    group = telegram.group("G", [ada, shy])
    with pytest.raises(Forbidden, match="can't initiate conversation"):
        await bot.send_message(shy.id, "x")
    telegram.remove_bot(ada, group)
    with pytest.raises(Forbidden, match="bot was kicked from the group chat"):
        await bot.send_message(group.id, "x")
    kinds = [
        update.my_chat_member.new_chat_member.status
        for update in await bot.get_updates()
        if update.my_chat_member
    ]
    assert kinds == ["kicked", "member", "kicked"]
    telegram.add_bot(ada, group)
    assert await bot.leave_chat(group.id)
    with pytest.raises(Forbidden, match="not a member"):
        await bot.send_message(group.id, "x")


async def test_migrated_group_names_its_successor(telegram: FakeTelegram, bot: Bot, ada: User) -> None:
    """The old id refuses with migrate_to_chat_id, both sides announce it, the new chat works."""
    group = telegram.group("Club", [ada])
    new = telegram.migrate(group)
    with pytest.raises(ChatMigrated) as caught:
        await bot.send_message(group.id, "x")
    assert caught.value.new_chat_id == new.id
    here, there = (update.message for update in await bot.get_updates())
    assert here is not None
    assert there is not None
    assert (here.migrate_to_chat_id, there.migrate_from_chat_id) == (new.id, group.id)
    await bot.send_message(new.id, "x")


async def test_threads_must_exist(telegram: FakeTelegram, bot: Bot, ada: User) -> None:
    """Unknown topics, the General topic by id and plain reply chains refuse a send; closed topics too."""
    forum = telegram.supergroup("Support", [ada], forum=True)
    thread = telegram.topic(forum, "Billing")
    await bot.send_message(forum.id, "in topic", message_thread_id=thread)
    for missing in (1, 99):
        with pytest.raises(BadRequest, match=r"(?i)message thread not found"):
            await bot.send_message(forum.id, "x", message_thread_id=missing)
    assert await bot.send_chat_action(forum.id, "typing", message_thread_id=1)
    telegram.close_topic(forum, thread)
    with pytest.raises(BadRequest, match=r"(?i)TOPIC_CLOSED"):
        await bot.send_message(forum.id, "x", message_thread_id=thread)
    assert [message.text for message in telegram.replies(forum, thread=thread)] == ["in topic"]
    plain = telegram.supergroup("Plain", [ada])
    first = telegram.say(ada, plain, "first")
    second = telegram.say(ada, plain, "second", reply_to=first)
    assert second.thread_id == first.message_id
    with pytest.raises(BadRequest, match=r"(?i)message thread not found"):
        await bot.send_message(plain.id, "x", message_thread_id=second.thread_id)


async def test_replies_to_missing_messages(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """A reply to a deleted message is refused unless it may go without."""
    question = telegram.say(ada, chat, "hi")
    telegram.delete(question)
    with pytest.raises(BadRequest, match=r"(?i)message to be replied not found"):
        await bot.send_message(chat.id, "x", reply_parameters=ReplyParameters(question.message_id))
    relaxed = ReplyParameters(question.message_id, allow_sending_without_reply=True)
    sent = await bot.send_message(chat.id, "x", reply_parameters=relaxed)
    assert telegram.message(chat, sent.message_id).reply_to is None


async def test_other_methods(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """Drafts, actions, reactions, uploads, chats and members work and are recorded."""
    question = telegram.say(ada, chat, "hi")
    await bot.send_message_draft(chat.id, 7, "thin")
    await bot.send_message_draft(chat.id, 7, "thinking")
    assert [(draft.draft_id, draft.text) for draft in telegram.drafts(chat)] == [(7, "thin"), (7, "thinking")]
    group = telegram.group("G", [ada])
    with pytest.raises(BadRequest, match=r"(?i)TEXTDRAFT_PEER_INVALID"):
        await bot.send_message_draft(group.id, 7, "x")
    await bot.send_chat_action(chat.id, "typing")
    assert [action.action for action in telegram.chat_actions(chat)] == ["typing"]
    with pytest.raises(BadRequest, match=r"(?i)wrong parameter action"):
        await bot.send_chat_action(chat.id, "dancing")
    await bot.set_message_reaction(chat.id, question.message_id, "\N{EYES}")
    assert question.reactions == {123456: ["\N{EYES}"]}
    with pytest.raises(BadRequest, match=r"(?i)REACTION_INVALID"):
        await bot.set_message_reaction(chat.id, question.message_id, "x")
    sent = await bot.send_document(
        chat.id, b"report", filename="report.txt", caption="*see*", parse_mode="MarkdownV2"
    )
    assert sent.document is not None
    assert telegram.file(sent.document.file_id).content == b"report"
    assert telegram.message(chat, sent.message_id).text == "see"
    again = await bot.send_document(chat.id, sent.document.file_id)
    assert again.document is not None
    photo = await bot.send_photo(chat.id, PIXEL)
    assert photo.photo[0].file_size == len(PIXEL)
    with pytest.raises(BadRequest, match=r"(?i)IMAGE_PROCESS_FAILED"):
        await bot.send_photo(chat.id, b"no image")
    assert (await bot.get_chat(chat.id)).username == "ada"
    telegram.promote(ada, group)
    assert [admin.user.id for admin in await bot.get_chat_administrators(group.id)] == [ada.id]
    assert (await bot.get_chat_member(group.id, ada.id)).status == "administrator"


async def test_commands_are_kept_per_scope_and_language(telegram: FakeTelegram, bot: Bot) -> None:
    """setMyCommands replaces exactly one scope and language; bad names are refused."""
    private = BotCommandScopeAllPrivateChats()
    await bot.set_my_commands([BotCommand("help", "Help")])
    await bot.set_my_commands([BotCommand("hilfe", "Hilfe")], scope=private, language_code="de")
    assert [command.command for command in await bot.get_my_commands()] == ["help"]
    assert await bot.get_my_commands(scope=private) == ()
    scope = {"type": "all_private_chats"}
    assert telegram.commands(scope, "de") == [{"command": "hilfe", "description": "Hilfe"}]
    await bot.delete_my_commands(scope=private, language_code="de")
    assert telegram.commands(scope, "de") == []
    with pytest.raises(BadRequest, match=r"(?i)BOT_COMMAND_INVALID"):
        await bot.set_my_commands([BotCommand("Help!", "x")])


# faults


@pytest.mark.parametrize(
    ("kind", "error", "stored"),
    [
        ("429", RetryAfter, 0),
        ("400", BadRequest, 0),
        ("403", Forbidden, 0),
        ("500", NetworkError, 0),
        ("502", NetworkError, 0),
        ("reset", NetworkError, 0),
        ("answer_lost", NetworkError, 1),
        ("garbage", Exception, 1),
        ("hang", TimedOut, 0),
        ("slow", TimedOut, 1),
    ],
)
async def test_each_fault_once(
    telegram: FakeTelegram, chat: Chat, kind: Any, error: Any, stored: int
) -> None:
    """Every fault fails one call, leaves behind what it says, and the next call works."""
    fault = telegram.fault(kind, "send*", delay_s=3)
    async with ptb(telegram.url, read_timeout_s=0.5) as bot:
        with pytest.raises(error) as caught:
            await bot.send_message(chat.id, "one")
        assert len(telegram.replies(chat)) == stored
        if kind in ("reset", "answer_lost"):
            assert isinstance(caught.value.__cause__, httpx.ReadError | httpx.RemoteProtocolError)
        await bot.send_message(chat.id, "two")
    assert [message.text for message in telegram.replies(chat)] == ["one"] * stored + ["two"]
    assert telegram.fault_hits(fault) == 1
    failed, passed = telegram.calls("sendMessage")
    assert (failed.fault, failed.params["text"], passed.fault, passed.status) == (kind, "one", None, 200)


async def test_faults_select_by_count_chat_skip_and_seed(
    telegram: FakeTelegram, bot: Bot, chat: Chat
) -> None:
    """A fault strikes only its method, chat and share of calls, the same ones for the same seed."""
    other = telegram.private_chat(telegram.user("Bob"))
    telegram.fault("400", "sendMessage", count=1, skip=1, chat=chat)
    await bot.send_message(chat.id, "passes")
    await bot.send_message(other.id, "other chat")
    with pytest.raises(BadRequest):
        await bot.send_message(chat.id, "struck")

    async def pattern() -> list[bool]:
        telegram.clear_faults()
        telegram.fault("400", "sendMessage", count=None, probability=0.5, seed=7)
        results: list[Any] = []
        for _ in range(20):
            results += await asyncio.gather(bot.send_message(chat.id, "x"), return_exceptions=True)
        return [isinstance(result, BadRequest) for result in results]

    first, second = await pattern(), await pattern()
    assert first == second
    assert 3 < sum(first) < 17


async def test_effect_before_an_error_answer(telegram: FakeTelegram, bot: Bot, chat: Chat) -> None:
    """With done=True a 502 hides a message that was sent."""
    telegram.fault("502", "sendMessage", done=True)
    with pytest.raises(NetworkError, match="Bad Gateway"):
        await bot.send_message(chat.id, "sent all the same")
    assert telegram.transcript(chat) == ["#1 Palaver: sent all the same"]


async def test_outages(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """Refused connections, 502 for all and a revoked token last until ended; pending updates survive."""
    polling = asyncio.create_task(bot.get_updates(timeout=30))
    await asyncio.sleep(0.1)
    await telegram.outage("refuse")
    with pytest.raises(NetworkError):
        await polling
    for _ in range(2):
        with pytest.raises(NetworkError) as caught:
            await bot.send_message(chat.id, "x")
        assert isinstance(caught.value.__cause__, httpx.ConnectError)
    telegram.say(ada, chat, "during the outage")
    await telegram.outage("502")
    with pytest.raises(NetworkError, match="Bad Gateway"):
        await bot.get_updates()
    await telegram.outage(None)
    telegram.revoke_token()
    with pytest.raises(InvalidToken):
        await bot.get_updates()
    telegram.revoke_token(revoked=False)
    assert len(await bot.get_updates()) == 1


async def test_flood_limits_punish(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """Over the limit comes 429; calls inside the penalty are counted and lengthen it; other chats go on."""
    telegram.flood_limits(private_burst=2)
    other = telegram.private_chat(telegram.user("Bob"))
    for number in range(2):
        await bot.send_message(chat.id, f"{number}")
    with pytest.raises(RetryAfter) as first:
        await bot.send_message(chat.id, "too much")
    with pytest.raises(RetryAfter) as second:
        await bot.send_message(chat.id, "impolite")
    assert second.value._retry_after > first.value._retry_after
    await bot.send_message(other.id, "another chat")
    report = telegram.flood_report()
    assert (report.accepted, report.refused, report.calls_inside_penalty) == (3, 2, 1)
    assert [call.inside_penalty for call in telegram.calls("sendMessage", chat)] == [
        False,
        False,
        False,
        True,
    ]


async def test_flood_limits_of_groups(telegram: FakeTelegram, bot: Bot, ada: User) -> None:
    """A group takes so many messages a window; once retry_after has passed it takes more."""
    telegram.flood_limits(group_per_window=3, group_window_s=1)
    group = telegram.group("G", [ada])
    for number in range(3):
        await bot.send_message(group.id, f"{number}")
    with pytest.raises(RetryAfter) as caught:
        await bot.send_message(group.id, "too much")
    await asyncio.sleep(caught.value._retry_after.total_seconds())
    await bot.send_message(group.id, "patient")
    assert telegram.flood_report().calls_inside_penalty == 0


async def test_injected_429_counts_the_impatient(telegram: FakeTelegram, bot: Bot, chat: Chat) -> None:
    """With limits off, a call before an injected retry_after has passed is admitted but counted."""
    telegram.fault("429", "sendMessage", retry_after=30)
    with pytest.raises(RetryAfter):
        await bot.send_message(chat.id, "x")
    await bot.send_message(chat.id, "impatient")
    assert telegram.flood_report().calls_inside_penalty == 1


# webhook


async def test_webhook_delivers_in_order_until_2xx(
    telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat
) -> None:
    """Updates are posted one by one with the secret, again after a refusal; polling conflicts meanwhile."""
    seen: list[tuple[str | None, str]] = []

    async def receive(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append((request.headers.get("X-Telegram-Bot-Api-Secret-Token"), body["message"]["text"]))
        return web.Response(status=500 if len(seen) == 1 else 200)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    polling = asyncio.create_task(bot.get_updates(timeout=20))
    await asyncio.sleep(0.1)
    with pytest.raises(BadRequest, match=r"(?i)HTTPS URL must be provided"):
        await bot.set_webhook("http://example.org/hook")
    await bot.set_webhook(f"http://{host}:{port}/hook", secret_token="s3cret", max_connections=1)
    with pytest.raises(Conflict, match="terminated by setWebhook"):
        await polling
    with pytest.raises(Conflict, match="can't use getUpdates method while webhook is active"):
        await bot.get_updates()
    telegram.say(ada, chat, "one")
    telegram.say(ada, chat, "two")
    await telegram.wait_until_confirmed()
    assert seen == [("s3cret", "one"), ("s3cret", "one"), ("s3cret", "two")]
    assert [delivery.status for delivery in telegram.webhook_deliveries()] == [500, 200, 200]
    info = await bot.get_webhook_info()
    assert (info.pending_update_count, info.max_connections) == (0, 1)
    assert info.last_error_message is not None
    assert "500" in info.last_error_message
    await runner.cleanup()
    telegram.say(ada, chat, "three")
    await asyncio.sleep(0.1)
    await bot.delete_webhook()
    assert [update.message.text for update in await bot.get_updates() if update.message] == ["three"]


# reading, waiting, control


async def test_waiting_for_replies(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """wait_for_reply sees the answer grow and settle; without an answer it says what there was instead."""
    await bot.send_message(chat.id, "earlier")
    question = telegram.say(ada, chat, "hi")

    async def answer() -> None:
        sent = await bot.send_message(chat.id, "Hel")
        await asyncio.sleep(0.1)
        await bot.edit_message_text("Hello", chat.id, sent.message_id)

    answering = asyncio.create_task(answer())
    reply = await telegram.wait_for_reply(chat, settled_s=0.3)
    await answering
    assert (reply.text, [revision.text for revision in reply.revisions]) == ("Hello", ["Hel"])
    assert await telegram.wait_for_reply(chat, after=question, containing="ello") is reply
    assert len(await telegram.wait_for_messages(chat, 2)) == 2
    await telegram.wait_until_quiet(0.1)
    with pytest.raises(TimeoutError, match="Ada Lovelace: hi"):
        await telegram.wait_for_reply(chat, after=telegram.say(ada, chat, "again"), timeout_s=0.1)


async def test_ids_grow(telegram: FakeTelegram, bot: Bot, ada: User, chat: Chat) -> None:
    """Message ids grow per chat, update ids over all."""
    group = telegram.group("G", [ada])
    ids = [telegram.say(ada, where, "x").message_id for where in (chat, group, chat, group)]
    assert ids == [1, 1, 2, 2]
    updates = [update.update_id for update in await bot.get_updates()]
    assert updates == sorted(set(updates))


async def test_refuses_as_people_too(telegram: FakeTelegram, ada: User, chat: Chat) -> None:
    """A test that lets people do the impossible is told so."""
    group = telegram.group("G", [])
    with pytest.raises(ValueError, match="is not in chat"):
        telegram.say(ada, group, "x")
    with pytest.raises(ValueError, match="no topic 77"):
        telegram.say(ada, chat, "x", thread=77)
    with pytest.raises(Refusal, match="middle of a UTF-16"):
        telegram.say(ada, chat, SMILE, entities=[{"type": "bold", "offset": 1, "length": 1}])
    assert automatic_entities("a/b me@x.org 10/20 #1 C#") == [{"type": "email", "offset": 4, "length": 8}]


async def test_own_process_with_control_api(tmp_path: Path) -> None:
    """Another process serves the same acts over HTTP, outlives outages, and keeps its state over a restart."""
    state = tmp_path / "telegram.json"
    async with spawn(TOKEN, state=state) as telegram, ptb(telegram.url) as bot:
        ada = await telegram.user("Ada", username="ada")
        chat = await telegram.private_chat(ada)
        question = await telegram.say(ada, chat, "/start now")
        await telegram.call("document", user=ada, chat=chat, content=b"\x00\xff", name="x.bin")
        first, second = await bot.get_updates(timeout=5)
        assert first.message is not None
        assert second.message is not None
        assert (first.message.text, first.message.message_id) == ("/start now", question.message_id)
        assert second.message.document is not None
        stored = await telegram.call("file", file_id=second.message.document.file_id)
        assert stored.content == b"\x00\xff"
        await bot.send_message(chat.id, "welcome")
        reply = await telegram.wait_for_reply(chat, after=question)
        assert reply.text == "welcome"
        edited = await telegram.call("edit", message=question, text="/start later")
        assert edited.text == "/start later"
        await telegram.call("outage", kind="refuse")
        with pytest.raises(NetworkError):
            await bot.send_message(chat.id, "lost")
        await telegram.call("outage", kind=None)
        await telegram.call("fault", kind="403", method="sendMessage")
        with pytest.raises(Forbidden):
            await bot.send_message(chat.id, "refused")
        with pytest.raises(TimeoutError, match="no reply"):
            await telegram.wait_for_reply(chat, containing="never", timeout_s=0.1)
        with pytest.raises(ValueError, match="no user 5"):
            await telegram.call("private_chat", user=5)
        with pytest.raises(ValueError, match="kind"):
            await telegram.call("fault", kind="meteor")
        statuses = [call.status for call in await telegram.call("calls", method="sendMessage")]
        assert statuses == [200, 403]
        assert [call.method for call in await telegram.call("calls", method="getMe")] == ["getMe"]
    assert json.loads(state.read_text())["chats"][str(chat.id)]["type"] == "private"
    async with spawn(TOKEN, state=state) as telegram, ptb(telegram.url) as bot:
        assert [message.text for message in await telegram.replies(chat)] == ["welcome"]
        assert len(await bot.get_updates()) == 3
        sent = await bot.send_message(chat.id, "after the restart")
        assert sent.message_id > reply.message_id


async def test_every_public_act_is_on_the_control_api(telegram: FakeTelegram) -> None:
    """Nothing that a test can do in process is missing over HTTP, and both ports list it."""
    from tests.fakes.telegram.control import ACTS

    apart = {"start", "stop", "url", "base_url", "base_file_url", "control_url", "member_payload"}
    public = {name for name in dir(FakeTelegram) if not name.startswith("_")} - apart
    assert public == set(ACTS)
    async with httpx.AsyncClient() as client:
        for address in (telegram.url, telegram.control_url):
            answer = (await client.get(f"{address}/_control/")).json()
            assert set(answer["acts"]) == public
        refused = await client.post(f"{telegram.url}/_control/outage", json={"kind": "refuse"})
        assert refused.status_code == 409
