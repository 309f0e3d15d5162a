"""The memory adapter as a product: what a test of somebody's bot does with it, and what a bridge's program may answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from adapters.base import Receipt
from adapters.errors import MalformedUpdate, MessageGone, RateLimited, Rejected, Uncertain, Unreachable
from adapters.memory import MemoryAdapter, Room
from adapters.memory.wire import parse_message
from adapters.messages import Chunk, InboundMessage, Target
from config.names import AccountId, ChannelId
from config.settings import AccountSettings
from tests.adapters.recording import RecordingIntake
from tests.fakes.memory import Counterparty, serve

ACCOUNT = AccountId("memory.test")
TARGET = Target(ACCOUNT, ChannelId("ada"))


class EchoIntake(RecordingIntake):
    """A bot that says everything twice, then that it is done."""

    adapter: MemoryAdapter

    async def deliver(self, message: InboundMessage) -> Receipt:
        receipt = await super().deliver(message)
        target = Target(ACCOUNT, message.channel, message.channel_kind, reply_to=message.message_id)
        for number in (1, 2):
            await self.adapter.send(
                target, Chunk(f"{message.text} {number}"), f"{message.message_id}-{number}"
            )
        self.adapter.settled(message.message_id)
        return receipt


@asynccontextmanager
async def running(adapter: MemoryAdapter, intake: RecordingIntake) -> AsyncIterator[None]:
    run = asyncio.create_task(adapter.run(intake))
    try:
        yield
    finally:
        run.cancel()
        await asyncio.wait({run})
        await adapter.close()


@pytest.fixture
async def bot() -> AsyncIterator[tuple[MemoryAdapter, EchoIntake]]:
    adapter = MemoryAdapter.alone()
    intake = EchoIntake()
    intake.adapter = adapter
    async with running(adapter, intake):
        yield adapter, intake


async def test_say_returns_what_became_of_the_message(bot):
    """`say` returns the receipt; the same id again is a duplicate."""
    adapter, intake = bot
    assert (await adapter.say("hi", message_id="x")).outcome == "accepted"
    assert (await adapter.say("hi", message_id="x")).outcome == "duplicate"
    assert intake.texts == ["hi"]


async def test_replies_come_one_by_one(bot):
    """`wait_for_reply` returns each message once, per channel, in order."""
    adapter, _ = bot
    await adapter.say("a")
    await adapter.say("b", person="bob")
    assert [(await adapter.wait_for_reply()).text for _ in range(2)] == ["a 1", "a 2"]
    assert (await adapter.wait_for_reply("bob")).text == "b 1"
    with pytest.raises(TimeoutError):
        await adapter.wait_for_reply(timeout_s=0.05)


async def test_ask_returns_the_whole_answer(bot):
    """`ask` returns all replies to that message and no earlier ones."""
    adapter, _ = bot
    await adapter.say("before")
    assert await adapter.ask("now") == ["now 1", "now 2"]
    assert adapter.messages() == ["before 1", "before 2", "now 1", "now 2"]


async def test_ask_says_when_nobody_settles():
    """Without the daemon's word that the answer is whole, `ask` raises after its time."""
    adapter = MemoryAdapter.alone()
    async with running(adapter, RecordingIntake()):
        with pytest.raises(TimeoutError):
            await adapter.ask("hello", timeout_s=0.05)


async def test_groups_threads_and_people(bot):
    """A group message is addressed by mention, command or reply to the bot; threads and people are kept."""
    adapter, intake = bot
    await adapter.say("chatter", group=True, person="bob", thread="t1")
    await adapter.say("hey", group=True, mention=True)
    await adapter.say("/help", group=True)
    reply_id = adapter.room.shown(ChannelId("group"))[0].message_id
    await adapter.say("and?", group=True, reply_to=reply_id)
    assert [message.is_addressed for message in intake.messages] == [False, True, True, True]
    first = intake.messages[0]
    assert (first.channel, first.channel_kind, first.thread, first.sender.user_id) == (
        "group",
        "group",
        "t1",
        "bob",
    )


