"""What happens to a message that arrives: accepted means on disk, and everything else is said truthfully."""

import asyncio
import contextlib
import os
import sqlite3
import time
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from adapters.base import IntakeClosed, KnownChannel, Receipt
from adapters.memory.adapter import CAPABILITIES
from adapters.messages import Attachment
from bot.agents.scripted import Delay
from bot.stores import sqlite_path
from tests import postgres
from tests.bot.house import ACCOUNT, LIKE_TELEGRAM, GatedAgent, inbound


def on_disk(house, sql):
    """What a second connection to the database sees."""
    if house.node.is_alone:
        with contextlib.closing(
            sqlite3.connect(f"file:{sqlite_path(house.url)}?mode=ro", uri=True)
        ) as connection:
            return connection.execute(sql).fetchall()
    with postgres.connected(house.url) as connection:
        return connection.execute(sql).fetchall()


FLOOD = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1000


# accepted means on disk


async def test_accepted_is_on_disk_when_deliver_returns(build):
    """When `deliver` returns, another connection finds the message, its turn and its channel's watermark."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        receipt = await house.deliver("keep me", watermark="w-17")
        assert receipt == Receipt("accepted")
        assert on_disk(house, "SELECT content FROM messages") == [("keep me",)]
        assert on_disk(house, "SELECT status, attempts FROM turns") == [("running", 1)]
        assert on_disk(house, "SELECT outcome, reason FROM inbox") == [("accepted", "")]
        assert on_disk(house, "SELECT channel, watermark FROM channels") == [("ada", "w-17")]
        agent.gate.set()


async def test_a_declined_message_is_on_disk_too(build):
    """A decision not to answer is recorded with its reason, and moves the watermark as well."""
    house = build(access={"allow": ()})
    async with house.running():
        assert await house.deliver(watermark="5") == Receipt("declined", "stranger")
        assert on_disk(house, "SELECT outcome, reason FROM inbox") == [("declined", "stranger")]
        assert on_disk(house, "SELECT watermark FROM channels") == [("5",)]
        assert on_disk(house, "SELECT COUNT(*) FROM messages") == [(0,)]


async def test_what_the_message_carried_is_kept(build):
    """Attachments, thread and origin are stored with the message."""
    house = build()
    async with house.running():
        await house.deliver(
            "",
            attachments=(Attachment("photo", "file-1", "cat.jpg", "image/jpeg", 9),),
            thread="t",
            origin={"client": "x"},
        )
        row = (await house.rows("SELECT attachments, metadata FROM messages WHERE role = 'user'"))[0]
        assert '"reference":"file-1"' in row["attachments"]
        assert row["metadata"] == '{"origin":{"client":"x"}}'
        assert (await house.rows("SELECT thread FROM sessions"))[0]["thread"] == "t"


async def test_duplicates_are_refused_also_after_a_restart(build):
    """The same message is taken in once, whether it comes twice at once, later, or to the next process."""
    message = inbound("once")
    house = build()
    async with house.running():
        receipts = await asyncio.gather(*(house.gateway.deliver(message) for _ in range(5)))
        assert sorted(receipt.outcome for receipt in receipts) == ["accepted"] + ["duplicate"] * 4
    again = build(room=house.room)
    async with again.running():
        assert await again.gateway.deliver(message) == Receipt("duplicate")
        assert await again.gateway.deliver(replace(message, channel="elsewhere")) == Receipt("accepted")
        await again.until_quiet()
    assert house.shown() == ["echo: once"]


async def test_a_cancelled_adapter_does_not_cost_the_answer(build):
    """Whoever delivers may be cancelled at any moment: what was committed is answered all the same."""
    house = build()
    async with house.running():
        for spins in range(6):
            delivering = asyncio.create_task(house.deliver(f"m{spins}"))
            for _ in range(spins):
                await asyncio.sleep(0)
            delivering.cancel()
            await asyncio.wait([delivering])
        await asyncio.sleep(0.1)
        await house.until_quiet()
        stored = [row["content"] for row in await house.rows("SELECT content FROM messages WHERE part = 0")]
        assert stored
        assert house.shown() == [f"echo: {text}" for text in stored]


async def test_closing_waits_for_what_is_being_taken_in(build):
    """`close` lets deliveries under way finish, and refuses every later one."""
    house = build()
    async with house.running():
        delivering = asyncio.create_task(house.deliver("just in time"))
        await asyncio.sleep(0)
        await house.gateway.close("shutting down")
        assert (await delivering).outcome == "accepted"
        with pytest.raises(IntakeClosed, match="shutting down"):
            await house.deliver("too late")
        with pytest.raises(IntakeClosed):
            await house.gateway.quarantine(ACCOUNT, b"?", "too late")
        assert [row[0] for row in on_disk(house, "SELECT content FROM messages WHERE part = 0")] == [
            "just in time"
        ]


# a store that cannot


async def test_a_store_that_fails_closes_the_intake(build):
    """While the store cannot write, `deliver` says so and the message is taken in once it can; nothing is stored twice."""
    house = build()
    message = inbound("patience")
    async with house.running():
        house.database.is_refusing = True
        with pytest.raises(IntakeClosed, match="no room left"):
            await house.gateway.deliver(message)
        with pytest.raises(IntakeClosed):
            await house.gateway.quarantine(ACCOUNT, b"?", "unreadable")
        house.database.is_refusing = False
        assert (await house.gateway.deliver(message)).outcome == "accepted"
        await house.until_quiet()
    assert house.shown() == ["echo: patience"]


async def test_reserved_places_come_back(build):
    """Neither a refused store nor a duplicate nor a command keeps a place that was reserved for a turn."""
    house = build(turns={"max_running": 1})
    async with house.running():
        house.database.is_refusing = True
        for _ in range(3):
            with pytest.raises(IntakeClosed):
                await house.deliver()
        house.database.is_refusing = False
        message = inbound("first")
        for _ in range(3):
            await house.gateway.deliver(message)
            await house.deliver("/status")
        await house.deliver("last")
        await house.until_quiet()
        assert await house.statuses() == ["completed", "completed"]


async def test_a_nearly_full_disk_closes_the_intake_and_it_opens_again(build):
    """Below the reserve nothing new is taken in; with room again it resumes alone, and both are told once."""
    house = build(store={"reserve_bytes": 1000})
    async with house.running():
        await house.deliver("before")
        house.database.free = 999
        await asyncio.sleep(1.05)  # the disk is looked at once a second
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(IntakeClosed, match="nearly full") as refused:
                    await house.deliver("meanwhile")
                assert refused.value.retry_after_s > 0
            assert "nearly full" in house.gateway.closed_because()
            house.database.free = 1000
            await asyncio.sleep(1.05)
            assert (await house.deliver("after")).outcome == "accepted"
            assert house.gateway.closed_because() is None
        told = [entry for entry in logs if entry["event"].startswith("gateway.intake")]
        assert [entry["event"] for entry in told] == ["gateway.intake_stopped", "gateway.intake_resumed"]
        assert "Free some space" in told[0]["hint"]
        await house.until_quiet()
    assert house.shown() == ["echo: before", "echo: after"]


async def test_what_the_store_cannot_hold_is_set_aside(build):
    """A message that no database takes is quarantined whole: its feed goes on, and the next message is answered."""
    house = build()
    async with house.running():
        assert await house.deliver("from afar", sent_at_ms=2**70) == Receipt("declined", "quarantined")
        assert (await house.deliver("from here")).outcome == "accepted"
        await house.until_quiet()
        kept = (await house.rows("SELECT account, raw, reason FROM quarantine"))[0]
        assert b"from afar" in kept["raw"]
        assert ("OverflowError" if house.node.is_alone else "NumericValueOutOfRange") in kept["reason"]
    assert house.shown() == ["echo: from here"]


@pytest.mark.parametrize("text", ["half a \ud83d smile", "nul \x00 inside", "\u202e turned", "🙂" * 1000])
async def test_odd_text_never_stops_the_feed(build, text):
    """Whatever a text is made of, it is answered or set aside, and the next message is answered."""
    house = build()
    async with house.running():
        await house.adapter.ask(text)
        assert await house.adapter.ask("next") == ["echo: next"]


async def test_quarantine(build):
    """An update nobody could parse is kept with its bytes and its reason."""
    house = build()
    async with house.running():
        house.adapter.say_nonsense(b'{"sender": 1}')

        async def is_kept():
            return await house.rows("SELECT 1 AS x FROM quarantine")

        await house.until(is_kept)
        row = (await house.rows("SELECT account, raw, reason FROM quarantine"))[0]
        assert (row["account"], bytes(row["raw"])) == (ACCOUNT, b'{"sender": 1}')
        assert await house.adapter.ask("still there?") == ["echo: still there?"]


@pytest.mark.parametrize(
    ("text", "fields", "may_mix"),
    [
        ("hello", {}, True),
        ("/help", {}, False),
        ("/ask how far", {}, False),
        ("/reset", {"attachments": (Attachment("image", "file-1"),)}, True),
        ("hello", {"is_edit": True, "sent_at_ms": 2}, False),
    ],
)
async def test_only_questions_mix_with_those_of_other_chats(build, text, fields, may_mix):
    """A command and an edit read what others may change meanwhile: they are done whole, one after the other."""
    house = build(agent=GatedAgent())
    async with house.running():
        await house.deliver(text, **fields)
        assert house.database.mixed[0] is may_mix


# edits


async def test_an_edit_before_its_turn_changes_the_question(build):
    """A message edited while it waits is answered in its new words, once; the same edit again is a duplicate."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("first")
        await house.until(lambda: agent.begun)
        await house.deliver("tpyo", message_id="m-2")
        edit = inbound("typo", message_id="m-2", is_edit=True, sent_at_ms=2)
        assert await house.gateway.deliver(edit) == Receipt("accepted", "edit")
        assert await house.gateway.deliver(edit) == Receipt("duplicate")
        agent.gate.set()
        await house.until_quiet()
    assert house.shown() == ["echo: first", "echo: typo"]


