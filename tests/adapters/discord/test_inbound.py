"""What Discord's JSON means: one table of payloads, and thousands of broken ones."""

import copy
import json
import random
from typing import Any

import pytest

from adapters.discord.inbound import PassedOver, Scene, parse_interaction, parse_message, sent_at_ms
from adapters.errors import MalformedUpdate
from config.names import AccountId, ChannelId, ThreadId

BOT, ADA, MESSAGE = "900", "800", "1180000000000000000"
ROLES = {77: "helpers"}
CHANNELS = {555: "general"}
GROUP = Scene(
    AccountId("discord.main"),
    BOT,
    ChannelId("555"),
    "group",
    title="Support #general",
    bot_role_id="66",
    role_name=ROLES.get,
    channel_name=CHANNELS.get,
    max_attachment_bytes=1000,
)
DIRECT = Scene(AccountId("discord.main"), BOT, ChannelId("444"), "direct", max_attachment_bytes=1000)
THREAD = Scene(AccountId("discord.main"), BOT, ChannelId("555"), "group", thread=ThreadId("556"))


def user(user_id: str, name: str, **further: Any) -> dict[str, Any]:
    return {"id": user_id, "username": name.lower(), "global_name": name, "bot": False} | further


def message(content: str = "hello", **further: Any) -> dict[str, Any]:
    return {
        "id": MESSAGE,
        "channel_id": "555",
        "author": user(ADA, "Ada"),
        "content": content,
        "timestamp": "2023-11-30T00:00:00.000000+00:00",
        "edited_timestamp": None,
        "mentions": [],
        "mention_roles": [],
        "attachments": [],
        "embeds": [],
        "type": 0,
        "flags": 0,
    } | further


def file(**further: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "filename": "a.png",
        "content_type": "image/png",
        "size": 10,
        "url": "http://cdn/a",
    } | further


BOT_USER = user(BOT, "Palaver", bot=True)
ADDRESSED = [
    ("hello", {}, False, "hello"),
    (f"<@{BOT}> hello", {"mentions": [BOT_USER]}, True, "hello"),
    (f"<@!{BOT}>, hello", {"mentions": [BOT_USER]}, True, "hello"),
    (f"<@{BOT}> <@{BOT}>  /reset now", {"mentions": [BOT_USER]}, True, "/reset now"),
    (f"hey <@{BOT}> you", {"mentions": [BOT_USER]}, True, "hey @Palaver you"),
    ("<@&66> hello", {"mention_roles": ["66"]}, True, "hello"),
    ("<@&77> hello", {"mention_roles": ["77"]}, False, "@helpers hello"),
    ("@everyone hello", {"mention_everyone": True}, False, "@everyone hello"),
    (
        "yes",
        {"type": 19, "message_reference": {"message_id": "5"}, "referenced_message": {"author": BOT_USER}},
        True,
        "yes",
    ),
    ("yes", {"type": 19, "message_reference": {"message_id": "5"}, "referenced_message": None}, False, "yes"),
    (
        "yes",
        {
            "type": 19,
            "message_reference": {"message_id": "5"},
            "referenced_message": {"author": user("7", "Bo")},
        },
        False,
        "yes",
    ),
    ("/reset", {}, False, "/reset"),
    (f"<@{BOT}>", {"mentions": [BOT_USER]}, True, ""),
]


@pytest.mark.parametrize(("content", "further", "is_addressed", "text"), ADDRESSED)
def test_who_is_addressed(content, further, is_addressed, text):
    """A mention of the bot or its role, or a reply to it, addresses it; a leading mention is taken off."""
    parsed = parse_message(message(content, **further), GROUP)
    assert (parsed.is_addressed, parsed.text) == (is_addressed, text)


def test_everything_is_addressed_directly():
    """In a direct channel every message is meant for the bot, and a command is text like any other."""
    parsed = parse_message(message("/reset"), DIRECT)
    assert (parsed.is_addressed, parsed.text, parsed.channel_kind) == (True, "/reset", "direct")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<@800> and <@!801>", "@Ada and @Bo Nick"),
        ("<@999> unknown", "<@999> unknown"),
        ("see <#555>, not <#1>", "see #general, not <#1>"),
        ("<:wave:123> <a:dance:4>", ":wave: :dance:"),
        ("a < b <@", "a < b <@"),
    ],
)
def test_mentions_read_as_names(content, text):
    """Mentions of people and channels become what a person sees; what cannot be told stays."""
    mentions = [user(ADA, "Ada"), user("801", "Bo", member={"nick": "Bo Nick"})]
    assert parse_message(message(content, mentions=mentions), GROUP).text == text