async def test_channels_do_not_wait_for_each_other():
    """Many people write at once: all is delivered, each channel in its order."""
    adapter = MemoryAdapter.alone()
    intake = RecordingIntake()
    async with running(adapter, intake):
        await asyncio.gather(
            *(
                adapter.say(f"{person} {number}", person=f"p{person}")
                for number in range(20)
                for person in range(10)
            )
        )
    for person in range(10):
        said = [message.text for message in intake.messages if message.channel == f"p{person}"]
        assert said == [f"{person} {number}" for number in range(20)]


async def test_what_was_not_acknowledged_comes_again_after_a_restart():
    """A message whose delivery was cut short is delivered to the next adapter on the same room, and then forgotten."""
    room = Room(ACCOUNT)

    def connect() -> MemoryAdapter:
        return MemoryAdapter(ACCOUNT, AccountSettings(platform="memory"), lambda _: (), room=room)

    first, held = connect(), RecordingIntake()
    held.hold()
    async with running(first, held):
        saying = asyncio.create_task(first.say("do not lose me"))
        await asyncio.sleep(0.05)
    saying.cancel()
    assert room.unheard == 1
    second, intake = connect(), RecordingIntake()
    async with running(second, intake):
        await intake.wait_for(1)
        async with asyncio.timeout(5):
            while room.unheard:
                await asyncio.sleep(0.01)
    assert intake.texts == ["do not lose me"]


async def test_sent_keeps_every_attempt():
    """`sent` has target, chunk, key and repeat mark of each call; people see one message per key."""
    adapter = MemoryAdapter.alone()
    adapter.room.lose_next_answer()
    with pytest.raises(Uncertain):
        await adapter.send(TARGET, Chunk("hi"), "k")
    await adapter.send(TARGET, Chunk("hi"), "k", is_repeat=True)
    assert [(sent.target, sent.chunk.text, sent.key, sent.is_repeat) for sent in adapter.sent] == [
        (TARGET, "hi", "k", False),
        (TARGET, "hi", "k", True),
    ]
    assert adapter.messages() == ["hi"]


async def test_editing_a_deleted_message():
    """A message that somebody deleted is gone."""
    adapter = MemoryAdapter.alone()
    message_id = await adapter.send(TARGET, Chunk("hi"), "k")
    adapter.room.delete(message_id)
    with pytest.raises(MessageGone):
        await adapter.edit(TARGET, message_id, Chunk("ho"))


# inbound JSON

GOOD = {
    "channel": "c",
    "message_id": "1",
    "sender": {"user_id": "u", "display_name": "U"},
    "text": "hi",
    "sent_at_ms": 5,
}


def test_a_message_in_json_has_the_fields_of_the_class():
    """Attachments, threads and the rest are read; what is unknown is ignored."""
    raw = {**GOOD, "thread": "t", "attachments": [{"kind": "photo", "reference": "r"}], "from_the_future": 1}
    message = parse_message(ACCOUNT, raw)
    assert (message.account, message.thread, message.attachments[0].kind) == (ACCOUNT, "t", "photo")


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "text",
        {},
        {**GOOD, "text": None},
        {**GOOD, "sender": {}},
        {**GOOD, "sent_at_ms": "soon"},
        {**GOOD, "channel_kind": "cave"},
        {**GOOD, "channel": ""},
        {**GOOD, "attachments": [{"kind": "hologram", "reference": "r"}]},
    ],
)
def test_a_malformed_message_is_named_without_its_content(raw):
    """What is wrong is said by field."""
    with pytest.raises(MalformedUpdate) as caught:
        parse_message(ACCOUNT, raw)
    assert "soon" not in caught.value.reason


# the bridge


