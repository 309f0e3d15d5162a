"""Nothing said is lost: RESUME, invalid sessions, restarts, and gaps read from history in order."""

import asyncio
import os
import random
from dataclasses import replace

import pytest

from adapters.base import KnownChannel
from config.names import ChannelId
from tests.adapters.discord.world import ACCOUNT, WAITS, community, make_adapter, running
from tests.adapters.recording import RecordingIntake
from tests.fakes.discord.payloads import message_event

DROPS = 500 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 60
HISTORY = "GET /channels/*/messages"


async def test_resume_replays():
    """What is said while the connection is cut comes with the RESUME, once, in order, without a new session."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)) as intake:
            fake.say(here.ada, here.general, "one", mention_bot=True)
            await intake.wait_for(1)
            fake.drop()
            fake.say(here.ada, here.general, "two", mention_bot=True)
            fake.say(here.ada, here.direct, "three")
            await intake.wait_for(3)
            assert len(fake.gateway_log("identify")) == 1
    assert intake.texts == ["one", "two", "three"]


@pytest.mark.parametrize("how", ["reset", "op 7", "code 4000"])
async def test_every_kind_of_loss_resumes(how):
    """A reset connection (ECONNRESET), a request to reconnect and a close code all lead to RESUME."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)) as intake:
            if how == "reset":
                fake.drop(reset=True)
            elif how == "op 7":
                fake.request_reconnect()
            else:
                fake.close_gateway(4000)
            fake.say(here.ada, here.direct, "meanwhile")
            await intake.wait_for(1)
            await fake.wait_until(lambda: len(fake.gateway_log("resumed")) >= 1)
            assert len(fake.gateway_log("identify")) == 1
    assert intake.texts == ["meanwhile"]


async def test_a_connection_that_keeps_dropping_keeps_its_session():
    """However often it drops in a row: as long as RESUME works no session is opened anew, of which Discord allows only so many."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)) as intake:
            said = []
            for number in range(8):
                fake.drop(reset=number % 2 == 1)
                said.append(fake.say(here.ada, here.direct, f"m{number}").text)
                await fake.wait_until(lambda number=number: len(fake.gateway_log("resumed")) > number)
            await intake.wait_for(8)
            assert len(fake.gateway_log("identify")) == 1
    assert intake.texts == said


@pytest.mark.timeout(150)
async def test_a_storm_of_drops():
    """Cut, reset, forgotten, invalidated, closed, asked to reconnect, while people write: nothing missed, nothing twice, in order."""
    rng = random.Random(20261127)
    waits = replace(
        WAITS, first_retry_s=0.01, longest_retry_s=0.02, before_identify_s=0.005, guild_stream_s=0.02
    )
    async with community() as here:
        fake = here.fake
        fake.configure(session_starts_total=1_000_000)
        losses = (
            fake.drop,
            lambda: fake.drop(reset=True),
            lambda: fake.drop(forget=True),
            fake.invalidate_sessions,
            lambda: fake.close_gateway(4000),
            fake.request_reconnect,
        )
        said = {here.general.id: [], here.direct.id: []}
        async with running(make_adapter(fake, waits=waits)) as intake:
            for place in (
                here.general,
                here.direct,
            ):  # met, so that what is said in the storm can be looked up
                said[place.id].append(fake.say(here.ada, place, f"first {place.id}").text)
            await intake.wait_for(2)
            dropped = number = 0
            while dropped < DROPS:
                dropped += rng.choice(losses)()  # none while no connection is up
                number += 1
                place = rng.choice((here.general, here.direct))
                said[place.id].append(fake.say(here.ada, place, f"m{number}").text)
                await asyncio.sleep(rng.uniform(0, 0.06))
            await intake.wait_until(lambda: len(intake.messages) >= number + 2, timeout_s=30)
            await asyncio.sleep(0.3)
    heard = {place: [m.text for m in intake.messages if m.channel == place] for place in said}
    assert heard == said
    assert intake.quarantined == []


async def test_session_starts_are_not_used_up():
    """When few session starts are left for the day the next one waits, and says so: past the last, Discord takes the token away."""
    async with community() as here:
        fake = here.fake
        fake.configure(session_starts_total=12)
        adapter = make_adapter(fake)
        async with running(adapter):
            while len(fake.gateway_log("identify")) < 12 and "session starts" not in adapter.health().detail:
                fake.invalidate_sessions()
                await asyncio.sleep(0.05)
            assert 6 <= len(fake.gateway_log("identify")) < 12
            assert adapter.health().state == "retrying"
            assert not adapter.health().is_cut_off, "another node would use up the last ones"
            fake.configure(session_starts_total=1000)


async def test_an_invalid_session_leaves_no_gap():
    """After an invalid session the messages of the gap are read from history, before those said after it."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)) as intake:
            fake.say(here.ada, here.general, "before")
            fake.say(here.ada, here.direct, "before, directly")
            await intake.wait_for(2)
            fake.hold_identify()
            fake.invalidate_sessions()
            await fake.wait_until(lambda: fake.connected_sessions() == 0)
            said = [fake.say(here.ada, here.general, f"gap {n}").text for n in range(5)]
            fake.say(here.ada, here.direct, "gap, directly")
            fake.release_identify()
            await fake.wait_connected()
            said += [fake.say(here.ada, here.general, f"live {n}").text for n in range(5)]
            await intake.wait_for(13)
        in_general = [m.text for m in intake.messages if m.channel == here.general.id]
        assert in_general == ["before", *said]
        assert "gap, directly" in intake.texts
        assert len(set(intake.texts)) == len(intake.texts) == 13


