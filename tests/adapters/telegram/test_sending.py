"""Sending, editing and typing over the real SDK: what goes over the wire, and what each refusal means."""

import asyncio
import socket

import pytest
from aiohttp import web

from adapters.errors import (
    DeliveryError,
    MessageGone,
    Moved,
    RateLimited,
    Rejected,
    Uncertain,
    Unreachable,
)
from adapters.messages import Chunk
from adapters.telegram.flood import FloodWatch
from adapters.telegram.sending import REPEAT_MARKS
from config.names import ChannelId, PlatformMessageId, ThreadId
from tests.adapters.telegram.world import ACCOUNT, make_adapter, target_of, until
from tests.fakes.telegram import FakeTelegram

HELLO = Chunk("hello")


@pytest.fixture
async def telegram():
    async with FakeTelegram() as telegram:
        yield telegram


@pytest.fixture
async def adapter(telegram):
    adapter = make_adapter(telegram)
    yield adapter
    await adapter.close()


@pytest.fixture
def ada(telegram):
    return telegram.user("Ada", username="ada")


@pytest.fixture
def chat(telegram, ada):
    return telegram.private_chat(ada)


async def test_a_reply_goes_out_as_it_was_rendered(telegram, adapter, chat, ada):
    """Text, entities, the message answered and no link preview reach Telegram; nobody asked getMe first."""
    question = telegram.say(ada, chat, "why")
    target = target_of(chat, reply_to=PlatformMessageId(str(question.message_id)))
    (chunk,) = adapter.render("**because** of https://e.org")
    sent_id = await adapter.send(target, chunk, "k")
    (answer,) = telegram.replies(chat)
    assert str(answer.message_id) == sent_id
    assert answer.text == "because of https://e.org"
    assert answer.entities[0] == {"type": "bold", "offset": 0, "length": 7}
    assert answer.reply_to == question.message_id
    (call,) = telegram.calls()
    assert call.params["link_preview_options"] == {"is_disabled": True}
    assert call.params["reply_parameters"]["allow_sending_without_reply"] is True


async def test_a_message_that_is_a_link_keeps_its_preview(telegram, adapter, chat):
    """Only a message that is nothing but a link is previewed."""
    await adapter.send(target_of(chat), Chunk("https://e.org/page"), "k")
    assert telegram.calls("sendMessage")[0].params["link_preview_options"] == {"is_disabled": False}


async def test_replying_to_a_deleted_message_still_answers(telegram, adapter, chat, ada):
    """When the question has gone meanwhile, the answer goes out without the reference."""
    question = telegram.say(ada, chat, "why")
    telegram.delete(question)
    await adapter.send(target_of(chat, reply_to=PlatformMessageId(str(question.message_id))), HELLO, "k")
    assert [message.text for message in telegram.replies(chat)] == ["hello"]


async def test_an_answer_with_something_new_in_it_is_an_answer(telegram, adapter, chat, ada):
    """The SDK cannot parse the question that Telegram shows along with the reply: it is out all the same, and once."""
    question = telegram.say(ada, chat, "Which?")
    question.content = {"poll": {"id": "1", "question": "Which?", "new_in_every_poll": 1}}
    to = target_of(chat, reply_to=PlatformMessageId(str(question.message_id)))
    sent = await adapter.send(to, adapter.render("This one.")[0], "k")
    await adapter.edit(to, sent, adapter.render("That one.")[0])
    assert [(str(one.message_id), one.text) for one in telegram.replies(chat)] == [(sent, "That one.")]


async def test_a_pressed_button_is_answered_without_reference(telegram, adapter, chat):
    """A press has no message that could be replied to."""
    await adapter.send(target_of(chat, reply_to=PlatformMessageId("press:77")), HELLO, "k")
    assert "reply_parameters" not in telegram.calls("sendMessage")[0].params


