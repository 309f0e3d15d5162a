"""The commands about conversations that are kept: listing, going back, naming, forking, archiving, searching, forgetting."""

import re
import struct
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from adapters.messages import Choice
from bot import commands, retention
from bot.commands.forgetting import ANSWER_WITHIN_MS
from bot.upkeep import Upkeep
from sessions.statistics import DAY_MS
from sessions.transfer import foreign, importing
from tests.bot.house import GatedAgent, MovingClock
from tests.sessions.stores import broken
from tests.sessions.test_foreign import OPENAI

NOW = 1_900_000_000_000


def ISO(at):  # noqa: N802 - reads as the constant it makes
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d}"


GROUP = {"channel": "g", "channel_kind": "group"}


@pytest.fixture
async def house(build):
    house = build()
    async with house.running():
        yield house


async def ask(house, text, *, channel="ada", **fields):
    before = len(house.shown(channel))
    await house.deliver(text, channel=channel, **fields)
    await house.until(lambda: len(house.shown(channel)) > before)
    return house.shown(channel)[before]


async def talk(house, *texts, **fields):
    for text in texts:
        await house.deliver(text, **fields)
        await house.until_quiet()


def offered(shown: str) -> dict[str, str]:
    """What a reply without buttons offers: what to write for each numbered line."""
    return {match[1]: match[2] for match in re.finditer(r"^\d+\. (.+) — (/.+)$", shown, re.MULTILINE)}


async def status_of(house, text):
    """Status and end reason of the session in which something was said, the earliest one if it was copied."""
    (row, *_) = await house.rows(
        "SELECT s.status, s.end_reason FROM sessions s JOIN messages m ON m.session_id = s.id"
        " WHERE m.content = :text ORDER BY s.created_at",
        text=text,
    )
    return row["status"], row["end_reason"]


# listing and going back


async def test_nothing_to_list(house):
    """Before the first message there is no conversation, and the list says so."""
    assert await ask(house, "/sessions") == "We have no conversation yet. Write something and it begins."
    assert await ask(house, "/sessions page 7") == "There are no more."


async def test_every_conversation_is_listed_and_can_be_gone_back_to(house):
    """The list has titles of its own, the latest first; what it offers makes that conversation the live one again."""
    await talk(house, "a trip to Rome", "/reset", "bread recipes")
    listed = offered(await ask(house, "/sessions"))
    assert [label.split(" · ")[0] for label in listed] == ["● bread recipes", "a trip to Rome"]
    (rome,) = [command for label, command in listed.items() if "Rome" in label]
    assert await ask(house, rome) == "We go on with “a trip to Rome”: 2 messages so far."
    assert await status_of(house, "a trip to Rome") == ("active", None)
    assert await status_of(house, "bread recipes") == ("ended", "completed")
    await talk(house, "which museum?")
    row = (
        await house.rows("SELECT COUNT(DISTINCT session_id) AS n FROM messages WHERE content LIKE '%museum%'")
    )[0]
    assert row["n"] == 1
    assert await ask(house, rome) == "We are in “a trip to Rome” already."
    assert "which museum?" in (await ask(house, "/history"))


async def test_a_number_means_the_place_in_the_list(house):
    """/sessions 2 goes to the second; one that is not there is said so, and nonsense gets the usage."""
    await talk(house, "first", "/reset", "second")
    assert "“first”" in await ask(house, "/sessions 2")
    assert await ask(house, "/sessions 9") == "I have no conversation 9 here. /sessions lists them."
    assert "zzzzzz" in await ask(house, "/sessions zzzzzz")
    assert "Use /sessions, or /sessions 2" in await ask(house, "/sessions the one with Rome")


async def test_a_long_list_has_pages(house):
    """Eight to a page, with the way to the next and back; together they are all, each once."""
    for number in range(11):
        await talk(house, f"talk {number}", "/reset")
    first = offered(await ask(house, "/sessions"))
    assert first["Older"] == "/sessions page 2"
    second = offered(await ask(house, "/sessions page 2"))
    assert second["Newer"] == "/sessions page 1"
    assert "Older" not in second
    titles = [label.split(" · ")[0] for label in (*first, *second) if " · " in label]
    assert titles == [f"talk {number}" for number in range(10, -1, -1)]


