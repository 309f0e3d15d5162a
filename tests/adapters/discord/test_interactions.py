"""Slash commands: answered at once, filled later, across restarts, late answers and stores that fail."""

import asyncio

import pytest

from adapters.base import Receipt
from adapters.discord.interactions import NOT_NOW, STOPPED
from adapters.errors import Uncertain
from adapters.messages import Choice, Chunk, CommandSpec
from config.names import PlatformMessageId
from tests.adapters.discord.world import SEND, community, make_adapter, press, running, target_of
from tests.adapters.recording import RecordingIntake

CALLBACK = "POST /interactions/*"
ORIGINAL = "PATCH /webhooks/*"


async def used(here, adapter, intake, name="reset", options=None, place=None):
    """Ada uses a command; gives the interaction and where its reply goes, as the daemon would make it."""
    fake = here.fake
    place = place or here.general
    await fake.wait_until(lambda: bool(fake.commands()), what="commands")
    count = len(intake.messages)
    interaction = fake.slash(here.ada, place, name, options)
    await intake.wait_for(count + 1)
    message = intake.messages[-1]
    return interaction, target_of(place, reply_to=message.message_id, reply_handle=message.reply_handle)


async def test_a_command_is_answered_at_once_and_filled_later():
    """A slash command shows "is thinking…" first; the reply takes its place, and edits change that same message."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            interaction, target = await used(here, adapter, intake, "help", {"topic": "money"})
            await fake.wait_until(lambda: interaction.state == "deferred")
            message_id = await adapter.send(target, Chunk("par"), "key-1")
            await adapter.edit(target, message_id, Chunk("partly"))
            await adapter.edit(target, message_id, Chunk("wholly"))
            await adapter.typing(target)
    assert intake.texts == ["/help money"]
    assert [(m.id, m.text) for m in fake.bot_messages(here.general)] == [(message_id, "wholly")]
    assert (interaction.callback_type, interaction.refusals) == (5, 0)
    assert fake.calls(SEND) == []


async def test_asking_directly_and_in_a_thread():
    """`/ask` is its question, in a direct channel and in a thread, and the answer appears there."""
    async with community() as here:
        fake = here.fake
        thread = fake.add_thread(here.general, "details", owner=here.ada)
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            for place in (here.direct, thread):
                _, target = await used(here, adapter, intake, "ask", {"question": "why?"}, place)
                await adapter.send(target, Chunk("because"), f"key-{place.id}")
    direct, threaded = intake.messages
    assert (direct.text, direct.channel_kind, direct.channel) == ("why?", "direct", here.direct.id)
    assert (threaded.channel, threaded.thread) == (here.general.id, thread.id)
    assert fake.bot_texts(here.direct) == fake.bot_texts(thread) == ["because"]


async def test_further_chunks_follow_as_messages():
    """The first chunk fills the answer, the others are messages with nonces that reply to it; each once."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            _, target = await used(here, adapter, intake)
            first = await adapter.send(target, Chunk("one"), "key-1")
            fake.fail(SEND, "lost_answer")
            with pytest.raises(Uncertain):
                await adapter.send(target, Chunk("two"), "key-2")
            fake.advance(400)
            await adapter.send(target, Chunk("two"), "key-2", is_repeat=True)
            await adapter.send(target, Chunk("three"), "key-3")
    assert fake.bot_texts(here.general) == ["one", "two", "three"]
    assert [m.reply_to for m in fake.bot_messages(here.general)] == [None, first, first]


