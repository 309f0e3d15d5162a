"""What people say in Discord, live, as it reaches the daemon."""

import asyncio
import json
import random

import pytest

from tests.adapters.discord.test_inbound import mutated
from tests.adapters.discord.world import community, make_adapter, running
from tests.adapters.recording import RecordingIntake
from tests.fakes.discord import Upload


async def test_direct_group_and_thread():
    """A direct message, an addressed and an overheard group message, and one in a thread, each with where it was said."""
    async with community() as here:
        fake, ada = here.fake, here.ada
        async with running(make_adapter(fake)) as intake:
            fake.say(ada, here.direct, "to you")
            fake.say(ada, here.general, "hello bot", mention_bot=True)
            overheard = fake.say(ada, here.general, "among us")
            thread = fake.add_thread(here.general, "details", owner=ada, message=overheard)
            fake.say(ada, thread, "in here", mention_bot=True)
            direct, addressed, other, threaded = await intake.wait_for(4)
    assert (direct.channel, direct.channel_kind, direct.is_addressed) == (here.direct.id, "direct", True)
    assert (addressed.text, addressed.is_addressed, addressed.channel_title) == (
        "hello bot",
        True,
        "Support #general",
    )
    assert (other.text, other.is_addressed, other.watermark) == ("among us", False, overheard.id)
    assert (threaded.channel, threaded.thread, threaded.text) == (here.general.id, thread.id, "in here")
    assert threaded.channel_title == "Support #general"
    assert intake.quarantined == []


async def test_an_archived_thread_is_found_again():
    """A message that wakes a thread archived before the start is filed under the thread's parent."""
    async with community() as here:
        fake, ada = here.fake, here.ada
        thread = fake.add_thread(here.general, "old", owner=ada)
        fake.archive_thread(thread)
        async with running(make_adapter(fake)) as intake:
            fake.say(ada, thread, "again", mention_bot=True)
            await intake.wait_until(lambda: "again" in intake.texts)
    assert (intake.messages[-1].channel, intake.messages[-1].thread) == (here.general.id, thread.id)


async def test_a_reply_to_the_bot_addresses_it():
    """Whoever replies to the bot's message means the bot, without a mention."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            own = fake.say(fake.bot, here.general, "I am here")
            fake.say(here.ada, here.general, "good", reply_to=own)
            (message,) = await intake.wait_for(1)
    assert (message.text, message.is_addressed, message.reply_to) == ("good", True, own.id)


async def test_edits_and_previews():
    """A changed text is delivered as an edit, once; an update that changes no text is not."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)) as intake:
            said = fake.say(here.ada, here.direct, "frist")
            fake.edit(said, "first")
            fake.edit(said, "first")
            fake.say(here.ada, here.direct, "end")
            await intake.wait_until(lambda: "end" in intake.texts)
    assert [(m.text, m.is_edit) for m in intake.messages] == [
        ("frist", False),
        ("first", True),
        ("end", False),
    ]
    assert intake.messages[1].message_id == said.id


async def test_files_and_bots():
    """A file comes as an address; one above the account's limit is declined; another bot is marked as one."""
    async with community() as here:
        fake = here.fake
        robot = fake.add_user("robot", is_bot=True)
        async with running(make_adapter(fake, max_attachment_bytes=100)) as intake:
            fake.say(here.ada, here.general, "look", attachments=[Upload("a.png", b"x" * 10, "image/png")])
            fake.say(here.ada, here.general, "big", attachments=[Upload("b.bin", b"x" * 101)])
            fake.say(robot, here.general, "beep")
            small, big, beep = await intake.wait_for(3)
    assert (small.attachments[0].size_bytes, small.attachments[0].kind) == (10, "photo")
    assert small.attachments[0].reference.startswith(fake.url)
    assert (big.unsupported, big.attachments) == ("too_large", ())
    assert beep.sender.is_bot


async def test_order_over_many_channels():
    """Bursts over several channels arrive in the order of the wire, every one once."""
    async with community() as here:
        fake = here.fake
        channels = [fake.add_channel(here.general.guild_id, f"c{number}") for number in range(5)]
        async with running(make_adapter(fake)) as intake:
            said = [fake.say(here.ada, channels[n % 5], f"m{n}").text for n in range(300)]
            await intake.wait_for(300)
    assert intake.texts == said
    assert intake.duplicates == []