async def test_another_persons_conversation_is_out_of_reach(house):
    """Neither the list nor a reference that somebody read off a screen leads to another's conversation."""
    await talk(house, "my secret")
    (reference,) = offered(await ask(house, "/sessions")).values()
    assert await ask(house, "/sessions", person="bob", channel="bob") == (
        "We have no conversation yet. Write something and it begins."
    )
    assert "I have no conversation" in await ask(house, reference, person="bob", channel="bob")
    assert await status_of(house, "my secret") == ("active", None)


async def test_a_groups_list_is_the_groups(house):
    """In a group the shared conversations are listed and switched, and nobody's own."""
    await talk(house, "private words")
    await talk(house, "plans for Friday", **GROUP)
    await talk(house, "/reset", **GROUP)
    listed = await ask(house, "/sessions", **GROUP)
    assert "conversations here" in listed
    assert "plans for Friday" in listed
    assert "private words" not in listed
    (command,) = offered(listed).values()
    assert "“plans for Friday”" in await ask(house, command, person="bob", **GROUP)
    assert await status_of(house, "plans for Friday") == ("active", None)


async def test_switching_while_an_answer_is_written(build):
    """What was accepted is still answered in its own conversation, and the reply says that it comes."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        agent.gate.set()
        await talk(house, "first", "/reset")
        agent.gate.clear()
        await house.deliver("second")
        await house.until(lambda: "second" in agent.begun)
        assert "still being answered; /stop ends it" in await ask(house, "/sessions 2")
        agent.gate.set()
        await house.until_quiet()
        assert "echo: second" in house.shown()
        assert await status_of(house, "second") == ("ended", "completed")


# naming, forking, archiving


async def test_rename_is_what_the_list_shows(house):
    """A title given stands in the list on one line; without one, or before there is anything, it says what to do."""
    assert "We have not talked yet" in await ask(house, "/rename Rome")
    await talk(house, "a trip")
    assert (
        await ask(house, "/rename  Holidays\n in Rome ")
        == "This conversation is called “Holidays in Rome” now."
    )
    assert "● Holidays in Rome · 2 messages" in await ask(house, "/sessions")
    assert "Write the title after it" in await ask(house, "/rename")
    assert "Write the title after it" in await ask(house, "/rename \u200b")
    assert len(await ask(house, "/rename " + "x" * 500)) < 160


async def test_fork_goes_on_in_a_copy(house):
    """The copy begins with everything (or the last so many), the original is kept and can be gone back to."""
    assert "no conversation to copy" in await ask(house, "/fork")
    await talk(house, "one", "two")
    forked = await ask(house, "/fork")
    assert "begins with 4 messages" in forked
    await talk(house, "three")
    counts = await house.rows(
        "SELECT message_count + copied_count AS n, status FROM sessions ORDER BY created_at"
    )
    assert [(row["n"], row["status"]) for row in counts] == [(4, "ended"), (6, "active")]
    assert "“one”: 4 messages" in await ask(house, offered(forked)["Back to the original"])
    assert "begins with 2 messages" in await ask(house, "/fork 2")
    assert "Use /fork, or /fork 10" in await ask(house, "/fork all")
    history = await ask(house, "/history")
    assert history.count("Ada: one") == 1, "what was copied is shown once"


async def test_a_fork_is_what_the_model_sees(build):
    """The first turn in a copy gets the copied messages, and none that were left behind."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    async with house.running():
        await talk(house, "one", "two", "/fork 2", "three")
        assert [message.content for message in agent.contexts[-1].messages] == ["two", "echo: two", "three"]