async def test_an_edited_question_behind_ask_keeps_its_form(build):
    """An edited /ask is still the question alone."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("first")
        await house.until(lambda: agent.begun)
        await house.deliver("/ask hwo far", message_id="m-2")
        await house.deliver("/ask how far", message_id="m-2", is_edit=True, sent_at_ms=2)
        agent.gate.set()
        await house.until_quiet()
    assert house.shown() == ["echo: first", "echo: how far"]


async def test_what_comes_again_settles_nothing_early(build):
    """A duplicate or an edit of a message still being answered leaves it unsettled until its answer is sent."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        settled = []
        house.adapter.settled = settled.append
        await house.deliver("first", message_id="m-1")
        await house.until(lambda: agent.begun)
        await house.deliver("tpyo", message_id="m-2")
        assert await house.deliver("first", message_id="m-1") == Receipt("duplicate")
        await house.deliver("frist", message_id="m-1", is_edit=True, sent_at_ms=2)
        await house.deliver("typo", message_id="m-2", is_edit=True, sent_at_ms=2)
        await house.deliver("x" * 40_000, message_id="m-2", is_edit=True, sent_at_ms=3, is_bot=True)
        assert settled == []
        agent.gate.set()
        # Told once the store has said that the reply is recorded, which the rows show a moment sooner.
        await house.until(lambda: settled == ["m-1", "m-2"])
        assert await house.deliver("first", message_id="m-1") == Receipt("duplicate")
        assert settled == ["m-1", "m-2", "m-1"]


