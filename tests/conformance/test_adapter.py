"""What every adapter promises, shown over its own wire: the shipped doubles, the terminal and the platforms alike."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import IntakeClosed
from adapters.errors import RateLimited, Rejected, Uncertain, Unreachable
from adapters.messages import Choice, Chunk
from adapters.settling import Settling
from tests.adapters.recording import RecordingIntake
from tests.conformance.adapter_worlds import WORLDS, AdapterWorld, open_world

CANCELLED_WITHIN_S = 5


@pytest.fixture(params=list(WORLDS))
async def world(request: pytest.FixtureRequest) -> AsyncIterator[AdapterWorld]:
    async with open_world(request.param) as world:
        yield world


@asynccontextmanager
async def running(
    world: AdapterWorld, intake: RecordingIntake | None = None
) -> AsyncIterator[RecordingIntake]:
    """Run the adapter until it hears; at the end cancel `run`, which must not take long, and close."""
    intake = intake or RecordingIntake()
    if isinstance(world.adapter, Settling):
        intake.settled = world.adapter.settled
    run = asyncio.create_task(world.adapter.run(intake))
    try:
        await until(lambda: run.done() or world.adapter.health().state == "hearing")
        assert not run.done(), "run() ended by itself"
        yield intake
        assert not run.done(), "run() ended by itself"
    finally:
        run.cancel()
        done, _ = await asyncio.wait({run}, timeout=CANCELLED_WITHIN_S)
        await world.adapter.close()
    assert done, f"run() went on for {CANCELLED_WITHIN_S} s after it was cancelled"
    assert run.cancelled()


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def sees(world: AdapterWorld, count: int, *, direct: bool = True) -> list[str]:
    """What the person sees, as soon as it is `count` messages; then a moment longer, in case one comes too many."""
    async with asyncio.timeout(10):
        while len(await world.visible(direct=direct)) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    return await world.visible(direct=direct)


def needs(world: AdapterWorld, ability: str) -> None:
    if ability not in world.supports:
        pytest.skip(f"the wire of {world.name} has no {ability}")


def rendered(world: AdapterWorld, text: str) -> Chunk:
    (chunk,) = world.adapter.render(text)
    return chunk


# hearing


async def test_a_message_arrives_once_with_who_wrote_it_where_and_what(world):
    """What a person writes is delivered once, with its text, sender, channel and ids."""
    async with running(world) as intake:
        message_id = await world.say("hello bot")
        (message,) = await intake.wait_for(1)
        await asyncio.sleep(0.1)
    assert intake.texts == ["hello bot"]
    assert intake.duplicates == []
    assert message.account == world.adapter.account == world.target.account
    assert message.channel == world.target.channel
    assert message.message_id == message_id
    assert message.channel_kind == "direct"
    assert message.is_addressed
    assert message.sent_at_ms > 0
    assert message.sender.user_id
    assert message.sender.display_name
    assert not message.sender.is_bot


async def test_order_is_kept(world):
    """Twenty messages written in a row are delivered in that order."""
    said = [f"message {number}" for number in range(20)]
    async with running(world) as intake:
        ids = [await world.say(text) for text in said]
        await intake.wait_for(20)
    assert intake.texts == said
    assert [message.message_id for message in intake.messages] == ids


@pytest.mark.parametrize("text", ["ünïcödé 👩‍👩‍👧 — 日本語", "a  b", "<b>& *not* markup_", "x" * 1500])
async def test_text_arrives_as_it_was_written(world, text):
    """No character of a message is lost or changed."""
    async with running(world) as intake:
        await world.say(text)
        await intake.wait_for(1)
    assert intake.texts == [text]


async def test_nothing_is_lost_while_the_intake_is_closed(world):
    """What is written while nothing can be stored is delivered afterwards: all of it, once, in order."""
    intake = RecordingIntake()
    intake.close()
    async with running(world, intake):
        for text in ("one", "two", "three"):
            await world.say(text)
        await intake.wait_until(lambda: intake.refusals >= 2)
        assert intake.messages == []
        intake.open()
        await intake.wait_for(3)
        await asyncio.sleep(0.1)
    assert intake.texts == ["one", "two", "three"]


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), OSError("disk"), TimeoutError(), IntakeClosed("full", 0.01)]
)
async def test_a_failing_delivery_neither_ends_the_feed_nor_skips(world, error):
    """Whatever `deliver` raises, the same message is handed in again, and the next one after it."""
    intake = RecordingIntake()
    intake.fail_next(error)
    async with running(world, intake):
        await world.say("first")
        await world.say("second")
        await intake.wait_for(2, timeout_s=20)
    assert intake.refusals == 1
    assert intake.texts == ["first", "second"]


async def test_cancelling_while_a_delivery_is_under_way(world):
    """`run` ends when it is cancelled in the middle of a delivery (the context's own limit shows it)."""
    intake = RecordingIntake()
    intake.hold()
    async with running(world, intake):
        await world.say("held")
        await asyncio.sleep(0.1)
    assert intake.messages == []


async def test_cancelling_while_the_intake_is_closed(world):
    """`run` ends when it is cancelled while it waits for the intake to open."""
    intake = RecordingIntake()
    intake.close(retry_after_s=60)
    async with running(world, intake):
        await world.say("refused")
        await intake.wait_until(lambda: intake.refusals >= 1)
    assert intake.messages == []


async def test_group_messages_say_whether_the_bot_is_meant(world):
    """In a group, a mention makes a message addressed, and the mention is not part of its text."""
    needs(world, "group")
    async with running(world) as intake:
        await world.say("among ourselves", direct=False)
        await world.say("what do you think", direct=False, mention=True)
        await intake.wait_until(lambda: any(message.is_addressed for message in intake.messages))
    (addressed,) = [message for message in intake.messages if message.is_addressed]
    assert addressed.text == "what do you think"
    assert addressed.channel_kind == "group"
    assert addressed.channel != world.target.channel
    assert all(message.channel_kind == "group" for message in intake.messages)


async def test_poison_is_quarantined(world):
    """An update nobody can parse is kept once, and the message after it is delivered."""
    needs(world, "poison")
    async with running(world) as intake:
        await world.poison()
        await world.say("after it")
        await intake.wait_for(1)
        await intake.wait_until(lambda: bool(intake.quarantined))
    assert intake.texts == ["after it"]
    ((account, raw, reason),) = intake.quarantined
    assert account == world.adapter.account
    assert raw
    assert reason


async def test_poison_is_kept_even_if_the_intake_stumbles(world):
    """A quarantine that fails is tried again, as a message is."""
    needs(world, "poison")
    intake = RecordingIntake()
    async with running(world, intake):
        intake.fail_next()
        await world.poison()
        await intake.wait_until(lambda: bool(intake.quarantined), timeout_s=20)
    assert len(intake.quarantined) == 1


async def test_health_tells_starting_hearing_and_the_end(world):
    """Health is starting before the first proof, hearing with its time after it, and not hearing when `run` is over."""
    assert world.adapter.health().state == "starting"
    assert world.adapter.health().last_heard_at is None
    async with running(world):
        assert world.adapter.health().state == "hearing"
        assert world.adapter.health().last_heard_at is not None
    assert world.adapter.health().state == "stopped"


async def test_an_outage_is_survived(world):
    """`run` outlives an outage, says so in `health`, and hears again afterwards."""
    needs(world, "outage")
    async with running(world) as intake:
        await world.say("before")
        await intake.wait_for(1)
        await world.outage(True)
        await until(lambda: world.adapter.health().state == "retrying")
        await until(lambda: world.adapter.health().is_cut_off)
        await world.outage(False)
        await world.say("after")
        await intake.wait_for(2, timeout_s=20)
        await until(lambda: world.adapter.health().state == "hearing")
        assert not world.adapter.health().is_cut_off
    assert intake.texts == ["before", "after"]


# rendering

MARKUP = (
    "* ** _ __ ` ``` ~~ || [ ]( ) < &lt; > \\ | $x$ ![ <!-- https://e.org/a_b word @everyone /cmd".split()
)
SPACE = [
    " ",
    "    ",
    "\t",
    "\n",
    "\n\n",
    "\n# ",
    "\n- ",
    "\n1. ",
    "\n---\n",
    "\n```py\n",
    "\n[a]: b\n",
    "\n| a | b |\n|---|---|\n",
]
STRANGE = ["😀", "👩‍👩‍👧", "é", "\u202e", "\x00", "\x1b[2J", "\ud800", "\u200b", "\u2028"]
FRAGMENTS = st.sampled_from([*MARKUP, *SPACE, *STRANGE])
NASTY = st.one_of(st.text(max_size=200), st.lists(FRAGMENTS, max_size=40).map("".join))
LONG = {
    "words": "word " * 30_000,
    "one word": "a" * 120_000,
    "emoji": "😀" * 9_000,
    "code": "intro\n\n```python\n" + "x = 'a line of code'\n" * 8_000 + "```\nend",
    "stars": "*" * 9_000,
    "brackets": "[" * 9_000,
    "quotes": ">" * 500 + " deep",
    "bold": "**" + "bold words " * 12_000 + "**",
    "blank lines": "a" + "\n" * 20_000 + "b",
    "table": "| a | b |\n|---|---|\n" + "| cell | cell |\n" * 4_000,
}


def check_rendering(world: AdapterWorld, text: str) -> None:
    chunks = world.adapter.render(text)
    check_chunks(world, chunks)
    if any(character.isalnum() for character in text):
        assert chunks
    assert world.adapter.render(text) == chunks


def check_chunks(world: AdapterWorld, chunks: list[Chunk]) -> None:
    capabilities = world.adapter.capabilities
    for chunk in chunks:
        length = (
            len(chunk.text.encode("utf-16-le")) // 2 if capabilities.text_unit == "utf16" else len(chunk.text)
        )
        assert length <= capabilities.max_text
        assert chunk.text.strip()
        json.dumps([chunk.text, chunk.markup], ensure_ascii=False).encode()


async def test_rendering_takes_every_text(world):
    """Whatever a reply contains, its chunks fit, can be stored as JSON, are not empty, and are the same each time."""

    @settings(max_examples=60, deadline=None, database=None)
    @given(NASTY)
    def check(text: str) -> None:
        check_rendering(world, text)

    check()
    await world.adapter.close()


@pytest.mark.parametrize("kind", LONG)
async def test_rendering_takes_long_texts(world, kind):
    """A reply longer than any message is cut into chunks that fit."""
    check_rendering(world, LONG[kind])
    await world.adapter.close()


@pytest.mark.parametrize("count", [1, 2, 5, 30, 60])
async def test_rendering_takes_every_choice(world, count):
    """However many choices, odd labels or commands that fit no button: the chunks fit, and only the last has buttons."""
    labels = ["ok", "x" * 200, " ", "😀" * 50, "line\nbreak", "\ud800", "**bold**"]
    choices = [
        Choice(labels[number % len(labels)], f"/sessions {number}" + " long" * (20 * (number % 3 == 2)))
        for number in range(count)
    ]
    for text in ("Pick one.", LONG["words"], "```\ncode\n```"):
        chunks = world.adapter.render(text, choices)
        check_chunks(world, chunks)
        assert world.adapter.render(text, choices) == chunks
        shown = " ".join(chunk.text for chunk in chunks)
        for choice in choices:
            in_markup = json.dumps(chunks[-1].markup, ensure_ascii=True)
            assert choice.command in shown or f'"{choice.command}"' in in_markup
        plain = world.adapter.render(text)
        if not world.adapter.capabilities.can_choose:
            assert [chunk.markup for chunk in chunks[: len(plain) - 1]] == [
                chunk.markup for chunk in plain[: len(plain) - 1]
            ]
    assert world.adapter.render("", [Choice("a", "/a")]) == [] or not world.adapter.capabilities.can_choose
    await world.adapter.close()


async def test_every_word_of_a_long_reply_is_sent(world):
    """Cutting loses no word."""
    words = [f"word{number}" for number in range(20_000)]
    chunks = world.adapter.render(" ".join(words))
    assert " ".join(chunk.text for chunk in chunks).split() == words
    await world.adapter.close()


# sending


async def test_a_reply_is_seen_once(world):
    """`send` returns the message's id, and the person sees the text once."""
    async with running(world):
        message_id = await world.adapter.send(world.target, rendered(world, "hello there"), "key-1")
        seen = await sees(world, 1)
    assert message_id
    assert seen == ["hello there"]


async def test_replies_are_seen_in_order(world):
    """What is sent one after the other is seen in that order, under different ids."""
    async with running(world):
        texts = [f"reply {number}" for number in range(5)]
        ids = [
            await world.adapter.send(world.target, rendered(world, text), f"key-{text[-1]}") for text in texts
        ]
        seen = await sees(world, 5)
    assert seen == texts
    assert len(set(ids)) == 5


async def test_the_same_key_twice(world):
    """A repeat shows one message where the platform is idempotent; elsewhere the second is marked."""
    async with running(world):
        chunk = rendered(world, "only once")
        first = await world.adapter.send(world.target, chunk, "same-key")
        second = await world.adapter.send(world.target, chunk, "same-key", is_repeat=True)
        seen = await sees(world, 1 if world.adapter.capabilities.is_idempotent else 2)
    assert seen[0] == "only once"
    if world.adapter.capabilities.is_idempotent:
        assert len(seen) == 1
        assert first == second
    else:
        assert len(seen) == 2
        assert "only once" in seen[1]
        assert seen[1] != "only once"


async def test_a_lost_answer_is_uncertain(world):
    """When the answer to a send is lost, that is said; the repeat is single on an idempotent platform, else marked."""
    needs(world, "lose_answer")
    async with running(world):
        chunk = rendered(world, "perhaps")
        await world.lose_next_answer()
        with pytest.raises(Uncertain):
            await world.adapter.send(world.target, chunk, "key-lost")
        await world.adapter.send(world.target, chunk, "key-lost", is_repeat=True)
        seen = await sees(world, 1 if world.adapter.capabilities.is_idempotent else 2)
    if world.adapter.capabilities.is_idempotent:
        assert seen == ["perhaps"]
    else:
        assert seen[0] == "perhaps"
        assert seen[1] != "perhaps"
        assert "perhaps" in seen[1]


async def test_a_rate_limit_carries_the_wait(world):
    """When the platform asks to wait, nothing was sent and the error says how long."""
    needs(world, "rate_limit")
    async with running(world):
        await world.rate_limit_next(3)
        with pytest.raises(RateLimited) as caught:
            await world.adapter.send(world.target, rendered(world, "too fast"), "key-limited")
        assert 2.5 <= caught.value.retry_after_s <= 5
        assert await world.visible() == []


async def test_a_refusal_is_for_good(world):
    """A message that the platform refuses is Rejected, and the next one goes through."""
    needs(world, "refuse")
    async with running(world):
        await world.refuse_next()
        with pytest.raises(Rejected):
            await world.adapter.send(world.target, rendered(world, "no"), "key-no")
        await world.adapter.send(world.target, rendered(world, "yes"), "key-yes")
        assert await sees(world, 1) == ["yes"]


async def test_sending_during_an_outage(world):
    """While the platform is down a send fails as something to try again and shows nothing; afterwards it is seen, once."""
    needs(world, "outage")
    async with running(world):
        chunk = rendered(world, "through")
        await world.outage(True)
        # A gateway that answers 503 for a dead server leaves open what became of the request; a refused one does not.
        with pytest.raises((Unreachable, Uncertain)) as caught:
            await world.adapter.send(world.target, chunk, "key-out")
        is_repeat = isinstance(caught.value, Uncertain)
        await world.outage(False)
        async with asyncio.timeout(20):
            while True:
                try:
                    await world.adapter.send(world.target, chunk, "key-out", is_repeat=is_repeat)
                    break
                except (Unreachable, Uncertain) as error:
                    is_repeat = is_repeat or isinstance(error, Uncertain)
                    await asyncio.sleep(0.1)
        (seen,) = await sees(world, 1)
    if is_repeat and not world.adapter.capabilities.is_idempotent:
        assert "through" in seen
    else:
        assert seen == "through"


async def test_editing(world):
    """A message can be replaced, and editing it to what it already says succeeds."""
    needs(world, "edit")
    assert world.adapter.capabilities.can_edit
    async with running(world):
        message_id = await world.adapter.send(world.target, rendered(world, "draft"), "key-edit")
        await world.adapter.edit(world.target, message_id, rendered(world, "final"))
        await world.adapter.edit(world.target, message_id, rendered(world, "final"))
        assert await sees(world, 1) == ["final"]


async def test_a_choice_is_picked(world):
    """A choice is a button whose press says its command, as the person who pressed it; else a line says what to write."""
    choices = [Choice("Rome", "/sessions 1"), Choice("Bread", "/sessions 2")]
    (chunk,) = world.adapter.render("Pick one.", choices)
    async with running(world) as intake:
        sent_id = await world.adapter.send(world.target, chunk, "key-choices")
        async with asyncio.timeout(10):
            while "Pick one." not in (shown := " ".join(await world.visible())):
                await asyncio.sleep(0.01)
        if not world.adapter.capabilities.can_choose:
            await until_visible(world, "Rome — /sessions 1", "Bread — /sessions 2")
            return
        assert "/sessions" not in shown
        await world.say("hello")
        await world.press("Bread")
        await intake.wait_for(2)
        await world.adapter.edit(world.target, sent_id, chunk)
        await world.press("Rome")
        await intake.wait_for(3)
    assert intake.texts == ["hello", "/sessions 2", "/sessions 1"]
    hello, pressed, again = intake.messages
    assert pressed.sender.user_id == hello.sender.user_id
    assert (pressed.channel, pressed.channel_kind, pressed.is_addressed) == (
        world.target.channel,
        "direct",
        True,
    )
    assert len({hello.message_id, pressed.message_id, again.message_id}) == 3


async def until_visible(world: AdapterWorld, *texts: str) -> None:
    async with asyncio.timeout(10):
        while True:
            shown = "\n".join(await world.visible())
            if all(text in shown for text in texts):
                return
            await asyncio.sleep(0.01)


async def test_typing_shows_no_message(world):
    """Typing may be shown at any time and leaves nothing behind."""
    needs(world, "typing")
    assert world.adapter.capabilities.can_type
    async with running(world):
        await world.adapter.typing(world.target)
        await world.adapter.send(world.target, rendered(world, "typed"), "key-typed")
        assert await sees(world, 1) == ["typed"]


# the end


async def test_nothing_stays_open(world):
    """After `close` no connection is left for the garbage collector (its warnings are errors here)."""
    async with running(world) as intake:
        await world.say("hello")
        await intake.wait_for(1)
        await world.adapter.send(world.target, rendered(world, "bye"), "key-bye")
    gc.collect()