async def test_the_answers_own_repeat():
    """When the answer to filling it is lost, the repeat fills it again: one message."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            _, target = await used(here, adapter, intake)
            fake.fail(ORIGINAL, "lost_answer")
            with pytest.raises(Uncertain):
                await adapter.send(target, Chunk("one"), "key-1")
            await adapter.send(target, Chunk("one"), "key-1", is_repeat=True)
            await adapter.send(target, Chunk("two"), "key-2")
    assert fake.bot_texts(here.general) == ["one", "two"]


@pytest.mark.parametrize("killed", ["before the reply", "answer lost", "between the chunks"])
async def test_a_restart_in_between(killed):
    """Another process fills the answer that the last one began, knows a filled one, and can edit it."""
    async with community() as here:
        fake = here.fake
        first = make_adapter(fake)
        async with running(first) as intake:
            interaction, target = await used(here, first, intake)
            await fake.wait_until(lambda: interaction.state == "deferred")
            if killed == "answer lost":
                fake.fail(ORIGINAL, "lost_answer")
                with pytest.raises(Uncertain):
                    await first.send(target, Chunk("one"), "key-1")
            elif killed == "between the chunks":
                await first.send(target, Chunk("one"), "key-1")
        second = make_adapter(fake)
        async with running(second):
            is_repeat = killed == "answer lost"
            if killed != "between the chunks":
                message_id = await second.send(target, Chunk("one"), "key-1", is_repeat=is_repeat)
                await second.edit(target, message_id, Chunk("one!"))
            await second.send(target, Chunk("two"), "key-2")
        one = "one" if killed == "between the chunks" else "one!"
        assert fake.bot_texts(here.general) == [one, "two"]


@pytest.mark.parametrize("is_new_process", [False, True])
async def test_an_expired_token_falls_back_to_the_channel(is_new_process):
    """After fifteen minutes the reply is an ordinary message of the channel, once, and can be edited as one."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            interaction, target = await used(here, adapter, intake)
            await fake.wait_until(lambda: interaction.state == "deferred")
            if not is_new_process:
                await reply_late(fake, adapter, target)
        if is_new_process:
            adapter = make_adapter(fake)
            async with running(adapter):
                await reply_late(fake, adapter, target)
        assert [m.text for m in fake.bot_messages(here.general) if not m.is_loading] == ["late, but here"]


async def reply_late(fake, adapter, target):
    fake.advance(901)
    fake.fail(SEND, "lost_answer")
    with pytest.raises(Uncertain):
        await adapter.send(target, Chunk("late"), "key-1")
    fake.advance(3600)
    message_id = await adapter.send(target, Chunk("late"), "key-1", is_repeat=True)
    await adapter.edit(target, message_id, Chunk("late, but here"))


async def test_an_answer_outlives_its_token():
    """A message that filled the answer can still be edited when the token is spent, through the channel."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            _, target = await used(here, adapter, intake)
            message_id = await adapter.send(target, Chunk("par"), "key-1")
            fake.advance(901)
            await adapter.edit(target, message_id, Chunk("partly"))
        assert fake.bot_texts(here.general) == ["partly"]


@pytest.mark.parametrize("trouble", ["too late", "503", "lost"])
async def test_a_failing_deferral_loses_nothing(trouble):
    """If "is thinking…" cannot be shown the command is taken in all the same, and the reply finds the channel."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            match trouble:
                case "too late":
                    fake.fail(CALLBACK, "slow", delay_s=0.1)
                    fake.configure(interaction_answer_s=0.05)
                case "503":
                    fake.fail(CALLBACK, "status", status=503)
                case "lost":
                    fake.fail(CALLBACK, "lost_answer")
            _, target = await used(here, adapter, intake)
            await adapter.send(target, Chunk("here"), "key-1")
            await adapter.send(target, Chunk("and more"), "key-2")
        assert intake.texts == ["/reset"]
        shown = [m.text for m in fake.bot_messages(here.general) if not m.is_loading]
        assert shown == ["here", "and more"]


async def test_a_reply_never_overtakes_the_deferral():
    """A reply ready before "is thinking…" stands waits for it instead of leaving it standing for ever."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            fake.fail(CALLBACK, "slow", delay_s=0.3)
            interaction, target = await used(here, adapter, intake)
            await adapter.send(target, Chunk("quick"), "key-1")
            await fake.wait_until(lambda: interaction.state != "open")
        assert [(m.text, m.is_loading) for m in fake.bot_messages(here.general)] == [("quick", False)]


async def test_a_closed_store_leaves_nobody_without_an_answer():
    """While nothing can be stored the person is told so; once it can, the command is taken in and the reply fills it."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake, language="de")
        async with running(adapter) as intake:
            await fake.wait_until(lambda: fake.command_syncs() == 1)
            intake.close()
            fake.slash(here.ada, here.direct, "reset")
            await fake.wait_for_message(here.direct, text=NOT_NOW["de"])
            intake.open()
            (message,) = await intake.wait_for(1)
            target = target_of(here.direct, reply_handle=message.reply_handle)
            await adapter.send(target, Chunk("done"), "key-1")
        assert fake.bot_texts(here.direct) == ["done"]


async def test_a_stop_before_it_was_taken_in_is_told():
    """A command that could not be stored before the daemon stopped says that it has to be asked again."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)) as intake:
            await fake.wait_until(lambda: fake.command_syncs() == 1)
            intake.close()
            interaction = fake.slash(here.ada, here.direct, "reset")
            await fake.wait_until(lambda: interaction.state != "open")
        assert fake.bot_texts(here.direct) == [STOPPED["en"]]


async def test_a_declined_command_does_not_think_for_ever():
    """When a command is declined and no reply comes, "is thinking…" is taken away; a reply that comes stays."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        intake = RecordingIntake(receipt=Receipt("declined", "stranger"))
        async with running(adapter, intake):
            await used(here, adapter, intake, place=here.direct)
            await fake.wait_until(lambda: not fake.bot_messages(here.direct))
            _, target = await used(here, adapter, intake)
            await adapter.send(target, Chunk("Ask Bo for access."), "key-1")
            await asyncio.sleep(0.3)
        assert fake.bot_texts() == ["Ask Bo for access."]