async def test_an_edit_after_the_answer_is_declined(build):
    """A message taken up already keeps its words; an edit of one that was never seen starts nothing."""
    house = build()
    async with house.running():
        await house.deliver("asked", message_id="m-1")
        await house.until_quiet()
        late = await house.deliver("asked otherwise", message_id="m-1", is_edit=True, sent_at_ms=2)
        unknown = await house.deliver("never seen", message_id="m-9", is_edit=True)
        assert late == unknown == Receipt("declined", "edited_after_answer")
        assert [
            row["content"] for row in await house.rows("SELECT content FROM messages WHERE part = 0")
        ] == ["asked"]
        assert await house.statuses() == ["completed"]


# sessions


async def test_reset_starts_clean_and_keeps_what_was(build):
    """After /reset the agent sees nothing of before; /history still shows it."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    async with house.running():
        await house.adapter.ask("the word is plum")
        await house.adapter.ask("/reset")
        await house.adapter.ask("which word?")
        assert [message.content for message in agent.contexts[-1].messages] == ["which word?"]
        assert "the word is plum" in (await house.adapter.ask("/history"))[0]
        ended = await house.rows("SELECT status, end_reason FROM sessions ORDER BY created_at, id")
        assert [(row["status"], row["end_reason"]) for row in ended] == [("ended", "reset"), ("active", None)]


async def test_reset_while_a_turn_runs(build):
    """The running answer is still given, and a new question meanwhile goes to the new session at once."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("old")
        await house.until(lambda: agent.begun)
        await house.deliver("/reset")
        await house.deliver("new")
        await house.until(lambda: agent.begun == ["old", "new"])
        agent.gate.set()
        await house.until_quiet()
        assert [message.content for message in agent.contexts[1].messages] == ["new"]
    assert sorted(house.shown()[1:]) == ["echo: new", "echo: old"]


