"""Mutated real updates: whatever comes, it is delivered, quarantined or passed over, and the feed goes on."""

import copy
import json
import random

import pytest

from adapters.errors import MalformedUpdate
from adapters.messages import InboundMessage
from adapters.telegram.inbound import BotIdentity, ButtonPress, ChannelMove, parse
from tests.adapters.recording import RecordingIntake
from tests.adapters.telegram.world import ACCOUNT, make_adapter, running
from tests.fakes.telegram import FakeTelegram

JUNK = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**80, -(10**30), 1.5, 1e308, "", "x", "/start", "@palaver_test_bot",
    "\ud800", "\0", "😀" * 50, "x" * 5000, [], [[]], {}, {"id": 1}, [None], [{}], {"type": "private"}, "private", "12",
]  # fmt: skip


async def real_updates() -> list[dict]:
    """One of each thing that people do, as the server puts it on the wire."""
    async with FakeTelegram() as telegram:
        ada, bob = (
            telegram.user("Ada", username="ada"),
            telegram.user("Bob", last_name="B", language_code="de"),
        )
        chat = telegram.private_chat(ada)
        group, forum = telegram.group("G", [ada, bob]), telegram.supergroup("F", [ada, bob], forum=True)
        first = telegram.say(ada, chat, "hello 😀 https://e.org")
        telegram.say(ada, chat, "/start payload", reply_to=first)
        telegram.edit(first, "hello again")
        topic = telegram.topic(forum, "Help")
        asked = telegram.say(ada, forum, "@palaver_test_bot Bob knows", thread=topic, mentions={"Bob": bob})
        telegram.say(bob, forum, "/help@palaver_test_bot please", thread=topic, reply_to=asked)
        for medium in (
            telegram.photo,
            telegram.document,
            telegram.voice,
            telegram.sticker,
            telegram.location,
        ):
            medium(bob, forum, thread=topic)
        telegram.photo(ada, group, caption="look @palaver_test_bot")
        telegram.join(telegram.user("Eve"), group)
        telegram.part(bob, group)
        telegram.migrate(group)
        telegram.blocked_by(ada)
        return [update.body for update in telegram.world.pending] + [button(chat.id), anonymous(forum.id)]


def button(chat_id):
    under = {"message_id": 3, "date": 1, "chat": {"id": chat_id, "type": "private"}, "text": "choose"}
    sender = {"id": chat_id, "is_bot": False, "first_name": "Ada"}
    return {
        "update_id": 900,
        "callback_query": {"id": "1", "from": sender, "message": under, "data": "/stop"},
    }


def anonymous(chat_id):
    chat = {"id": chat_id, "type": "supergroup", "title": "F"}
    sender = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
    return {
        "update_id": 901,
        "message": {
            "message_id": 9,
            "date": 1,
            "chat": chat,
            "from": sender,
            "sender_chat": chat,
            "text": "hi",
        },
    }


def places(value, path=()):
    """The path of every value inside a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def mutated(update, corpus, chance):
    """The update with a few of its values dropped, replaced, doubled or exchanged for another update's."""
    update = copy.deepcopy(update)
    for _ in range(chance.randint(1, 4)):
        path = chance.choice(places(update) or [("update_id",)])
        parent = update
        for key in path[:-1]:
            parent = parent[key]
        other = chance.choice(corpus)
        kind = chance.randrange(5)
        if kind == 0:
            del parent[path[-1]]
        elif kind == 1:
            parent[path[-1]] = copy.deepcopy(chance.choice(JUNK))
        elif kind == 2:
            parent[path[-1]] = [copy.deepcopy(parent[path[-1]])] * chance.randint(0, 3)
        elif kind == 3 and isinstance(parent, dict):
            parent[
                chance.choice(["text", "from", "chat", "entities", "photo", "date", "migrate_to_chat_id"])
            ] = parent[path[-1]]
        else:
            donor = chance.choice(places(other))
            value = other
            for key in donor:
                value = value[key]
            parent[path[-1]] = copy.deepcopy(value)
        if not isinstance(update, dict) or not update:
            break
    return update


