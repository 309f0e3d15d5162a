"""The growing answer and the typing indicator: helpful when they work, harmless whenever they do not."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from adapters.errors import MessageGone, RateLimited, Rejected, Uncertain, Unreachable
from adapters.memory import MemoryAdapter
from adapters.memory.adapter import CAPABILITIES, REPEAT_MARK
from adapters.messages import Chunk
from bot.agents.base import AgentError, ToolRequest
from bot.agents.scripted import Delay
from tests.bot.house import ACCOUNT, LIKE_TELEGRAM, SHORT_LEASE
from tests.bot.test_delivery import Platform, SlowMarks

GROWING = {"preview": True, "preview_after_s": 0.05}
PIECES = [item for n in range(8) for item in (f"piece {n} ", Delay(0.1))]
WHOLE = "".join(item for item in PIECES if isinstance(item, str)).strip()


class Watched(Platform):
    """A platform that keeps every state its messages had, and when it was asked to show typing."""

    def __init__(self, **options):
        super().__init__(**options)
        self.states = []
        self.typings = []
        self.at_once = 0
        self.most_at_once = 0

    async def send(self, target, chunk, key, *, is_repeat):
        with self._counting():
            return await super().send(target, chunk, key, is_repeat=is_repeat)

    async def edit(self, target, message_id, chunk):
        with self._counting():
            await super().edit(target, message_id, chunk)

    def _counting(self):
        room = self

        class Counting:
            def __enter__(self):
                room.at_once += 1
                room.most_at_once = max(room.most_at_once, room.at_once)

            def __exit__(self, *_):
                room.at_once -= 1
                room.states.append([shown.text for shown in room.shown()])

        return Counting()

    async def typing(self, target):
        if self.typings and isinstance(self.typings[0], BaseException):
            raise self.typings.pop(0)
        await super().typing(target)


async def test_a_quick_answer_is_simply_sent(build):
    """Whoever is answered before the time has come sees one message, sent once and never edited."""
    room = Watched()
    house = build(room=room, delivery={"preview": True, "preview_after_s": 5})
    async with house.running():
        assert await house.adapter.ask("hello") == ["echo: hello"]
    assert [call[0] for call in room.calls] == ["send"]


async def test_a_slow_answer_appears_and_grows(build):
    """After a while the answer appears, grows by edits, and ends as the whole text: one message, with one row."""
    room = Watched()
    house = build(script=PIECES, room=room, delivery=GROWING)
    async with house.running():
        assert await house.adapter.ask("go") == [WHOLE]
        rows = await house.rows("SELECT state, is_final, platform_message_id FROM outbox")
        assert [(row["state"], row["is_final"]) for row in rows] == [("sent", 1)]
    texts = [state[0] for state in room.states]
    assert len(texts) >= 3
    assert all(WHOLE.startswith(text) for text in texts)
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)
    assert room.calls[0][0] == "send"
    assert {call[0] for call in room.calls[1:]} == {"edit"}


async def test_a_preview_does_not_begin_inside_a_penalty(build, monkeypatch):
    """Asked for quiet while its row was written, the preview waits like everybody else, and is one message in the end."""
    room = Watched(is_idempotent=False)
    house = build(script=PIECES, room=room, delivery=GROWING, capabilities=LIKE_TELEGRAM)
    async with house.running():
        marks = SlowMarks(house, monkeypatch, "open_preview")
        marks.is_armed = True
        await house.deliver("go")
        await marks.marked.wait()
        house.governor.hold(ACCOUNT, None, 0.4)
        held_until = asyncio.get_running_loop().time() + 0.4
        marks.release.set()
        await house.until_quiet()
        assert room.calls[0][3] >= held_until - 0.01
    assert house.shown() == [WHOLE]


async def test_edits_are_throttled(build):
    """Between two edits of a growing answer lies at least the platform's interval."""
    room = Watched()
    house = build(
        script=PIECES, room=room, delivery=GROWING, capabilities=replace(CAPABILITIES, preview_interval_s=0.3)
    )
    async with house.running():
        await house.adapter.ask("go")
    times = [at for *_, at in room.calls[:-1]]  # the last edit is the answer itself
    assert all(later - earlier >= 0.29 for earlier, later in pairwise(times))