async def test_stop_reaches_the_answer_of_before_a_reset(build):
    """/stop after /reset ends what is still running in the old session."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("old")
        await house.until(lambda: agent.begun)
        await house.deliver("/reset")
        await house.deliver("/stop")
        await house.until_quiet()
        assert await house.statuses() == ["cancelled"]
        assert house.shown()[-1] == "Stopped."


async def test_a_paused_session_declines_and_says_how_to_go_on(build):
    """In a paused session messages are declined with a sentence; /reset starts a new one that answers."""
    house = build()
    async with house.running():
        await house.adapter.ask("hello")
        await house.database.write(lambda tx: tx.execute("UPDATE sessions SET status = 'paused'"))
        assert await house.deliver("anybody there?") == Receipt("declined", "session_paused")
        await house.until(lambda: len(house.shown()) == 2)
        assert house.shown()[-1] == "This conversation is paused. /reset starts a new one."
        await house.adapter.ask("/reset")
        assert await house.adapter.ask("hello") == ["echo: hello"]


async def test_one_session_for_the_channel_or_for_each_member(build):
    """A group shares a session by default; set otherwise, each member has one of their own."""
    group = {"channel": "g", "channel_kind": "group"}
    for rule, count in (("channel", 1), ("person", 2)):
        house = build(name=rule, sessions={"scope": {"group": rule}})
        async with house.running():
            await house.deliver("hi", **group)
            await house.deliver("hi", person="bob", **group)
            assert len(await house.rows("SELECT id FROM sessions")) == count


# people


async def test_strangers_are_told_once(build):
    """A stranger hears once whom to ask, then nothing, also after a restart; once let in they are answered."""
    house = build(access={"allow": ("bob",), "contact": "Grace"})
    async with house.running():
        for _ in range(3):
            assert await house.deliver() == Receipt("declined", "stranger")
        await house.until(house.shown)
    later = build(access={"allow": ("bob",), "contact": "Grace"}, room=house.room)
    async with later.running():
        await later.deliver()
        await asyncio.sleep(0.05)
    assert house.shown() == ["I may not talk with you yet. Ask Grace for access; your id here is ada."]
    welcome = build(room=house.room)
    async with welcome.running():
        assert await welcome.adapter.ask("hello") == ["echo: hello"]
    again = build(access={"allow": ()}, room=house.room)
    async with again.running():
        await again.deliver()
        await again.until(lambda: len(house.shown()) == 3)
    assert house.shown()[-1].startswith("I may not talk with you yet. Ask the person who runs this bot")


async def test_silence_where_nobody_spoke_to_the_bot(build):
    """Group talk, other bots, blocked people and commands for others get no word, only a recorded reason."""
    house = build(access={"block": ("eve",)})
    group = {"channel": "g", "channel_kind": "group"}
    async with house.running():
        for fields in (
            {**group, "is_addressed": False},
            {**group, "is_bot": True},
            {**group, "is_command_for_other": True},
            {"person": "eve"},
        ):
            assert (await house.deliver("/help", **fields)).outcome == "declined"
        await asyncio.sleep(0.05)
        assert house.room.sent == []
        reasons = [row["reason"] for row in await house.rows("SELECT reason FROM inbox ORDER BY id")]
        assert reasons == ["not_addressed", "from_bot", "command_for_other_bot", "blocked"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": " "}, "I found no words for me in that message. Please write your question in it."),
        ({"text": "", "unsupported": "sticker"}, "I cannot read stickers. Please write it as text."),
        ({"text": "", "unsupported": "too_large"}, "That file is too large for me. Files up to 20 MB work."),
        (
            {"text": "x" * 51},
            "That message is too long for me. Please send it in pieces of up to 50 characters.",
        ),
    ],
)
async def test_what_cannot_be_used_is_said_in_one_sentence(build, fields, said):
    """An empty or over-long message, a sticker, a file too large: one sentence with what works instead."""
    house = build(turns={"max_message_chars": 50})
    async with house.running():
        assert (await house.deliver(**fields)).outcome == "declined"
        await house.until(house.shown)
        assert house.shown() == [said]


async def test_a_silenced_sentence_settles_the_message(build, tmp_path):
    """An operator may make a sentence empty: then nothing is sent, and whoever waits for the end of it is told."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "en.toml").write_text('empty = ""\n', encoding="utf-8")
    house = build(texts=tmp_path / "own")
    async with house.running():
        assert await house.adapter.ask("  ") == []


