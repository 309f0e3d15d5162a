"""Replies to channels: each visible once, under every fault, in the right place, with every error told apart."""

import asyncio

import aiohttp
import pytest

from adapters.discord.failures import NotConnected, from_status, translate
from adapters.errors import MessageGone, RateLimited, Rejected, Uncertain, Unreachable
from adapters.messages import Chunk, Target
from config.names import ChannelId, PlatformMessageId
from tests.adapters.discord.world import ACCOUNT, SEND, community, make_adapter, running, target_of
from tests.adapters.recording import RecordingIntake

HELLO = Chunk("hello there")


async def test_a_reply_answers_its_message():
    """A reply refers to the message, mentions nobody, and carries its key as the nonce."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter):
            said = fake.say(here.ada, here.general, "hello", mention_bot=True)
            chunk = Chunk("hi <@" + here.ada.id + "> @everyone")
            message_id = await adapter.send(
                target_of(here.general, reply_to=PlatformMessageId(said.id)), chunk, "key-1"
            )
    (sent,) = fake.bot_messages(here.general)
    assert (sent.id, sent.reply_to, sent.nonce, sent.enforce_nonce) == (message_id, said.id, "key-1", True)
    assert (sent.mention_ids, sent.mention_everyone) == ([], False)


async def test_threads_and_deleted_messages():
    """A reply in a thread stays there; one to a deleted message is sent without the reference."""
    async with community() as here:
        fake = here.fake
        thread = fake.add_thread(here.general, "details", owner=here.ada)
        adapter = make_adapter(fake)
        async with running(adapter):
            said = fake.say(here.ada, thread, "hello")
            fake.delete(said)
            await adapter.send(target_of(thread, reply_to=PlatformMessageId(said.id)), HELLO, "key-1")
            await adapter.typing(target_of(thread))
    assert fake.bot_texts(thread) == ["hello there"]
    assert fake.bot_texts(here.general) == []
    assert fake.world.channel(thread.id).typing


@pytest.mark.parametrize(
    "fault", ["lost_answer", "garbled_answer", "garbage", "reset", "hang", "late_answer"]
)
async def test_an_uncertain_send_is_visible_once(fault):
    """Whatever happens to the answer: the send is uncertain, and its repeat leaves exactly one message."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter):
            said = fake.say(here.ada, here.direct, "hello")
            target = target_of(here.direct, reply_to=PlatformMessageId(said.id))
            fake.fail(SEND, fault, delay_s=1.5)
            with pytest.raises(Uncertain):
                await adapter.send(target, HELLO, "key-1")
            fake.clear_faults()
            first = await adapter.send(target, HELLO, "key-1", is_repeat=True)
            assert await adapter.send(target, HELLO, "key-1", is_repeat=True) == first
            if fault == "late_answer":
                await asyncio.sleep(0.6)
        assert fake.bot_texts(here.direct) == ["hello there"]


async def test_without_a_reference_the_nonce_decides():
    """A message that answers none cannot be looked up; its nonce keeps the repeat from showing twice."""
    async with community() as here:
        fake = here.fake
        target = target_of(here.direct)
        adapter = make_adapter(fake)
        async with running(adapter):
            fake.fail(SEND, "lost_answer")
            with pytest.raises(Uncertain):
                await adapter.send(target, HELLO, "key-1")
        fresh = make_adapter(fake)
        async with running(fresh):
            await fresh.send(target, HELLO, "key-1", is_repeat=True)
        assert fake.bot_texts(here.direct) == ["hello there"]