async def test_previews_obey_the_pace(build):
    """A preview never takes a place that the pace does not give: edits count like messages."""
    room = Watched()
    house = build(
        script=PIECES, room=room, delivery=GROWING, account={"pace": {"per_direct_channel_per_s": 1}}
    )
    async with house.running():
        assert await house.adapter.ask("go") == [WHOLE]
    times = [at for *_, at in room.calls]
    assert all(later - earlier >= 0.95 for earlier, later in pairwise(times))


@pytest.mark.parametrize("switch", ["setting", "platform"])
async def test_no_preview_where_it_is_not_wanted_or_not_possible(build, switch):
    """Switched off, or on a platform that cannot edit: one send."""
    room = Watched()
    house = build(
        script=PIECES,
        room=room,
        delivery={**GROWING, "preview": switch != "setting"},
        capabilities=replace(CAPABILITIES, can_edit=switch != "platform"),
    )
    async with house.running():
        assert await house.adapter.ask("go") == [WHOLE]
    assert [call[0] for call in room.calls] == ["send"]


async def test_what_is_said_before_a_tool_is_replaced(build):
    """The words before a tool call make place for the answer; the end is the answer alone."""
    script = ["Let me look.", Delay(0.3), ToolRequest("c", "clock", {}), "Here ", Delay(0.4), "it is."]
    room = Watched()
    house = build(script=script, room=room, delivery=GROWING)
    async with house.running():
        assert await house.adapter.ask("go") == ["Here it is."]
    assert ["Let me look."] in room.states


async def test_a_longer_answer_than_one_message(build):
    """Only the first message grows; the rest follows when the answer is whole, each piece once."""
    room = Watched()
    house = build(
        script=[item for n in range(40) for item in (f"sentence {n}. ", Delay(0.02))],
        room=room,
        delivery=GROWING,
        capabilities=replace(CAPABILITIES, max_text=120),
    )
    async with house.running():
        said = await house.adapter.ask("go")
    assert " ".join(" ".join(said).split()) == " ".join(f"sentence {n}." for n in range(40))
    assert len(said) == len([call for call in room.calls if call[0] == "send"])


async def test_an_error_replaces_the_preview(build):
    """If the answer fails after it began to show, the sentence about it stands in its place, as the only message."""
    house = build(script=["so far ", Delay(0.3), AgentError("unavailable", "cut")], delivery=GROWING)
    async with house.running():
        with capture_logs():
            said = await house.adapter.ask("go")
    assert len(said) == 1
    assert said[0].startswith("I could not reach the model just now.")
    assert house.room.shown("ada")[0].edits == 1


async def test_stop_ends_the_preview_as_it_stands(build):
    """/stop while the answer grows: the message keeps its words and says that it was stopped, and grows no more."""
    room = Watched()
    house = build(script=PIECES, room=room, delivery=GROWING)
    async with house.running():
        await house.deliver("go")
        await house.until(room.shown)
        await house.deliver("/stop")
        await house.until_quiet()
        before = house.shown()
        await asyncio.sleep(0.4)
        assert house.shown() == before
    assert len(before) == 2
    assert before[0].startswith("piece 0")
    assert before[0].endswith("\n\n(stopped)")


async def test_stop_after_the_words_were_replaced(build):
    """/stop during a tool call, when what is on the screen no longer counts, does not leave it there as if it did."""
    room = Watched()
    script = ["Let me look.", Delay(0.3), ToolRequest("c", "clock", {}), Delay(20), "never"]
    house = build(script=script, room=room, delivery=GROWING)
    async with house.running():
        asking = asyncio.create_task(house.adapter.ask("go"))

        async def has_tool_result():
            return await house.rows("SELECT 1 AS x FROM tool_calls")

        await house.until(has_tool_result)
        await house.deliver("/stop")
        assert await asking == ["(stopped)"]
        assert sorted(house.shown()) == ["(stopped)", "Stopped."]
        assert await house.rows("SELECT 1 AS x FROM outbox WHERE is_final = 0") == []


# a platform that is slow or fails


async def test_one_call_at_a_time_on_a_slow_platform(build):
    """A send that takes longer than the interval between edits is not followed by a second one: one message in the end."""
    room = Watched(is_idempotent=False)
    room.sends.append(lambda: asyncio.sleep(1.3))  # longer than the whole answer takes
    house = build(script=PIECES, room=room, delivery=GROWING, capabilities=LIKE_TELEGRAM)
    async with house.running():
        assert await house.adapter.ask("go") == [WHOLE]
    assert room.most_at_once == 1
    assert [call[0] for call in room.calls].count("send") == 1


