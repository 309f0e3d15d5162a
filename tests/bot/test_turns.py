"""One turn: what is recorded, what a failure becomes, and what a crash in its middle costs."""

import asyncio
import time
from typing import get_args

import orjson
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from bot import story
from bot.agents.base import AgentError, AgentErrorKind, Final, ModelAnswer, TextDelta, ToolRequest, Usage
from bot.agents.offline import OfflineAgent
from bot.agents.scripted import CallTools, Delay, ScriptedAgent
from bot.tools.registry import ToolArguments, ToolFailed, make_tool
from sessions import history
from tests.bot.house import SHORT_LEASE, GatedAgent

CLOCK = ToolRequest("c1", "clock", {"place": "Tokyo"})


class Playing:
    """An agent made of one function."""

    name = "playing"

    def __init__(self, play):
        self.play = play

    def run(self, context, tools):
        return self.play(context, tools)

    async def close(self):
        """Nothing to close."""


def failing(error):
    async def play(_context, _tools):
        yield TextDelta("so far so ")
        raise error

    return Playing(play)


class Counted:
    """A tool that counts its runs; it can fail, and some words hold it."""

    def __init__(self):
        self.runs = []
        self.keys = []
        self.held = set()

    @property
    def tool(self):
        class Arguments(ToolArguments):
            word: str = ""

        async def run(arguments, context):
            self.runs.append(arguments.word)
            self.keys.append(context.idempotency_key)
            if arguments.word in self.held:
                await asyncio.sleep(30)
            if arguments.word == "fail":
                raise ToolFailed("The tool cannot do that.")
            if arguments.word == "break":
                raise RuntimeError("inside")
            return f"did {arguments.word}"

        return make_tool("count", "Counts.", Arguments, run, has_side_effects=True)


USES_COUNT = {"agent": {"tools": ["count"]}}


def count(call_id, word):
    return ToolRequest(call_id, "count", {"word": word})


# recording


async def test_steps_and_tool_calls_are_recorded(build):
    """Each answer and each tool result is a step; a tool call has name, arguments, result, duration and outcome."""
    house = build(script=["Let me see.", Usage(10, 2), CLOCK, "It is {1}.", Usage(20, 5)])
    async with house.running():
        await house.adapter.ask("what time is it in Tokyo?")
        steps = await house.rows("SELECT number, kind, payload FROM steps ORDER BY number")
        assert [(row["number"], row["kind"]) for row in steps] == [
            (1, "answer"),
            (2, "tool_result"),
            (3, "answer"),
        ]
        first = orjson.loads(steps[0]["payload"])
        assert (first["text"], first["usage"]) == ("Let me see.", [10, 2])
        call = (await house.rows("SELECT * FROM tool_calls"))[0]
        assert (call["step"], call["call_id"], call["name"], call["outcome"]) == (2, "c1", "clock", "ok")
        assert orjson.loads(call["arguments"]) == {"place": "Tokyo"}
        assert "Asia/Tokyo" in call["result"]
        assert call["duration_ms"] >= 0
        assert call["started_at"] > 0


