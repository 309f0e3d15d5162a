"""The table of commands: what each says, right and wrong arguments, both languages, as people type them."""

import asyncio
import re

import pytest

from bot import catalogue, commands
from bot.agents.offline import OfflineAgent
from bot.commands import CommandCall
from tests.bot.house import GatedAgent


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("/help", CommandCall("help", "")),
        ("  /HELP  ", CommandCall("help", "")),
        ("/history 2", CommandCall("history", "2")),
        ("/ask two\nlines", CommandCall("ask", "two\nlines")),
        ("/ask\nbelow", CommandCall("ask", "below")),
        ("/no_such1", CommandCall("no_such1", "")),
        ("help", None),
        ("/", None),
        ("//help", None),
        ("/5", None),
        ("/etc/hosts says what?", None),
        ("/help-me", None),
        ("see /help", None),
        ("/" + "a" * 33, None),
    ],
)
def test_parse(text, call):
    """A command is a slash and a name of its own; a path, a number or a slash inside a sentence is none."""
    assert commands.parse(text) == call


@pytest.fixture
async def house(build):
    house = build()
    async with house.running():
        yield house


async def ask(house, text, **fields):
    before = len(house.shown())
    await house.deliver(text, **fields)
    await house.until(lambda: len(house.shown()) > before)
    return house.shown()[before]


@pytest.mark.parametrize(
    ("text", "english", "german"),
    [
        ("/start", "Hello Ada. Write to me", "Hallo Ada. Schreib mir"),
        ("/start deep-link_42", "Hello Ada.", "Hallo Ada."),
        ("/help", "/status: what I know", "/status: was ich"),
        ("/reset", "there was nothing", "es gab noch nichts"),
        ("/new", "there was nothing", "es gab noch nichts"),
        ("/status", "We have not talked yet", "Wir haben noch nicht gesprochen"),
        ("/stop", "not writing anything", "schreibe gerade nichts"),
        ("/stop all", "not writing anything", "schreibe gerade nichts"),
        ("/STOP ALL", "not writing anything", "schreibe gerade nichts"),
        ("/history", "nothing to show", "noch nichts zu zeigen"),
        ("/whoami", "You are Ada, Memory user ada.", "Du bist Ada, Memory-Nutzer ada."),
        # wrong arguments
        ("/help me", '/help takes no "me". Use it without', 'Mit "me" kann /help nichts'),
        ("/reset now", '/reset takes no "now"', 'Mit "now" kann /reset'),
        ("/whoami I", '/whoami takes no "I"', 'Mit "I" kann /whoami'),
        ("/status x", '/status takes no "x"', 'Mit "x" kann /status'),
        ("/stop it", '/stop takes no "it". Use /stop, or /stop all', 'Mit "it" kann /stop'),
        ("/history two", '/history takes no "two". Use /history, or', 'Mit "two" kann /history'),
        ("/history 0", '/history takes no "0"', 'Mit "0" kann /history'),
        ("/history -1", '/history takes no "-1"', 'Mit "-1" kann /history'),
        ("/history ٣", '/history takes no "٣"', 'Mit "٣" kann /history'),
        ("/history 99999999999999999999", "/history takes no", "kann /history"),
        ("/ask", "Write your question after it", "Schreib die Frage dahinter"),
        # no such command
        ("/rest", "Did you mean /reset?", "Meintest du /reset?"),
        ("/hlep", "Did you mean /help?", "Meintest du /help?"),
        ("/quantum", "I do not know /quantum. /help lists", "/quantum kenne ich nicht. /help zeigt"),
    ],
)
async def test_every_command_answers_in_the_persons_language(house, text, english, german):
    """Each command, each wrong argument and each unknown name gets its sentence, in both languages."""
    assert english in await ask(house, text, language="en-GB")
    assert german in await ask(house, text, language="de")
    assert await house.statuses() == []


async def test_a_long_wrong_argument_is_not_repeated_whole(house):
    """What somebody pasted behind a command comes back as its beginning only."""
    assert len(await ask(house, "/help " + "x" * 5000)) < 200


