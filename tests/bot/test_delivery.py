"""Outbox → governor → adapter: each chunk once and in order, and what every answer of a platform means."""

import asyncio
import time
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from adapters.errors import MessageGone, Moved, RateLimited, Rejected, Uncertain, Unreachable
from adapters.memory import MemoryAdapter, Room
from adapters.memory.adapter import CAPABILITIES, REPEAT_MARK
from bot.agents.scripted import ScriptedAgent
from bot.delivery import Delivery
from bot.governor import Governor
from config.names import ChannelId
from sessions import outbox as outbox_module
from sessions.addresses import address_of
from sessions.outbox import read_chunk
from tests.bot.house import ACCOUNT, LIKE_TELEGRAM, GatedAgent, MovingClock

SHORT = replace(CAPABILITIES, max_text=100)


class Platform(Room):
    """A room whose next sends and edits do what a test says: an exception is raised, a coroutine function awaited."""

    def __init__(self, *, is_idempotent=True):
        super().__init__(ACCOUNT, is_idempotent=is_idempotent)
        self.sends = []
        self.edits = []
        self.calls = []

    async def send(self, target, chunk, key, *, is_repeat):
        self.calls.append(("send", target.channel, chunk.text, time.monotonic()))
        await self._do(self.sends)
        return await super().send(target, chunk, key, is_repeat=is_repeat)

    async def edit(self, target, message_id, chunk):
        self.calls.append(("edit", target.channel, chunk.text, time.monotonic()))
        await self._do(self.edits)
        await super().edit(target, message_id, chunk)

    @staticmethod
    async def _do(plans):
        if plans:
            plan = plans.pop(0)
            if isinstance(plan, BaseException):
                raise plan
            if plan is not None:
                await plan()


async def outbox(house):
    return await house.rows("SELECT * FROM outbox ORDER BY id")


# order and receipts


async def test_a_long_reply_goes_out_in_order_with_a_receipt_for_each_piece(build):
    """Each piece is sent once, in order; only the first refers to the question; each row keeps its message's id."""
    house = build(capabilities=SHORT)
    async with house.running():
        said = await house.adapter.ask("long=1000")
        assert len(said) > 5
        rows = await outbox(house)
        assert [row["part"] for row in rows] == list(range(len(rows)))
        assert [row["state"] for row in rows] == ["sent"] * len(rows)
        shown = house.room.shown("ada")
        assert [row["platform_message_id"] for row in rows] == [message.message_id for message in shown]
        assert [message.target.reply_to is None for message in shown] == [False] + [True] * (len(rows) - 1)
        assert [sent.key for sent in house.room.sent] == [row["key"] for row in rows]


async def test_channels_do_not_wait_for_each_other(build):
    """A channel that hangs holds up its own replies alone, and those keep their order."""
    release = asyncio.Event()
    room = Platform()
    room.sends.append(release.wait)
    house = build(room=room)
    async with house.running():
        await house.deliver("one")
        await house.until(lambda: room.calls)
        await house.deliver("two")
        await house.deliver("hello", person="bob")
        await house.until(lambda: house.shown("bob"))
        assert house.shown() == []
        release.set()
        await house.until_quiet()
    assert house.shown() == ["echo: one", "echo: two"]


async def test_everything_is_sent_when_many_notices_come_at_once(build):
    """However wakings and endings of a sender fall together, no chunk is left behind."""
    house = build()
    async with house.running():
        for wave in range(30):
            await asyncio.gather(*(house.deliver(f"{wave}.{n}", person=f"p{n}") for n in range(5)))
        await house.until_quiet()
        await house.until(lambda: house.delivery.channels_busy == 0)
        for n in range(5):
            assert house.shown(f"p{n}") == [f"echo: {wave}.{n}" for wave in range(30)]


async def test_an_answer_goes_out_without_being_read_again(build):
    """What the transaction that ended the turn found waiting is sent at once: no look at the store lies between."""
    house = build()
    async with house.running():
        await house.until_sending()
        reads = []
        read = house.database.read

        async def counted(work):
            if ".look." not in work.__qualname__:  # for what other nodes left, once in a while
                reads.append(work)
            return await read(work)

        house.database.read = counted
        assert await house.adapter.ask("one") == ["echo: one"]
        assert not reads