@asynccontextmanager
async def bridge_to(handler: object) -> AsyncIterator[MemoryAdapter]:
    """A bridge whose program answers every request by `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    settings = AccountSettings(platform="memory", api_url=url)
    adapter = MemoryAdapter(ACCOUNT, settings, lambda _: (), first_retry_s=0.02)
    try:
        yield adapter
    finally:
        await adapter.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, "", Rejected),
        (401, "", Unreachable),
        (403, "", Rejected),
        (404, "", Rejected),
        (410, "", MessageGone),
        (429, "", RateLimited),
        (500, "", Uncertain),
        (502, "", Uncertain),
        (503, "", Unreachable),
        (200, "not json", Uncertain),
        (200, "{}", Uncertain),
        (200, '{"message_id": 5}', Uncertain),
        (200, "", Uncertain),
        (302, "", Rejected),
    ],
)
async def test_an_answer_means_what_the_protocol_says(status, body, error):
    """Each HTTP answer to a send becomes the error whose promise it is."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    async with bridge_to(answer) as adapter:
        with pytest.raises(error) as caught:
            await adapter.send(TARGET, Chunk("hi"), "k")
    assert type(caught.value) is error


async def test_a_retry_after_that_is_no_number_counts_as_a_second():
    """A date or nonsense in Retry-After does not break the sender."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})

    async with bridge_to(answer) as adapter:
        with pytest.raises(RateLimited) as caught:
            await adapter.send(TARGET, Chunk("hi"), "k")
    assert caught.value.retry_after_s == 1


async def test_nobody_listening_is_unreachable():
    """A refused connection certainly sent nothing."""
    async with serve(Counterparty()) as url:
        pass
    adapter = MemoryAdapter(ACCOUNT, AccountSettings(platform="memory", api_url=url), lambda _: ())
    with pytest.raises(Unreachable):
        await adapter.send(TARGET, Chunk("hi"), "k")
    await adapter.close()


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"messages": 5}', '{"messages": [{"message": {}}]}', "[" * 100_000]
)
async def test_a_poll_answer_nobody_understands_is_retried(body):
    """A program that answers nonsense is retried with back-off and shown in `health`; `run` goes on."""
    calls = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(text=body)

    async with bridge_to(answer) as adapter:
        run = asyncio.create_task(adapter.run(RecordingIntake()))
        async with asyncio.timeout(10):
            while calls < 3:
                await asyncio.sleep(0.01)
        assert not run.done()
        assert adapter.health().state == "retrying"
        assert adapter.health().detail == "the answer is not a list of numbered messages"
        run.cancel()
        await asyncio.wait({run})


async def test_a_refused_token_is_shown_and_retried():
    """A wrong token is `refused` in `health`; when it works again, the bridge hears."""
    counterparty = Counterparty(token="right")
    async with serve(counterparty) as url:
        settings = AccountSettings(platform="memory", api_url=url, token="wrong")
        adapter = MemoryAdapter(ACCOUNT, settings, lambda _: (), first_retry_s=0.02)
        intake = RecordingIntake()
        async with running(adapter, intake):
            async with asyncio.timeout(5):
                while adapter.health().state != "refused":
                    await asyncio.sleep(0.01)
            counterparty.token = "wrong"
            counterparty.say("hello")
            await intake.wait_for(1)


async def test_a_program_that_does_not_wait_is_not_hammered():
    """Empty answers that come at once are polled about twice a second, not as fast as they come."""
    calls = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.json_response({"messages": []})

    async with bridge_to(answer) as adapter:
        run = asyncio.create_task(adapter.run(RecordingIntake()))
        await asyncio.sleep(0.4)
        run.cancel()
        await asyncio.wait({run})
    assert calls <= 3


async def test_a_bridge_acknowledges_only_what_was_delivered():
    """The poll's `after` moves when `deliver` has returned, and a new process gets what was not acknowledged."""
    counterparty = Counterparty()
    async with serve(counterparty) as url:
        settings = AccountSettings(platform="memory", api_url=url)
        intake = RecordingIntake()
        intake.hold()
        async with running(MemoryAdapter(ACCOUNT, settings, lambda _: ()), intake):
            counterparty.say("one")
            await asyncio.sleep(0.1)
            assert counterparty.acknowledged == 0
        intake.release()
        async with running(MemoryAdapter(ACCOUNT, settings, lambda _: ()), intake):
            counterparty.say("two")
            await intake.wait_for(2)
            async with asyncio.timeout(5):
                while counterparty.acknowledged < 2:
                    await asyncio.sleep(0.01)
    assert intake.texts == ["one", "two"]
    assert counterparty.waiting == []