# waiting


async def test_messages_while_a_turn_runs_are_answered_in_order(build):
    """What is written meanwhile waits as rows and is answered in the order it came."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        for number in range(5):
            await house.deliver(f"m{number}")
        assert await house.statuses() == ["running"] + ["queued"] * 4
        agent.gate.set()
        await house.until_quiet()
    assert house.shown() == [f"echo: m{number}" for number in range(5)]


async def test_a_long_wait_is_told_truthfully_and_once(build):
    """Only if the wait gets long, one short note says how many are ahead, in the person's language."""
    agent = GatedAgent()
    house = build(agent=agent, turns={"queue_notice_after_s": 0.1})
    async with house.running():
        room = {"channel": "room", "channel_kind": "group"}
        await house.deliver("m0", **room)
        await house.deliver("m1", language="en", **room)
        await house.deliver("m2", person="bob", language="de", **room)
        await house.deliver("m3", **room)
        assert house.shown("room") == []
        await house.until(lambda: len(house.shown("room")) == 2)
        await asyncio.sleep(0.2)
        assert house.shown("room") == ["One message ahead of yours.", "2 Nachrichten sind vor deiner dran."]
        agent.gate.set()
        await house.until_quiet()
        assert len(house.shown("room")) == 6


async def test_a_word_about_a_wait_that_is_over_is_not_said(build):
    """A notice that the platform's pace has held up is taken back when its message's turn comes."""
    agent = GatedAgent()
    house = build(agent=agent, turns={"queue_notice_after_s": 0.05}, capabilities=LIKE_TELEGRAM)
    house.room.rate_limit_next(0.5)
    async with house.running():
        await house.deliver("m0")
        await house.deliver("m1")
        await house.until(lambda: house.rows("SELECT id FROM outbox WHERE kind = 'notice' AND attempts = 0"))
        await asyncio.sleep(0.1)
        agent.gate.set()
        await house.until_quiet()
    assert house.shown() == ["echo: m0", "echo: m1"]


async def test_a_mention_that_comes_with_an_edit_is_answered(build):
    """Whoever forgot to address the bot and edits it in is answered, once, as a reply to that message."""
    house = build()
    group = {"channel": "g", "channel_kind": "group", "message_id": "m-1"}
    async with house.running():
        await house.deliver("when?", is_addressed=False, **group)
        await house.deliver("when, all?", is_addressed=False, is_edit=True, sent_at_ms=1, **group)
        assert house.shown("g") == []
        found = await house.deliver("when, bot?", is_edit=True, sent_at_ms=2, **group)
        assert found == Receipt("accepted")
        await house.until_quiet()
        assert await house.deliver("when, bot??", is_edit=True, sent_at_ms=3, **group) == Receipt(
            "declined", "edited_after_answer"
        )
        await house.until_quiet()
    assert house.shown("g") == ["echo: when, bot?"]
    assert [reply.target.reply_to for reply in house.room.shown("g")] == ["m-1"]


async def test_a_short_wait_is_not_mentioned(build):
    """Whoever is answered in time hears nothing of a queue."""
    house = build(turns={"queue_notice_after_s": 0.3})
    async with house.running():
        await house.deliver("delay=0.05 a")
        await house.deliver("b")
        await house.until_quiet()
        await asyncio.sleep(0.4)
    assert house.shown() == ["echo: a", "echo: b"]