async def test_what_another_sender_may_have_sent_is_read_again(build):
    """A list of what waits is not believed once a sender ran for the channel after it was begun: nothing goes out twice."""
    house = build()
    async with house.running():
        mark = house.delivery.watch(ACCOUNT, ChannelId("ada"))
        assert house.delivery.watch(ACCOUNT, ChannelId("ada")) is mark
        await house.adapter.ask("one")
        row = (await outbox(house))[0]
        stale = read_chunk({**row, "state": "ready", "platform_message_id": None})
        house.delivery.notify(ACCOUNT, ChannelId("ada"), waiting=[stale], since=mark)
        await house.until(lambda: not house.delivery.channels_busy)
        assert len(house.room.sent) == 1


async def test_two_turns_that_end_together_are_both_heard_of(build):
    """A sender that was told its first chunks looks for more if somebody notified it before it had begun."""
    house = build()
    async with house.running():
        await house.deliver("/status")
        await house.until(house.shown)
        place = (ACCOUNT, ChannelId("ada"))
        await house.until(lambda: not house.delivery.channels_busy)
        (row,) = await house.rows("SELECT id FROM inbox")
        address = await house.database.read(lambda tx: address_of(tx, row["id"]))
        mark = house.delivery.watch(*place)

        def add(tx, part):
            outbox_module.add(
                tx, address, "notice", [{"text": f"n{part}", "markup": None}], house.now(), first_part=part
            )
            return outbox_module.waiting(tx, *place)

        found = [await house.database.write(lambda tx, part=part: add(tx, part)) for part in (0, 1)]
        for waiting in found:  # as two turns do whose results were committed together
            house.delivery.notify(*place, waiting=waiting, since=mark)
        await house.until_quiet(3)
    assert house.shown()[1:] == ["n0", "n1"]


async def test_there_is_no_mark_while_a_sender_runs(build):
    """A sender under way may take up any chunk: what is found beside it is left to it."""
    release = asyncio.Event()
    room = Platform()
    room.sends.append(release.wait)
    house = build(room=room)
    async with house.running():
        await house.deliver("one")
        await house.until(lambda: room.calls)
        assert house.delivery.watch(ACCOUNT, ChannelId("ada")) is None
        release.set()
        await house.until_quiet()


async def test_what_was_not_sent_goes_out_after_a_restart(build):
    """Replies that the last process left go out at the next start, first the oldest."""
    house = build()
    async with house.running(send_s=0):
        house.room.outage(True)
        for text in ("one", "two"):
            await house.deliver(text)
        await house.until(lambda: not house.lanes.running)
    house.room.outage(False)
    again = build(room=house.room)
    async with again.running():
        await again.until_quiet()
    assert house.shown() == ["echo: one", "echo: two"]


async def test_closing_sends_what_it_can_in_time(build):
    """An orderly end sends what waits; what would take too long stays as rows."""
    house = build(account={"pace": {"per_direct_channel_per_s": 0.01}})
    async with house.running(send_s=0.1):
        await house.deliver("one")
        await house.deliver("two")
        await house.until(house.shown)
    assert house.shown() == ["echo: one"]


# the platform asks to wait


@pytest.mark.parametrize(("scope", "other_waits"), [("channel", False), ("account", True)])
async def test_a_wait_that_the_platform_asks_for_is_kept(build, scope, other_waits):
    """No call goes into the penalty: neither this chunk nor, if the whole account is meant, any other."""
    room = Platform()
    room.sends.append(RateLimited(ACCOUNT, "slow down", 0.5, scope))
    house = build(room=room)
    async with house.running():
        await house.deliver("one")
        await house.until(lambda: room.calls)
        asked = room.calls[0][3]
        await house.deliver("two")
        await house.deliver("other", person="bob")
        await house.until_quiet()
        waits = {text: at - asked for _, _, text, at in room.calls[1:]}
        assert waits["echo: one"] >= 0.5
        assert waits["echo: two"] >= 0.5
        assert (waits["echo: other"] >= 0.5) is other_waits
        assert (await outbox(house))[0]["attempts"] == 0
    assert house.shown() == ["echo: one", "echo: two"]