async def test_the_answer_is_part_of_the_conversation(build):
    """Question and answer are stored with who said them, and the agent sees them the next time."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    async with house.running():
        await house.adapter.ask("one")
        await house.adapter.ask("two")
        said = agent.contexts[-1].messages
        assert [(message.role, message.content) for message in said] == [
            ("user", "one"),
            ("assistant", "echo: one"),
            ("user", "two"),
        ]
        assert all(message.name is None for message in said)


async def test_tokens_and_counters_are_summed(build):
    """The turn has the sum of its requests' tokens; the session the sum of its turns', with messages and tool calls."""
    house = build(script=["a", Usage(10, 2), CLOCK, "b", Usage(20, 5)])
    async with house.running():
        await house.adapter.ask("one")
        await house.adapter.ask("two")
        turn = (await house.rows("SELECT * FROM turns"))[0]
        assert (turn["input_tokens"], turn["output_tokens"], turn["tool_calls"], turn["agent"]) == (
            30,
            7,
            1,
            "scripted",
        )
        session = (await house.rows("SELECT * FROM sessions"))[0]
        assert (session["input_tokens"], session["output_tokens"]) == (60, 14)
        assert (session["message_count"], session["tool_call_count"], session["error_count"]) == (4, 2, 0)


async def test_failing_tools_are_recorded_and_cost_only_their_call(build):
    """A tool that fails, breaks, or does not exist gives the model a sentence and the record a cause; the turn goes on."""
    counted = Counted()
    calls = CallTools(
        (count("a", "fail"), count("b", "break"), ToolRequest("c", "no_such", {}), count("d", "well"))
    )
    house = build(script=[calls, "{1} | {2} | {3} | {4}"], tools=[counted.tool], **USES_COUNT)
    async with house.running():
        assert await house.adapter.ask("go") == [
            (
                "The tool cannot do that. | count failed because of an internal error."
                " | There is no tool called no_such. | did well"
            )
        ]
        recorded = await house.rows("SELECT call_id, outcome, cause, step FROM tool_calls ORDER BY call_id")
        assert [row["outcome"] for row in recorded] == ["error", "error", "error", "ok"]
        assert "RuntimeError: inside" in recorded[1]["cause"]
        session = (await house.rows("SELECT tool_call_count, error_count FROM sessions"))[0]
        assert (session["tool_call_count"], session["error_count"]) == (4, 3)


async def test_calls_side_by_side_have_steps_of_their_own(build):
    """Of tool calls made side by side each is recorded under its own step, the one that its result has."""
    counted = Counted()
    house = build(
        script=[CallTools(tuple(count(f"c{n}", f"w{n}") for n in range(5))), "done"],
        tools=[counted.tool],
        **USES_COUNT,
    )
    async with house.running():
        await house.adapter.ask("go")
        calls = await house.rows("SELECT step, call_id FROM tool_calls ORDER BY step")
        steps = await house.rows(
            "SELECT number, payload FROM steps WHERE kind = 'tool_result' ORDER BY number"
        )
        assert [row["step"] for row in calls] == [2, 3, 4, 5, 6]
        assert [row["call_id"] for row in calls] == [orjson.loads(row["payload"])["call_id"] for row in steps]


async def test_a_call_id_used_again_is_another_call(build):
    """Some servers number each answer's calls anew: the second `call_0` of a turn runs, under another key."""
    counted = Counted()
    house = build(
        script=[count("call_0", "one"), count("call_0", "two"), "{1}, {2}"],
        tools=[counted.tool],
        **USES_COUNT,
    )
    async with house.running():
        assert await house.adapter.ask("go") == ["did one, did two"]
    assert counted.runs == ["one", "two"]
    assert len(set(counted.keys)) == 2


async def test_a_tool_that_is_not_allowed_does_not_run(build):
    """A tool that exists but is not among the agent's own is as good as none."""
    counted = Counted()
    house = build(script=[count("a", "x"), "{1}"], tools=[counted.tool], agent={"tools": []})
    async with house.running():
        assert await house.adapter.ask("go") == ["There is no tool called count."]
    assert counted.runs == []


async def test_one_canonical_line_per_turn(build):
    """A turn's end is one log line with duration, tokens, tool calls and outcome; it and the tool's name the turn."""
    house = build(script=["a", Usage(3, 4), CLOCK, "b"])
    with capture_logs(processors=[merge_contextvars]) as logs:
        async with house.running():
            await house.adapter.ask("go")
            turn_id = (await house.rows("SELECT id FROM turns"))[0]["id"]
    lines = [entry for entry in logs if entry["event"] == "turn.completed"]
    assert len(lines) == 1
    line = lines[0]
    assert (line["outcome"], line["input_tokens"], line["output_tokens"], line["tool_calls"]) == (
        "completed",
        3,
        4,
        1,
    )
    assert (line["platform"], line["account"], line["turn_id"]) == ("memory", "memory.main", turn_id)
    assert line["duration_s"] >= 0
    assert next(entry for entry in logs if entry["event"] == "tool.completed")["turn_id"] == turn_id


# failures