async def test_the_notice_can_be_switched_off(build):
    """queue_notice_after_s = 0 never tells."""
    agent = GatedAgent()
    house = build(agent=agent, turns={"queue_notice_after_s": 0})
    async with house.running():
        await house.deliver("a")
        await house.deliver("b")
        await asyncio.sleep(0.1)
        assert house.shown() == []
        agent.gate.set()


async def test_a_full_queue_declines_with_a_sentence(build):
    """Beyond the cap messages are declined and their sender told; what was accepted is answered."""
    agent = GatedAgent()
    house = build(agent=agent, turns={"max_waiting": 3})
    async with house.running():
        for number in range(3):
            assert (await house.deliver(f"m{number}")).outcome == "accepted"
        assert await house.deliver("m3") == Receipt("declined", "queue_full")
        await house.until(house.shown)
        assert house.shown()[0].startswith("I have 3 messages waiting here and take no more")
        agent.gate.set()
        await house.until_quiet()
    assert house.shown()[1:] == [f"echo: m{number}" for number in range(3)]


async def test_a_flood_beyond_the_cap_earns_no_flood_of_notices(build):
    """While one word about the full queue is on its way, no second one is put behind it."""
    agent = GatedAgent()
    house = build(agent=agent, turns={"max_waiting": 1}, account={"pace": {"per_direct_channel_per_s": 2}})
    async with house.running(send_s=0):
        for number in range(100):
            await house.deliver(f"m{number}")
        notices = await house.rows("SELECT COUNT(*) AS n FROM outbox WHERE kind = 'notice'")
        assert 1 <= notices[0]["n"] <= 3
        agent.gate.set()


# /stop


async def test_stop_ends_a_running_answer_at_once_and_keeps_what_was_written(build):
    """/stop ends the answer; the words so far stay in the conversation, marked as stopped."""
    house = build(script=["Once upon ", "a time", Delay(30), " they lived."])
    async with house.running():
        await house.deliver("tell me")
        await house.until(lambda: len(house.turns._running) == 1)
        await asyncio.sleep(0.05)
        before = time.monotonic()
        await house.deliver("/stop")
        await house.until_quiet()
        assert time.monotonic() - before < 5
        assert sorted(house.shown()) == ["Once upon a time\n\n(stopped)", "Stopped."]
        said = await house.rows("SELECT content FROM messages WHERE role = 'assistant'")
        assert [row["content"] for row in said] == ["Once upon a time"]


async def test_stop_of_somebody_else_does_nothing(build):
    """/stop ends one's own session's answer, not that of another person."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("mine")
        await house.until(lambda: agent.begun)
        await house.deliver("/stop", person="bob")
        await house.until(lambda: house.shown("bob"))
        assert house.shown("bob") == ["I am not writing anything at the moment."]
        agent.gate.set()
        await house.until_quiet()
    assert house.shown() == ["echo: mine"]


# the rest of the port


async def test_cursors_and_known_channels_outlive_a_restart(build):
    """What an adapter asks to be kept is there for the next process."""
    house = build()
    async with house.running():
        assert await house.gateway.cursor(ACCOUNT, "commands") is None
        await house.gateway.set_cursor(ACCOUNT, "commands", "hash-1")
        await house.deliver(watermark="7")
        await house.until_quiet()
    again = build(room=house.room)
    async with again.running():
        assert await again.gateway.cursor(ACCOUNT, "commands") == "hash-1"
        assert await again.gateway.known_channels(ACCOUNT) == [KnownChannel("ada", "direct", "7")]


async def test_a_moved_channel_keeps_its_conversation(build):
    """A group that got another id goes on with the same session."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    group = {"channel_kind": "group"}
    async with house.running():
        await house.deliver("before", channel="g", **group)
        await house.until_quiet()
        await house.gateway.move_channel(ACCOUNT, "g", "supergroup")
        await house.deliver("after", channel="supergroup", **group)
        await house.until_quiet()
        assert [message.content for message in agent.contexts[-1].messages] == [
            "before",
            "echo: before",
            "after",
        ]


