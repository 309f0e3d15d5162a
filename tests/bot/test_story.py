"""What operators read: the story of a message, the table of sessions, the welcome."""

import asyncio
import re

import orjson
from structlog.testing import capture_logs

from adapters.errors import Rejected
from bot import story
from bot.agents.base import Usage
from bot.agents.scripted import ToolRequest
from config.names import ChannelId, ThreadId
from config.settings import Settings
from sessions import history, lifecycle
from sessions.scope import OperatorScope
from tests.bot.house import ACCOUNT, LIKE_TELEGRAM, SHORT_LEASE, GatedAgent
from tests.bot.test_delivery import Platform

TIME = r"\d\d:\d\d:\d\d\.\d{3}"


async def tell(house, *words):
    traces = await house.database.read(
        lambda tx: [history.trace(tx, row) for row in history.find_inbox(tx, list(words))]
    )
    return "\n\n".join(story.tell(trace) for trace in traces), traces


async def test_the_story_of_an_answer(build):
    """Received, accepted, answered with model and tools, delivered: a line for each, with its time."""
    house = build(script=["a", Usage(800, 140), ToolRequest("c", "clock", {}), "b", Usage(12, 3)])
    async with house.running():
        await house.adapter.ask("what did I say?")
        told, _ = await tell(house, ACCOUNT, "ada", "m-1")
    lines = told.splitlines()
    assert re.fullmatch(
        rf"received    {TIME}  from Ada \(memory ada\) on memory\.main in direct channel ada", lines[0]
    )
    assert re.fullmatch(rf"accepted    {TIME}  session \w{{26}} \(per person\), turn \w{{26}}", lines[1])
    where = "" if house.node.is_alone else rf", on node {re.escape(house.node.name)}"
    assert re.fullmatch(
        rf"answered    {TIME}  scripted, 812 in / 143 out tokens, tools: clock ×1 \(\d\.\d s\){where}",
        lines[2],
    )
    assert re.fullmatch(rf"delivered   {TIME}  answer part 1, sent, message bot-1", lines[3])
    assert "what did I say" not in told


async def test_the_story_names_the_group(build):
    """A group has the name that people know it by, with nothing in it that would move the terminal's cursor."""
    house = build()
    async with house.running():
        await house.deliver(
            "hi",
            message_id="g-1",
            channel=ChannelId("-100"),
            channel_kind="group",
            channel_title="Support\x1b[2J",
            thread=ThreadId("7"),
        )
        await house.until_quiet()
        told, _ = await tell(house, ACCOUNT, "-100", "g-1")
    assert r'on memory.main in "Support\x1b[2J", group channel -100, thread 7' in told.splitlines()[0]


async def test_every_way_to_name_a_message(build):
    """By account, channel and message, by message id, turn id, or the id of the reply: the same story."""
    house = build()
    async with house.running():
        await house.adapter.ask("hello")
        turn_id = (await house.rows("SELECT id FROM turns"))[0]["id"]
        whole, _ = await tell(house, ACCOUNT, "ada", "m-1")
        for word in ("m-1", turn_id, "bot-1"):
            assert (await tell(house, word))[0] == whole
        assert (await tell(house, "nonsense"))[0] == ""