@pytest.mark.parametrize("kind", get_args(AgentErrorKind))
async def test_every_kind_of_failure_is_told_and_recorded(build, kind):
    """Each kind has its sentence with a reference, by which the whole story is found, its cause included."""
    cause = ConnectionError("the wire said no")
    error = AgentError(kind, "what the operator should know")
    error.__cause__ = cause
    house = build(agent=failing(error))
    async with house.running():
        with capture_logs():
            said = await house.adapter.ask("please")
        assert len(said) == 1
        reference = said[0].rpartition("(ref ")[2].rstrip(")")
        assert len(reference) == 6
        assert "operator should know" not in said[0]
        assert await house.statuses() == ["timeout" if kind == "timeout" else "failed"]
        traces = await house.database.read(
            lambda tx: [history.trace(tx, row) for row in history.find_inbox(tx, [reference])]
        )
        told = story.tell(traces[0])
        assert f"ref {reference}: {kind}: what the operator should know" in told
        assert "ConnectionError: the wire said no" in told
        assert (await house.rows("SELECT COUNT(*) AS n FROM messages WHERE role = 'assistant'"))[0]["n"] == 0
        assert (await house.rows("SELECT error_count FROM sessions"))[0]["error_count"] == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        RecursionError(),
        ExceptionGroup("many", [OSError(1, "x")]),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_exceptions_of_any_kind_fail_the_turn_only(build, error):
    """Whatever an agent raises, the person gets the general sentence, and the next message is answered."""
    house = build(agent=failing(error))
    async with house.running():
        with capture_logs():
            said = await house.adapter.ask("one")
        assert said[0].startswith("Something went wrong while I was answering. Please try again. (ref ")
        house.agents[None] = ScriptedAgent()
        assert await house.adapter.ask("two") == ["echo: two"]


async def test_an_agent_that_cannot_be_made_fails_the_turn_only(build):
    """If the agent itself cannot be had, the turn fails with a sentence; the session is not held up."""
    house = build()

    def refuse(_persona):
        raise ValueError("no key")

    async with house.running():
        house.turns._agent_for = refuse
        with capture_logs():
            assert "Something went wrong" in (await house.adapter.ask("one"))[0]
        house.turns._agent_for = house._agent_for
        assert await house.adapter.ask("two") == ["echo: two"]


@pytest.mark.parametrize(
    "events", [[], [TextDelta("half an ans")], [Final("")], [Final(" \n ")], [ModelAnswer("all but the end")]]
)
async def test_an_answer_without_words_is_a_failure(build, events):
    """An agent that ends without an answer, or with an empty one, does not leave the person in silence."""

    async def play(_context, _tools):
        for event in events:
            yield event

    house = build(agent=Playing(play))
    async with house.running():
        with capture_logs():
            assert (await house.adapter.ask("go"))[0].startswith(
                "The model gave an answer that I could not use."
            )


async def test_an_answer_with_half_a_character_is_mended(build):
    """A lone surrogate out of a model's JSON neither wedges the session nor loses the answer."""

    async def play(_context, tools):
        yield TextDelta("half \ud83d")
        yield ModelAnswer("half \ud83d", (count("c", "x"),))
        await tools.call(count("c", "x"))
        yield ModelAnswer("half \ud83d")
        yield Final("half \ud83d smile")

    house = build(tools=[Counted().tool], **USES_COUNT)
    house.agents[None] = Playing(play)
    async with house.running():
        said = await house.adapter.ask("go")
        assert said[0].startswith("half ")
        assert said[0].endswith(" smile")
        assert await house.statuses() == ["completed"]


async def test_a_result_that_cannot_be_stored_fails_the_turn_only(build):
    """If an answer cannot be written down, the turn ends as failed and the session goes on."""

    async def play(_context, _tools):
        yield ModelAnswer("fine", (), Usage(2**70, 1))
        yield Final("fine")

    house = build(agent=Playing(play))
    async with house.running():
        with capture_logs():
            await house.deliver("one")
            await house.until(house.shown)
        assert "(ref " in house.shown()[0]
        house.agents[None] = ScriptedAgent()
        assert await house.adapter.ask("two") == ["echo: two"]


async def test_the_deadline(build):
    """A turn that takes too long is ended as a timeout, with its sentence."""
    house = build(script=[Delay(30), "late"], turns={"deadline_s": 0.1})
    async with house.running():
        with capture_logs():
            assert (await house.adapter.ask("go"))[0].startswith("That took too long and I gave up.")
        assert await house.statuses() == ["timeout"]


def stubborn(record):
    async def play(_context, tools):
        until = time.monotonic() + 4
        yield TextDelta("words")
        while time.monotonic() < until:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                record.append("ignored")
        record.append("ended")
        yield Final("much too late")

    return Playing(play)