async def test_help_lists_the_whole_table_of_the_platform(house):
    """/help has a line for each command shown here, and none for those of other platforms."""
    lines = (await ask(house, "/help")).splitlines()[1:-2]
    assert [re.match(r"- /(\w+): ", line)[1] for line in lines] == [
        command.name for command in commands.table_for("memory")
    ]
    assert "ask" not in {command.name for command in commands.table_for("telegram")}
    assert "ask" in {command.name for command in commands.table_for("discord")}


@pytest.mark.parametrize("named", ["search", "/search", "Serach"])
async def test_help_with_a_command_tells_how_that_one_is_used(house, named):
    """Behind /help may stand what one wants to know about, also with its slash or a letter wrong."""
    line, usage = (await ask(house, f"/help {named}")).splitlines()
    assert line.startswith("- /search: ")
    assert usage.startswith("Write the words after it: /search train to Rome.")


async def test_help_in_a_group_tells_how_to_be_answered_there(house):
    """In a group the bot does not answer everything, and /help does not say so."""
    await house.deliver("/help", channel="room", channel_kind="group")
    await house.deliver("/help")
    await house.until_quiet()
    (in_group,), (alone,) = house.shown("room"), house.shown()
    assert in_group.endswith("Everything else I answer when you mention me or reply to me.")
    assert alone.endswith("Everything else you write is for me to answer.")


@pytest.mark.parametrize("platform", ["telegram", "discord"])
@pytest.mark.parametrize("language", catalogue.LANGUAGES)
def test_the_published_table_fits_every_platform(platform, language):
    """Names and descriptions keep to the strictest platform's rules, in each language."""
    for spec in commands.specs(catalogue.load(), platform, language):
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,31}", spec.name)
        assert 1 <= len(spec.description) <= 100
        assert spec.argument is None or re.fullmatch(r"[a-z][a-z0-9_]{0,31}", spec.argument)
        assert bool(spec.argument_hint) == (spec.argument is not None)
        assert len(spec.argument_hint) <= 100
        if spec.argument is not None:
            assert spec.argument_hint != spec.argument


async def test_ask_is_a_message(house):
    """/ask with a question goes to the agent, without the command's name."""
    assert await ask(house, "/ask   how far?") == "echo: how far?"


async def test_status_counts(house):
    """/status says since when, how many messages, tool calls and errors, and what answers."""
    await house.deliver("tool=clock hello")
    await house.deliver("fail=unavailable")
    await house.until_quiet()
    status = await ask(house, "/status")
    assert re.search(r"We have talked since \d{4}-\d\d-\d\d \d\d:\d\d UTC\.", status)
    assert "3 messages, 1 tool call, 1 failure." in status
    assert "4,000 tokens is about" in status
    assert "Answers by scripted. Nothing is waiting." in status


async def test_status_without_a_model(build):
    """The built-in agent is not called by its name in the settings, but by what it is."""
    house = build(agent=OfflineAgent())
    async with house.running():
        await house.deliver("hello")
        await house.until_quiet()
        assert "Answers by the built-in agent (no model connected)." in await ask(house, "/status")
        assert "Es antwortet der eingebaute Agent (kein Modell" in await ask(house, "/status", language="de")


async def test_status_after_a_reset(house):
    """Who has talked before and started fresh is not told that we never talked."""
    await house.deliver("hello")
    await house.until_quiet()
    await ask(house, "/reset")
    assert "We have started fresh." in await ask(house, "/status")