async def test_the_story_of_a_wait(build):
    """Behind how many turns a message waited, and for how long."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("one", message_id="q-1")
        await house.deliver("two", message_id="q-2")
        waiting, _ = await tell(house, "q-2")
        assert "queued                    no agent yet" in waiting
        await asyncio.sleep(0.2)
        agent.gate.set()
        await house.until_quiet()
        told, _ = await tell(house, "q-2")
    assert re.search(r"^queued      behind 1 turn for 0\.[2-9] s$", told, re.MULTILINE)


async def test_the_story_of_a_decision(build):
    """A message that was declined, or was a command, says by which rule, and whether anything was said."""
    house = build(access={"block": ("eve",)})
    async with house.running():
        await house.deliver(person="eve", message_id="d-1")
        await house.deliver(" ", message_id="d-2")
        await house.deliver("/help", message_id="d-3")
        await house.until(lambda: len(house.shown()) == 2)
        await house.until_quiet()
        blocked, _ = await tell(house, "d-1")
        empty, _ = await tell(house, "d-2")
        command, _ = await tell(house, "d-3")
    assert re.search(
        rf"^declined    {TIME}  blocked\nno reply    nothing was to be said$", blocked, re.MULTILINE
    )
    assert re.search(
        rf"^declined    {TIME}  empty\ndelivered   {TIME}  notice part 1, sent", empty, re.MULTILINE
    )
    assert re.search(
        rf"^command     {TIME}  /help\ndelivered   {TIME}  command part 1, sent", command, re.MULTILINE
    )


async def test_the_story_of_a_failure(build):
    """The reference that the person was told finds the kind, the detail and the cause; tool faults are shown as well."""
    house = build()
    async with house.running():
        with capture_logs():
            said = (await house.adapter.ask("tool=calculator fail=unavailable"))[0]
        reference = re.search(r"\(ref (\w+)\)", said)[1]
        for spelt in (reference, reference.lower(), f"(ref {reference})"):
            told, _ = await tell(house, spelt)
            assert f"ref {reference}: unavailable: the script says so" in told
    assert re.search(rf"^failed      {TIME}  scripted, tools: calculator ×1", told, re.MULTILINE)
    assert "tool calculator failed: Wrong arguments for calculator" in told


async def test_the_story_of_a_hard_delivery(build):
    """Waits, failed tries, repeats and refusals are all in the story."""
    room = Platform(is_idempotent=False)
    house = build(room=room, capabilities=LIKE_TELEGRAM)
    async with house.running():
        with capture_logs():
            room.rate_limit_next(0.3)
            await house.deliver("one", message_id="s-1")
            await house.until_quiet()
            room.lose_next_answer()
            await house.deliver("two", message_id="s-2")
            await house.until_quiet()
            room.sends.append(Rejected(ACCOUNT, "chat not found"))
            await house.deliver("three", message_id="s-3")
            await house.until_quiet()
        waited, _ = await tell(house, "s-1")
        repeated, _ = await tell(house, "s-2")
        refused, _ = await tell(house, "s-3")
    assert "waited 0.3 s for the platform's pace" in waited
    assert "1 failed try, may have been shown twice, marked" in repeated
    assert re.search(rf"^failed      {TIME}  answer part 1, failed, chat not found$", refused, re.MULTILINE)


async def test_a_crash_shows_in_the_story(build):
    """A turn that was started twice says so."""
    agent = GatedAgent()
    house = build(agent=agent, node=SHORT_LEASE)
    async with house.running(dies=True):
        await house.deliver("go", message_id="c-1")
        await house.until_running()
    agent.gate.set()
    again = build(agent=agent, room=house.room)
    async with again.running():
        await again.until_quiet()
        told, _ = await tell(again, "c-1")
    assert "started 2 times" in told


async def test_the_story_as_json_holds_no_conversation(build):
    """JSON for programs has all rows of the story, without bodies, arguments, results or tokens of the platform."""
    house = build(script=[ToolRequest("c", "clock", {"place": "Tokyo"}), "the secret answer"])
    async with house.running():
        await house.deliver("the secret question", message_id="j-1", reply_handle={"token": "t0k3n"})
        await house.until_quiet()
        _, traces = await tell(house, "j-1")
    text = story.as_json(traces)
    found = orjson.loads(text)[0]
    assert set(found) == {"inbox", "person", "session", "turn", "ahead", "tool_calls", "errors", "chunks"}
    assert found["turn"]["status"] == "completed"
    for word in ("secret", "t0k3n", "Tokyo"):
        assert word not in text


async def test_the_table_of_sessions(build):
    """A line for each session under one head; JSON has every field; without any, a sentence."""
    assert story.sessions_table([]) == "There are no sessions."
    house = build()
    async with house.running():
        await house.adapter.ask("hello")
        await house.adapter.ask("/reset")
        await house.adapter.ask("hello again")
        found = await house.database.read(lambda tx: lifecycle.list_sessions(tx, OperatorScope()))
    table = story.sessions_table(found).splitlines()
    assert table[0].split()[:4] == ["SESSION", "STATUS", "ACCOUNT", "CHANNEL"]
    assert len(table) == 3
    assert any("ended (reset)" in line for line in table)
    assert {session["status"] for session in orjson.loads(story.sessions_as_json(found))} == {
        "active",
        "ended",
    }


def test_the_welcome_says_what_to_do_next():
    """A newcomer reads what answers, where it is kept, and what to set next."""
    lines = story.welcome(
        Settings(agent={"kind": "offline"}), "offline", "~/palaver.db (new)", "/tmp/palaver.log"
    )
    text = "\n".join(lines)
    assert "answers by the built-in agent (no model configured)" in lines[0]
    for word in (
        "database   ~/palaver.db (new)",
        "/tmp/palaver.log",
        "TELEGRAM_BOT_TOKEN",
        "OPENAI_API_KEY",
        "/help",
    ):
        assert word in text
    with_model = "\n".join(
        story.welcome(
            Settings(agent={"kind": "llm", "model": "openai:x"}), "openai:x", "palaver.db", "stdout"
        )
    )
    assert "answers by openai:x" in with_model
    assert "OPENAI_API_KEY" not in with_model