async def test_an_agent_that_ignores_its_deadline_is_left_behind(build):
    """An agent that does not end when cancelled holds up nobody for long, and its late answer is thrown away."""
    record = []
    house = build(agent=stubborn(record), turns={"deadline_s": 0.1})
    async with house.running():
        before = time.monotonic()
        with capture_logs():
            assert "took too long" in (await house.adapter.ask("go"))[0]
        assert time.monotonic() - before < 3.5
        house.agents[None] = ScriptedAgent()
        assert await house.adapter.ask("next") == ["echo: next"]
        await house.until(lambda: "ended" in record)
        await asyncio.sleep(0.05)
        assert len(house.shown()) == 2


async def test_stop_does_not_wait_for_an_agent_that_ignores_it(build):
    """/stop ends the turn within its grace even if the agent does not listen, and keeps what was written."""
    record = []
    house = build(agent=stubborn(record))
    async with house.running():
        await house.deliver("go")
        await house.until_running()
        await asyncio.sleep(0.05)
        before = time.monotonic()
        await house.deliver("/stop")
        await house.until_quiet()
        assert time.monotonic() - before < 3.5
        assert "words\n\n(stopped)" in house.shown()
        assert await house.statuses() == ["cancelled"]
        await house.until(lambda: "ended" in record)


async def test_nothing_is_remembered_of_turns_that_ended(build):
    """Stopped, timed out, failed or completed: no turn leaves anything behind in memory."""
    house = build(turns={"deadline_s": 0.2})
    async with house.running():
        with capture_logs():
            for text in ("hello", "fail=fault", "delay=5 slow"):
                await house.deliver(text)
            await house.until_quiet()
            await house.deliver("delay=5 slow")
            await house.until_running()
            await house.deliver("/stop")
            await house.until_quiet()
        house.turns.stop("long gone")
        assert house.turns._running == {}
        assert house.lanes.running == 0


@pytest.mark.parametrize("text", ["/stop", "/stop all"])
async def test_a_stopped_turn_without_words_settles_its_message(build, text):
    """Whoever waits for the end of a message (a pipe's next line) is told also when it was stopped before any word."""
    house = build(agent=GatedAgent())
    async with house.running():
        asking = [asyncio.create_task(house.adapter.ask(f"m{n}")) for n in range(2)]

        async def both_are_here() -> bool:
            return await house.statuses() == ["running", "queued"]

        await house.until(both_are_here)
        await house.deliver(text)
        assert await asking[0] == []
        if text == "/stop":
            await house.until_running()
            await house.deliver("/stop")
        assert await asking[1] == []


async def test_what_was_dropped_is_not_answered_with_the_next_question(build):
    """The agent is shown where a message was stopped: else it would take that and the next question for one."""
    seen = []

    def script(context):
        seen.append([message.content for message in context.messages])
        yield "yes"
        if context.messages[-1].content == "slow":
            yield Delay(30)

    house = build(script=script)
    async with house.running():
        await house.deliver("slow")
        await house.deliver("never mind this")
        await house.until(lambda: seen)
        await asyncio.sleep(0.05)
        await house.deliver("/stop all")
        await house.until_quiet()
        await house.deliver("what is new?")
        await house.until_quiet()
    assert seen[-1] == ["slow", "yes", "never mind this", "(stopped)", "what is new?"]