def test_where_and_when_it_was_said():
    """Ids, channel, thread, title, time, and what it replies to."""
    parsed = parse_message(
        message(type=19, message_reference={"message_id": "5"}, member={"nick": "Countess"}), GROUP
    )
    assert (parsed.channel, parsed.thread, parsed.channel_title) == ("555", None, "Support #general")
    assert (parsed.message_id, parsed.watermark, parsed.reply_to) == (MESSAGE, MESSAGE, "5")
    assert parsed.sent_at_ms == 1701404323339
    assert (parsed.sender.user_id, parsed.sender.display_name, parsed.sender.username) == (
        ADA,
        "Countess",
        "ada",
    )


def test_a_thread_leaves_its_parents_watermark_alone():
    """A thread's message is filed under its parent and thread, and moves no watermark of the parent."""
    parsed = parse_message(message(), THREAD)
    assert (parsed.channel, parsed.thread, parsed.watermark) == ("555", "556", None)


@pytest.mark.parametrize(
    "further",
    [{"author": BOT_USER}, {"type": 7}, {"type": 18}, {"type": 21}, {"author": BOT_USER, "webhook_id": BOT}],
    ids=["own", "join notice", "thread made", "thread starter", "own answer to a command"],
)
def test_what_is_passed_over(further):
    """The bot's own messages and the platform's notices are nobody's word to the bot."""
    with pytest.raises(PassedOver):
        parse_message(message(**further), GROUP)


@pytest.mark.parametrize("further", [{"author": user("5", "Robot", bot=True)}, {"webhook_id": "12"}])
def test_bots_are_marked(further):
    """Other bots and webhooks are delivered as what they are."""
    assert parse_message(message(**further), GROUP).sender.is_bot


@pytest.mark.parametrize(
    ("further", "kinds", "unsupported"),
    [
        ({"attachments": [file()]}, ["photo"], None),
        ({"attachments": [file(content_type="video/mp4")]}, ["video"], None),
        ({"attachments": [file(content_type="audio/ogg")], "flags": 1 << 13}, ["voice"], None),
        ({"attachments": [file(content_type="audio/ogg")]}, ["audio"], None),
        ({"attachments": [file(content_type=None)]}, ["document"], None),
        ({"attachments": [file(size=1001)]}, [], "too_large"),
        ({"attachments": [file(), file(size=1001)]}, ["photo"], "too_large"),
        ({"content": "", "sticker_items": [{"id": "1", "name": "x", "format_type": 1}]}, [], "sticker"),
        ({"sticker_items": [{"id": "1", "name": "x", "format_type": 1}]}, [], None),
        ({"content": "", "poll": {"question": {"text": "?"}}}, [], "poll"),
    ],
)
def test_what_comes_along(further, kinds, unsupported):
    """Files are kept by address, size and type; what the bot cannot take is said."""
    parsed = parse_message(message(**further), DIRECT)
    assert [attachment.kind for attachment in parsed.attachments] == kinds
    assert parsed.unsupported == unsupported


def test_a_forwarded_message_has_its_text():
    """What a person forwards is what they say."""
    forward = message(
        "",
        message_reference={"type": 1, "message_id": "5", "channel_id": "1"},
        message_snapshots=[{"message": {"content": "passed on"}}],
    )
    parsed = parse_message(forward, DIRECT)
    assert (parsed.text, parsed.reply_to) == ("passed on", None)


def test_an_edit_says_so():
    """An edit carries the time of the edit and no watermark; a preview that arrived later is none."""
    edited = message("new", edited_timestamp="2023-12-01T00:00:00.000000+00:00")
    parsed = parse_message(edited, GROUP, is_edit=True)
    assert (parsed.is_edit, parsed.sent_at_ms, parsed.watermark) == (True, 1701388800000, None)
    with pytest.raises(PassedOver):
        parse_message(message("same"), GROUP, is_edit=True)


def interaction(
    name: str = "reset", options: list[dict[str, Any]] | None = None, **further: Any
) -> dict[str, Any]:
    return {
        "id": MESSAGE,
        "application_id": BOT,
        "type": 2,
        "token": "secret-token",
        "channel_id": "555",
        "locale": "de",
        "member": {"nick": "Countess", "user": user(ADA, "Ada")},
        "data": {"id": "3", "name": name, "type": 1, "options": options or []},
    } | further


def test_slash_commands_read_like_typed_ones():
    """A slash command has the form `/name argument`; `/ask` is its question."""
    plain = parse_interaction(interaction(), GROUP)
    assert (plain.text, plain.is_addressed, plain.watermark, plain.message_id) == (
        "/reset",
        True,
        None,
        MESSAGE,
    )
    assert (plain.sender.display_name, plain.sender.language) == ("Countess", "de")
    assert plain.reply_handle == {
        "application_id": BOT,
        "token": "secret-token",
        "interaction_id": MESSAGE,
        "expires_at_ms": sent_at_ms(int(MESSAGE)) + 900_000,
    }
    with_argument = interaction("help", [{"name": "topic", "type": 3, "value": "money"}])
    assert parse_interaction(with_argument, GROUP).text == "/help money"
    asked = interaction(
        "ask", [{"name": "question", "type": 3, "value": " why? "}], member=None, user=user(ADA, "Ada")
    )
    assert parse_interaction(asked, DIRECT).text == "why?"


