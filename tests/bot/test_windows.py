"""What a turn's agent sees, what happens when the provider says it is too much, and what the person is told."""

import json

import pytest
from structlog.testing import capture_logs

from adapters.messages import Attachment
from bot.agents.base import AgentError, ModelAnswer, ToolOutcome, ToolRequest, Usage
from bot.agents.llm.agent import LlmAgent
from bot.agents.scripted import ScriptedAgent
from bot.tools.registry import Tool
from bot.windows import MOST_NARROWINGS, TurnWindow, tool_tokens
from sessions import lifecycle, tokens
from sessions.context import see_session
from sessions.scope import OperatorScope
from tests.fakes.llm.server import FakeLlm, Rule
from tests.fakes.llm.wires import Answer, Call


class PickyAgent:
    """A model with a window of its own: more tokens than that are refused. Answers with what it saw last."""

    name = "picky"

    def __init__(self, takes: int, *, reports: float = 0) -> None:
        self.takes = takes
        self.reports = reports
        self.seen: list[int] = []
        self.contexts = []

    async def run(self, context, tools):
        counted = sum(
            tokens.count_each(
                [
                    context.instructions,
                    *(message.content for message in context.messages),
                    *(step.content if isinstance(step, ToolOutcome) else step.text for step in context.steps),
                ]
            )
        )
        self.seen.append(counted)
        self.contexts.append(context)
        if counted > self.takes:
            raise AgentError("context_too_long", f"{counted} tokens are more than {self.takes}")
        text = f"saw {len(context.messages)} messages"
        yield ModelAnswer(text, (), Usage(round(counted * self.reports), 3), self.name)
        async for event in ScriptedAgent([text]).run(context, tools):
            if not isinstance(event, ModelAnswer):
                yield event

    async def close(self):
        """Nothing to close."""


async def chat(house, messages):
    for text in messages:
        await house.deliver(text)
        await house.until_quiet()


async def test_a_refusal_is_answered_with_less(build):
    """context_too_long: the turn asks again with less each time, and gets its answer."""
    agent = PickyAgent(500)
    house = build(agent=agent)
    async with house.running():
        with capture_logs() as logs:
            await chat(house, ["word " * 150 for _ in range(8)])
        assert (await house.statuses()) == ["completed"] * 8
        narrowed = [line for line in logs if line["event"] == "turn.context_narrowed"]
        assert narrowed
        refused = [counted for counted in agent.seen if counted > 500]
        assert len(refused) == len(narrowed)


async def test_what_was_learned_is_remembered(build):
    """After one refusal the session's next turns begin with what went through; another agent begins with the setting."""
    agent = PickyAgent(900)
    house = build(agent=agent)
    async with house.running():
        await chat(house, ["word " * 300 for _ in range(5)])
        refusals = sum(counted > 900 for counted in agent.seen)
        assert refusals == 1
        await chat(house, ["word " * 300 for _ in range(3)])
        assert sum(counted > 900 for counted in agent.seen) == 1
        (row,) = await house.rows("SELECT learned_tokens, learned_for FROM sessions")
        assert row["learned_for"] == "picky"
        assert row["learned_tokens"] <= 900
        other = PickyAgent(10**9)
        other.name = "roomy"
        house.agents[None] = other
        await chat(house, ["and you?"])
        assert other.seen[-1] > row["learned_tokens"]


async def test_a_model_that_refuses_everything_fails_the_turn_with_a_sentence(build):
    """At most three further tries, each smaller; then the person reads what is the matter."""
    agent = PickyAgent(-1)
    house = build(agent=agent)
    async with house.running():
        await chat(house, ["word " * 2000])
        assert await house.statuses() == ["failed"]
        assert "too long for the model" in house.shown()[-1]
    assert len(agent.seen) == 1 + MOST_NARROWINGS
    assert agent.seen == sorted(agent.seen, reverse=True)
    assert len(set(agent.seen)) == len(agent.seen)


async def test_a_refusal_with_nothing_to_give_up_is_not_repeated(build):
    """A short message alone cannot be made smaller: no request is repeated as it was."""
    agent = PickyAgent(-1)
    house = build(agent=agent)
    async with house.running():
        await chat(house, ["hi"])
        assert await house.statuses() == ["failed"]
    assert len(agent.seen) == 1