async def test_whoever_waits_through_a_handle_is_told_the_end(build):
    """A slash command's answer that was stopped before any word says so: its place on the screen waits for an end."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("one", reply_handle={"token": "x"})
        await house.deliver("two", reply_handle={"token": "y"})
        await house.until_running()
        await house.deliver("/stop all")
        await house.until_quiet()
        assert sorted(house.shown()) == [
            "(stopped)",
            "(stopped)",
            "Stopped, and one waiting message dropped.",
        ]


# crashes


@pytest.mark.parametrize("dies", [False, True], ids=["stop", "crash"])
async def test_a_turn_cut_off_repeats_neither_answers_nor_tools(build, dies):
    """Cut off by a stop or a crash a turn goes on from its steps: no recorded answer is asked for and no tool run again."""
    asked = []
    counted = Counted()

    def script(context):
        asked.append(len(context.steps))
        return [
            "first ",
            Usage(1, 1),
            count("a", "one"),
            "second ",
            Usage(2, 2),
            count("b", "two"),
            "end {1} {2}",
        ]

    def make(room=None):
        return build(script=script, tools=[counted.tool], room=room, node=SHORT_LEASE, **USES_COUNT)

    house = make()
    async with house.running(drain_s=0, dies=dies):
        counted.held.add("two")
        await house.deliver("go")
        await house.until(lambda: counted.runs == ["one", "two"])
    counted.held.clear()
    again = make(house.room)
    async with again.running():
        await again.until_quiet()
        turn = (
            await again.rows("SELECT epoch, attempts, input_tokens, output_tokens, tool_calls FROM turns")
        )[0]
        # Where there are other nodes, a turn is given back at a stop: that was no attempt.
        assert (turn["epoch"], turn["attempts"]) == (2, 2 if dies or again.node.is_alone else 1)
        assert (turn["input_tokens"], turn["output_tokens"], turn["tool_calls"]) == (3, 3, 2)
        numbers = [row["number"] for row in await again.rows("SELECT number FROM steps ORDER BY number")]
        assert numbers == [1, 2, 3, 4, 5]
    assert again.shown() == ["end did one did two"]
    assert asked == [0, 3]
    # The call under way at the end ran again, under the same key; the recorded one did not.
    assert counted.runs == ["one", "two", "two"]
    assert counted.keys[1] == counted.keys[2] != counted.keys[0]


@pytest.mark.parametrize("dies", [False, True], ids=["stop", "crash"])
async def test_an_end_after_the_last_answer_asks_nobody_again(build, dies):
    """A whole answer that was recorded before a stop or a crash is given as it was."""
    asked = []

    async def play(context, _tools):
        asked.append(len(context.steps))
        if context.steps:
            yield Final(context.steps[-1].text)
            return
        yield ModelAnswer("the answer", (count("a", "x"),))
        await asyncio.sleep(30)

    house = build(agent=Playing(play), node=SHORT_LEASE)
    async with house.running(drain_s=0, dies=dies):
        await house.deliver("go")

        async def is_recorded():
            return await house.rows("SELECT 1 AS x FROM steps")

        await house.until(is_recorded)
    again = build(agent=Playing(play), room=house.room)
    async with again.running():
        await again.until_quiet()
    assert again.shown() == ["the answer"]
    assert asked == [0, 1]


async def test_a_late_result_of_a_lost_claim_is_refused(build):
    """If a turn was claimed anew meanwhile, the old claim's steps and result are not stored and nothing is sent."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("tool=clock go")
        await house.until(lambda: agent.begun)
        await house.database.write(lambda tx: tx.execute("UPDATE turns SET epoch = epoch + 1"))
        with capture_logs() as logs:
            agent.gate.set()
            await house.until(lambda: not house.lanes.running)
        assert "turn.result_refused" in [entry["event"] for entry in logs]
        assert await house.rows("SELECT 1 AS x FROM steps") == []
        assert house.shown() == []


async def test_a_turn_that_never_ends_is_given_up(build):
    """A turn that was started too often is not tried again: its person is told, and the lane goes on."""
    agent = GatedAgent()
    dying = {"agent": agent, "turns": {"max_attempts": 3}, "node": SHORT_LEASE}
    house = build(**dying)
    async with house.running(dies=True):
        await house.deliver("poison")
        await house.until_running()
    for times in (2, 3):
        house = build(**dying, room=house.room)
        async with house.running(dies=True):
            await house.until(lambda times=times: len(agent.begun) == times)
    house = build(agent=agent, turns={"max_attempts": 3}, room=house.room)
    async with house.running():
        with capture_logs():
            await house.deliver("wholesome")
            await house.until(house.shown)
        assert house.shown()[0].startswith("I had to start this too often and gave it up.")
        agent.gate.set()
        await house.until_quiet()
        assert agent.begun == ["poison"] * 3 + ["wholesome"]
        assert (await house.rows("SELECT kind, message FROM errors"))[0][
            "message"
        ] == "started 3 times without an end"


async def test_a_store_that_fails_in_the_middle_loses_no_answer(build):
    """An answer that cannot be stored waits until it can; it is not asked for again."""
    agent = GatedAgent()
    house = build(agent=agent)
    async with house.running():
        await house.deliver("go")
        await house.until(lambda: agent.begun)
        house.database.is_refusing = True
        with capture_logs() as logs:
            agent.gate.set()
            await house.until(lambda: any(entry["event"] == "turn.store_waited" for entry in logs))
            house.database.is_refusing = False
            await house.until_quiet()
    assert house.shown() == ["echo: go"]
    assert agent.begun == ["go"]