@pytest.mark.parametrize("is_new_process", [False, True])
async def test_a_repeat_after_the_nonce_is_forgotten(is_new_process):
    """Hours later, in another process, an earlier copy is found in history, however much was said since."""
    async with community() as here:
        fake = here.fake
        said = fake.say(here.ada, here.general, "hello", mention_bot=True)
        target = target_of(here.general, reply_to=PlatformMessageId(said.id))
        adapter = make_adapter(fake)
        async with running(adapter):
            fake.fail(SEND, "lost_answer")
            for _ in range(120):
                fake.say(here.ada, here.general, "meanwhile")
            with pytest.raises(Uncertain):
                await adapter.send(target, HELLO, "key-1")
            fake.advance(3600)
            if not is_new_process:
                await adapter.send(target, HELLO, "key-1", is_repeat=True)
        if is_new_process:
            fresh = make_adapter(fake)
            async with running(fresh):
                await fresh.send(target, HELLO, "key-1", is_repeat=True)
        assert fake.bot_texts(here.general) == ["hello there"]


async def test_equal_chunks_are_two_messages():
    """Two chunks of the same text in one reply are two messages, also when the second is a repeat."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter):
            said = fake.say(here.ada, here.direct, "hello")
            target = target_of(here.direct, reply_to=PlatformMessageId(said.id))
            await adapter.send(target, HELLO, "key-1")
            await adapter.send(target, HELLO, "key-2", is_repeat=True)
        assert fake.bot_texts(here.direct) == ["hello there", "hello there"]


async def test_a_failed_look_up_stays_uncertain():
    """When history cannot be read the repeat is not sent blindly."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter):
            said = fake.say(here.ada, here.direct, "hello")
            target = target_of(here.direct, reply_to=PlatformMessageId(said.id))
            await asyncio.sleep(0.2)
            fake.fail("GET /channels/*/messages", "status", status=503)
            with pytest.raises(Uncertain):
                await adapter.send(target, HELLO, "key-1", is_repeat=True)
            await adapter.send(target, HELLO, "key-1", is_repeat=True)
        assert fake.bot_texts(here.direct) == ["hello there"]


async def test_refusals_are_for_good():
    """Closed direct messages, missing permissions, unknown channels, empty and odd targets are Rejected."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter):
            fake.refuse_dms(here.ada)
            silent = fake.add_channel(here.general.guild_id, "read-only", can_send=False)
            for target, chunk in (
                (target_of(here.direct), HELLO),
                (target_of(silent), HELLO),
                (Target(ACCOUNT, ChannelId("12345")), HELLO),
                (Target(ACCOUNT, ChannelId("not an id")), HELLO),
                (target_of(here.general), Chunk(" ")),
                (target_of(here.general), Chunk("x" * 2001)),
            ):
                with pytest.raises(Rejected):
                    await adapter.send(target, chunk, "key-1")
        assert fake.bot_messages() == []


async def test_rate_limits():
    """A wait is told with its length and its reach, short ones are sat out, and none is ever run into again."""
    async with community() as here:
        fake = here.fake
        other = fake.add_channel(here.general.guild_id, "other")
        adapter = make_adapter(fake)
        async with running(adapter):
            fake.fail(SEND, "rate_limit", retry_after_s=5)
            with pytest.raises(RateLimited) as caught:
                await adapter.send(target_of(here.general), HELLO, "key-1")
            assert (caught.value.retry_after_s, caught.value.scope) == (5, "channel")
            await adapter.send(target_of(other), HELLO, "key-2")
            with pytest.raises(RateLimited):
                await adapter.send(target_of(here.general), HELLO, "key-1")
            fake.fail(SEND, "rate_limit", retry_after_s=0.2)
            await adapter.send(target_of(other), HELLO, "key-3")
            fake.fail(SEND, "global_rate_limit", retry_after_s=4)
            with pytest.raises(RateLimited) as caught:
                await adapter.send(target_of(other), HELLO, "key-4")
            assert caught.value.scope == "account"
            with pytest.raises(RateLimited):
                await adapter.typing(target_of(here.direct))
        assert fake.penalty_violations() == 0
        assert fake.bot_texts(here.general) == []
        assert fake.bot_texts(other) == ["hello there", "hello there"]


async def test_a_ban_by_the_proxy():
    """A 429 of the proxy in front of Discord holds the whole account."""
    async with community() as here:
        adapter = make_adapter(here.fake)
        async with running(adapter):
            here.fake.fail(SEND, "cloudflare")
            for _ in range(2):
                with pytest.raises(RateLimited) as caught:
                    await adapter.send(target_of(here.general), HELLO, "key-1")
                assert caught.value.scope == "account"
                assert caught.value.retry_after_s > 50
        assert len(here.fake.calls(SEND)) == 1


async def test_buckets_are_obeyed():
    """With five messages per second allowed, ten in a row all arrive and none is refused for haste."""
    async with community() as here:
        fake = here.fake
        fake.limit("POST /channels/*/messages", 5, 0.5)
        adapter = make_adapter(fake)
        async with running(adapter):
            for number in range(10):
                await adapter.send(target_of(here.general), Chunk(f"m{number}"), f"key-{number}")
        assert fake.bot_texts(here.general) == [f"m{number}" for number in range(10)]
        assert fake.penalty_violations() == 0
        assert [call.status for call in fake.calls(SEND)] == [200] * 10


async def test_edits():
    """A message is replaced, editing to the same text succeeds, a deleted one is gone."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter):
            target = target_of(here.direct)
            message_id = await adapter.send(target, HELLO, "key-1")
            await adapter.edit(target, message_id, Chunk("better"))
            await adapter.edit(target, message_id, Chunk("better"))
            assert fake.bot_texts(here.direct) == ["better"]
            fake.delete(message_id)
            with pytest.raises(MessageGone):
                await adapter.edit(target, message_id, Chunk("too late"))
            said = fake.say(here.ada, here.direct, "mine")
            with pytest.raises(Rejected):
                await adapter.edit(target, PlatformMessageId(said.id), Chunk("yours"))


