"""The shipped double of the port: its scripts and its directives."""

import asyncio
import time

import pytest

from bot.agents.base import AgentContext, AgentError, Final, ModelAnswer, TextDelta, ToolRequest, Usage
from bot.agents.scripted import CallTools, Delay, ScriptedAgent, long_markdown
from tests.fakes.toolbox import RecordingToolbox, drive, make_context

CLOCK = ToolRequest("c1", "clock", {"place": "Tokyo"})
SUM = ToolRequest("c2", "calculator", {"expression": "1+1"})


async def test_plays_a_script() -> None:
    """Texts become deltas, requests end an answer, usage belongs to its answer, results can be quoted."""
    script = ["Let me ", "see. ", Usage(3, 4), CallTools((CLOCK, SUM)), "The sum is {2}.", Delay(0)]
    events = await drive(ScriptedAgent(script, name="double"), make_context("hi"), RecordingToolbox())
    assert events == [
        TextDelta("Let me "),
        TextDelta("see. "),
        ModelAnswer("Let me see. ", (CLOCK, SUM), Usage(3, 4), "double"),
        TextDelta("The sum is 2."),
        ModelAnswer("The sum is 2.", (), Usage(), "double"),
        Final("The sum is 2."),
    ]


async def test_a_script_may_depend_on_the_context() -> None:
    """A callable script gets the context of the run."""

    def script(context: AgentContext) -> list[str]:
        return [f"{len(context.messages)} messages"]

    assert (await drive(ScriptedAgent(script), make_context("a", "b"), RecordingToolbox()))[-1] == Final(
        "2 messages"
    )


async def test_repeats_skip_what_is_recorded() -> None:
    """A repeated run neither waits nor fails again where the first run already got past."""
    script = [Delay(60), AgentError("unavailable", "once"), "a", CLOCK, "done"]
    steps = [ModelAnswer("a", (CLOCK,))]
    events = await drive(
        ScriptedAgent(script, delay_s=60), make_context("hi", steps=steps), RecordingToolbox(steps)
    )
    assert events[-1] == Final("done")


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("hello", "echo: hello"),
        ("", "echo: "),
        ("delay=0.01 hello", "echo: hello"),
        ('tool=calculator:{"expression":"17+25"} sum', "echo: sum [calculator: 42]"),
        (
            'tool=calculator:{"expression":"1"} tool=calculator:{"expression":"2"} x',
            "echo: x [calculator: 1] [calculator: 2]",
        ),
        ("tool=nothing x", "echo: x [nothing: There is no tool called 'nothing'."),
        ("say delay=5", "echo: say delay=5"),
        ("delay=soon x", "scripted: delay=soon: could not convert string to float: 'soon'\necho: x"),
        ("fail=badly x", "scripted: fail=badly: there are only refused_key"),
        ("tool=clock:[1] x", "scripted: tool=clock:[1]: the arguments must be a JSON object"),
    ],
)
async def test_directives(message: str, answer: str) -> None:
    """A message is its own script; a directive that cannot be read is told as text."""
    text = (await drive(ScriptedAgent(), make_context(message), RecordingToolbox()))[-1].text
    assert text.startswith(answer)


async def test_fails_as_told() -> None:
    """`fail=` raises that kind, after the tools that stand before it."""
    tools = RecordingToolbox()
    with pytest.raises(AgentError) as caught:
        await drive(ScriptedAgent(), make_context("tool=clock fail=rate_limited"), tools)
    assert caught.value.kind == "rate_limited"
    assert [request.name for request in tools.ran] == ["clock"]


async def test_waits_as_told() -> None:
    """`delay=` really waits: another task has the loop meanwhile."""
    task = asyncio.create_task(drive(ScriptedAgent(), make_context("delay=0.05 x"), RecordingToolbox()))
    began = time.monotonic()
    await asyncio.sleep(0.01)
    assert not task.done()
    assert (await task)[-1] == Final("echo: x")
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("chars", [60, 200, 1999, 5000, 100_000])
def test_long_answers_are_exact(chars: int) -> None:
    """A long answer has exactly the asked size, and its code block is closed."""
    text = long_markdown(chars)
    assert len(text) == chars
    assert text.count("```") % 2 == 0
    assert chars < 200 or text.count("```") == 2


async def test_long_directive() -> None:
    """`long=` gives that answer through the port, in pieces."""
    events = await drive(ScriptedAgent(), make_context("long=5000"), RecordingToolbox())
    assert len(events[-1].text) == 5000
    assert len(events) > 100