@pytest.mark.parametrize("language", ["en", "de", "fr"])
async def test_a_repeat_is_marked_in_the_persons_language(telegram, chat, language):
    """The second try of a send that may have gone through carries a line that says so; entities stay in place."""
    adapter = make_adapter(telegram, language=language, table=lambda _: ())
    (chunk,) = adapter.render("**answer**")
    await adapter.send(target_of(chat), chunk, "k", is_repeat=True)
    (answer,) = telegram.replies(chat)
    assert answer.text == "answer" + REPEAT_MARKS.get(language, REPEAT_MARKS["en"])
    assert answer.entities == [{"type": "bold", "offset": 0, "length": 6}]
    await adapter.close()


async def test_the_longest_chunk_can_be_repeated(telegram, adapter, chat):
    """A chunk as long as they come still has room for the mark."""
    chunk = adapter.render("😀" * 5000)[0]
    await adapter.send(target_of(chat), chunk, "k", is_repeat=True)
    assert telegram.replies(chat)[0].text.endswith(REPEAT_MARKS["en"])


async def test_a_topic_is_answered_in_the_topic(telegram, adapter, ada):
    """The thread of the target is where the answer appears."""
    forum = telegram.supergroup("Forum", [ada], forum=True)
    topic = telegram.topic(forum, "Help")
    await adapter.send(target_of(forum, thread=ThreadId(str(topic))), HELLO, "k")
    assert [message.thread_id for message in telegram.replies(forum)] == [topic]


async def test_a_deleted_topic_is_answered_in_general(telegram, adapter, ada):
    """When the topic is gone, the answer goes to the group rather than nowhere."""
    forum = telegram.supergroup("Forum", [ada], forum=True)
    await adapter.send(target_of(forum, thread=ThreadId("4711")), HELLO, "k")
    assert [(message.text, message.thread_id) for message in telegram.replies(forum)] == [("hello", None)]


async def test_a_closed_topic_stays_quiet(telegram, adapter, ada):
    """Where somebody closed the topic, the answer is refused for good rather than spilled into the group."""
    forum = telegram.supergroup("Forum", [ada], forum=True)
    topic = telegram.topic(forum, "Help")
    telegram.close_topic(forum, topic)
    with pytest.raises(Rejected):
        await adapter.send(target_of(forum, thread=ThreadId(str(topic))), HELLO, "k")
    assert telegram.replies(forum) == []


async def test_markup_that_telegram_refuses_goes_out_plain(telegram, adapter, chat, monkeypatch):
    """Entities that Telegram cannot take cost the formatting, not the message: in one call of `send`, and of `edit`."""
    bad = Chunk("hello", [{"type": "text_link", "offset": 0, "length": 5, "url": "https://e.org"}])
    refusals = refuse_entities(telegram, monkeypatch)
    sent_id = await adapter.send(target_of(chat), bad, "k")
    (answer,) = telegram.replies(chat)
    assert (answer.text, answer.entities) == ("hello", [])
    await adapter.edit(target_of(chat), sent_id, Chunk("bye", [{"type": "bold", "offset": 0, "length": 3}]))
    assert (answer.text, answer.entities) == ("bye", [])
    assert refusals == ["sendMessage", "editMessageText"]


def refuse_entities(telegram, monkeypatch):
    """Make the server refuse every call with entities, as it does when it finds one it dislikes."""
    from tests.fakes.telegram.records import bad_request

    perform, refused = telegram._methods.perform, []

    def refusing(method, parameters):
        if parameters.structure("entities"):
            refused.append(method)
            raise bad_request("can't parse entities: unsupported URL")
        return perform(method, parameters)

    monkeypatch.setattr(telegram._methods, "perform", refusing)
    return refused


@pytest.mark.parametrize("markup", [5, [None], [{"type": "bold"}], {"a": 1}])
async def test_markup_that_is_none_of_ours_is_ignored(telegram, adapter, chat, markup):
    """A stored chunk whose markup cannot be read is sent as text."""
    await adapter.send(target_of(chat), Chunk("hello", markup), "k")
    assert telegram.replies(chat)[0].text == "hello"