@pytest.mark.parametrize(
    ("language", "words"), [("en", "too long for my model"), ("de", "zu lang für mein Modell")]
)
async def test_a_message_that_was_cut_is_told_to_its_person(build, language, words):
    """The reply ends with one sentence; what is stored as the answer does not."""
    house = build(agent=PickyAgent(10**9), turns={"max_message_chars": 100_000})
    async with house.running():
        await house.deliver("word " * 8000, language=language)
        await house.until_quiet()
        assert words in house.shown()[-1]
        (row,) = await house.rows("SELECT content FROM messages WHERE part = 1")
        assert words not in row["content"]
        await chat(house, ["short"])
        assert words not in house.shown()[-1]


async def test_tool_output_is_whole_in_the_store_and_shortened_for_the_model(build):
    """A tool that gives 18,000 characters of Chinese: recorded as they are, read by the model within half the window."""
    huge = "漢字" * 9_000

    async def flood(_arguments, _context):
        return huge

    seen = []

    class Reader(ScriptedAgent):
        async def run(self, context, tools):
            request = ToolRequest("c1", "flood", {})
            yield ModelAnswer("", (request,), Usage(), "reader")
            seen.append((await tools.call(request)).content)
            async for event in ScriptedAgent(["done"]).run(context, tools):
                yield event

    tool = Tool("flood", "Gives much.", {"type": "object", "properties": {}}, flood)
    house = build(agent={"tools": ["flood"]}, tools=[tool])
    house.agents[None] = Reader()
    async with house.running():
        await chat(house, ["go"])
        assert await house.statuses() == ["completed"]
        (row,) = await house.rows("SELECT result FROM tool_calls")
    assert row["result"] == huge
    assert tokens.count(seen[0]) <= 2000


async def test_the_providers_count_corrects_ours(build):
    """A provider that reports twice as many tokens: the ratio grows turn by turn and stays within its bounds."""
    agent = PickyAgent(10**9, reports=2.0)
    house = build(agent=agent)
    async with house.running():
        await chat(house, ["word " * 200 for _ in range(6)])
        (row,) = await house.rows("SELECT token_ratio FROM sessions")
        assert 1200 < row["token_ratio"] <= 2000
        before = row["token_ratio"]
        agent.reports = 0.0
        await chat(house, ["word " * 200])
        (row,) = await house.rows("SELECT token_ratio FROM sessions")
        assert row["token_ratio"] == before, "no report, no lesson"


async def test_turns_find_their_conversation_remembered(build):
    """From the second turn on, and with the same messages in front of the agent as without memory."""
    seen = []
    for hot_bytes in (0, 10**6):
        agent = PickyAgent(10**9)
        house = build(name=f"with-{hot_bytes}", agent=agent, store={"hot_bytes": hot_bytes})
        async with house.running():
            await chat(house, [f"message {number}" for number in range(30)])
            assert house.hot.hits == (29 if hot_bytes else 0)
            assert house.hot.misses == (1 if hot_bytes else 30)
        seen.append([[(one.role, one.content) for one in context.messages] for context in agent.contexts])
    assert seen[0][:9] == seen[1][:9]


async def test_the_tools_are_within_the_limit(build):
    """Instructions, descriptions of tools and conversation together are no more than a model's limit, and shown as they are."""
    house = build(agent={"kind": "llm", "context_tokens": 1500, "summaries": "off"})
    agent = house.agents[None] = PickyAgent(10**9)
    requests = []

    async def look(context, tools, run=agent.run):
        described = [f"{spec.name} {spec.description} {json.dumps(spec.parameters)}" for spec in tools.specs]
        texts = [context.instructions, *described, *(message.content for message in context.messages)]

        def see(tx):
            session = lifecycle.find(tx, context.session_id, OperatorScope())
            beside = tool_tokens(house.settings, None)
            return see_session(tx, session, house.settings, agent.name, tool_tokens=beside).parts

        requests.append(
            (sum(tokens.count_each(texts)), sum(tokens.count_each(described)), await house.database.read(see))
        )
        async for event in run(context, tools):
            yield event

    agent.run = look
    async with house.running():
        await chat(house, [f"point {number}: " + "words and " * 60 for number in range(12)])
    assert len(requests) == 12
    assert max(total for total, _, _ in requests) <= 1500
    assert max(total for total, _, _ in requests) > 1200
    for total, described, parts in requests:
        assert described > 100
        assert described * 0.8 <= parts.tools <= described * 1.2  # written in another way, about as long
        assert total * 0.9 <= parts.total <= parts.limit