async def test_a_fork_leaves_what_waits_with_the_original(build):
    """A message that is being answered stays there, and its answer comes."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    async with house.running():
        await talk(house, "one")
        agent.gate.clear()
        await house.deliver("two")
        await house.until(lambda: "two" in agent.begun)
        forked = await ask(house, "/fork")
        assert "begins with 2 messages" in forked
        assert "still being answered" in forked
        agent.gate.set()
        await house.until_quiet()
        assert "echo: two" in house.shown()
        rows = await house.rows("SELECT message_count + copied_count AS n FROM sessions ORDER BY created_at")
        assert [row["n"] for row in rows] == [4, 2]


async def test_archive_puts_away_and_sessions_brings_back(house):
    """/archive ends and archives; the next message begins anew; /sessions makes it the live one again."""
    assert "We have not talked yet" in await ask(house, "/archive")
    await talk(house, "old times")
    assert "“old times” is put away." in await ask(house, "/archive")
    assert await status_of(house, "old times") == ("archived", "completed")
    await talk(house, "new times")
    assert "“old times”" in await ask(house, "/sessions 2")
    assert await status_of(house, "old times") == ("active", None)
    events = await house.rows(
        "SELECT from_status, to_status, reason, made_by, person_id FROM session_events ORDER BY id"
    )
    assert [(row["from_status"], row["to_status"], row["reason"], row["made_by"]) for row in events] == [
        ("active", "ended", "requested", "person"),
        ("ended", "archived", "requested", "person"),
        ("active", "ended", "switched", "person"),
        ("archived", "active", "resumed", "person"),
    ]
    assert {row["person_id"] for row in events} == {
        row["id"] for row in await house.rows("SELECT id FROM persons")
    }


# searching


async def test_search_finds_own_words_only(house):
    """Hits with the words marked, the person's own; another person and a group find none of it."""
    await talk(house, "the train to Rome leaves at nine", "/reset", "bread")
    found = await ask(house, "/search Rome train")
    assert "**train** to **Rome**" in found
    assert "Ada:" in found
    assert await ask(house, "/search submarine") == "I found nothing like that in what we said."
    assert "Write the words after it" in await ask(house, "/search")
    assert "found nothing" in await ask(house, "/search Rome", person="bob", channel="bob")
    assert "found nothing" in await ask(house, "/search Rome", **GROUP)


async def test_search_is_narrowed_by_what_stands_with_the_words(build):
    """Who said it, when, on which platform and in which conversation: alone and together, in either language."""
    clock = MovingClock(NOW - 3 * DAY_MS)
    house = build(now=clock)
    async with house.running():
        await talk(house, "old news about the train", "/reset")
        clock.ms = NOW
        await talk(house, "the train is late")
        said = (
            "Ada: old news about the **train**",
            "bot: echo: old news about the **train**",
            "Ada: the **train** is late",
        )
        for filters, expected in {
            "": [1, 1, 1],
            "from:me": [1, 0, 1],
            "von:bot": [0, 1, 0],
            "since:1d": [0, 0, 1],
            "seit:heute FROM:ME": [0, 0, 1],
            "bis:gestern from:me": [1, 0, 0],
            "until:2d": [1, 1, 0],
            f"until:{ISO(NOW - 3 * DAY_MS)} von:mir": [1, 0, 0],
            f"since:{ISO(NOW)}": [0, 0, 1],
            "in:memory": [1, 1, 1],
            "in:here from:me": [0, 0, 1],
            "in:2 from:me": [1, 0, 0],
            'since:1d -late "the train"': [0, 0, 0],
        }.items():
            found = await ask(house, f"/search train {filters}")
            assert [int(one in found) for one in said] == expected, (filters, found)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("train from:bob", "from:bob tells me nothing"),
        ("train since:soon", "“soon” is no time that I understand. Write since:2026-11-01"),
        ("train until:2026-13-01", "“2026-13-01” is no time"),
        ("train in:discord", "in “discord”. Behind in: stands here, a number that /sessions lists, or one of: memory."),
        ("train in:17", "nothing to look for in “17”"),
        ("train since:today until:yesterday", "Nothing can be said between"),
        ("train from:me from:bot", "from: stands there twice"),
        ("train form:me", "I know no form: here. Did you mean from:?"),
        ("train role:user", "I know no role: here. Did you mean from:?"),
        ("train Before:2026-11-01", "I know no before: here. Did you mean until:?"),
        ("from:me", "Write the words after it"),
        ('"from:me" train', "I found nothing like that"),
        ("train 12:30", "I found nothing like that"),
        ("train seit:irgendwann", "“irgendwann” is no time that I understand. Write seit:2026-11-01"),
    ],
)  # fmt: skip
async def test_a_filter_that_does_not_fit_is_told_so(house, written, told):
    """What is wrong and what works instead is said; nothing is looked for without the filter in silence."""
    await talk(house, "the train is late")
    assert told in await ask(house, f"/search {written}")


async def test_in_a_group_from_me_is_what_i_said(house):
    """In a conversation that many share, `from:me` finds one's own words and not the others'."""
    await talk(house, "/ask my train is late", person="ada", **GROUP)
    await talk(house, "/ask which train", person="bob", **GROUP)
    found = await ask(house, "/search train from:me", person="bob", **GROUP)
    assert "which **train**" in found
    assert "is late" not in found