async def test_status_while_busy(build):
    """/status does not wait behind the running turn, and says that one is running."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("one")
        await house.until(lambda: agent.begun)
        assert "I am working on your message." in await ask(house, "/status")
        await house.deliver("two")
        assert "I am working on 2 of your messages." in await ask(house, "/status")
        agent.gate.set()


async def test_history_pages(house):
    """/history shows the newest page, oldest first; a number goes back; a page too far says how many there are."""
    for number in range(6):
        await house.deliver(f"question {number}")
    await house.until_quiet()
    newest = await ask(house, "/history")
    assert newest.startswith("Page 1 of 2")
    assert "you: question 0" not in newest
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d Ada: question 5", newest)
    assert newest.index("question 4") < newest.index("question 5")
    assert "bot: echo: question 0" in await ask(house, "/history 2")
    assert await ask(house, "/history 3") == "There are only 2 pages."


async def test_history_of_one_page(house):
    """Where there is one page, the sentence is in the singular."""
    await house.deliver("hello")
    await house.until_quiet()
    assert await ask(house, "/history 2") == "There is only one page."


async def test_history_shortens(house):
    """A long message is shown by its beginning, on one line."""
    await house.deliver("a\nb " + "x" * 1000)
    await house.until_quiet()
    assert "Ada: a b xxx" in await ask(house, "/history")
    assert len(await ask(house, "/history")) < 1000


async def test_whoami_says_operator(house):
    """An operator is told so."""
    await house.deliver("hello")
    await house.until_quiet()
    await house.database.write(lambda tx: tx.execute("UPDATE persons SET role = 'operator'"))
    assert "You are an operator here." in await ask(house, "/whoami")


async def test_commands_in_a_group_speak_of_the_group(house):
    """/start in a group says how to be heard there; the shared history names who said what."""
    group = {"channel": "g", "channel_kind": "group"}
    await house.deliver("/start", **group)
    await house.until(lambda: house.shown("g"))
    assert "In groups I answer whoever mentions me" in house.shown("g")[0]
    await house.deliver("hello", **group)
    await house.deliver("me too", person="bob", **group)
    await house.until_quiet()
    await house.deliver("/history", **group)
    await house.until(lambda: len(house.shown("g")) == 4)
    assert "Ada: hello" in house.shown("g")[-1]
    assert "Bob: me too" in house.shown("g")[-1]


async def test_a_person_never_sees_anothers_history(house):
    """/history and /status of one person hold nothing of another's direct conversation."""
    await house.deliver("my secret")
    await house.until_quiet()
    await house.deliver("/history", person="bob")
    await house.deliver("/status", person="bob")
    await house.until(lambda: len(house.shown("bob")) == 2)
    assert house.shown("bob") == [
        "There is nothing to show yet.",
        "We have not talked yet. Write something and I answer.",
    ]


async def test_stop_tells_how_many_wait(build):
    """/stop ends the running answer and says what still waits; the next one is then answered."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        for number in range(3):
            await house.deliver(f"m{number}")
        await house.until(lambda: agent.begun == ["m0"])
        assert (
            await ask(house, "/stop")
            == "Stopped. 2 more of your messages are waiting; /stop all drops them too."
        )
        await house.until(lambda: agent.begun == ["m0", "m1"])
        assert (
            await ask(house, "/stop")
            == "Stopped. One more of your messages is waiting; /stop all drops it too."
        )
        await house.until(lambda: agent.begun == ["m0", "m1", "m2"])
        assert await ask(house, "/stop") == "Stopped."
        await house.until_quiet()
        assert await house.statuses() == ["cancelled"] * 3


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        (0, "Stopped."),
        (1, "Stopped, and one waiting message dropped."),
        (3, "Stopped, and 3 waiting messages dropped."),
    ],
)
async def test_stop_all_counts_what_it_drops(build, waiting, said):
    """/stop all ends the running answer and drops what waits; none of it is run afterwards."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        for number in range(waiting + 1):
            await house.deliver(f"m{number}")
        await house.until(lambda: agent.begun)
        assert await ask(house, "/stop all") == said
        await house.until_quiet()
        assert await house.statuses() == ["cancelled"] * (waiting + 1)
        assert agent.begun == ["m0"]


GROUP = {"channel": "g", "channel_kind": "group"}


async def ask_group(house, text, **fields):
    before = len(house.shown("g"))
    await house.deliver(text, **GROUP, **fields)
    await house.until(lambda: len(house.shown("g")) > before)
    return house.shown("g")[before]