def check_delivered(message: InboundMessage) -> None:
    """A delivered message holds what any store and any agent can take."""
    for text in (
        message.text,
        message.channel,
        message.message_id,
        message.sender.user_id,
        message.sender.display_name,
    ):
        assert isinstance(text, str)
        text.encode()
        assert "\0" not in text
    assert 0 <= message.sent_at_ms < 2**53
    json.dumps(message.origin, ensure_ascii=False).encode()
    assert message.text or message.attachments or message.unsupported or message.text == ""
    for attachment in message.attachments:
        attachment.reference.encode()
        assert attachment.size_bytes is None or attachment.size_bytes >= 0


async def test_ten_thousand_mutated_updates_are_parsed_or_malformed():
    """The parser knows two outcomes, whatever it is given; both happen."""
    corpus = await real_updates()
    chance = random.Random(20261120)
    bot = BotIdentity(123456, "palaver_test_bot")
    outcomes = dict.fromkeys(("message", "press", "move", "nothing", "malformed"), 0)
    for _ in range(10_000):
        update = mutated(chance.choice(corpus), corpus, chance)
        try:
            found = parse(update, ACCOUNT, bot, max_bytes=1000, now_ms=1)
        except MalformedUpdate:
            outcomes["malformed"] += 1
            continue
        match found:
            case InboundMessage():
                check_delivered(found)
                outcomes["message"] += 1
            case ButtonPress():
                if found.message is not None:
                    check_delivered(found.message)
                outcomes["press"] += 1
            case ChannelMove():
                outcomes["move"] += 1
            case None:
                outcomes["nothing"] += 1
    assert sum(outcomes.values()) == 10_000
    assert all(outcomes.values()), outcomes


def outcome(body) -> str:
    """What becomes of an update in the loop, by the parser's word."""
    bot = BotIdentity(123456, "palaver_test_bot")
    try:
        found = parse(body, ACCOUNT, bot, max_bytes=20 * 1024 * 1024, now_ms=1)
    except MalformedUpdate:
        return "malformed"
    is_message = isinstance(found, InboundMessage) or (
        isinstance(found, ButtonPress) and found.message is not None
    )
    return "message" if is_message else "other"


async def test_real_updates_are_all_understood():
    """None of the unmutated updates is malformed."""
    bot = BotIdentity(123456, "palaver_test_bot")
    for update in await real_updates():
        parse(update, ACCOUNT, bot, max_bytes=1000, now_ms=1)


@pytest.mark.timeout(120)
async def test_ten_thousand_mutated_updates_go_through_the_loop():
    """Over the wire every update is confirmed, what nobody understands is kept, and sound messages between arrive in order."""
    corpus = await real_updates()
    chance = random.Random(7)
    intake = RecordingIntake()
    async with FakeTelegram() as telegram:
        telegram.world.next_id = 50_000  # nobody in the corpus: ids that agree would be duplicates
        ada = telegram.user("Ada")
        chat = telegram.private_chat(ada)
        adapter = make_adapter(telegram, sync_commands=False)
        async with running(adapter, intake):
            bodies = []
            for number in range(10_000):
                update = mutated(chance.choice(corpus), corpus, chance)
                # the id is Telegram's to give: kept, or junk that is none
                if isinstance(update, dict) and type(update.get("update_id", "")) is int:
                    del update["update_id"]
                telegram.inject(update)
                bodies.append(telegram.world.pending[-1].body)
                if number % 1000 == 999:
                    telegram.say(ada, chat, f"sound {number}")
            await intake.wait_until(lambda: "sound 9999" in intake.texts, timeout_s=60)
            await telegram.wait_until_confirmed(30)
            assert adapter.health().state == "hearing"
    assert [text for text in intake.texts if text.startswith("sound")] == [
        f"sound {n}" for n in range(999, 10_000, 1000)
    ]
    understood = [outcome(body) for body in bodies]
    assert len(intake.quarantined) == understood.count("malformed") > 1000
    assert len(intake.messages) + len(intake.duplicates) == understood.count("message") + 10 > 1000