async def test_the_end_waits_for_a_preview_under_way(build):
    """An answer that is whole while its first preview is being sent becomes an edit of that message, not a second one."""
    room = Watched(is_idempotent=False)
    room.sends.append(lambda: asyncio.sleep(0.5))
    house = build(
        script=["early ", Delay(0.2), "and late"], room=room, delivery=GROWING, capabilities=LIKE_TELEGRAM
    )
    async with house.running():
        assert await house.adapter.ask("go") == ["early and late"]
    assert room.most_at_once == 1


@pytest.mark.parametrize(
    "error",
    [
        Rejected(ACCOUNT, "no"),
        Unreachable(ACCOUNT, "down"),
        RateLimited(ACCOUNT, "slow down", 0.3),
        RateLimited(ACCOUNT, "slow down", 0.3, "account"),
        MessageGone(ACCOUNT, "gone"),
        KeyError("a mistake in the adapter"),
    ],
    ids=["Rejected", "Unreachable", "RateLimited", "RateLimited account", "MessageGone", "KeyError"],
)
@pytest.mark.parametrize("call", ["sends", "edits"])
async def test_a_preview_that_fails_costs_nothing_but_itself(build, error, call):
    """Whatever goes wrong with a preview, the answer comes whole; where nothing was sent, it comes unmarked."""
    room = Watched(is_idempotent=False)
    getattr(room, call).append(error)
    house = build(script=PIECES, room=room, delivery=GROWING, capabilities=LIKE_TELEGRAM)
    async with house.running():
        with capture_logs():
            said = await house.adapter.ask("go")
    is_open = call == "sends" and isinstance(error, KeyError)
    assert said == [f"{REPEAT_MARK}{WHOLE}" if is_open else WHOLE]


async def test_a_preview_whose_answer_was_lost(build):
    """Where a platform takes keys, the lost preview and the answer are one message; elsewhere the second is marked."""
    for is_idempotent in (True, False):
        room = Watched(is_idempotent=is_idempotent)
        room.lose_next_answer()
        capabilities = replace(CAPABILITIES, is_idempotent=is_idempotent)
        house = build(
            script=PIECES,
            room=room,
            delivery=GROWING,
            capabilities=capabilities,
            name=f"keys-{is_idempotent}",
        )
        async with house.running():
            with capture_logs():
                await house.deliver("go")
                await house.until_quiet()
        if is_idempotent:
            assert house.shown() == [WHOLE]
        else:
            assert house.shown()[1:] == [f"{REPEAT_MARK}{WHOLE}"]


async def test_a_preview_that_cannot_be_drawn(build):
    """If an adapter stumbles over half an answer, the whole one still goes out."""

    class Fussy(MemoryAdapter):
        def render(self, markdown, choices=()):
            if not markdown.startswith(WHOLE):
                raise ValueError("half a sentence")
            return [Chunk(markdown)]

    house = build(script=PIECES, adapter=Fussy, delivery=GROWING)
    async with house.running():
        with capture_logs() as logs:
            await house.deliver("go")
            await house.until_quiet()
        assert "preview.given_up" in [entry["event"] for entry in logs]
    assert [text.strip() for text in house.shown()] == [WHOLE]


async def test_a_store_that_fails_during_a_preview(build):
    """A preview whose row cannot be written is left out; the answer waits for the store and comes once."""
    house = build(script=PIECES, delivery=GROWING)
    async with house.running():
        with capture_logs():
            await house.deliver("go")
            house.database.is_refusing = True
            await asyncio.sleep(0.3)
            house.database.is_refusing = False
            await house.until_quiet()
    assert house.shown() == [WHOLE]


# restarts


@pytest.mark.parametrize("is_idempotent", [True, False])
async def test_a_restart_between_preview_and_end_leaves_one_message(build, is_idempotent):
    """The next process goes on with the message that is on the screen: it is edited, not sent anew, and not marked."""
    room = Watched(is_idempotent=is_idempotent)
    options = {
        "room": room,
        "delivery": GROWING,
        "capabilities": replace(CAPABILITIES, is_idempotent=is_idempotent),
    }
    house = build(script=PIECES, **options)
    async with house.running(drain_s=0):
        await house.deliver("go")
        await house.until(room.shown)
        await asyncio.sleep(0.05)
    assert len(house.shown()) == 1
    again = build(script=PIECES, **options)
    async with again.running():
        await again.until_quiet()
    assert again.shown() == [WHOLE]
    assert [call[0] for call in room.calls].count("send") == 1