async def held(house, room):
    """Somebody writes, and the platform asks for quiet instead of taking the answer; when that was."""
    await house.deliver("one")
    await house.until(lambda: house.rows("SELECT 1 AS x FROM holds"))
    return room.calls[0][3]


@pytest.mark.parametrize("scope", ["channel", "account"])
async def test_a_wait_is_kept_over_a_restart(build, scope):
    """A process that starts inside the penalty keeps quiet for the rest of it, for new replies too."""
    room = Platform()
    room.sends.append(RateLimited(ACCOUNT, "slow down", 1.2, scope))
    house = build(room=room)
    async with house.running(send_s=0):
        asked = await held(house, room)
    again = build(room=room)
    async with again.running():
        await again.deliver("two")
        await again.until_quiet()
        assert all(at - asked >= 1.15 for _, _, _, at in room.calls[1:])
        assert len(room.calls) == 3
    assert house.shown() == ["echo: one", "echo: two"]


async def test_nothing_goes_out_before_it_is_known_how_long_to_keep_quiet(build, monkeypatch):
    """However long the start takes to read what the platform asked for: who writes meanwhile is answered after the wait."""
    room = Platform()
    room.sends.append(RateLimited(ACCOUNT, "slow down", 1.2, "account"))
    house = build(room=room)
    async with house.running(send_s=0):
        asked = await held(house, room)
    recover = Delivery._recover

    async def late(delivery, account):
        await asyncio.sleep(0.3)
        return await recover(delivery, account)

    monkeypatch.setattr(Delivery, "_recover", late)
    again = build(room=room)
    async with again.running():
        await again.deliver("two", person="bob")
        await again.until_quiet()
    assert len(room.calls) == 3
    assert all(at - asked >= 1.15 for _, _, _, at in room.calls[1:])


class SlowMarks:
    """A store in which the mark before the next send becomes durable only when the test lets it."""

    def __init__(self, house, monkeypatch, mark):
        self.is_armed = False
        self.marked, self.release = asyncio.Event(), asyncio.Event()
        real, write, seen = getattr(outbox_module, mark), house.database.write, []

        def noticed(*arguments, **named):
            seen.append(mark)
            return real(*arguments, **named)

        async def slow(work, **named):
            seen.clear()
            result = await write(work, **named)
            if seen and self.is_armed:
                self.is_armed = False
                self.marked.set()
                await self.release.wait()
            return result

        monkeypatch.setattr(outbox_module, mark, noticed)
        monkeypatch.setattr(house.database, "write", slow)


async def test_a_wait_asked_for_while_a_send_was_prepared_is_kept_too(build, monkeypatch):
    """What the pace let through just before the platform asked for quiet does not go out inside the penalty, nor as a repeat."""
    room = Platform(is_idempotent=False)
    house = build(room=room, capabilities=LIKE_TELEGRAM)
    async with house.running():
        marks = SlowMarks(house, monkeypatch, "begin")

        async def refuse():
            await marks.marked.wait()
            raise RateLimited(ACCOUNT, "slow down", 0.6, "account")

        room.sends.append(refuse)
        await house.deliver("one")
        await house.until(lambda: room.calls)
        marks.is_armed = True
        await house.deliver("two", person="bob")
        await house.until(lambda: house.governor.held_s(ACCOUNT, "bob") > 0)
        held_until = time.monotonic() + house.governor.held_s(ACCOUNT, "bob")
        marks.release.set()
        await house.until_quiet()
        assert [at >= held_until - 0.01 for _, channel, _, at in room.calls[1:]] == [True, True]
    assert house.shown("bob") == ["echo: two"]


# the platform is not reached


