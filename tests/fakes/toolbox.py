"""A toolbox and a session memory without a store: they keep the rules of the `Agent` port and complain when one is broken."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from bot.agents.base import (
    Agent,
    AgentContext,
    ContextMessage,
    Event,
    ModelAnswer,
    RecordedStep,
    ToolOutcome,
    ToolRequest,
    ToolSpec,
)
from bot.tools.builtin import builtin_registry
from bot.tools.registry import ToolContext, ToolRegistry
from config.names import Json, SessionId, TurnId

NOW = datetime(2026, 11, 20, 9, 4, tzinfo=UTC)
"""A Friday; 18:04 in Tokyo."""
LOCAL_NOW = NOW.astimezone(ZoneInfo("Europe/Berlin"))
"""The same moment as a turn has it: in the zone of the daemon."""


class MemoryDouble:
    """What a session remembers, in a dict; `messages` are what `search` looks through."""

    def __init__(self) -> None:
        self.values: dict[str, Json] = {}
        self.messages: list[tuple[str, str, datetime]] = []

    async def remember(self, name: str, value: Json) -> None:
        self.values[name] = value

    async def recall(self, name: str | None = None) -> Mapping[str, Json]:
        if name is None:
            return dict(self.values)
        return {name: self.values[name]} if name in self.values else {}

    async def search(self, words: str, limit: int = 5) -> Sequence[tuple[str, str, datetime]]:
        wanted = words.lower().split()
        found = [message for message in self.messages if all(word in message[1].lower() for word in wanted)]
        return sorted(found, key=lambda message: message[2], reverse=True)[:limit]


class RecordingToolbox:
    """Runs the built-in tools and records every step, as a turn does."""

    def __init__(
        self,
        steps: Sequence[RecordedStep] = (),
        *,
        registry: ToolRegistry | None = None,
        memory: MemoryDouble | None = None,
        delay_s: float = 0,
        broken: Callable[[ToolRequest], Exception | None] | None = None,
    ) -> None:
        self.steps: list[RecordedStep] = list(steps)
        self.memory = memory or MemoryDouble()
        self.ran: list[ToolRequest] = []
        """Calls that really ran; a call that was recorded already is not among them."""
        self._registry = registry or builtin_registry()
        self._delay_s = delay_s
        self._broken = broken

    @property
    def specs(self) -> Sequence[ToolSpec]:
        return self._registry.specs()

    def record(self, answer: ModelAnswer) -> None:
        self.steps.append(answer)

    async def call(self, request: ToolRequest) -> ToolOutcome:
        answers = [step for step in self.steps if isinstance(step, ModelAnswer)]
        assert answers, f"{request} before any answer was recorded"
        assert request in answers[-1].tool_requests, f"{request} is not asked for by the last recorded answer"
        for step in reversed(self.steps):
            if isinstance(step, ModelAnswer):
                break
            if step.call_id == request.call_id:
                return step
        if self._broken and (error := self._broken(request)):
            raise error
        self.ran.append(request)
        await asyncio.sleep(self._delay_s)
        context = ToolContext(f"turn:{request.call_id}", LOCAL_NOW, self.memory)
        result = await self._registry.run(request.name, request.arguments, context)
        outcome = ToolOutcome(request.call_id, request.name, result.content, result.is_error)
        self.steps.append(outcome)
        return outcome


def make_context(
    *messages: str | ContextMessage,
    steps: Sequence[RecordedStep] = (),
    person_name: str | None = None,
    language: str = "en",
    instructions: str = "Be brief.",
    model: str | None = None,
    temperature: float | None = None,
) -> AgentContext:
    """A context whose plain strings are the person's messages."""
    return AgentContext(
        turn_id=TurnId("turn-1"),
        session_id=SessionId("session-1"),
        instructions=instructions,
        messages=[
            ContextMessage("user", message) if isinstance(message, str) else message for message in messages
        ],
        steps=tuple(steps),
        person_name=person_name,
        language=language,
        now=LOCAL_NOW,
        model=model,
        temperature=temperature,
    )


async def drive(agent: Agent, context: AgentContext, tools: RecordingToolbox) -> list[Event]:
    """Run an agent as a turn does: each answer is recorded before the next event is asked for."""
    return [event async for event in events_of(agent, context, tools)]


async def events_of(agent: Agent, context: AgentContext, tools: RecordingToolbox) -> AsyncIterator[Event]:
    run = agent.run(context, tools)
    try:
        async for event in run:
            if isinstance(event, ModelAnswer):
                tools.record(event)
            yield event
    finally:
        close = getattr(run, "aclose", None)
        if close is not None:
            await close()