def on_the_wire(body):
    """Tokens of a chat-completions request: the words of its messages, its calls and its tools, and four around each message."""
    told = [json.dumps(tool, ensure_ascii=False, separators=(",", ":")) for tool in body.get("tools", ())]
    for message in body["messages"]:
        told.append(message.get("content") or "")
        told.append(message.get("tool_call_id") or "")
        calls = message.get("tool_calls")
        told.append(json.dumps(calls, ensure_ascii=False, separators=(",", ":")) if calls else "")
    return sum(tokens.count_each(told)) + tokens.PER_MESSAGE * len(body["messages"]) + 3


async def test_what_is_counted_is_what_goes_over_the_wire(build):
    """Alone, in a group with names, with files, with tool calls and with summaries: never counted under, and a few percent over."""
    photo = Attachment("image", "x", "the garden gate in the evening.jpg", "image/jpeg", 12345)
    async with FakeLlm(key="k").running() as server:
        agent = {"kind": "llm", "model": "openai:fake", "base_url": server.openai_url, "api_key": "k"}
        house = build(agent={**agent, "context_tokens": 1800, "context_messages": 12})
        house.agents[None] = LlmAgent(house.settings.agent, environ={})
        seen = []
        compose = TurnWindow.context

        def context(window, steps):
            found = compose(window, steps)
            seen.append(round(window.seen.parts.total / window._claim.window.ratio))
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TurnWindow, "context", context)
            async with house.running():
                await chat(house, ["hello", "what is 17 + 25?"])
                server.rules.append(
                    Rule("^sum", Answer("", [Call("calculator", '{"expression": "17 + 25"}')]), times=1)
                )
                await chat(house, ["sum it up, please: 17 + 25"])
                await house.deliver("look at this", attachments=(photo, photo))
                await house.until_quiet()
                group = {"channel": "g", "channel_kind": "group"}
                for person in ("Ada Lovelace", "Grace Brewster Murray Hopper", "Ada Lovelace") * 3:
                    await house.deliver(f"/ask {person} says so", person=person, **group)
                    await house.until_quiet()
                for number in range(30):
                    await chat(house, [f"point {number}: " + "words and numbers, " * 20])
                    await house.until(lambda: not house.summariser.running)
            await house.agents[None].close()
        first = [one for one in server.journal if one.tools and one.messages[-1].role == "user"]
        sent = [on_the_wire(entry.body) for entry in first]
        assert len(sent) > 40
        assert any("Ada lovelace: Ada" in entry.messages[-1].text for entry in first)
        assert any("[attached: image, the garden gate" in entry.messages[-1].text for entry in first)
        assert any("as notes" in message.text for entry in first for message in entry.messages)
        over = [counted / size - 1 for counted, size in zip(seen, sent, strict=True)]
        print(f"counted over the wire by {min(over):.1%} to {max(over):.1%}")
        assert min(over) >= 0
        assert max(over) <= 0.05


async def test_status_tells_what_the_next_turn_would_be_given(build):
    """The percentage is of the very context that is composed for the model, summaries included."""
    house = build(agent=PickyAgent(10**9))
    async with house.running():
        await chat(house, ["word " * 190 for _ in range(6)])
        await chat(house, ["/status"])
        percent = int(house.shown()[-1].split("about ")[1].split(" %")[0])
        assert 25 <= percent <= 40


async def test_what_is_shown_of_a_context_is_what_the_agent_got(build):
    """At each turn of a conversation that outgrows its window, summaries and a message that is cut included."""
    house = build(agent={"context_tokens": 700, "context_messages": 12})
    agent = house.agents[None] = PickyAgent(10**9)
    shown = []

    async def look(context, tools, run=agent.run):
        def see(tx):
            session = lifecycle.find(tx, context.session_id, OperatorScope())
            return see_session(tx, session, house.settings, agent.name)

        shown.append((context, await house.database.read(see)))
        async for event in run(context, tools):
            yield event

    agent.run = look
    async with house.running():
        for text in [
            *(f"point {number}: " + "words and " * (7 * number % 61) for number in range(40)),
            "long " * 900,
        ]:
            await chat(house, [text])
            await house.until(lambda: not house.summariser.running)  # else it may come in between
    assert len(shown) == 41
    for context, seen in shown:
        told = [*([seen.notes] if seen.notes else []), *(message.content for message in seen.messages)]
        assert [message.content for message in context.messages] == told
        assert context.instructions == seen.instructions
        assert seen.is_within
    assert sum(bool(seen.notes) for _, seen in shown) > 20
    assert shown[-1][1].is_cut
