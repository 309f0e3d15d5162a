"""What every `Agent` does, whatever is behind it. A new agent is done when it is among `SUBJECTS` and this passes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import pytest

from bot.agents.base import Agent, AgentError, Final, ModelAnswer, TextDelta, ToolOutcome, ToolRequest
from bot.agents.llm.agent import LlmAgent
from bot.agents.offline import OfflineAgent
from bot.agents.scripted import ScriptedAgent
from config.settings import AgentSettings
from tests.fakes.llm import FakeLlm
from tests.fakes.toolbox import RecordingToolbox, drive, events_of, make_context

KEY = "sk-very-secret-0123456789"


@dataclass
class Subject:
    agent: Agent
    plain: str
    """A message answered without tools."""
    with_tools: str
    """A message for which the clock and the calculator are called."""
    failing: str | None
    """A message for which the agent has no answer."""
    slow: str | None
    """A message that takes very long."""
    count_requests: Callable[[], int] = lambda: 0
    """Model requests made so far."""


async def scripted(stack: AsyncExitStack) -> Subject:
    del stack
    return Subject(
        ScriptedAgent(),
        plain="hello",
        with_tools='tool=clock tool=calculator:{"expression":"17+25"} done',
        failing="fail=unavailable",
        slow="delay=60 hello",
    )


async def offline(stack: AsyncExitStack) -> Subject:
    del stack
    return Subject(
        OfflineAgent(),
        plain="what can you do?",
        with_tools="what is 17 + 25, and what time is it in Tokyo?",
        failing=None,
        slow=None,
    )


async def llm(stack: AsyncExitStack, api: str) -> Subject:
    server = await stack.enter_async_context(FakeLlm(key=KEY).running())
    models = {
        "chat": "openai:fake",
        "responses": "openai-responses:fake",
        "messages": "anthropic:claude-fake",
    }
    agent = LlmAgent(
        AgentSettings(
            model=models[api],
            base_url=None if api == "messages" else server.openai_url,
            request_timeout_s=30,
            max_retries=1,
        ),
        environ={"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.url},
        retry_base_s=0.01,
    )
    stack.push_async_callback(agent.close)
    return Subject(
        agent,
        plain="hello",
        with_tools='tool:clock {"place": "Tokyo"} tool:calculator {"expression": "17 + 25"}',
        failing="fault:500",
        slow="fault:hang",
        count_requests=lambda: len(server.journal),
    )


SUBJECTS = {
    "scripted": scripted,
    "offline": offline,
    "llm-openai-chat": lambda stack: llm(stack, "chat"),
    "llm-openai-responses": lambda stack: llm(stack, "responses"),
    "llm-anthropic": lambda stack: llm(stack, "messages"),
}


@pytest.fixture(params=SUBJECTS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        yield await SUBJECTS[request.param](stack)


async def test_has_a_name(subject: Subject) -> None:
    """An agent says what /status may call it."""
    assert subject.agent.name
    assert KEY not in subject.agent.name


@pytest.mark.parametrize("which", ["plain", "with_tools"])
async def test_ends_with_one_final(subject: Subject, which: str) -> None:
    """A successful run has exactly one `Final`, at the end, and it is not empty."""
    events = await drive(subject.agent, make_context(getattr(subject, which)), RecordingToolbox())
    assert [isinstance(event, Final) for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1].text.strip()


async def test_last_answer_is_what_is_final(subject: Subject) -> None:
    """The text given to the person is that of the last recorded answer, and its deltas add up to it."""
    events = await drive(subject.agent, make_context(subject.plain), RecordingToolbox())
    answers = [event for event in events if isinstance(event, ModelAnswer)]
    assert answers[-1].text == events[-1].text
    assert "".join(event.text for event in events if isinstance(event, TextDelta)).strip() == events[-1].text


async def test_every_result_follows_a_recorded_answer(subject: Subject) -> None:
    """Tools run only for a call that a recorded answer asked for, each once, and their results are used."""
    tools = RecordingToolbox()
    events = await drive(subject.agent, make_context(subject.with_tools), tools)
    asked = [
        request for step in tools.steps if isinstance(step, ModelAnswer) for request in step.tool_requests
    ]
    assert sorted(request.name for request in asked) == ["calculator", "clock"]
    assert [request.call_id for request in tools.ran] == [request.call_id for request in asked]
    assert len({request.call_id for request in asked}) == 2
    assert "42" in events[-1].text


async def test_nothing_runs_ahead_of_the_consumer(subject: Subject) -> None:
    """A consumer that stops pulling at an answer finds that neither its tools nor the next request were begun."""
    tools = RecordingToolbox()
    async with aclosing(events_of(subject.agent, make_context(subject.with_tools), tools)) as events:
        async for event in events:
            if isinstance(event, ModelAnswer):
                break
        requests = subject.count_requests()
        await asyncio.sleep(0.05)
        assert tools.ran == []
        assert subject.count_requests() == requests
    assert tools.ran == []


async def test_resumes_after_every_step(subject: Subject) -> None:
    """Begun again after any of its steps, a run makes no recorded call or request again and ends with the same text."""
    whole = RecordingToolbox()
    final = (await drive(subject.agent, make_context(subject.with_tools), whole))[-1]
    for count in range(1, len(whole.steps) + 1):
        known = whole.steps[:count]
        tools = RecordingToolbox(known)
        before = subject.count_requests()
        events = await drive(subject.agent, make_context(subject.with_tools, steps=known), tools)
        assert events[-1] == final, count
        assert [type(step) for step in tools.steps] == [type(step) for step in whole.steps]
        done = {step.call_id for step in known if isinstance(step, ToolOutcome)}
        assert not {request.call_id for request in tools.ran} & done
        asked_again = sum(isinstance(step, ModelAnswer) for step in whole.steps[count:])
        if subject.count_requests():
            assert subject.count_requests() - before == asked_again


async def test_finished_steps_need_nothing_new(subject: Subject) -> None:
    """A turn that died between its last answer and its end only says that answer again."""
    whole = RecordingToolbox()
    final = (await drive(subject.agent, make_context(subject.plain), whole))[-1]
    before = subject.count_requests()
    tools = RecordingToolbox(whole.steps)
    assert await drive(subject.agent, make_context(subject.plain, steps=whole.steps), tools) == [final]
    assert subject.count_requests() == before


async def test_cancelling_a_slow_answer_is_prompt(subject: Subject) -> None:
    """Cancelling the consumer while the answer is awaited stops the agent within a second."""
    if subject.slow is None:
        pytest.skip("this agent is never slow by itself")
    task = asyncio.create_task(drive(subject.agent, make_context(subject.slow), RecordingToolbox()))
    await asyncio.sleep(0.15)
    await _cancel_promptly(task)


async def test_cancelling_during_a_tool_is_prompt(subject: Subject) -> None:
    """Cancelling the consumer while a tool runs stops the tool and the agent within a second."""
    tools = RecordingToolbox(delay_s=60)
    task = asyncio.create_task(drive(subject.agent, make_context(subject.with_tools), tools))
    while not tools.ran:
        await asyncio.sleep(0.01)
    await _cancel_promptly(task)
    assert not any(isinstance(step, ToolOutcome) for step in tools.steps)


async def _cancel_promptly(task: "asyncio.Task[object]") -> None:
    assert not task.done()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=1)
    assert done
    assert task.cancelled()


async def test_failures_are_typed(subject: Subject) -> None:
    """An agent without an answer raises `AgentError` of the right kind, and the text holds no key."""
    if subject.failing is None:
        pytest.skip("this agent always has an answer")
    with pytest.raises(AgentError) as caught:
        await drive(subject.agent, make_context(subject.failing), RecordingToolbox())
    assert caught.value.kind == "unavailable"
    assert KEY not in str(caught.value)


async def test_an_unrecordable_call_ends_the_run(subject: Subject) -> None:
    """When the toolbox itself fails (the store is gone), its error comes out as it is and nothing goes on."""

    class StoreGoneError(Exception):
        pass

    def broken(request: ToolRequest) -> Exception | None:
        return StoreGoneError() if request.name == "clock" else None

    with pytest.raises(StoreGoneError):
        await drive(subject.agent, make_context(subject.with_tools), RecordingToolbox(broken=broken))


async def test_runs_side_by_side(subject: Subject) -> None:
    """One agent serves many conversations at once without mixing them."""
    runs = await asyncio.gather(
        *(drive(subject.agent, make_context(subject.with_tools), RecordingToolbox()) for _ in range(8))
    )
    assert len({run[-1].text for run in runs}) == 1