async def test_frames_that_make_no_sense():
    """Broken events of every kind are kept, and neither the connection nor the messages after them suffer."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)) as intake:
            before = len(fake.gateway_log("identify"))
            for name in (
                "MESSAGE_CREATE",
                "MESSAGE_UPDATE",
                "INTERACTION_CREATE",
                "GUILD_CREATE",
                "CHANNEL_CREATE",
            ):
                for data in ({}, {"id": "x"}, {"id": None, "channel_id": []}):
                    fake.world.emit(name, data)
            fake.world.emit("UNHEARD_OF", {"a": 1})
            fake.say(here.ada, here.direct, "still there?")
            await intake.wait_for(1)
            assert len(fake.gateway_log("identify")) == before
    assert intake.texts == ["still there?"]
    assert len(intake.quarantined) >= 9
    assert all(raw for _, raw, _ in intake.quarantined)


@pytest.mark.timeout(90)
async def test_ten_thousand_mutated_messages_over_the_wire():
    """Through the gateway and the real library: what nobody understands is kept, sound messages between arrive in order, the
    connection stays, and what is said while the bot is away afterwards is read, so no watermark was led astray.
    """
    rng = random.Random(7)
    intake = RecordingIntake()
    async with community() as here:
        fake = here.fake
        places = (here.general, here.direct)
        async with running(make_adapter(fake), intake):
            example = fake.say(here.ada, here.general, "hello", mention_bot=True)
            await intake.wait_for(1)
            payload = json.loads(json.dumps(_payload(fake, example)))
            identified = len(fake.gateway_log("identify"))
            for number in range(10_000):
                broken = mutated(payload, rng)
                if broken.get("id") == payload["id"]:
                    broken["id"] = str(int(payload["id"]) + number + 1)
                fake.world.emit(rng.choice(("MESSAGE_CREATE", "MESSAGE_UPDATE")), _finite(broken))
                if number % 500 == 499:
                    await asyncio.sleep(0)  # what is written must get out, or the fake would hold it all
                    fake.say(here.ada, places[number // 500 % 2], f"sound {number}", mention_bot=True)
            await intake.wait_until(lambda: "sound 9999" in intake.texts, timeout_s=60)
            assert len(fake.gateway_log("identify")) == identified
        for place in places:
            fake.say(here.ada, place, f"away {place.id}", mention_bot=True)
        async with running(make_adapter(fake), intake):
            await intake.wait_until(lambda: {f"away {place.id}" for place in places} <= set(intake.texts))
    sound = [text for text in intake.texts if text.startswith("sound")]
    assert sound == [f"sound {number}" for number in range(499, 10_000, 500)]
    assert len(intake.quarantined) > 1000
    assert len(intake.messages) > 1000


def _payload(fake, message):
    from tests.fakes.discord.payloads import message_event

    return message_event(fake.world, message)


def _finite(value):
    """JSON as Discord could write it: no infinities."""
    return json.loads(json.dumps(value).replace("Infinity", "1e999").replace("1e999", "null"))


async def test_while_nothing_can_be_stored_live_messages_wait():
    """Messages that come in while the daemon takes nothing in are delivered afterwards, in order."""
    async with community() as here:
        fake = here.fake
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            intake.close()
            said = [fake.say(here.ada, here.direct, f"m{n}").text for n in range(20)]
            await intake.wait_until(lambda: intake.refusals > 3)
            assert intake.messages == []
            intake.open()
            await intake.wait_for(20)
    assert intake.texts == said


async def test_close_without_run():
    """An adapter that never ran closes without a trace."""
    async with community() as here:
        await make_adapter(here.fake).close()


async def test_cancelled_while_logging_in():
    """A start that is cancelled half-way leaves nothing open."""
    async with community() as here:
        here.fake.fail("GET /users/@me", "hang", count=None)
        adapter = make_adapter(here.fake)
        run = asyncio.create_task(adapter.run(RecordingIntake()))
        await here.fake.wait_for_call("GET /users/@me")
        run.cancel()
        await asyncio.wait({run})
        await adapter.close()
        here.fake.clear_faults()
    assert run.cancelled()
