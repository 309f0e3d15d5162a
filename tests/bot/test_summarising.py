"""Summarising in the background: by the model or a digest, never in the way of a reply, whole or not at all."""

import asyncio
import itertools

import pytest
from structlog.testing import capture_logs

from bot.agents.base import AgentError, ContextMessage, Final, ModelAnswer, Usage
from bot.summarising import INSTRUCTIONS, Summariser, transcript
from sessions import tokens
from sessions.digest import Spoken
from sessions.errors import StoreUnavailable


class NotesAgent:
    """A model that writes notes, as long and as slowly as a test wants."""

    name = "notes"

    def __init__(self, text="- Ada: the code is 7741", *, error=None):
        self.text = text
        self.error = error
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, context, tools):
        self.asked.append(context)
        assert list(tools.specs) == []
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        yield ModelAnswer(self.text, (), Usage(120, 12), self.name)
        yield Final(self.text)

    async def close(self):
        """Nothing to close."""


async def chat(house, turns, words="my name is Morwenna and I like tea", *, person="ada"):
    for number in range(turns):
        await house.deliver(f"message {number}: {words}", person=person)
        await house.until_quiet()


async def until_summarised(house):
    await house.until(lambda: house.summariser.running == 0)


async def stored(house):
    return await house.rows("SELECT * FROM summaries ORDER BY id")


async def test_the_model_of_the_session_writes_the_summary(build):
    """It gets the transcript and an instruction, no tools; what it cost is written down; the next turn sees it."""
    house = build()
    agent = house.summary_agent = NotesAgent()
    async with house.running():
        await chat(house, 10)
        await until_summarised(house)
        (row,) = await stored(house)
        assert (row["content"], row["made_by"], row["level"]) == ("- Ada: the code is 7741", "notes", 1)
        assert (row["input_tokens"], row["output_tokens"]) == (120, 12)
        assert (row["from_position"], row["to_position"]) == (1, 7)
        (asked,) = agent.asked
        assert asked.instructions.startswith(INSTRUCTIONS[:60])
        assert "Ada: message 0: my name is Morwenna" in asked.messages[0].content
        assert "Bot: echo: message 6" in asked.messages[0].content
        assert "message 7" not in asked.messages[0].content
        seen = []
        house.agents[None] = Watcher(seen)
        await chat(house, 1)
        assert "the code is 7741" in seen[0].messages[0].content
        assert seen[0].messages[1].content.startswith("message 7")


class Watcher(NotesAgent):
    """Keeps the contexts of turns."""

    def __init__(self, seen):
        super().__init__("ok")
        self.seen = seen

    async def run(self, context, tools):
        self.seen.append(context)
        yield ModelAnswer("ok", (), Usage(), self.name)
        yield Final("ok")


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        (None, None),
        (NotesAgent(error=AgentError("unavailable", "down")), "unavailable"),
        (NotesAgent(error=RuntimeError("secret words of Morwenna")), "RuntimeError"),
        (NotesAgent("   \n "), "bad_answer"),
    ],
)
async def test_without_a_model_that_works_the_digest_stands_in(build, agent, kind):
    """No model, one that fails, one that says nothing: there is a summary, and the log tells no word of the conversation."""
    house = build()
    house.summary_agent = agent
    async with house.running():
        with capture_logs() as logs:
            await chat(house, 10)
            await until_summarised(house)
        (row,) = await stored(house)
        assert row["made_by"] == "digest"
        assert "Morwenna" in row["content"]
        failures = [line for line in logs if line["event"] == "summary.model_failed"]
        assert [line["kind"] for line in failures] == ([kind] if kind else [])
        told = [line for line in logs if line["event"].startswith("summary.")]
        assert told
        assert "Morwenna" not in str(told)


async def test_a_model_that_takes_too_long_is_given_up(build):
    """After summary_timeout_s the digest is taken."""
    house = build(agent={"summary_timeout_s": 0.05})
    agent = house.summary_agent = NotesAgent()
    agent.gate.clear()
    async with house.running():
        await chat(house, 10)
        await until_summarised(house)
        assert [row["made_by"] for row in await stored(house)] == ["digest"]


async def test_notes_that_are_too_long_are_shortened(build):
    """A model that writes a novel: at most 500 tokens are kept, whole lines, those with facts in them."""
    house = build()
    house.summary_agent = NotesAgent(
        "\n".join(
            [f"- Ada talked about some thing or other, part {'x' * n}" for n in range(1, 90)]
            + ["- The code is 7741"]
        )
    )
    async with house.running():
        await chat(house, 10)
        await until_summarised(house)
        (row,) = await stored(house)
    assert tokens.count(row["content"]) <= 500
    assert "7741" in row["content"]


async def test_a_summary_holds_up_neither_replies_nor_other_sessions(build):
    """While the model thinks about the notes, the same person and another one get their answers."""
    house = build()
    agent = house.summary_agent = NotesAgent()
    agent.gate.clear()
    async with house.running():
        await chat(house, 10)
        await house.until(lambda: house.summariser.running == 1)
        await chat(house, 3)
        await chat(house, 3, person="bob")
        assert len(house.shown("ada")) == 13
        assert len(house.shown("bob")) == 3
        assert await stored(house) == []
        assert len(agent.asked) == 1, "one at a time in a session"
        agent.gate.set()
        await until_summarised(house)
        assert len(await stored(house)) >= 1