# errors


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", RateLimited),
        ("400", Rejected),
        ("403", Rejected),
        ("500", Uncertain),
        ("502", Uncertain),
        ("reset", Uncertain),
        ("answer_lost", Uncertain),
        ("garbage", Uncertain),
    ],
)
@pytest.mark.parametrize("verb", ["send", "edit", "typing"])
async def test_what_each_failure_means(telegram, adapter, chat, fault, error, verb):
    """Each failure of the wire is the delivery error that tells whether the message may be out; the next try works."""
    sent_id = await adapter.send(target_of(chat), HELLO, "k")
    calls = {
        "send": lambda: adapter.send(target_of(chat), HELLO, "k2"),
        "edit": lambda: adapter.edit(target_of(chat), sent_id, Chunk("changed")),
        "typing": lambda: adapter.typing(target_of(chat)),
    }
    telegram.fault(fault)
    with pytest.raises(DeliveryError) as caught:
        await calls[verb]()
    assert type(caught.value) is error
    assert caught.value.account == ACCOUNT
    assert caught.value.__cause__ is not None
    assert telegram.token not in str(caught.value)
    await calls[verb]()


async def test_a_rate_limit_says_how_long(telegram, adapter, chat):
    """The wait that Telegram names is passed on, for this channel."""
    telegram.fault("429", retry_after=17)
    with pytest.raises(RateLimited) as caught:
        await adapter.send(target_of(chat), HELLO, "k")
    assert (caught.value.retry_after_s, caught.value.scope) == (17, "channel")


async def test_limits_in_many_channels_are_the_accounts(telegram, adapter):
    """Three channels refused at the same time mean that the whole bot sends too much."""
    telegram.fault("429", count=None, retry_after=30)
    scopes = []
    for number in range(3):
        chat = telegram.private_chat(telegram.user(f"P{number}"))
        with pytest.raises(RateLimited) as caught:
            await adapter.send(target_of(chat), HELLO, "k")
        scopes.append(caught.value.scope)
    assert scopes == ["channel", "channel", "account"]


def test_limits_that_have_passed_do_not_count():
    """A channel whose wait is over says nothing about the account."""
    clock = [0.0]
    watch = FloodWatch(now=lambda: clock[0])
    assert [watch.scope(ChannelId(name), 5) for name in "ab"] == ["channel", "channel"]
    clock[0] = 6
    assert watch.scope(ChannelId("c"), 5) == "channel"


async def test_nobody_listening_is_unreachable(telegram, adapter, chat):
    """When no connection can be made, nothing was sent."""
    await telegram.outage("refuse")
    with pytest.raises(Unreachable):
        await adapter.send(target_of(chat), HELLO, "k")


async def test_a_busy_pool_is_unreachable(telegram, adapter, chat):
    """Waiting in vain for a free connection is before sending."""
    pool = adapter._requests[1]._client._transport._pool
    telegram.fault("hang", "sendMessage", count=None)
    pool._max_connections = 1
    hanging = asyncio.create_task(adapter.send(target_of(chat), HELLO, "k"))
    await until(lambda: bool(telegram.calls("sendMessage")))
    adapter._requests[1]._client.timeout.pool = 0.05
    with pytest.raises(Unreachable):
        await adapter.send(target_of(chat), HELLO, "k2")
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


async def test_an_answer_that_takes_too_long_is_uncertain(telegram, adapter, chat):
    """A request whose answer never comes may have been done."""
    adapter._requests[1]._client.timeout.read = 0.1
    telegram.fault("hang", "sendMessage")
    with pytest.raises(Uncertain):
        await adapter.send(target_of(chat), HELLO, "k")


async def test_a_refused_token_keeps_the_reply(telegram, adapter, chat):
    """While the token is refused nothing is sent for certain, and the reply may still go out once it is mended."""
    telegram.revoke_token()
    with pytest.raises(Unreachable):
        await adapter.send(target_of(chat), HELLO, "k")
    telegram.revoke_token(False)
    await adapter.send(target_of(chat), HELLO, "k")