async def test_an_outage_is_probed_gently_and_ends_by_itself(build):
    """While the platform is down fewer than one request a second goes out over all channels; afterwards all is sent."""
    room = Platform()
    house = build(room=room, governor=Governor())
    async with house.running():
        room.outage(True)
        started = time.monotonic()
        for n in range(20):
            await house.deliver("hello", person=f"p{n}")
        await asyncio.sleep(2.5)
        tries = len(room.calls)
        assert (
            1 <= tries <= time.monotonic() - started + 20
        )  # those that were under way when it was first noticed
        assert sum(1 for *_, at in room.calls if at - started > 0.2) <= 2
        room.outage(False)
        await house.until_quiet()
        assert all(house.shown(f"p{n}") == ["echo: hello"] for n in range(20))
        assert max(row["attempts"] for row in await outbox(house)) == 0


# nobody knows


async def test_an_answer_that_was_lost_shows_one_message_on_an_idempotent_platform(build):
    """The same key is sent again, people see one message, and nothing says that it might be a repeat."""
    house = build()
    async with house.running():
        house.room.lose_next_answer()
        assert await house.adapter.ask("go", timeout_s=10) == ["echo: go"]
        first, second = (sent.key for sent in house.room.sent)
        assert first == second
        assert [sent.is_repeat for sent in house.room.sent] == [False, True]
        assert (await outbox(house))[0]["repeats"] == 0


async def test_elsewhere_it_is_sent_again_and_marked(build):
    """A platform without keys gets it again: the second is marked, and the row says so."""
    house = build(capabilities=LIKE_TELEGRAM)
    async with house.running():
        house.room.lose_next_answer()
        await house.deliver("go")
        await house.until_quiet()
        assert house.shown() == ["echo: go", f"{REPEAT_MARK}echo: go"]
        assert (await outbox(house))[0]["repeats"] == 1


async def test_every_repeat_is_counted(build):
    """The answer to the repeat is lost as well: people see it three times, two of them marked, and the row says two."""
    house = build(capabilities=LIKE_TELEGRAM)
    async with house.running():
        house.room.lose_next_answer()
        house.room.lose_next_answer()
        await house.deliver("go")
        await house.until_quiet()
        assert house.shown() == ["echo: go", *[f"{REPEAT_MARK}echo: go"] * 2]
        assert (await outbox(house))[0]["repeats"] == 2


async def test_the_operator_may_prefer_silence(build):
    """on_uncertain = skip: it is left, recorded as skipped, and the next reply goes out; the message is settled."""
    house = build(capabilities=LIKE_TELEGRAM, account={"on_uncertain": "skip"})
    async with house.running():
        house.room.lose_next_answer()
        assert await house.adapter.ask("one") == ["echo: one"]
        assert await house.adapter.ask("two") == ["echo: two"]
        assert [row["state"] for row in await outbox(house)] == ["skipped", "sent"]


async def test_the_operator_may_have_the_person_asked(build):
    """on_uncertain = ask: the person is told that a reply may be missing and where to find it."""
    house = build(capabilities=LIKE_TELEGRAM, account={"on_uncertain": "ask"})
    async with house.running():
        house.room.lose_next_answer()
        await house.deliver("one")
        await house.until_quiet()
        assert house.shown()[1:] == [
            "I was interrupted while sending an answer and cannot tell whether you got it. /history shows it."
        ]


async def test_the_question_itself_is_not_asked_about(build):
    """If the answer to that note is lost too, it is left: no note about a note, for ever."""
    house = build(capabilities=LIKE_TELEGRAM, account={"on_uncertain": "ask"})
    async with house.running():
        for _ in range(2):
            house.room.lose_next_answer()
        await house.deliver("one")
        await house.until_quiet()
        assert [row["state"] for row in await outbox(house)] == ["skipped", "skipped"]
        assert len(house.shown()) == 2


@pytest.mark.parametrize("then", [RateLimited(ACCOUNT, "slow down", 0.05), Unreachable(ACCOUNT, "down")])
async def test_a_later_refusal_does_not_make_an_open_question_certain(build, then):
    """Sent perhaps, then surely not: the next one is still marked as a possible repeat."""
    room = Platform(is_idempotent=False)
    house = build(room=room, capabilities=LIKE_TELEGRAM)
    async with house.running():
        room.lose_next_answer()
        room.sends += [None, then]
        await house.deliver("go")
        await house.until_quiet()
    assert house.shown() == ["echo: go", f"{REPEAT_MARK}echo: go"]