async def test_search_says_how_many_there_are(house):
    """More hits than are shown are counted."""
    for number in range(4):
        await talk(house, f"apple number {number}")
    found = await ask(house, "/search apple")
    assert found.startswith("Found 8 messages:")
    assert found.endswith("These are the best 5; one more word narrows it down.")


async def test_search_finds_what_was_copied_once(house):
    """A copy does not make two hits of one message."""
    await talk(house, "the submarine", "/fork")
    found = await ask(house, "/search the submarine")
    assert found.count("Ada:") == 1


# numbers


async def test_stats_are_the_persons_own(house):
    """Counts over all conversations of a person, how quickly they were answered, and nobody else's."""
    assert "We have not talked yet" in await ask(house, "/stats")
    await talk(house, "tool=clock one", "/reset", "fail=unavailable")
    await talk(house, "mine", person="bob", channel="bob")
    told = await ask(house, "/stats")
    assert told.startswith("2 conversations, 3 messages, 1 tool call, 1 failure.")
    assert re.search(r"50 % of the questions were answered, half of them within \d+\.\d s, nearly all", told)
    assert re.search(r"Messages of the last 14 days: [·▁-█]{14}$", told)
    assert (await ask(house, "/stats", person="bob", channel="bob")).startswith("1 conversation, 2 messages")


async def test_stats_in_a_group_are_the_conversations(house):
    """What everybody there said in the shared conversation, and nothing of anybody's own."""
    await talk(house, "private")
    assert "We have not talked yet" in await ask(house, "/stats", **GROUP)
    await talk(house, "one", **GROUP)
    await talk(house, "two", person="bob", **GROUP)
    assert (await ask(house, "/stats", **GROUP)).startswith("This conversation: 4 messages")


# forgetting


async def test_forgetting_asks_first(house):
    """/forget offers, a choice asks, and only yes does it; the conversation is gone from every list at once."""
    await talk(house, "my secret plan")
    assert offered(await ask(house, "/forget")) == {
        "This conversation": "/forget session",
        "Everything of mine": "/forget me",
    }
    asked = await ask(house, "/forget session")
    assert "“my secret plan”, 2 messages, will be gone for good" in asked
    assert offered(asked) == {"Yes, forget it": "/forget yes", "No, keep it": "/forget no"}
    assert await status_of(house, "my secret plan") == ("active", None)
    assert "within about a day" in await ask(house, "/forget yes")
    assert await status_of(house, "my secret plan") == ("ended", "deleted")
    assert "no conversation yet" in await ask(house, "/sessions")
    assert "nothing to show" in await ask(house, "/history")
    assert "found nothing" in await ask(house, "/search secret")
    assert "There is no conversation to forget" in await ask(house, "/forget session")
    assert list(offered(await ask(house, "/forget"))) == ["Everything of mine"]


async def test_a_yes_counts_once_for_who_was_asked_where_and_when(build):
    """Without a question, a second time, by somebody else, in another channel or too late, yes does nothing."""
    clock = MovingClock()
    house = build(now=clock)
    async with house.running():
        unasked = "There is nothing for you to confirm. /forget asks first."
        await talk(house, "keep me")
        assert await ask(house, "/forget yes") == unasked
        await ask(house, "/forget session")
        assert await ask(house, "/forget yes", person="bob", channel="ada") == unasked
        assert await ask(house, "/forget yes", channel="g", channel_kind="group") == unasked
        assert await ask(house, "/forget no") == "Nothing is forgotten."
        assert await ask(house, "/forget yes") == unasked
        await ask(house, "/forget session")
        clock.advance(ANSWER_WITHIN_MS / 1000 + 1)
        assert await ask(house, "/forget yes") == unasked
        assert await status_of(house, "keep me") == ("active", None)
        assert "Use /forget, /forget session or /forget me." in await ask(house, "/forget everything")