async def test_a_migrated_group_names_its_new_channel(telegram, adapter, ada):
    """Sending to a group that became a supergroup tells where it is now."""
    group = telegram.group("Old", [ada])
    target = target_of(group)
    new = telegram.migrate(group)
    with pytest.raises(Moved) as caught:
        await adapter.send(target, HELLO, "k")
    assert caught.value.channel == str(new.id)


async def test_a_person_who_blocked_the_bot_refuses(telegram, adapter, chat, ada):
    """A block is for good."""
    telegram.blocked_by(ada)
    with pytest.raises(Rejected):
        await adapter.send(target_of(chat), HELLO, "k")


async def test_a_strangers_page_is_no_refusal(chat):
    """What a proxy answers in Telegram's place (403, 404 in HTML) does not condemn the message."""
    for status in (403, 404):

        async def answer(_: web.Request, status: int = status) -> web.Response:
            return web.Response(status=status, text="<html>please log in</html>", content_type="text/html")

        async with serving(answer) as url:
            adapter = make_adapter(FakeTelegram(), api_url=url)
            with pytest.raises(Uncertain):
                await adapter.send(target_of(chat), HELLO, "k")
            await adapter.close()


async def test_a_429_without_a_delay_is_still_one(chat):
    """A limit that does not say how long is a limit with a wait of ours."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(
            {"ok": False, "error_code": 429, "description": "Too Many Requests"}, status=429
        )

    async with serving(answer) as url:
        adapter = make_adapter(FakeTelegram(), api_url=url)
        with pytest.raises(RateLimited) as caught:
            await adapter.send(target_of(chat), HELLO, "k")
        await adapter.close()
    assert caught.value.retry_after_s > 0


class serving:  # noqa: N801 - reads as what it does
    """One handler behind every path of an HTTP server."""

    def __init__(self, answer):
        self.app = web.Application()
        self.app.router.add_route("*", "/{path:.*}", answer)

    async def __aenter__(self):
        self.runner = web.AppRunner(self.app, shutdown_timeout=0.05)
        await self.runner.setup()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        await web.SockSite(self.runner, listener).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def __aexit__(self, *_):
        await self.runner.cleanup()


# editing and typing


async def test_editing_to_the_same_succeeds(telegram, adapter, chat):
    """Telegram's refusal of an edit that changes nothing is no failure."""
    sent_id = await adapter.send(target_of(chat), HELLO, "k")
    await adapter.edit(target_of(chat), sent_id, HELLO)
    assert telegram.calls("editMessageText")[0].status == 400


async def test_a_message_that_is_gone_says_so(telegram, adapter, chat):
    """Editing a deleted or unknown message is MessageGone, so that it can be sent anew."""
    sent_id = await adapter.send(target_of(chat), HELLO, "k")
    telegram.delete(telegram.replies(chat)[0])
    for gone in (sent_id, PlatformMessageId("4711"), PlatformMessageId("nonsense")):
        with pytest.raises(MessageGone):
            await adapter.edit(target_of(chat), gone, Chunk("new"))


async def test_somebody_elses_message_cannot_be_edited(telegram, adapter, chat, ada):
    """A message that is not the bot's own counts as gone as well."""
    theirs = telegram.say(ada, chat, "mine")
    with pytest.raises(MessageGone):
        await adapter.edit(target_of(chat), PlatformMessageId(str(theirs.message_id)), Chunk("yours"))


async def test_typing_is_shown_in_the_topic(telegram, adapter, ada):
    """The typing action reaches the chat and its topic."""
    forum = telegram.supergroup("Forum", [ada], forum=True)
    topic = telegram.topic(forum, "Help")
    await adapter.typing(target_of(forum, thread=ThreadId(str(topic))))
    (action,) = telegram.chat_actions(forum)
    assert (action.action, action.thread_id) == ("typing", topic)