async def test_a_process_that_died_while_sending_marks_the_repeat(build):
    """What was under way when the process died is sent again as a possible repeat."""
    room = Platform(is_idempotent=False)
    room.sends.append(asyncio.Event().wait)
    house = build(room=room, capabilities=LIKE_TELEGRAM)
    async with house.running(send_s=0):
        await house.deliver("go")
        await house.until(lambda: room.calls)
    again = build(room=room, capabilities=LIKE_TELEGRAM)
    async with again.running():
        await again.until_quiet()
    assert again.shown() == [f"{REPEAT_MARK}echo: go"]


async def test_a_fault_of_the_adapter_counts_as_an_open_question(build):
    """An exception that is no delivery error stops neither the chunk nor the channel."""
    room = Platform()
    room.sends.append(KeyError("a mistake in the adapter"))
    house = build(room=room)
    async with house.running():
        with capture_logs() as logs:
            assert await house.adapter.ask("go") == ["echo: go"]
        assert "delivery.adapter_failed" in [entry["event"] for entry in logs]


# never


async def test_what_is_refused_for_good_does_not_hold_up_the_rest(build):
    """A refused piece is recorded as failed with the reason; the next piece and the next reply go out; it is settled."""
    room = Platform()
    room.sends.append(Rejected(ACCOUNT, "chat not found"))
    house = build(room=room, capabilities=SHORT)
    async with house.running():
        with capture_logs():
            said = await house.adapter.ask("long=250")
        rows = await outbox(house)
        assert [row["state"] for row in rows] == ["failed"] + ["sent"] * (len(rows) - 1)
        assert rows[0]["error"] == "chat not found"
        assert len(said) == len(rows) - 1
        room.sends.append(Rejected(ACCOUNT, "no"))
        with capture_logs():
            assert await house.adapter.ask("refused") == []
        assert await house.adapter.ask("next") == ["echo: next"]


async def test_tries_are_bounded(build):
    """After so many tries of its own fault a chunk is given up, and the channel goes on."""
    room = Platform()
    room.edits += [None]
    room.sends += [Uncertain(ACCOUNT, "odd")] * 2
    house = build(room=room, delivery={"max_attempts": 2, "preview": False})
    async with house.running():
        with capture_logs():
            assert await house.adapter.ask("go") == []
        row = (await outbox(house))[0]
        assert (row["state"], row["error"], row["attempts"]) == ("failed", "too many tries", 2)
        assert await house.adapter.ask("next") == ["echo: next"]


async def test_what_is_too_old_is_given_up(build):
    """A reply that could not be sent for longer than max_age is recorded as failed instead of surprising somebody."""
    clock = MovingClock()
    house = build(now=clock, delivery={"max_age": "1h", "preview": False})
    async with house.running(send_s=0):
        house.room.outage(True)
        await house.deliver("go")
        await house.until(lambda: not house.lanes.running)
        await asyncio.sleep(0.05)
    house.room.outage(False)
    clock.advance(3601)
    again = build(room=house.room, now=clock, delivery={"max_age": "1h", "preview": False})
    async with again.running():
        with capture_logs():
            await again.until_quiet()
        assert (await outbox(again))[0]["error"] == "too old"
        assert await again.adapter.ask("new") == ["echo: new"]
    assert again.shown() == ["echo: new"]


# moved and gone


async def test_a_channel_that_moved_takes_its_replies_along(build):
    """The platform's word that a channel has another id readdresses what waits; each reply goes out once, in order."""
    both_wait = asyncio.Event()

    async def move():
        await both_wait.wait()
        raise Moved(ACCOUNT, "is a supergroup now", "new")

    room = Platform()
    room.sends.append(move)
    house = build(room=room)
    async with house.running():
        with capture_logs():
            for text in ("one", "two"):
                await house.deliver(text, channel="old", channel_kind="group")
            await house.until(lambda: not house.lanes.running)
            both_wait.set()
            await house.until_quiet()
        assert (house.shown("old"), house.shown("new")) == ([], ["echo: one", "echo: two"])
        assert (await house.rows("SELECT channel FROM sessions"))[0]["channel"] == "new"