def test_other_interactions_are_passed_over():
    """Buttons and autocompletion are not ours."""
    with pytest.raises(PassedOver):
        parse_interaction(interaction(type=3), GROUP)


RICH = message(
    f"<@{BOT}> see <#555> <@800> <@&77> <:x:1>",
    mentions=[BOT_USER, user(ADA, "Ada", member={"nick": "A"})],
    mention_roles=["66"],
    attachments=[file()],
    member={"nick": "Countess", "roles": []},
    message_reference={"message_id": "5", "channel_id": "555", "type": 0},
    referenced_message={"id": "5", "author": BOT_USER, "content": "x"},
    sticker_items=[{"id": "1", "name": "x", "format_type": 1}],
    message_snapshots=[{"message": {"content": "y"}}],
    guild_id="1",
    edited_timestamp="2023-12-01T00:00:00.000000+00:00",
)
JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    1 << 80,
    1.5,
    float("inf"),
    "",
    "x",
    "\ud800",
    "9" * 30,
    [],
    {},
    [None],
    {"id": None},
    [[]],
]


def mutated(original: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy in which one to four values, anywhere, are replaced by junk, dropped or doubled."""
    broken = copy.deepcopy(original)
    for _ in range(rng.randint(1, 4)):
        spot: Any = broken
        while True:
            keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(spot[key], dict | list) and spot[key] and rng.random() < 0.6:
                spot = spot[key]
                continue
            match rng.randint(0, 3):
                case 0:
                    del spot[key]
                case 1 if isinstance(spot, list):
                    spot.append(copy.deepcopy(spot[key]))
                case _:
                    spot[key] = copy.deepcopy(rng.choice(JUNK))
            break
    return broken


@pytest.mark.parametrize("seed", range(4))
def test_mutated_payloads_never_crash_the_parser(seed):
    """Thousands of broken payloads are delivered, passed over or called malformed; nothing else comes out."""
    rng = random.Random(seed)
    outcomes = {"delivered": 0, "passed over": 0, "malformed": 0}
    for number in range(2500):
        scene = (GROUP, DIRECT, THREAD)[number % 3]
        try:
            if number % 5 == 4:
                parsed = parse_interaction(
                    mutated(interaction("ask", [{"name": "q", "type": 3, "value": "v"}]), rng), scene
                )
            else:
                parsed = parse_message(mutated(RICH, rng), scene, is_edit=number % 4 == 3)
            # what is delivered can be stored
            json.dumps([parsed.text, parsed.sender.display_name], ensure_ascii=False).encode()
            assert int(parsed.message_id) > 0
            outcomes["delivered"] += 1
        except PassedOver:
            outcomes["passed over"] += 1
        except MalformedUpdate:
            outcomes["malformed"] += 1
    assert all(outcomes.values()), outcomes


# what a message replies to


def replying(content: str, answered: dict[str, Any] | None, **further: Any) -> dict[str, Any]:
    mentioned = message(f"<@{BOT}> {content}", mentions=[BOT_USER], type=19, **further)
    return {"message_reference": {"message_id": "5"}, **mentioned, "referenced_message": answered}


@pytest.mark.parametrize(
    ("said", "answered", "text"),
    [
        ("when?", "The train leaves", "when?\n\n> Bo: The train leaves"),
        ("", "The train leaves", "> Bo: The train leaves"),
        ("sum up", "one\ntwo <@800>", "sum up\n\n> Bo: one\n> two @Ada"),
        ("sum up", "x" * 1500, "sum up\n\n> Bo: " + "x" * 1000 + "…"),
        ("what?", "", "what?"),
        ("/help", "The train leaves", "/help"),
    ],
)
def test_what_somebody_replies_to_comes_along(said, answered, text):
    """A question about another's message brings its words, as a quotation below; a command stays a command."""
    other = {"id": "5", "author": user("7", "Bo"), "content": answered, "mentions": [user(ADA, "Ada")]}
    assert parse_message(replying(said, other), GROUP).text == text


def test_the_bots_own_answers_are_not_quoted():
    """What the bot said stands in the conversation already; a message that is gone has no words."""
    own = {"id": "5", "author": BOT_USER, "content": "I said so"}
    assert parse_message(replying("why?", own), GROUP).text == "why?"
    assert parse_message(replying("why?", None), GROUP).text == "why?"
    passed_on = replying("look", {"author": user("7", "Bo"), "content": "x"})
    passed_on["message_reference"] = {"message_id": "5", "type": 1}
    assert parse_message(passed_on, GROUP).text == "look"