@pytest.mark.parametrize("dies", [False, True], ids=["stop", "crash"])
async def test_a_stop_asked_for_before_the_end_ends_what_is_on_the_screen(build, dies):
    """A turn that was to be stopped when the process stopped or died ends as stopped, and its preview says so."""
    room = Watched()
    house = build(script=PIECES, room=room, delivery=GROWING, node=SHORT_LEASE)
    async with house.running(drain_s=0, dies=dies):
        await house.deliver("go")
        await house.until(room.shown)
        await asyncio.sleep(0.05)
        await house.database.write(lambda tx: tx.execute("UPDATE turns SET cancel_requested_at = 1"))
    again = build(script=PIECES, room=room, delivery=GROWING)
    async with again.running():
        await again.until_quiet()
        assert await again.statuses() == ["cancelled"]
        assert await again.rows("SELECT 1 AS x FROM outbox WHERE is_final = 0") == []
    assert again.shown() == ["(stopped)"]


async def test_a_wait_told_to_a_preview_is_kept_over_a_restart(build):
    """A penalty that a preview ran into is in the store: the next process keeps quiet for the rest of it."""
    room = Watched()
    room.sends.append(RateLimited(ACCOUNT, "slow down", 1.5))
    house = build(script=PIECES, room=room, delivery=GROWING)
    async with house.running(drain_s=0):
        await house.deliver("go")

        async def is_held():
            return await house.rows("SELECT 1 AS x FROM holds")

        await house.until(is_held)
    again = build(room=room)
    async with again.running():
        await again.deliver("hello")
        await again.until_quiet()
    asked = room.calls[0][3]
    assert all(at - asked >= 1.45 for *_, at in room.calls[1:])


# typing


async def test_typing_is_shown_at_once_and_renewed(build):
    """The typing indicator comes with the turn, again before it fades, and ends with the turn."""
    house = build(typing_every_s=0.1)
    async with house.running():
        await house.deliver("delay=0.55 hello")
        await house.until_quiet()
        count = len(house.room.typing_targets)
        assert 4 <= count <= 7
        await asyncio.sleep(0.25)
        assert len(house.room.typing_targets) == count


async def test_typing_is_silent_while_held_and_while_the_platform_is_down(build):
    """Inside a penalty, and while the account is down, no typing call goes out."""
    house = build(typing_every_s=0.05)
    async with house.running():
        await house.until_sending()
        house.governor.hold(ACCOUNT, "ada", 0.4)
        await house.deliver("delay=0.3 one")
        await asyncio.sleep(0.3)
        assert house.room.typing_targets == []
        await house.until_quiet()
        house.governor.failed(ACCOUNT)
        await house.deliver("delay=0.3 two")
        await asyncio.sleep(0.3)
        assert house.room.typing_targets == []


@pytest.mark.parametrize(
    "error",
    [
        Uncertain(ACCOUNT, "?"),
        Rejected(ACCOUNT, "no"),
        RateLimited(ACCOUNT, "slow down", 0.2),
        KeyError("a mistake in the adapter"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_typing_that_fails_is_harmless(build, error):
    """Whatever goes wrong with the indicator, the answer comes; a wait it was told is kept for the answer too."""
    room = Watched()
    room.typings.append(error)
    house = build(room=room)
    async with house.running():
        assert await house.adapter.ask("delay=0.05 hello") == ["echo: hello"]


async def test_a_typing_call_that_hangs_does_not_pile_up(build):
    """While one call hangs no further one is made, and the answer does not wait for it."""
    calls = []

    class Hanging(Watched):
        async def typing(self, target):
            calls.append(target)
            await asyncio.sleep(30)

    house = build(room=Hanging(), typing_every_s=0.03)
    async with house.running():
        assert await house.adapter.ask("delay=0.3 hello") == ["echo: hello"]
    assert len(calls) == 1


def test_these_scripts_are_long_enough_to_be_seen_growing():
    """The test's own script takes several times the platform's interval."""
    assert len(PIECES) // 2 * 0.1 > 3 * CAPABILITIES.preview_interval_s