async def test_a_move_under_the_senders_hands_sends_nothing_twice(build):
    """A channel that moves while its replies are being sent: those on their way are not taken up by a second sender."""
    room = Platform(is_idempotent=False)
    hold = asyncio.Event()
    room.sends.append(hold.wait)
    house = build(room=room, capabilities=replace(LIKE_TELEGRAM, max_text=100))
    async with house.running():
        await house.deliver("long=500", channel="old", channel_kind="group")
        await house.until(lambda: room.calls)
        await house.gateway.move_channel(ACCOUNT, "old", "new")
        await asyncio.sleep(0.05)
        hold.set()
        await house.until_quiet()
        keys = [sent.key for sent in room.sent]
        assert keys == sorted(set(keys))
        assert not any(sent.is_repeat for sent in room.sent)


async def test_a_message_that_is_gone_is_sent_anew(build):
    """If the message to edit was deleted meanwhile, the reply is sent as a new one."""
    agent = GatedAgent()
    house = build(agent=agent, delivery={"preview": True, "preview_after_s": 0})
    async with house.running():
        house.agents[None] = ScriptedAgent()
        await house.deliver("delay=0 pace=0.3 a slow and rather long answer")
        await house.until(lambda: house.room.shown("ada"))
        house.room.delete(house.room.shown("ada")[0].message_id)
        house.room._by_key.clear()
        await house.until_quiet()
    assert house.shown() == ["echo: a slow and rather long answer"]


async def test_a_platform_that_always_says_gone_is_not_asked_for_ever(build):
    """A send that keeps answering "gone" is bounded like every other try."""
    room = Platform()
    room.sends += [MessageGone(ACCOUNT, "gone")] * 50
    house = build(room=room, delivery={"max_attempts": 3, "preview": False})
    async with house.running():
        with capture_logs():
            assert await house.adapter.ask("go") == []
    assert len(room.calls) == 3


# the store


async def test_a_receipt_waits_for_the_store(build):
    """While the store cannot write, a sent chunk's receipt waits, and the chunk is not sent again."""
    room = Platform()
    house = build(room=room)

    async def break_store():
        house.database.is_refusing = True

    room.sends.append(break_store)
    async with house.running():
        with capture_logs() as logs:
            await house.deliver("go")
            await house.until(lambda: any(entry["event"] == "delivery.store_waited" for entry in logs))
            house.database.is_refusing = False
            await house.until_quiet()
    assert len(room.calls) == 1


async def test_pace_settings_are_kept(build):
    """The operator's pace holds for real replies: one a second here, counted over a restart too."""
    room = Platform()
    options = {"account": {"pace": {"per_direct_channel_per_s": 1}}, "room": room}
    house = build(**options)
    async with house.running():
        await house.deliver("one")
        await house.until_quiet()
    again = build(**options)
    async with again.running():
        await again.deliver("two")
        await again.until_quiet()
        row = (await outbox(again))[-1]
        assert row["waited_ms"] > 500
    assert room.calls[1][3] - room.calls[0][3] >= 0.95


async def test_an_adapter_that_stumbles_over_the_end_of_a_message_loses_nothing(build):
    """What an adapter does with the word that a message is settled cannot undo a sent reply or a stored turn."""

    class Clumsy(MemoryAdapter):
        def settled(self, message_id):
            raise RuntimeError("stumbled")

    house = build(adapter=Clumsy)
    async with house.running():
        with capture_logs() as logs:
            for text in ("one", "two"):
                await house.deliver(text)
            await house.until_quiet()
            await house.deliver("/stop")
            await house.deliver("x", channel="g", channel_kind="group", is_addressed=False)
            # a message is settled a moment after its last row is
            await house.until(
                lambda: [entry["event"] for entry in logs].count("delivery.settling_failed") == 4
            )
    assert sorted(house.shown())[1:] == ["echo: one", "echo: two"]