async def test_forgetting_ends_the_running_answer(build):
    """A conversation that is forgotten is not answered any more: what runs ends, what waits is dropped."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("one")
        await house.deliver("two")
        await house.until(lambda: agent.begun)
        await ask(house, "/forget session")
        assert "Done." in await ask(house, "/forget yes")
        await house.until_quiet()
        assert await house.statuses() == ["cancelled", "cancelled"]
        assert agent.begun == ["one"]


async def test_a_shared_conversation_is_not_one_members_to_remove(house):
    """In a group a member is offered only their own; an operator may remove the conversation."""
    await talk(house, "plans of all", **GROUP)
    assert list(offered(await ask(house, "/forget", **GROUP))) == ["Everything of mine"]
    assert "only an operator can remove it" in await ask(house, "/forget session", **GROUP)
    await house.database.write(lambda tx: tx.execute("UPDATE persons SET role = 'operator'"))
    await ask(house, "/forget session", **GROUP)
    assert "Done." in await ask(house, "/forget yes", **GROUP)
    assert await status_of(house, "plans of all") == ("ended", "deleted")


async def test_forgetting_a_person_is_requested_once_confirmed(house):
    """/forget me asks, and yes hands the person over to those who erase; whoever writes next is a stranger at once."""
    await talk(house, "all my words")
    assert "on every platform I know you on" in await ask(house, "/forget me")
    assert await house.rows("SELECT person_id FROM erasures") == []
    assert "I do not know you any more" in await ask(house, "/forget yes")
    (row,) = await house.rows("SELECT e.actor FROM erasures e")
    assert row["actor"] == "person"
    assert "no conversation" in await ask(house, "/sessions")
    assert "all my words" not in await ask(house, "/history")
    await talk(house, "a new beginning")
    await retention.erase_people(house.database, house.now, pause_s=0)
    assert "a new beginning" in await ask(house, "/history")


# what was brought along from other programs


async def bring_along(house, user="ada"):
    """A chat of somebody with another program, in their archive."""
    (person,) = await house.rows("SELECT person_id FROM identities WHERE platform_user_id = :user", user=user)
    found, _ = foreign.records(OPENAI, "openai", person["person_id"])
    await importing.store(house.database, found, house.now)


async def test_a_conversation_brought_along_goes_on_in_a_copy(build):
    """It is listed for its person alone, picking it begins a copy here that the agent reads, and it stays as it was."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    async with house.running():
        await talk(house, "hello")
        await bring_along(house)
        listed = offered(await ask(house, "/sessions"))
        assert [label.split(" · ")[0] for label in listed] == ["● hello", "Trip to Lisbon"]
        (lisbon,) = [command for label, command in listed.items() if "Lisbon" in label]
        assert "I have no conversation" in await ask(house, lisbon, person="bob", channel="bob")
        assert "Lisbon" not in await ask(house, "/sessions", **GROUP)

        assert "We go on in a copy that begins with 2 messages" in await ask(house, lisbon)
        assert await status_of(house, "hello") == ("ended", "completed")
        await talk(house, "and after that?")
        seen = [message.content for message in agent.contexts[-1].messages]
        assert seen == ["Where is this?", "In Lisbon.", "and after that?"]
        history = await ask(house, "/history")
        assert history.count("Where is this?") == 1 and "and after that?" in history
        assert "Found one message" in await ask(house, "/search Lisbon")
        titles = [label.split(" · ")[0] for label in offered(await ask(house, "/sessions"))]
        assert titles == ["● ⑂ Trip to Lisbon", "hello", "Trip to Lisbon"]
        (kept,) = await house.rows("SELECT status, message_count FROM sessions WHERE platform = 'openai'")
        assert kept == {"status": "archived", "message_count": 2}
        assert await broken(house.database) == set()


# what groups and menus see


async def test_other_bots_commands_in_a_group_are_left_to_them(house):
    """A group's unknown command that names no bot gets no answer, unless it is nearly one of ours; one that names us does."""
    receipt = await house.deliver("/quantum", is_bare_command=True, **GROUP)
    assert (receipt.outcome, receipt.reason) == ("declined", "unknown_command")
    assert "Did you mean /sessions?" in await ask(house, "/session", **GROUP)
    assert house.shown("g") == ["I do not know /session. Did you mean /sessions?"]
    assert "I do not know /quantum" in await ask(house, "/quantum", **GROUP)
    assert "I do not know /quantum" in await ask(house, "/quantum")


async def test_history_leads_to_the_pages_beside(house):
    """A page of /history offers the older and the newer one, where there are such."""
    for number in range(11):
        await talk(house, f"question {number}")
    assert offered(await ask(house, "/history")) == {"Older": "/history 2"}
    assert offered(await ask(house, "/history 2")) == {"Older": "/history 3", "Newer": "/history 1"}
    assert offered(await ask(house, "/history 3")) == {"Newer": "/history 2"}