async def test_shutting_down_while_the_store_fails_keeps_the_turn_as_a_row(build):
    """A turn whose result cannot be stored at shutdown is cut off, and runs again at the next start."""
    agent = GatedAgent()
    house = build(agent=agent)
    with capture_logs():
        async with house.running(drain_s=0.1, send_s=0):
            await house.deliver("go")
            await house.until(lambda: agent.begun)
            house.database.is_refusing = True
            agent.gate.set()
            await asyncio.sleep(0.05)
    again = build(room=house.room)
    async with again.running():
        await again.until_quiet()
    assert again.shown() == ["echo: go"]


# context


async def test_a_persona_has_its_own_agent_instructions_and_tools(build):
    """The persona of the account chooses the agent, its instructions, its tools, its model and temperature."""
    contexts = []

    async def play(context, tools):
        contexts.append((context, [spec.name for spec in tools.specs]))
        yield Final("as a pirate")

    house = build(
        account={"persona": "pirate"},
        personas={
            "pirate": {
                "instructions": "Talk like one.",
                "tools": ["clock"],
                "model": "openai:x",
                "temperature": 1,
            }
        },
    )
    house.agents["pirate"] = Playing(play)
    async with house.running():
        assert await house.adapter.ask("hi") == ["as a pirate"]
        context, tools = contexts[0]
        assert (context.instructions, context.model, context.temperature) == ("Talk like one.", "openai:x", 1)
        assert tools == ["clock"]
        assert "Answers by playing." in (await house.adapter.ask("/status"))[0]


async def test_without_a_persona_the_general_settings_hold(build):
    """No persona: the general instructions and tools, no model of its own."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    async with house.running():
        await house.adapter.ask("hi")
    assert agent.contexts[0].instructions == house.settings.agent.instructions
    assert agent.contexts[0].model is None


async def test_a_shared_session_names_the_speakers(build):
    """In a session that several people share, the agent sees who said what; answers carry no name."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    group = {"channel": "g", "channel_kind": "group"}
    async with house.running():
        await house.deliver("hello", **group)
        await house.until_quiet()
        await house.deliver("me too", person="bob", **group)
        await house.until_quiet()
    said = agent.contexts[-1].messages
    assert [(message.name, message.content) for message in said] == [
        ("Ada", "hello"),
        (None, "echo: hello"),
        ("Bob", "me too"),
    ]
    assert agent.contexts[-1].person_name == "Bob"


async def test_only_the_newest_messages_are_shown_to_the_agent(build):
    """The agent sees as many messages as the settings allow, the question always among them."""
    agent = GatedAgent()
    agent.gate.set()
    house = build(agent=agent)
    house.settings = house.settings.model_copy(
        update={"agent": house.settings.agent.model_copy(update={"context_messages": 3})}
    )
    async with house.running():
        for number in range(4):
            await house.adapter.ask(f"m{number}")
    assert [message.content for message in agent.contexts[-1].messages] == ["m2", "echo: m2", "m3"]


async def test_the_built_in_agent_through_the_whole_machine(build):
    """The agent without a model uses the real tools through the recorded path, and remembers per session."""
    house = build(agent=OfflineAgent())
    async with house.running():
        assert "42" in (await house.adapter.ask("what is 17 + 25?"))[0]
        await house.adapter.ask("remember that my cat is called Plum")
        assert "Plum" in (await house.adapter.ask("what is my cat called?"))[0]
        used = {row["name"] for row in await house.rows("SELECT name FROM tool_calls WHERE outcome = 'ok'")}
        assert {"calculator", "remember"} <= used
        await house.deliver("what is my cat called?", person="bob")
        await house.until(lambda: house.shown("bob"))
        assert "Plum" not in house.shown("bob")[0]


async def test_tools_used_are_shown_where_that_is_wanted(build):
    """With show_tools an answer ends in a line with the tools used, each once; the record is without it."""
    house = build(
        script=[CallTools((CLOCK, ToolRequest("c2", "clock", {}))), "tick"],
        delivery={"show_tools": True, "preview": False},
    )
    async with house.running():
        said = (await house.adapter.ask("go"))[0]
        assert said.startswith("tick\n\n[clock · ")
        assert said.endswith(" ms]")
        assert (await house.rows("SELECT content FROM messages WHERE part = 1"))[0]["content"] == "tick"