async def test_stop_in_a_group_ends_only_ones_own(build):
    """In a conversation of many a member's /stop touches nobody else's message, and says so."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("ada asks", **GROUP)
        await house.until(lambda: agent.begun)
        assert "for somebody else here" in await ask_group(house, "/stop", person="bob")
        await house.deliver("bob asks", person="bob", **GROUP)
        assert "One of your messages is waiting" in await ask_group(house, "/stop", person="bob")
        assert (
            await ask_group(house, "/stop all", person="bob") == "Stopped, and one waiting message dropped."
        )
        assert (await house.statuses())[0] == "running"
        assert await ask_group(house, "/stop") == "Stopped."
        await house.until_quiet()
        assert await house.statuses() == ["cancelled", "cancelled"]


async def test_stop_by_an_operator_ends_anybodys(build):
    """An operator stops what is answered to others, and is told of a group's messages, not of their own."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("ada asks", **GROUP)
        await house.until(lambda: agent.begun)
        await house.deliver("ada again", **GROUP)
        await house.deliver("/whoami", person="bob", **GROUP)
        await house.until(lambda: house.shown(GROUP["channel"]))
        await house.database.write(
            lambda tx: tx.execute("UPDATE persons SET role = 'operator' WHERE display_name = 'Bob'")
        )
        assert "working on 2 messages here" in await ask_group(house, "/status")
        said = await ask_group(house, "/stop", person="bob")
        assert said.startswith("Stopped. One more message here is waiting")
        await house.until(lambda: len(agent.begun) == 2)
        assert await ask_group(house, "/stop all", person="bob") == "Stopped."
        await house.until_quiet()
        assert await house.statuses() == ["cancelled", "cancelled"]


async def test_stop_before_it_began(build):
    """With every place taken by others, /stop does not claim to have stopped anything; /stop all drops it."""
    agent = GatedAgent()
    house = build(agent=agent, turns={"max_running": 1})
    async with house.running():
        await house.deliver("mine", person="bob")
        await house.until(lambda: agent.begun)
        await house.deliver("one")
        assert "I have not begun to answer yet. One of your messages is waiting" in await ask(house, "/stop")
        await house.deliver("two")
        assert "2 of your messages are waiting" in await ask(house, "/stop")
        assert await ask(house, "/stop all") == "Stopped, and 2 waiting messages dropped."
        agent.gate.set()
        await house.until_quiet()
        assert await house.statuses() == ["completed", "cancelled", "cancelled"]


async def test_stop_right_behind_the_message(build):
    """A /stop that arrives together with the message it is meant for is not lost between acceptance and start."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        for _ in range(20):
            await asyncio.gather(house.deliver("long work"), house.deliver("/stop"))
        await house.until_quiet(5)
        assert set(await house.statuses()) == {"cancelled"}


async def test_reset_says_what_becomes_of_the_running_answer(build):
    """/reset while an answer is being written says that it still comes; without one it only says that it starts fresh."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("one")
        await house.until(lambda: agent.begun)
        assert "still being answered; /stop ends it" in await ask(house, "/reset")
        agent.gate.set()
        await house.until_quiet()
        await house.deliver("two")
        await house.until_quiet()
        assert (
            await ask(house, "/new")
            == "Done. We start fresh; the earlier conversation is kept under /sessions."
        )


def test_the_table_is_the_documented_one():
    """The commands that every platform must have are there."""
    assert set(commands.TABLE) >= {"start", "help", "reset", "new", "status", "stop", "history", "whoami"}


def test_what_a_reply_tells_people_to_write_can_be_picked_in_a_menu():
    """`/stop all` and the answers to /forget are offered as values: nothing can be typed behind a slash command."""
    shown = {spec.name: spec for spec in commands.specs(catalogue.load(), "discord", "en")}
    assert shown["stop"].argument_values == ("all",)
    assert set(shown["forget"].argument_values) == {"session", "me", "yes", "no"}
    assert shown["search"].argument_values == ()