async def test_where_the_bot_may_not_write():
    """In a channel closed to the bot the further chunks come as follow-ups of the command."""
    async with community() as here:
        fake = here.fake
        silent = fake.add_channel(here.general.guild_id, "read-only", can_send=False)
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            _, target = await used(here, adapter, intake, place=silent)
            await adapter.send(target, Chunk("one"), "key-1")
            second = await adapter.send(target, Chunk("two"), "key-2")
            await adapter.edit(target, PlatformMessageId(second), Chunk("two!"))
        assert fake.bot_texts(silent) == ["one", "two!"]


async def test_mentions_in_answers_are_harmless():
    """An answer that names everyone mentions nobody."""
    async with community() as here:
        adapter = make_adapter(here.fake)
        async with running(adapter) as intake:
            _, target = await used(here, adapter, intake)
            await adapter.send(target, Chunk(f"@everyone <@{here.ada.id}>"), "key-1")
        (message,) = here.fake.bot_messages(here.general)
        assert (message.mention_everyone, message.mention_ids) == (False, [])


# answers that only one person sees


def personal(language):
    return [
        CommandSpec("history", "What we said", is_personal=True),
        CommandSpec("reset", "Begin anew"),
    ]


async def test_a_personal_answer_is_seen_by_who_asked():
    """In a server, what concerns one person only is deferred, filled and continued for them alone; the rest is for all."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake, table=personal)
        async with running(adapter) as intake:
            asked, target = await used(here, adapter, intake, "history")
            for number in range(3):
                await adapter.send(target, Chunk(f"part {number}"), f"key-{number}")
            told, to_all = await used(here, adapter, intake, "reset")
            await adapter.send(to_all, Chunk("done"), "key-reset")
    shown = [(m.text, m.is_ephemeral) for m in fake.bot_messages(here.general)]
    assert shown == [("part 0", True), ("part 1", True), ("part 2", True), ("done", False)]
    assert (asked.ephemeral, told.ephemeral) == (True, False)
    assert fake.calls(SEND) == []


async def test_alone_with_the_bot_nothing_has_to_be_hidden():
    """In a direct channel a personal answer stands like any other."""
    async with community() as here:
        adapter = make_adapter(here.fake, table=personal)
        async with running(adapter) as intake:
            interaction, target = await used(here, adapter, intake, "history", place=here.direct)
            await adapter.send(target, Chunk("all of it"), "key-1")
    assert not interaction.ephemeral


async def test_a_button_of_a_personal_command_answers_personally():
    """The page behind a button is as private as the page above it."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake, table=personal)
        async with running(adapter) as intake:
            _, target = await used(here, adapter, intake, "history")
            await adapter.send(target, adapter.render("page 1", [Choice("Older", "/history 2")])[0], "key-1")
            pressed = press(fake, here.ada, here.general, "Older")
            await intake.wait_for(2)
            await fake.wait_until(lambda: pressed.state == "deferred")
    assert pressed.ephemeral


async def test_a_personal_answer_stays_personal_across_a_restart():
    """Another process sees on the answer itself that it is for one person, and whispers the rest."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake, table=personal)
        async with running(adapter) as intake:
            interaction, target = await used(here, adapter, intake, "history")
            await fake.wait_until(lambda: interaction.state == "deferred")
        again = make_adapter(fake, table=personal)
        async with running(again):
            await again.send(target, Chunk("part 0"), "key-0", is_repeat=True)
            await again.send(target, Chunk("part 1"), "key-1")
    assert [(m.text, m.is_ephemeral) for m in fake.bot_messages(here.general)] == [
        ("part 0", True),
        ("part 1", True),
    ]


async def test_a_personal_answer_that_comes_too_late_still_comes():
    """Past the token's life there is only the channel left, and an answer seen by all is better than none."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake, table=personal)
        async with running(adapter) as intake:
            interaction, target = await used(here, adapter, intake, "history")
            await fake.wait_until(lambda: interaction.state == "deferred")
            fake.advance(901)
            await adapter.send(target, Chunk("late"), "key-1")
    assert [m.text for m in fake.bot_messages(here.general) if m.text] == ["late"]