async def test_a_restart_misses_nothing():
    """A new process reads what was said since each channel's watermark: guild, thread and direct channel."""
    async with community() as here:
        fake = here.fake
        thread = fake.add_thread(here.general, "details", owner=here.ada)
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            for place in (here.general, thread, here.direct):
                fake.say(here.ada, place, "hello")
            await intake.wait_for(3)
        said = {}
        for place in (here.general, thread, here.direct):
            said[place.id] = [fake.say(here.ada, place, f"missed {n} in {place.name}").text for n in range(3)]
        async with running(make_adapter(fake), intake):
            await intake.wait_for(12)
            await asyncio.sleep(0.1)
        for place in (here.general, thread, here.direct):
            heard = [m.text for m in intake.messages if (m.thread or m.channel) == place.id]
            assert heard == ["hello", *said[place.id]]
        assert {m.thread for m in intake.messages if m.thread} == {thread.id}


async def test_live_messages_wait_for_the_gap_of_their_channel():
    """While a channel's gap is being read its live messages wait, and those of other channels do not."""
    async with community() as here:
        fake = here.fake
        other = fake.add_channel(here.general.guild_id, "other")
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            fake.say(here.ada, here.general, "first")
            await intake.wait_for(1)
        fake.say(here.ada, here.general, "missed")
        fake.fail(f"GET /channels/{here.general.id}/messages", "slow", delay_s=0.6)
        async with running(make_adapter(fake), intake):
            await fake.wait_for_call(f"GET /channels/{here.general.id}/messages")
            fake.say(here.ada, here.general, "live")
            fake.say(here.ada, other, "elsewhere")
            await intake.wait_for(4)
            await asyncio.sleep(0.1)
        assert intake.texts == ["first", "elsewhere", "missed", "live"]
        assert intake.duplicates == []


@pytest.mark.parametrize("number", [1 << 80, (1 << 63) - 1, 1 << 62])
async def test_an_id_from_nowhere_moves_no_watermark(number):
    """A broken message whose id lies far in the future is kept aside; what is said in its channel afterwards is not missed."""
    async with community() as here:
        fake = here.fake
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            said = fake.say(here.ada, here.general, "before", mention_bot=True)
            await intake.wait_for(1)
            payload = message_event(fake.world, said)
            fake.world.emit("MESSAGE_CREATE", payload | {"id": str(number), "content": "poison"})
            fake.say(here.ada, here.general, "after", mention_bot=True)
            await intake.wait_until(lambda: "after" in intake.texts)
        fake.say(here.ada, here.general, "while away", mention_bot=True)
        async with running(make_adapter(fake), intake):
            await intake.wait_until(lambda: "while away" in intake.texts)
        assert intake.texts == ["before", "after", "while away"]
        assert len(intake.quarantined) == 1


async def test_a_long_gap_is_read_page_by_page():
    """A gap of several pages comes whole and in order."""
    async with community() as here:
        fake = here.fake
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            fake.say(here.ada, here.direct, "first")
            await intake.wait_for(1)
        said = [fake.say(here.ada, here.direct, f"m{n}").text for n in range(250)]
        async with running(make_adapter(fake), intake):
            await intake.wait_for(251, timeout_s=20)
        assert intake.texts == ["first", *said]


async def test_a_channel_never_met_is_not_replayed():
    """The first start answers nothing old; what is said in such a channel while away afterwards is read."""
    async with community() as here:
        fake = here.fake
        fake.say(here.ada, here.general, "ancient", mention_bot=True)
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            await intake.wait_until(lambda: (ACCOUNT, f"watermark:{here.general.id}") in intake.cursors)
        assert intake.messages == []
        fake.say(here.ada, here.general, "while away", mention_bot=True)
        async with running(make_adapter(fake), intake):
            await intake.wait_for(1)
        assert intake.texts == ["while away"]