async def test_logs_hold_no_words_and_no_names(build):
    """At info and above there are ids and outcomes, never what was said or by whom."""
    house = build(access={"block": ("eve",)})
    with capture_logs() as logs:
        async with house.running():
            await house.deliver(
                "plumpudding recipe", person="u-1", language="de", channel_title="Kitchen Talk"
            )
            await house.deliver("tool=clock plumpudding", person="u-1")
            await house.deliver("fail=unavailable plumpudding", person="u-1")
            await house.deliver("/help plumpudding", person="u-1")
            await house.deliver("plumpudding", person="eve")
            await house.until_quiet()
    spoken = str([entry for entry in logs if entry["log_level"] != "debug"])
    assert len(logs) > 8
    for word in ("plumpudding", "U-1", "Eve", "Kitchen"):
        assert word not in spoken


async def test_a_flood_in_one_chat_holds_up_nobody_else(build):
    """Thousands of messages into one conversation: its backlog is capped and told, and everybody else is answered meanwhile."""
    house = build(turns={"max_waiting": 30, "queue_notice_after_s": 0})
    answered_meanwhile = 0
    async with house.running():
        outcomes = []

        async def flood():
            for number in range(FLOOD):
                outcomes.append((await house.deliver(f"delay=0.02 {number}")).reason)

        flooding = asyncio.create_task(flood())
        while not flooding.done():
            before = len(house.shown("bob"))
            await house.deliver("hello", person="bob")
            await house.until(lambda before=before: len(house.shown("bob")) > before)
            answered_meanwhile += not flooding.done()
        await flooding
        await house.until_quiet(30)
        waiting = await house.rows("SELECT COUNT(*) AS n FROM turns WHERE status <> 'completed'")
    accepted, declined = outcomes.count(""), outcomes.count("queue_full")
    assert accepted + declined == FLOOD
    assert declined > FLOOD / 2
    assert waiting == [{"n": 0}]
    assert answered_meanwhile > 10
    shown = house.shown()
    answers = [text for text in shown if text.startswith("echo:")]
    assert answers == [f"echo: {number}" for number, reason in enumerate(outcomes) if not reason]
    assert 1 <= len(shown) - len(answers) < declined, "the flood is told, but not once for each message"


# first contact


GREETING = "Hello Ada. Write to me here"
GREETS = replace(CAPABILITIES, must_greet=True)


async def test_who_writes_directly_for_the_first_time_is_greeted(build):
    """Where nobody begins with /start, the first message is greeted ahead of its answer; no later one, no new session is."""
    house = build(capabilities=GREETS)
    async with house.running():
        await house.deliver("hello")
        await house.until(lambda: len(house.shown()) == 2)
        await house.deliver("again")
        await house.until_quiet()
        await house.deliver("/reset")
        await house.deliver("anew")
        await house.until_quiet()
    greeting, first, *rest = house.shown()
    assert greeting.startswith(GREETING)
    assert first == "echo: hello"
    assert not [text for text in rest if text.startswith(GREETING)]


async def test_a_greeting_comes_once_where_somebody_began_with_a_command(build):
    """Whoever began with /start, or any command, knows how to find help and is not greeted again."""
    house = build(capabilities=GREETS)
    async with house.running():
        await house.deliver("/start")
        await house.deliver("hello")
        await house.until_quiet()
    assert [text.startswith(GREETING) for text in house.shown()] == [True, False]


async def test_groups_and_platforms_with_a_start_are_not_greeted(build):
    """In a group nobody is greeted unasked, and neither is anybody where the platform opens with /start."""
    for capabilities, fields in ((GREETS, {"channel": "room", "channel_kind": "group"}), (CAPABILITIES, {})):
        house = build(capabilities=capabilities)
        async with house.running():
            await house.deliver("hello", **fields)
            await house.until_quiet()
            assert house.shown(fields.get("channel", "ada")) == ["echo: hello"]


async def test_a_stranger_who_is_let_in_is_greeted_then(build):
    """Having been turned away is no first contact: the greeting comes with the first message that is answered."""
    house = build(capabilities=GREETS, access={"allow": ()})
    async with house.running():
        await house.deliver("hello")
        await house.until_quiet()
    again = build(capabilities=GREETS, room=house.room)
    async with again.running():
        await again.deliver("hello again")
        await again.until_quiet()
    turned_away, greeting, answer = again.shown()
    assert "ask" in turned_away.lower()
    assert greeting.startswith(GREETING)
    assert answer == "echo: hello again"