async def test_before_and_after():
    """Before login and after close nothing was sent, and that is certain."""
    async with community() as here:
        adapter = make_adapter(here.fake)
        with pytest.raises(Unreachable):
            await adapter.send(target_of(here.direct), HELLO, "key-1")
        async with running(adapter, RecordingIntake()):
            await adapter.send(target_of(here.direct), HELLO, "key-1")
        with pytest.raises(Unreachable):
            await adapter.send(target_of(here.direct), HELLO, "key-2")
        assert here.fake.bot_texts(here.direct) == ["hello there"]


async def test_sending_goes_on_after_run_has_ended():
    """Replies under way at a shutdown still go out until the adapter is closed."""
    async with community() as here:
        adapter = make_adapter(here.fake)
        run = asyncio.create_task(adapter.run(RecordingIntake()))
        await here.fake.wait_connected()
        run.cancel()
        await asyncio.wait({run})
        assert here.fake.connected_sessions() == 0
        await adapter.send(target_of(here.direct), HELLO, "key-1")
        await adapter.close()
        assert here.fake.bot_texts(here.direct) == ["hello there"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotConnected(), Unreachable),
        (aiohttp.ServerDisconnectedError(), Uncertain),
        (aiohttp.ConnectionTimeoutError(), Unreachable),
        (ConnectionResetError(104, "reset"), Uncertain),
        (TimeoutError(), Uncertain),
        (ValueError("not JSON"), Uncertain),
        (from_status(ACCOUNT, 401, 0, ""), Unreachable),
        (from_status(ACCOUNT, 403, 50013, ""), Rejected),
        (from_status(ACCOUNT, 404, 10008, ""), MessageGone),
        (from_status(ACCOUNT, 400, 50035, ""), Rejected),
        (from_status(ACCOUNT, 429, 0, ""), RateLimited),
        (from_status(ACCOUNT, 503, 0, ""), Uncertain),
    ],
)
def test_what_an_error_means(error, kind):
    """Each error of the library or the wire stands for one certainty about the message."""
    assert type(translate(error, ACCOUNT)) is kind