def test_every_choice_we_offer_fits_a_button():
    """The longest commands that we put on buttons are within Telegram's limit."""
    for command in ("/sessions page 99999999", "/history 99999999", "/forget session", "/sessions 0123ab"):
        assert len(Choice("x", command).command.encode()) <= 64
        assert commands.parse(command) is not None


# search by meaning, and where nothing goes on


class Thesaurus:
    """A double of the encoder: doctor and dentist point one way, all else another; some texts are too much for it."""

    def encode(self, texts):
        assert not any("from:" in text for text in texts)  # a filter is no meaning
        if "boom" in texts:
            raise RuntimeError("out of memory")
        near = [any(word in text for word in ("doctor", "dentist")) for text in texts]
        return [struct.pack("<2e", *((1, 0) if is_near else (0, 1))) for is_near in near]


async def test_a_person_finds_by_meaning_what_is_theirs(build):
    """With an encoder /search finds the dentist by the doctor, nobody else's, and goes on by words if it fails."""
    house = build()
    house.encoder = Thesaurus()
    async with house.running():
        await talk(house, "the dentist on Tuesday", "boom goes the drum")
        await talk(house, "my own dentist", channel="bob", person="bob")
        upkeep = Upkeep(house.database, encoder=house.encoder)
        await upkeep.work()
        found = await ask(house, "/search doctor from:me")
        assert "the dentist on Tuesday" in found
        assert "my own" not in found
        with capture_logs() as logs:
            assert "**boom** goes" in await ask(house, "/search boom")
        assert [one["event"] for one in logs if one["log_level"] == "error"] == ["gateway.encoding_failed"]


async def test_after_a_conversation_is_over_nothing_is_said_to_have_never_been(house):
    """What needs a conversation says that we have started fresh, not that we never talked; before the first it may."""
    for command in ("/rename Rome", "/archive", "/stats", "/status"):
        assert await ask(house, command) == "We have not talked yet. Write something and I answer."
    await talk(house, "a trip to Rome")
    await ask(house, "/archive")
    for command in ("/rename Rome", "/archive", "/status"):
        assert "We have started fresh" in await ask(house, command)


async def test_a_copy_can_be_told_from_its_original(house):
    """Both keep a title that was given; the list marks the copy."""
    await talk(house, "a trip to Rome")
    await ask(house, "/rename Rome")
    await ask(house, "/fork")
    copy, original = offered(await ask(house, "/sessions"))
    assert copy.startswith("● ⑂ Rome ·")
    assert original.startswith("Rome ·")


async def test_tokens_are_told_only_where_there_are_some(build):
    """The built-in agent has none, and says nothing of them."""
    house = build()
    async with house.running():
        await talk(house, "hello")
        assert "tokens" not in await ask(house, "/stats")
        await house.database.write(lambda tx: tx.execute("UPDATE sessions SET input_tokens = 12345"))
        assert "12,345 tokens read, 0 written." in await ask(house, "/stats")
        told = await ask(house, "/stats", language="de")
        assert "die Hälfte davon in 0,1 s" in told
        assert "12.345 Tokens gelesen, 0 geschrieben." in told


async def test_a_long_title_gives_way_to_what_stands_behind_it(build):
    """A label has sixty characters at most, which Telegram shows: how long and when is always among them."""
    clock = MovingClock()
    house = build(now=clock)
    async with house.running():
        await talk(house, "Plan a trip to Rome in May with two kids and a dog, please")
        (label,) = offered(await ask(house, "/sessions"))
        assert len(label) <= 60
        assert re.fullmatch(r"● Plan a trip to Rome in .*… · 2 messages · \d\d:\d\d", label)
        clock.advance(23 * 3600)
        (label,) = offered(await ask(house, "/sessions"))
        assert re.fullmatch(r"● Plan a trip.*… · 2 messages · \d{4}-\d\d-\d\d", label)
        assert len(label) <= 60


async def test_times_are_written_as_in_the_persons_language(house):
    """Day before month in German, the year first in English; both say that they are UTC."""
    await talk(house, "hello")
    assert re.search(r"UTC:\n\n\d{4}-\d\d-\d\d \d\d:\d\d Ada", await ask(house, "/history"))
    assert re.search(r"UTC:\n\n\d\d\.\d\d\.\d{4} \d\d:\d\d Ada", await ask(house, "/history", language="de"))