async def test_a_channel_made_in_the_gap_is_read_whole():
    """A channel made while the bot was away was never met, but all in it is new: nothing of it is skipped."""
    async with community() as here:
        fake = here.fake
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            fake.say(here.ada, here.general, "hello")
            await intake.wait_for(1)
        made = fake.add_channel(here.general.guild_id, "new")
        fake.say(here.ada, made, "anyone?", mention_bot=True)
        async with running(make_adapter(fake), intake):
            await intake.wait_for(2)
        assert intake.texts == ["hello", "anyone?"]


async def test_a_channel_made_in_sight_is_met():
    """A channel made while the bot listens counts as met, though nothing was said in it yet."""
    async with community() as here:
        fake = here.fake
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            made = fake.add_channel(here.general.guild_id, "new")
            await intake.wait_until(lambda: (ACCOUNT, f"watermark:{made.id}") in intake.cursors)
        fake.say(here.ada, made, "anyone?")
        async with running(make_adapter(fake), intake):
            await intake.wait_for(1)


async def test_own_messages_move_the_watermark():
    """A channel whose last word is the bot's own has no gap: a restart asks for nothing."""
    async with community() as here:
        fake = here.fake
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            fake.say(here.ada, here.general, "hello", mention_bot=True)
            await intake.wait_for(1)
            own = fake.say(fake.bot, here.general, "hello yourself")
            await intake.wait_until(
                lambda: intake.cursors.get((ACCOUNT, f"watermark:{here.general.id}")) == own.id
            )
        fake.clear_journal()
        async with running(make_adapter(fake), intake):
            await asyncio.sleep(0.2)
            assert fake.calls(HISTORY) == []


@pytest.mark.parametrize("trouble", ["no access", "server errors", "garbage", "rate limited", "lost answer"])
async def test_trouble_with_one_channel(trouble):
    """A channel that cannot be read holds nobody else up; one that can be read later loses nothing."""
    async with community() as here:
        fake = here.fake
        other = fake.add_channel(here.general.guild_id, "other")
        intake = RecordingIntake()
        async with running(make_adapter(fake), intake):
            for place in (here.general, other):
                fake.say(here.ada, place, "hello")
            await intake.wait_for(2)
        for place in (here.general, other):
            fake.say(here.ada, place, f"missed in {place.name}")
        route = f"GET /channels/{here.general.id}/messages"
        match trouble:
            case "no access":
                fake.set_permissions(here.general, can_view=False)
            case "server errors":
                fake.fail(route, "status", status=503, count=3)
            case "garbage":
                fake.fail(route, "garbage", count=2)
            case "rate limited":
                fake.fail(route, "rate_limit", retry_after_s=1.5)
            case "lost answer":
                fake.fail(route, "lost_answer", count=2)
        async with running(make_adapter(fake), intake):
            expected = (
                {"missed in other"} if trouble == "no access" else {"missed in other", "missed in general"}
            )
            await intake.wait_until(lambda: expected <= set(intake.texts))
        assert fake.penalty_violations() == 0
        assert len(set(intake.texts) - {"hello"}) == len(intake.texts) - 2


async def test_a_resume_that_told_too_little():
    """Should a RESUME leave something out, the look afterwards finds it."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake)) as intake:
            fake.say(here.ada, here.general, "one")
            fake.say(here.ada, here.direct, "one, directly")
            await intake.wait_for(2)
            fake.set_deaf(True)
            fake.say(here.ada, here.general, "unheard")
            fake.say(here.ada, here.direct, "unheard, directly")
            fake.set_deaf(False)
            fake.drop()
            await intake.wait_for(4)
        assert set(intake.texts[2:]) == {"unheard", "unheard, directly"}


async def test_a_direct_channel_from_long_ago():
    """A direct channel known only to the daemon is read at the start, though Discord does not list it."""
    async with community() as here:
        fake = here.fake
        first = fake.say(here.ada, here.direct, "long ago")
        fake.say(here.ada, here.direct, "while away")
        intake = RecordingIntake()
        intake.channels[ACCOUNT, ChannelId(here.direct.id)] = KnownChannel(
            ChannelId(here.direct.id), "direct", first.id
        )
        async with running(make_adapter(fake), intake):
            (message,) = await intake.wait_for(1)
        assert (message.text, message.channel_kind) == ("while away", "direct")