async def test_a_reset_while_the_model_writes_wins(build):
    """The summary is thrown away, and the new session knows nothing of it."""
    house = build()
    agent = house.summary_agent = NotesAgent()
    agent.gate.clear()
    async with house.running():
        await chat(house, 10)
        await house.until(lambda: house.summariser.running == 1)
        await house.deliver("/reset")
        with capture_logs() as logs:
            agent.gate.set()
            await until_summarised(house)
        assert await stored(house) == []
        assert "summary.refused" in [line["event"] for line in logs]


async def test_switched_off_nothing_is_summarised(build):
    """agent.summaries = "off": no task, no row."""
    house = build(agent={"summaries": "off"})
    house.summary_agent = NotesAgent()
    async with house.running():
        await chat(house, 12)
        assert house.summariser.running == 0
        assert await stored(house) == []


async def test_digest_only_asks_no_model(build):
    """agent.summaries = "digest" spends nothing."""
    house = build(agent={"summaries": "digest"})
    agent = house.summary_agent = NotesAgent()
    async with house.running():
        await chat(house, 10)
        await until_summarised(house)
        assert [row["made_by"] for row in await stored(house)] == ["digest"]
    assert agent.asked == []


async def test_a_long_conversation_is_kept_within_its_share(build):
    """Summaries are stacked and made one when they are too many; together they cover everything once, in order."""
    house = build(agent={"context_tokens": 1200})
    async with house.running():
        for number in range(60):
            await house.deliver(
                f"fact {number} is about person number {number * 7} and their dog {'abc' * (number % 5)}"
            )
            await house.until_quiet()
            await until_summarised(house)
        rows = [row for row in await stored(house) if row["replaced_by"] is None]
        assert rows[0]["from_position"] == 1
        for before, after in itertools.pairwise(rows):
            assert after["from_position"] == before["to_position"] + 1
        (session,) = await house.rows("SELECT summarised_to FROM sessions")
        assert rows[-1]["to_position"] == session["summarised_to"]
        assert sum(row["tokens"] for row in rows) <= 1200 * 3 / 8
        assert max(row["level"] for row in await stored(house)) > 1


async def test_summaries_made_anew_replace_all_at_once(build):
    """By the model this time; the old ones are no more in force, and no text of theirs was used."""
    house = build()
    async with house.running():
        for _ in range(3):
            await chat(house, 12)
            await until_summarised(house)
        before = await stored(house)
        assert len(before) >= 3
        agent = house.summary_agent = NotesAgent("- made anew")
        (session,) = await house.rows("SELECT id, summarised_to FROM sessions")
        assert await house.summariser.resummarise(session["id"]) == 1
        rows = [row for row in await stored(house) if row["replaced_by"] is None]
        assert [(row["content"], row["from_position"], row["to_position"]) for row in rows] == [
            ("- made anew", 1, session["summarised_to"])
        ]
        assert "message 0" in agent.asked[0].messages[0].content
        assert await house.summariser.resummarise("nobody") is None


async def test_making_anew_loses_against_something_newer(build):
    """A summary that was stored meanwhile stays in force, and nothing of the other is to be seen."""
    house = build()
    async with house.running():
        await chat(house, 12)
        await until_summarised(house)
        (session,) = await house.rows("SELECT id FROM sessions")
        agent = house.summary_agent = NotesAgent("- made anew")
        agent.gate.clear()
        anew = asyncio.create_task(house.summariser.resummarise(session["id"]))
        await house.until(lambda: len(agent.asked) == 1)
        house.summary_agent = None
        await chat(house, 12)
        await until_summarised(house)
        agent.gate.set()
        assert await anew is None
        assert "made anew" not in str([row["content"] for row in await stored(house)])


async def test_a_store_that_is_gone_is_no_disaster(build):
    """The summary is left for a later turn, with a line in the log; replies are not touched."""
    house = build()
    async with house.running():
        broken = Refusing(house.database)
        summariser = Summariser(broken, house.settings, lambda _persona: None)
        await chat(house, 9)
        (session,) = await house.rows("SELECT id FROM sessions")
        with capture_logs() as logs:
            summariser.notify(session["id"])
            await house.until(lambda: summariser.running == 0)
        assert [line["event"] for line in logs] == ["summary.failed"]


class Refusing:
    """A store that cannot be read."""

    def __init__(self, inner):
        self.dialect = inner.dialect

    async def read(self, work):
        raise StoreUnavailable("gone")


async def test_closing_lets_go_of_what_is_not_done(build):
    """A model that never answers does not hold the end of the daemon up, and nothing half done is stored."""
    house = build()
    agent = house.summary_agent = NotesAgent()
    agent.gate.clear()
    async with house.running():
        await chat(house, 10)
        await house.until(lambda: house.summariser.running == 1)
    again = build(room=house.room)
    async with again.running():
        assert await stored(again) == []
        await chat(again, 1)
        await until_summarised(again)
        assert len(await stored(again)) == 1


def test_a_transcript_shortens_the_longest_first():
    """Within the limit; short messages are whole, the giant one is cut."""
    said = [
        Spoken("Ada", "short one"),
        Spoken("Bob", "giant " * 5000),
        Spoken("Bot", "an answer", is_person=False),
    ]
    text = transcript(said, 300)
    assert tokens.count(text) <= 300
    assert "Ada: short one" in text
    assert "Bot: an answer" in text
    assert "[…]" in text
    assert isinstance(ContextMessage("user", text).content, str)
